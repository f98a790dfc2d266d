"""One content coding each (RFC 9110 §8.4.1): gzip, br and zstd.

A coding turns bytes into bytes and knows nothing of HTTP. Everything optional is imported by the
constructor, so a missing package is an error at construction and an unused one is never loaded.
"""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Final, Protocol, runtime_checkable

import brotli

from aeros.errors import InvalidSettingError, MissingExtraError

_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS  # zlib's way to ask for gzip's head and trailer
_ZSTD_WINDOW_LOG: Final = 23  # browsers refuse frames with a window above 8 MB (RFC 9659)
# An encoder of a stream lives as long as its client stays, and there may be many: with this window
# one takes below 2 MiB, where the largest one takes 9.
_STREAM_WINDOW_LOG: Final = 19


@runtime_checkable
class Coding(Protocol):
    """A content coding: what a compressor needs to know of it.

    Any object with these two members is one; a user's own may be given to ``Negotiated``. One that
    is to compress streams too has ``encoder()`` besides: see ``StreamCoding``.
    """

    @property
    def name(self) -> str:
        """The coding's registered name, as in ``Content-Encoding``."""
        ...

    def compress(self, content: bytes) -> bytes:
        """Returns ``content`` in this coding. May be called from several threads at once."""
        ...


class Encoder(Protocol):
    """One stream on its way through a coding. The bytes that it returns are sent in their order."""

    def encode(self, data: bytes) -> bytes:
        """Takes ``data``; returns what is ready, which may be nothing."""
        ...

    def flush(self) -> bytes:
        """Returns what makes all that was taken so far decodable by the client."""
        ...

    def finish(self) -> bytes:
        """Returns the end of the stream."""
        ...


@runtime_checkable
class StreamCoding(Coding, Protocol):
    """A content coding that can compress a body while it is still being made."""

    def encoder(self) -> Encoder:
        """Returns an encoder for one stream. Its calls may come from several threads, one at a time."""
        ...


@runtime_checkable
class ThoroughCoding(Coding, Protocol):
    """A content coding that can try harder for a body that is sent very often."""

    def compress_thoroughly(self, content: bytes) -> bytes:
        """Returns ``content`` as small as this coding can make it, however long it takes."""
        ...


class GzipCoding:
    """The ``gzip`` coding (RFC 1952)."""

    name = "gzip"

    def __init__(self, level: int) -> None:
        self.level: int = checked_level("Gzip", level, 1, 9)

    def compress(self, content: bytes) -> bytes:
        """Returns ``content`` as one gzip member, the same bytes at any time of day."""
        return gzip.compress(content, self.level, mtime=0)

    def compress_thoroughly(self, content: bytes) -> bytes:
        """Returns ``content`` at level 9."""
        return gzip.compress(content, 9, mtime=0)

    def encoder(self) -> Encoder:
        """Returns an encoder for one gzip member."""
        return _GzipEncoder(self.level)


class BrotliCoding:
    """The ``br`` coding (RFC 7932)."""

    name = "br"

    def __init__(self, level: int) -> None:
        self.level: int = checked_level("Br", level, 0, 11)

    def compress(self, content: bytes) -> bytes:
        """Returns ``content`` as one brotli stream."""
        return brotli.compress(content, quality=self.level)

    def compress_thoroughly(self, content: bytes) -> bytes:
        """Returns ``content`` at level 11."""
        return brotli.compress(content, quality=11)

    def encoder(self) -> Encoder:
        """Returns an encoder for one brotli stream."""
        return _BrotliEncoder(self.level)


class ZstdCoding:
    """The ``zstd`` coding (RFC 8878) with a window of at most 8 MB (RFC 9659)."""

    name = "zstd"

    def __init__(self, level: int) -> None:
        self.level: int = checked_level("Zstd", level, 1, 22)
        self._compress, self._new_encoder = _load_zstd()

    def compress(self, content: bytes) -> bytes:
        """Returns ``content`` as one zstd frame."""
        return self._compress(content, self.level)

    def compress_thoroughly(self, content: bytes) -> bytes:
        """Returns ``content`` at level 19, the last one for which clients need no more memory."""
        return self._compress(content, max(self.level, 19))

    def encoder(self) -> Encoder:
        """Returns an encoder for one zstd frame."""
        return self._new_encoder(self.level)


class _GzipEncoder:
    __slots__ = ("_compressor",)

    def __init__(self, level: int) -> None:
        self._compressor = zlib.compressobj(level, zlib.DEFLATED, _GZIP_WINDOW)

    def encode(self, data: bytes) -> bytes:
        return self._compressor.compress(data)

    def flush(self) -> bytes:
        return self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._compressor.flush(zlib.Z_FINISH)


class _BrotliEncoder:
    __slots__ = ("_compressor",)

    def __init__(self, level: int) -> None:
        self._compressor = brotli.Compressor(quality=level, lgwin=_STREAM_WINDOW_LOG)

    def encode(self, data: bytes) -> bytes:
        return self._compressor.process(data)

    def flush(self) -> bytes:
        return self._compressor.flush()

    def finish(self) -> bytes:
        return self._compressor.finish()


def zstd_is_available() -> bool:
    """Returns whether zstd can be used: from Python 3.14 on, or with the extra ``aeros[zstd]``."""
    if sys.version_info >= (3, 14):
        return True
    try:
        return find_spec("backports.zstd") is not None
    except ModuleNotFoundError:
        return False


def checked_level(setting: str, level: object, lowest: int, highest: int) -> int:
    """Returns ``level`` if it is a whole number in the coding's range.

    Raises:
        InvalidSettingError: It is not.
    """
    if isinstance(level, int) and not isinstance(level, bool) and lowest <= level <= highest:
        return level
    raise InvalidSettingError(f"{setting}(level=)", level, f"a whole number from {lowest} to {highest}")


def _load_zstd() -> tuple[Callable[[bytes, int], bytes], Callable[[int], Encoder]]:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        try:
            from backports import zstd
        except ImportError:
            raise MissingExtraError("Zstd()", package="backports.zstd", extra="zstd") from None

    def options(level: int, window_log: int) -> dict[int, int]:
        return {
            zstd.CompressionParameter.compression_level: level,
            zstd.CompressionParameter.window_log: window_log,
        }

    def compress(content: bytes, level: int) -> bytes:
        return zstd.compress(content, options=options(level, _ZSTD_WINDOW_LOG))

    class ZstdEncoder:
        def __init__(self, level: int) -> None:
            self._compressor = zstd.ZstdCompressor(options=options(level, _STREAM_WINDOW_LOG))

        def encode(self, data: bytes) -> bytes:
            return self._compressor.compress(data)

        def flush(self) -> bytes:
            return self._compressor.flush(self._compressor.FLUSH_BLOCK)

        def finish(self) -> bytes:
            return self._compressor.flush(self._compressor.FLUSH_FRAME)

    return compress, ZstdEncoder
