"""Compressors: their settings, what they offer, and what they leave alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aeros.compression import (
    DEFAULT_MIMETYPES,
    DEFAULT_MIN_SIZE,
    Base,
    Br,
    Coding,
    Gzip,
    Negotiated,
    StreamCoding,
    ThoroughCoding,
    Zstd,
)
from aeros.compression.compressors import DEFAULT_FLUSH_SECONDS, DEFAULT_OFFLOAD_SIZE
from aeros.errors import ConfigurationError, InvalidSettingError

# What a caller without a type checker may write.
AnyCompressor = Callable[..., Base]


class Own:
    """A coding of a user's own."""

    def __init__(self, name: Any = "x-own") -> None:
        self.name = name

    def compress(self, content: bytes) -> bytes:
        """Returns what it is given."""
        return content


def names(compressor: Base) -> list[str]:
    """Returns the codings on offer."""
    return [coding.name for coding in compressor.codings]


# Settings


@pytest.mark.parametrize("compressor", [Gzip(), Br(), Zstd(), Negotiated()], ids=repr)
def test_defaults_are_those_of_the_module(compressor: Base) -> None:
    """Who says nothing gets what is written down as the default."""
    assert compressor.min_size == DEFAULT_MIN_SIZE == 500
    assert compressor.mimetypes == frozenset(DEFAULT_MIMETYPES)
    assert compressor.flush_seconds == DEFAULT_FLUSH_SECONDS == 0.02
    assert compressor.offload_size == DEFAULT_OFFLOAD_SIZE == 65536
    assert compressor.hot_after is None


@pytest.mark.parametrize("make", [Gzip, Br, Zstd, Negotiated])
def test_settings_are_kept(make: AnyCompressor) -> None:
    """Every compressor takes the same options."""
    compressor = make(
        min_size=0,
        mimetypes=iter(["Text/*", " application/json "]),
        flush_seconds=0,
        offload_size=0,
        hot_after=1,
    )
    assert compressor.min_size == 0
    assert compressor.mimetypes == {"text/*", "application/json"}
    assert (compressor.flush_seconds, type(compressor.flush_seconds)) == (0.0, float)
    assert compressor.offload_size == 0
    assert compressor.hot_after == 1
    assert make(offload_size=None).offload_size is None


@pytest.mark.parametrize("make", [Gzip, Br, Zstd, Negotiated])
@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("min_size", value) for value in (-1, 1.5, "500", None, True)),
        *(("flush_seconds", value) for value in (-0.1, 60.1, float("nan"), float("inf"), "1", None, True)),
        *(("offload_size", value) for value in (-1, 0.5, "64k", True, float("inf"))),
        *(("hot_after", value) for value in (0, -1, 2.0, "3", False)),
        *(("mimetypes", value) for value in ("text/*", b"text/*", 5, None, object())),
    ],
)
def test_setting_that_does_not_fit_is_an_error_that_names_it(
    make: AnyCompressor, setting: str, value: object
) -> None:
    """The error is one at construction, with the setting, the value and what to give instead."""
    with pytest.raises(InvalidSettingError) as caught:
        make(**{setting: value})
    assert caught.value.setting == setting
    assert caught.value.value is value
    assert setting in str(caught.value)
    assert repr(value) in str(caught.value)
    assert isinstance(caught.value, ConfigurationError)


@pytest.mark.parametrize(
    "mimetype",
    [
        "text",
        "text/",
        "/html",
        "text/html/x",
        "",
        "*/*",
        "*",
        "te*/html",
        "text/ht*",
        "text/html; charset=utf-8",
        "text /html",
        "text/html,text/css",
        "täxt/html",
        5,
        None,
        b"text/html",
    ],
)
def test_media_type_that_would_never_match_is_an_error(mimetype: object) -> None:
    """A misspelt one would leave everything uncompressed, and nobody would know why."""
    mimetypes: Any = ["text/css", mimetype]
    with pytest.raises(InvalidSettingError) as caught:
        Gzip(mimetypes=mimetypes)
    assert caught.value.setting == "mimetypes"
    assert caught.value.value == mimetype


@pytest.mark.parametrize(
    ("make", "lowest", "highest"), [(Gzip, 1, 9), (Br, 0, 11), (Zstd, 1, 22)], ids=["gzip", "br", "zstd"]
)
def test_level_is_one_of_the_coding(make: AnyCompressor, lowest: int, highest: int) -> None:
    """Both ends are taken; beyond them, and what is no whole number, is an error that names the level."""
    for level in (lowest, highest):
        make(level=level)
        make(level)
    for wrong in (lowest - 1, highest + 1, 1.0, "5", None, True):
        with pytest.raises(InvalidSettingError) as caught:
            make(level=wrong)
        assert caught.value.setting == f"{make.__name__}(level=)"
        assert f"a whole number from {lowest} to {highest}" in str(caught.value)


def test_unknown_options_are_errors() -> None:
    """A misspelt option is not ignored."""
    misspelt: dict[str, Any] = {"minimum_size": 1}
    for make in (Gzip, Br, Zstd, Negotiated):
        with pytest.raises(TypeError, match="minimum_size"):
            make(**misspelt)


# What is offered


def test_negotiated_offers_everything_by_default() -> None:
    """The smallest for its speed first."""
    assert names(Negotiated()) == ["zstd", "br", "gzip"]


def test_default_without_zstd_is_br_and_gzip(monkeypatch: pytest.MonkeyPatch) -> None:
    """An extra that is not installed is not missed."""
    monkeypatch.setattr("aeros.compression.compressors.zstd_is_available", lambda: False)
    assert names(Negotiated()) == ["br", "gzip"]


def test_negotiated_takes_compressors_and_codings_in_their_order() -> None:
    """A compressor stands for its codings; its other options do not count."""
    own = Own()
    compressor = Negotiated(Gzip(9, min_size=1), own, Negotiated(Br(), Zstd()), min_size=7)
    assert names(compressor) == ["gzip", "x-own", "br", "zstd"]
    assert compressor.codings[1] is own
    assert compressor.min_size == 7
    assert repr(compressor) == "Negotiated(gzip, x-own, br, zstd)"


@pytest.mark.parametrize(
    "offered",
    [(Gzip(), Gzip(9)), (Own("br"), Br()), (Br(), Negotiated()), (Own(), Own())],
    ids=["twice", "own and ours", "nested", "own twice"],
)
def test_coding_that_is_offered_twice_is_an_error(offered: tuple[Base | Coding, ...]) -> None:
    """Nobody could tell which of the two was meant."""
    with pytest.raises(InvalidSettingError, match="each coding once") as caught:
        Negotiated(*offered)
    assert caught.value.value in {"gzip", "br", "x-own"}


@pytest.mark.parametrize("offered", ["br", 5, None, Gzip, [Br()], object()])
def test_what_is_no_coding_is_an_error(offered: Any) -> None:
    """A name, a class and a list are not what is offered."""
    with pytest.raises(InvalidSettingError, match="compressors or codings") as caught:
        Negotiated(offered)
    assert caught.value.value is offered


@pytest.mark.parametrize("name", ["", "x own", "br,gzip", "größe", "x;q=1", "a\nb"])
def test_coding_whose_name_can_not_be_sent_is_an_error(name: str) -> None:
    """It is a part of Content-Encoding, so it is a token (RFC 9110 §8.4.1)."""
    with pytest.raises(InvalidSettingError, match="token") as caught:
        Negotiated(Own(name))
    assert caught.value.value == name


def test_codings_have_the_protocols_that_they_keep() -> None:
    """Those that come with aeros can do everything; a user's own is asked for what it can."""
    for compressor in (Gzip(), Br(), Zstd()):
        (coding,) = compressor.codings
        assert isinstance(coding, Coding)
        assert isinstance(coding, StreamCoding)
        assert isinstance(coding, ThoroughCoding)
    assert isinstance(Own(), Coding)
    assert not isinstance(Own(), StreamCoding)
    assert not isinstance(Own(), ThoroughCoding)


# What is chosen


@pytest.mark.parametrize(
    ("accept", "name"),
    [
        (None, None),
        ("", None),
        ("gzip, br, zstd", "br"),
        ("gzip, br;q=0.9", "gzip"),
        ("x-gzip", "gzip"),
        ("*;q=0.1", "br"),
        ("br;q=0, *", "gzip"),
        ("identity, *;q=0.9", None),
        ("zstd", None),
    ],
)
def test_negotiate_returns_the_coding_itself(accept: str | None, name: str | None) -> None:
    """The one to use, or None for identity."""
    compressor = Negotiated(Br(), Gzip())
    chosen = compressor.negotiate(accept)
    assert (None if chosen is None else chosen.name) == name
    assert chosen is None or any(chosen is coding for coding in compressor.codings)


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        *((f"{mimetype.replace('*', 'anything')}; charset=utf-8", True) for mimetype in DEFAULT_MIMETYPES),
        ("text/html", True),
        ("TEXT/HTML", True),
        (" text/html ;charset=utf-8", True),
        ("text/event-stream", False),
        ("Text/Event-Stream; charset=utf-8", False),
        ("application/octet-stream", False),
        ("application/jsonx", False),
        ("image/png", False),
        ("texthtml", False),
        ("", False),
        ("multipart/mixed; boundary=text/html", False),
        ("application/pdf, text/html", False),
    ],
)
def test_media_type_decides_what_is_compressed(content_type: str, expected: bool) -> None:
    """Parameters and case do not count; a whole kind but event streams, or the very type."""
    assert Gzip().is_compressible(content_type) is expected


def test_event_stream_is_compressed_where_it_is_named() -> None:
    """Neither text/* nor anything else stands for it."""
    assert Gzip(mimetypes=["text/event-stream"]).is_compressible("text/event-stream; charset=utf-8")
    assert not Gzip(mimetypes=["text/*"]).is_compressible("text/event-stream")
    assert not Gzip(mimetypes=[]).is_compressible("text/html")
