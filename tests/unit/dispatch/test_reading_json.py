"""Reading JSON: with msgspec and without, what comes out is what ``json`` says."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aeros import WebServer
from aeros.dispatch.response import JSONProvider

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@pytest.fixture(scope="module")
def provider() -> JSONProvider:
    """Returns what an application reads JSON with."""
    made = WebServer(__name__).json
    assert isinstance(made, JSONProvider)
    return made


def outcome(read: Any, text: str | bytes) -> tuple[object, ...]:
    """Returns what reading gives: types and values, or the error and its words."""
    try:
        value = read(text)
    except Exception as error:  # noqa: BLE001 - whatever is raised is compared
        return type(error), str(error)
    return ("read", repr(value))  # repr tells 1 from 1.0 and True, and one NaN is like another


@given(value=VALUES, ascii_only=st.booleans())
def test_what_json_writes_is_read_as_it_reads_it(
    provider: JSONProvider, value: object, ascii_only: bool
) -> None:
    """With numbers of any size, and characters of any kind."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert outcome(provider.loads, text) == outcome(json.loads, text)
    coded = text.encode("utf-8", "surrogatepass")
    assert outcome(provider.loads, coded) == outcome(json.loads, coded)


@given(text=st.text(alphabet='0123456789.eE+-[]{}",:\\u nultrefasdDN\x00\n', max_size=30))
def test_whatever_a_client_sends_is_read_or_refused_in_the_same_words(
    provider: JSONProvider, text: str
) -> None:
    """An error page in debug mode shows them."""
    assert outcome(provider.loads, text) == outcome(json.loads, text)


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "-Infinity",
        "1e400",
        "1.7976931348623159e308",
        "5e-324",
        "123456789012345678901234567890",
        "-0",
        "-0.0",
        "1" * 5_000,
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '{"a": 1, "a": 2}',
        "\ufeff1",
        b"\xef\xbb\xbf1",
        '"é"'.encode("utf-16"),
        '"é"'.encode("latin-1"),
        "[" * 100_000,
        "[1,]",
        "",
    ],
)
def test_the_edges_are_those_of_json(provider: JSONProvider, text: str | bytes) -> None:
    """Where msgspec draws its own, ``json`` is asked."""
    assert outcome(provider.loads, text) == outcome(json.loads, text)


def test_options_are_those_of_json(provider: JSONProvider) -> None:
    """``parse_float`` and the like are for ``json`` alone."""
    assert provider.loads("1.5", parse_float=str) == "1.5"
    assert math.isnan(provider.loads("NaN"))


def test_without_msgspec_json_reads_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "msgspec.json", None)
    assert WebServer(__name__).json.loads('{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}
