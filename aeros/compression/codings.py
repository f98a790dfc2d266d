"""One content coding each (RFC 9110 §8.4.1): gzip, br and zstd.

A coding turns bytes into bytes and knows nothing of HTTP. Everything optional is imported by the
constructor, so a missing package is an error at construction and an unused one is never loaded.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Protocol, runtime_checkable

import brotli

from aeros.errors import InvalidSettingError, MissingExtraError


@runtime_checkable
class Coding(Protocol):
    """A content coding: what a compressor needs to know of it.

    Any object with these two members is one; a user's own may be given to ``Negotiated``.
    """

    @property
    def name(self) -> str:
        """The coding's registered name, as in ``Content-Encoding``."""
        ...

    def compress(self, content: bytes) -> bytes:
        """Returns ``content`` in this coding. May be called from several threads at once."""
        ...


class GzipCoding:
    """The ``gzip`` coding (RFC 1952)."""

    name = "gzip"

    def __init__(self, level: int) -> None:
        self.level: int = checked_level("Gzip", level, 1, 9)

    def compress(self, content: bytes) -> bytes:
        """Returns ``content`` as one gzip member, the same bytes at any time of day."""
        return gzip.compress(content, self.level, mtime=0)


class BrotliCoding:
    """The ``br`` coding (RFC 7932)."""

    name = "br"

    def __init__(self, level: int) -> None:
        self.level: int = checked_level("Br", level, 0, 11)

    def compress(self, content: bytes) -> bytes:
        """Returns ``content`` as one brotli stream."""
        return brotli.compress(content, quality=self.level)


class ZstdCoding:
    """The ``zstd`` coding (RFC 8878) with a window of at most 8 MB (RFC 9659)."""

    name = "zstd"

    def __init__(self, level: int) -> None:
        self.level: int = checked_level("Zstd", level, 1, 22)
        self._compress = _load_zstd(self.level)

    def compress(self, content: bytes) -> bytes:
        """Returns ``content`` as one zstd frame."""
        return self._compress(content)


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


def _load_zstd(level: int) -> Callable[[bytes], bytes]:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        try:
            from backports import zstd
        except ImportError:
            raise MissingExtraError("Zstd()", package="backports.zstd", extra="zstd") from None

    # Browsers refuse frames whose window is larger than 2**23 bytes (RFC 9659).
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: level,
        zstd.CompressionParameter.window_log: 23,
    }

    def compress(content: bytes) -> bytes:
        return zstd.compress(content, options=options)

    return compress
