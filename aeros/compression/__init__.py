"""Compressors: which content codings a server offers, for which bodies, and how hard it tries.

>>> from aeros.compression import Br, Gzip, Negotiated
>>> Negotiated(Br(level=5), Gzip()).negotiate("gzip, br;q=0.5").name
'gzip'
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Final

from aeros.compression.codings import BrotliCoding, Coding, GzipCoding, ZstdCoding, zstd_is_available
from aeros.errors import InvalidSettingError
from aeros.http.accept_encoding import negotiate

DEFAULT_MIN_SIZE: Final = 500
"""Bytes below which compressing costs more than it saves."""

DEFAULT_MIMETYPES: Final = (
    "text/*",
    "application/atom+xml",
    "application/geo+json",
    "application/graphql-response+json",
    "application/javascript",
    "application/json",
    "application/ld+json",
    "application/manifest+json",
    "application/problem+json",
    "application/rss+xml",
    "application/wasm",
    "application/x-javascript",
    "application/x-ndjson",
    "application/xhtml+xml",
    "application/xml",
    "font/otf",
    "font/ttf",
    "image/bmp",
    "image/svg+xml",
    "image/x-icon",
)
"""Media types that compress well. ``text/event-stream`` is left alone although it is text."""

_NEVER: Final = frozenset({"text/event-stream"})


class Base(ABC):
    """A compressor: offers codings, picks one for each request, and knows what to leave alone.

    Args:
        min_size: Bodies of fewer bytes are sent as they are.
        mimetypes: Media types to compress; ``text/*`` stands for all of a kind.

    Raises:
        InvalidSettingError: ``min_size`` is no whole number from 0 on, or a media type is not
            of the form ``type/subtype``.
    """

    def __init__(
        self, *, min_size: int = DEFAULT_MIN_SIZE, mimetypes: Iterable[str] = DEFAULT_MIMETYPES
    ) -> None:
        self.min_size: int = _checked_min_size(min_size)
        self.mimetypes: frozenset[str] = _checked_mimetypes(mimetypes)

    @property
    @abstractmethod
    def codings(self) -> tuple[Coding, ...]:
        """The codings on offer, the one that the server likes best first."""

    def negotiate(self, accept_encoding: str | None) -> Coding | None:
        """Returns the coding to use for a request, None for identity (RFC 9110 §12.5.3).

        Args:
            accept_encoding: The request's field value; None where it sent no such field.
        """
        name = negotiate(accept_encoding, [coding.name for coding in self.codings])
        return next((coding for coding in self.codings if coding.name == name), None)

    def is_compressible(self, content_type: str) -> bool:
        """Returns whether bodies of this ``Content-Type`` are worth compressing."""
        mimetype = content_type.partition(";")[0].strip().lower()
        if mimetype in _NEVER:
            return False
        return mimetype in self.mimetypes or f"{mimetype.partition('/')[0]}/*" in self.mimetypes

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(coding.name for coding in self.codings)})"


class _OneCoding(Base):
    """A compressor with a single coding."""

    _coding: Coding

    @property
    def codings(self) -> tuple[Coding, ...]:
        return (self._coding,)


class Gzip(_OneCoding):
    """Compresses with gzip, which every client understands.

    Args:
        level: 1 (fastest) to 9 (smallest).
        min_size: As for ``Base``.
        mimetypes: As for ``Base``.

    Raises:
        InvalidSettingError: A value does not fit.
    """

    def __init__(
        self,
        level: int = 5,
        *,
        min_size: int = DEFAULT_MIN_SIZE,
        mimetypes: Iterable[str] = DEFAULT_MIMETYPES,
    ) -> None:
        super().__init__(min_size=min_size, mimetypes=mimetypes)
        self._coding = GzipCoding(level)


class Br(_OneCoding):
    """Compresses with brotli, the smallest for text.

    Args:
        level: 0 (fastest) to 11 (smallest, and far too slow for live responses).
        min_size: As for ``Base``.
        mimetypes: As for ``Base``.

    Raises:
        InvalidSettingError: A value does not fit.
    """

    def __init__(
        self,
        level: int = 4,
        *,
        min_size: int = DEFAULT_MIN_SIZE,
        mimetypes: Iterable[str] = DEFAULT_MIMETYPES,
    ) -> None:
        super().__init__(min_size=min_size, mimetypes=mimetypes)
        self._coding = BrotliCoding(level)


class Zstd(_OneCoding):
    """Compresses with zstd, the fastest for its size. Needs Python 3.14 or ``aeros[zstd]``.

    Args:
        level: 1 (fastest) to 22 (smallest).
        min_size: As for ``Base``.
        mimetypes: As for ``Base``.

    Raises:
        InvalidSettingError: A value does not fit.
        MissingExtraError: No zstd is installed.
    """

    def __init__(
        self,
        level: int = 3,
        *,
        min_size: int = DEFAULT_MIN_SIZE,
        mimetypes: Iterable[str] = DEFAULT_MIMETYPES,
    ) -> None:
        super().__init__(min_size=min_size, mimetypes=mimetypes)
        self._coding = ZstdCoding(level)


class Negotiated(Base):
    """Offers several codings; the client's preference decides, and among equals the order here.

    Args:
        offered: Compressors or codings, the best liked first. None given: zstd where it is
            available, br and gzip, at their default levels.
        min_size: As for ``Base``; it holds for all of them.
        mimetypes: As for ``Base``; they hold for all of them.

    Raises:
        InvalidSettingError: A value does not fit, or two of them have the same coding.
    """

    def __init__(
        self,
        *offered: Base | Coding,
        min_size: int = DEFAULT_MIN_SIZE,
        mimetypes: Iterable[str] = DEFAULT_MIMETYPES,
    ) -> None:
        super().__init__(min_size=min_size, mimetypes=mimetypes)
        self._codings = _distinct(offered) if offered else _default_codings()

    @property
    def codings(self) -> tuple[Coding, ...]:
        """The codings on offer, in the order in which they were given."""
        return self._codings


def _default_codings() -> tuple[Coding, ...]:
    zstd = Zstd().codings if zstd_is_available() else ()
    return zstd + Br().codings + Gzip().codings


def _distinct(offered: Iterable[Base | Coding]) -> tuple[Coding, ...]:
    codings: dict[str, Coding] = {}
    for item in offered:
        members = item.codings if isinstance(item, Base) else (item,)
        for coding in members:
            if not isinstance(coding, Coding):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise InvalidSettingError("Negotiated()", coding, "compressors or codings")
            if coding.name in codings:
                raise InvalidSettingError("Negotiated()", coding.name, "each coding once")
            codings[coding.name] = coding
    return tuple(codings.values())


def _checked_min_size(min_size: object) -> int:
    if isinstance(min_size, int) and not isinstance(min_size, bool) and min_size >= 0:
        return min_size
    raise InvalidSettingError("min_size", min_size, "a whole number of bytes from 0 on")


def _checked_mimetypes(mimetypes: object) -> frozenset[str]:
    if isinstance(mimetypes, str) or not isinstance(mimetypes, Iterable):
        raise InvalidSettingError("mimetypes", mimetypes, "a list of media types such as ['text/*']")
    checked: set[str] = set()
    for mimetype in mimetypes:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(mimetype, str) or mimetype.count("/") != 1 or mimetype.strip("/") != mimetype:
            raise InvalidSettingError("mimetypes", mimetype, "media types such as 'text/html' or 'text/*'")  # pyright: ignore[reportUnknownArgumentType]
        checked.add(mimetype.strip().lower())
    return frozenset(checked)


__all__ = ["DEFAULT_MIMETYPES", "DEFAULT_MIN_SIZE", "Base", "Br", "Coding", "Gzip", "Negotiated", "Zstd"]
