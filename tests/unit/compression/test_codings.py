"""The codings: what they make is decoded by the reference library of each, at any point."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import brotli
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from aeros.compression import Br, Coding, Gzip, StreamCoding, ThoroughCoding, Zstd
from aeros.compression.codings import zstd_is_available
from aeros.errors import MissingExtraError

MEGABYTE = 2**20
PROSE = b"".join(
    b"<tr><td>%d</td><td class='%x'>%x</td></tr>\n" % (number, number * 7 % 251, number * number % 397)
    for number in range(1500)
)


class EveryWay(StreamCoding, ThoroughCoding, Protocol):
    """A coding that can do everything."""


def codings(level: int | None = None) -> dict[str, EveryWay]:
    """Returns the codings that come with aeros, at their default level or at this one."""
    made = (Gzip(), Br(), Zstd()) if level is None else (Gzip(level), Br(level), Zstd(level))
    found: dict[str, EveryWay] = {}
    for compressor in made:
        for coding in compressor.codings:
            assert isinstance(coding, StreamCoding)
            assert isinstance(coding, ThoroughCoding)
            found[coding.name] = coding
    return found


NAMES = ["gzip", "br", "zstd"]


class Decoder:
    """Decodes as a browser does, as the bytes arrive: zstd with a window of 8 MB, no more (RFC 9659)."""

    def __init__(self, name: str) -> None:
        self._gzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._brotli = brotli.Decompressor()
        self._zstd = zstandard.ZstdDecompressor(max_window_size=2**23).decompressobj()
        self._name = name

    def decode(self, data: bytes) -> bytes:
        """Returns what these bytes add."""
        if self._name == "gzip":
            return self._gzip.decompress(data)
        return self._brotli.process(data) if self._name == "br" else self._zstd.decompress(data)

    @property
    def is_at_end(self) -> bool:
        """Whether the stream is complete, and nothing follows."""
        if self._name == "gzip":
            return self._gzip.eof and not self._gzip.unused_data
        if self._name == "br":
            return self._brotli.is_finished()
        return self._zstd.eof and not self._zstd.unused_data


def decoded(name: str, content: bytes) -> bytes:
    """Returns complete content decoded."""
    decoder = Decoder(name)
    result = decoder.decode(content)
    assert decoder.is_at_end
    return result


# Whole bodies


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=5000) | st.text(max_size=5000).map(str.encode))
def test_any_content_decodes_to_itself(name: str, content: bytes) -> None:
    """Quickly or thoroughly made, and the same bytes each time."""
    coding = codings()[name]
    coded = coding.compress(content)
    assert decoded(name, coded) == content
    assert coding.compress(content) == coded
    assert decoded(name, coding.compress_thoroughly(content)) == content


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "content", [b"", b"\0", PROSE, b"a" * 20 * MEGABYTE], ids=["empty", "one", "prose", "20 MB"]
)
def test_content_of_any_size_decodes_to_itself(name: str, content: bytes) -> None:
    """Also what is larger than the windows, with what browsers give to a decoder."""
    assert decoded(name, codings()[name].compress(content)) == content


@pytest.mark.parametrize("level", [1, 5, 9])
@pytest.mark.parametrize("name", NAMES)
def test_every_level_decodes(name: str, level: int) -> None:
    """The level changes how many bytes there are, not what they say."""
    coding = codings(level)[name]
    assert decoded(name, coding.compress(PROSE)) == PROSE
    encoder = coding.encoder()
    assert decoded(name, encoder.encode(PROSE) + encoder.finish()) == PROSE


@pytest.mark.parametrize("coding", [*Zstd(22).codings, *Zstd(20).codings], ids=["22", "20"])
def test_zstd_stays_within_the_window_of_browsers(coding: Coding) -> None:
    """The highest levels would take a window of 128 MB, which no browser decodes (RFC 9659 §3)."""
    content = bytes(range(256)) * (10 * MEGABYTE // 256)
    coded = coding.compress(content)
    assert zstandard.get_frame_parameters(coded).window_size <= 2**23
    assert decoded("zstd", coded) == content


@pytest.mark.parametrize("name", NAMES)
def test_thorough_content_is_smaller(name: str) -> None:
    """It is what takes long; at the highest level already it is no larger."""
    quick, best = codings()[name], codings(9)[name]
    assert len(quick.compress_thoroughly(PROSE)) < len(quick.compress(PROSE))
    assert len(best.compress_thoroughly(PROSE)) <= len(best.compress(PROSE))


def test_gzip_content_does_not_depend_on_the_time_of_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its header has no time, or the same content would have two forms under one strong tag."""
    coding = codings()["gzip"]
    coded = coding.compress(PROSE)
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    assert coding.compress(PROSE) == coded
    assert coding.compress_thoroughly(PROSE) == gzip.compress(PROSE, 9, mtime=0)
    assert coded[4:8] == b"\0\0\0\0"


@pytest.mark.parametrize("name", NAMES)
def test_several_threads_may_compress_at_once(name: str) -> None:
    """A coding keeps nothing of one body for another."""
    coding = codings()[name]
    bodies = [b"%d " % number * 20_000 for number in range(32)]
    with ThreadPoolExecutor(8) as threads:
        coded = list(threads.map(coding.compress, bodies))
    assert [decoded(name, content) for content in coded] == bodies


# Streams

STEPS = st.lists(st.binary(max_size=300) | st.just(None) | st.just(b"abc" * 1000), max_size=20)
"""Chunks to encode; None: a flush."""


@pytest.mark.parametrize("level", [None, 1, 9])
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_each_flush_makes_everything_so_far_decodable(
    name: str, level: int | None, steps: list[bytes | None]
) -> None:
    """However the body is cut into chunks and flushes, and the end is the end."""
    encoder = codings(level)[name].encoder()
    decoder = Decoder(name)
    taken, received = b"", b""
    for step in steps:
        if step is None:
            received += decoder.decode(encoder.flush())
            assert received == taken
        else:
            taken += step
            received += decoder.decode(encoder.encode(step))
            assert taken.startswith(received)
        assert not decoder.is_at_end
    received += decoder.decode(encoder.finish())
    assert received == taken
    assert decoder.is_at_end


@pytest.mark.parametrize("name", NAMES)
def test_stream_of_many_megabytes_decodes(name: str) -> None:
    """More than any window holds, flushed now and then."""
    encoder = codings()[name].encoder()
    decoder = Decoder(name)
    chunk = PROSE * (MEGABYTE // len(PROSE))
    received = 0
    for number in range(12):
        data = encoder.encode(chunk) + (encoder.flush() if number % 3 == 0 else b"")
        received += len(decoder.decode(data))
    received += len(decoder.decode(encoder.finish()))
    assert received == 12 * len(chunk)
    assert decoder.is_at_end


@pytest.mark.parametrize("name", NAMES)
def test_empty_stream_is_a_complete_one(name: str) -> None:
    """Nothing, flushed or not, is a body as well."""
    for flushes in (0, 2):
        encoder = codings()[name].encoder()
        content = b"".join(encoder.flush() for _ in range(flushes)) + encoder.finish()
        assert content
        assert decoded(name, content) == b""


@pytest.mark.parametrize("name", NAMES)
def test_streams_do_not_share_what_they_have_taken(name: str) -> None:
    """Each encoder is one stream of its own."""
    coding = codings()[name]
    first, second = coding.encoder(), coding.encoder()
    of_first, of_second = first.encode(b"first "), second.encode(b"second ")
    of_first += first.encode(b"again") + first.finish()
    of_second += second.encode(b"twice") + second.finish()
    assert decoded(name, of_first) == b"first again"
    assert decoded(name, of_second) == b"second twice"


# What is not installed


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="zstd is in the standard library")
def test_zstd_that_is_not_installed_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes at construction, not at the first request."""
    monkeypatch.setitem(sys.modules, "backports", None)
    with pytest.raises(MissingExtraError, match=r"aeros\[zstd\]"):
        Zstd()


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="zstd is in the standard library")
@pytest.mark.parametrize("outcome", [None, ModuleNotFoundError("backports")], ids=["no zstd", "no backports"])
def test_zstd_is_not_available_without_its_package(
    monkeypatch: pytest.MonkeyPatch, outcome: Exception | None
) -> None:
    """Neither its own package nor the one around it needs to be there."""
    assert zstd_is_available()

    def find_nothing(name: str) -> None:
        assert name == "backports.zstd"
        if outcome is not None:
            raise outcome

    find: Callable[[str], None] = find_nothing
    monkeypatch.setattr("aeros.compression.codings.find_spec", find)
    assert not zstd_is_available()
