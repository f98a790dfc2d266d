"""JSON from kept encoders is, byte for byte and error for error, what Quart's provider writes."""

from __future__ import annotations

import json
import math
import threading
from collections import UserDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final, cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quart.json.provider import DefaultJSONProvider

from aeros import WebServer
from aeros.dispatch.response import Encoding, JSONProvider


@dataclass
class Point:
    """What Quart writes as its fields."""

    x: object
    y: object


SCALARS: Final = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**30)
    | st.floats()
    | st.text()
    | st.sampled_from([math.nan, math.inf, -math.inf, -0.0, "\ud800", "ü\u2028\0", "</script>"])
    | st.dates()
    | st.datetimes(timezones=st.just(UTC))
    | st.decimals()
    | st.uuids()
)
# What JSON has no words for.
STRANGE: Final = st.sampled_from([object(), b"bytes", {1, 2}, 1j, UserDict({"a": 1}), Encoding])
KEYS: Final = (
    st.text()
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.none()
    | st.sampled_from([(1, 2), b"k", date(2020, 1, 1)])
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Returns what is made of values."""
    return (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.builds(Point, inner, inner)
    )


VALUES: Final = st.recursive(SCALARS | STRANGE, containers, max_leaves=20)
KWARGS: Final[list[dict[str, Any]]] = [
    {},
    {"separators": (",", ":")},
    {"separators": None},
    {"separators": (" ; ", " = ")},
    {"indent": 2},
    {"indent": None},
    {"sort_keys": True},
    {"sort_keys": False, "ensure_ascii": False},
    {"ensure_ascii": False, "separators": (",", ":")},
    {"skipkeys": True},
    {"allow_nan": False},
    {"check_circular": False},
    {"default": repr},
]


def providers() -> tuple[JSONProvider, DefaultJSONProvider]:
    """Returns the provider of an application, and Quart's for it."""
    app = WebServer("made")
    own = app.json
    assert isinstance(own, JSONProvider)
    quarts = DefaultJSONProvider(app)
    # They refer to it weakly.
    vars(own)["keeps"] = vars(quarts)["keeps"] = app
    return own, quarts


def change(provider: DefaultJSONProvider, **settings: Any) -> None:
    """Changes a provider, as an application does at any time."""
    for name, value in settings.items():
        setattr(provider, name, value)


def ascii_of(value: object) -> str:
    """Returns what stands for a value."""
    return f"ascii {value!a}"


def outcome(write: Any, *args: Any, **kwargs: Any) -> Any:
    """Returns what writing gives: the text, or the error and its words."""
    try:
        return write(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - whatever is raised is compared
        return type(error), str(error)


@given(
    values=st.lists(VALUES, min_size=1, max_size=4),
    kwargs=st.lists(st.sampled_from(KWARGS), min_size=1, max_size=4),
    ensure_ascii=st.booleans(),
    sort_keys=st.booleans(),
)
def test_text_and_errors_are_those_of_quart(
    values: list[object], kwargs: list[dict[str, Any]], ensure_ascii: bool, sort_keys: bool
) -> None:
    """Whatever came before, an error or another way of writing."""
    own, quarts = providers()
    for provider in (own, quarts):
        change(provider, ensure_ascii=ensure_ascii, sort_keys=sort_keys)
    for value in values:
        for wanted in kwargs:
            expected = outcome(quarts.dumps, value, **wanted)
            assert outcome(own.dumps, value, **wanted) == expected
            assert outcome(own.dumps, value, **wanted) == expected


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("compact", [None, False, True])
@pytest.mark.parametrize("mimetype", ["application/json", "application/problem+json"])
@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (({"b": "ü", "a": [1, 2]},), {}),
        (([1, {"a": None}],), {}),
        (("text",), {}),
        ((None,), {}),
        ((), {}),
        ((1, 2), {}),
        ((), {"b": 1, "a": 2}),
        ((1,), {"a": 2}),
        ((object(),), {}),
    ],
)
def test_responses_are_those_of_quart(
    args: tuple[object, ...], kwargs: dict[str, object], mimetype: str, compact: bool | None, debug: bool
) -> None:
    """In each form in which it writes them, with its fields."""
    told: list[object] = []
    for provider in providers():
        change(provider, compact=compact, mimetype=mimetype)
        cast(Any, provider)._app.debug = debug
        response = outcome(provider.response, *args, **kwargs)
        if not isinstance(response, tuple):
            fields = list(response.headers)
            response = response.status_code, response.response.data, fields, response.mimetype
        told.append(response)  # pyright: ignore[reportUnknownArgumentType]  # of anything
    assert told[0] == told[1]


def test_each_setting_counts_from_the_next_call_on() -> None:
    """A provider may be changed at any time, there and back again."""
    own, quarts = providers()
    value = {"b": "ü", "a": Decimal("1.5"), "c": object}
    changes: list[dict[str, Any]] = [
        {"default": repr},
        {"sort_keys": False},
        {"ensure_ascii": False},
        {"default": ascii_of},
        {"sort_keys": True},
        {"ensure_ascii": True},
        {"default": str},
        {"compact": False},
    ]
    texts: list[str] = []
    for settings in changes:
        for provider in (own, quarts):
            change(provider, **settings)
        assert own.dumps(value) == quarts.dumps(value)
        assert own.response(value).response.data == cast(Any, quarts.response(value)).response.data
        texts.append(own.dumps(value))
    assert len(set(texts)) == 7  # the last one changes responses only


def test_circles_are_found_each_time_and_leave_nothing_behind() -> None:
    """What was being written when the error came may be written alone the next time."""
    own, quarts = providers()
    inner: list[object] = [1]
    circle: dict[str, object] = {"inner": inner}
    inner.append(circle)
    found = ValueError, "Circular reference detected"
    for _ in range(3):
        assert outcome(own.dumps, circle) == outcome(quarts.dumps, circle) == found
    inner.pop()
    assert own.dumps(circle) == own.dumps(circle) == '{"inner": [1]}'


def test_error_in_the_middle_leaves_nothing_behind() -> None:
    """The containers that were open when ``default`` raised are not taken for a circle later."""
    own, _ = providers()
    may_fail = True

    def default(_: object) -> str:
        if may_fail:
            raise LookupError("on purpose")
        return "made"

    change(own, default=default)
    value = {"outer": [object()]}
    for _ in range(2):
        assert outcome(own.dumps, value) == (LookupError, "on purpose")
    may_fail = False
    assert own.dumps(value) == own.dumps(value) == '{"outer": ["made"]}'


class Nested:
    """What is written by writing more."""

    def __init__(self, depth: int) -> None:
        self.depth = depth


def test_default_may_write_json_itself() -> None:
    """Of the very containers that are being written, too, where the outer call has not come to an end."""
    own, quarts = providers()
    shared = {"a": 1}
    value = {"first": shared, "second": [Nested(4)], "third": shared}

    def writing(provider: DefaultJSONProvider) -> Any:
        def default(found: Any) -> object:
            # The containers around it as well: alone they are no circle.
            return (
                provider.dumps([shared, Nested(found.depth - 1)]) if found.depth else provider.dumps(shared)
            )

        return default

    for provider in (own, quarts):
        change(provider, default=writing(provider))
    for _ in range(3):
        assert own.dumps(value) == quarts.dumps(value)
        assert own.dumps(shared) == '{"a": 1}'


def test_default_may_write_what_is_being_written() -> None:
    """A container that is open in the outer call is none in the inner one."""
    own, _ = providers()
    outer: dict[str, object] = {"x": object()}

    def default(_: object) -> str:
        return own.dumps({**outer, "x": "inner"}) + own.dumps(outer["list"])

    change(own, default=default)
    outer["list"] = [1]
    for _ in range(2):
        assert json.loads(own.dumps(outer))["x"] == '{"list": [1], "x": "inner"}[1]'


def test_threads_write_the_same_objects_side_by_side() -> None:
    """An encoder serves one call at a time: what another thread writes is no circle of this one's."""
    own, _ = providers()
    count = 8
    together = threading.Barrier(count)

    def default(value: Any) -> object:
        together.wait(10)  # all are in the middle of the same list now
        return str(value)

    change(own, default=default)
    shared = ["a", UUID(int=1), {"b": datetime(2020, 1, 1, tzinfo=UTC)}]
    expected = json.dumps(shared, default=str, sort_keys=True)
    with ThreadPoolExecutor(count) as pool:
        for _ in range(3):
            assert set(pool.map(own.dumps, [shared] * count)) == {expected}


def test_encoder_is_made_once_for_calls_in_a_row() -> None:
    """That is what it is for; after an error it is made anew."""
    encoding = Encoding((repr, True, True, None))
    inner = cast(Any, encoding)
    made: list[object] = []
    make = inner._make

    def counted() -> object:
        made.append(None)
        return make()

    inner._make = counted
    assert [encoding.encode(value) for value in ([1], {"a": 2}, "ü")] == ["[1]", '{"a": 2}', '"\\u00fc"']
    assert len(made) == 1
    with pytest.raises(TypeError):
        encoding.encode({(1, 2): 3})
    assert encoding.encode([1]) == encoding.encode([1]) == "[1]"
    assert len(made) == 2
