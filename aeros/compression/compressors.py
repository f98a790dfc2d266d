"""Compressors: which content codings a server offers, for which bodies, and how hard it tries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, TypedDict, Unpack

from aeros.compression.codings import (
    BrotliCoding,
    Coding,
    GzipCoding,
    ZstdCoding,
    zstd_is_available,
)
from aeros.errors import InvalidSettingError
from aeros.http.accept_encoding import negotiate
from aeros.http.fields import is_token

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

DEFAULT_FLUSH_SECONDS: Final = 0.02
"""For how long the bytes of a stream may wait for more, unless told otherwise."""

DEFAULT_OFFLOAD_SIZE: Final = 64 * 1024
"""Bytes from which a body is compressed in a thread: below, the hop costs more than it saves."""

EVENT_STREAM: Final = "text/event-stream"

# Of what a compressor remembers: how many types, and how much of one, which is far longer than any has.
_MOST_TYPES: Final = 200
_LONGEST_TYPE: Final = 300


class CompressorOptions(TypedDict, total=False):
    """What every compressor can be told besides its level: see ``Base``."""

    min_size: int
    mimetypes: Iterable[str]
    flush_seconds: float
    offload_size: int | None
    hot_after: int | None


class Base(ABC):
    """A compressor: offers codings, picks one for each request, and knows what to leave alone.

    Args:
        min_size: Bodies of fewer bytes are sent as they are.
        mimetypes: Media types to compress; ``text/*`` stands for all of a kind but
            ``text/event-stream``, which has to be named. Each event is then sent at once.
        flush_seconds: For how long the bytes of a stream may wait for more, which makes them
            smaller; 0 sends each chunk at once.
        offload_size: Bytes from which a body, or a chunk of a stream, is compressed in a thread, so
            that the event loop goes on. None: never.
        hot_after: After how many uses the ready variant of a cached response is made once more in
            the background, as small as its coding can (bodies up to 1 MiB). None: never.

    Raises:
        InvalidSettingError: A value does not fit; the error names it.
    """

    def __init__(
        self,
        *,
        min_size: int = DEFAULT_MIN_SIZE,
        mimetypes: Iterable[str] = DEFAULT_MIMETYPES,
        flush_seconds: float = DEFAULT_FLUSH_SECONDS,
        offload_size: int | None = DEFAULT_OFFLOAD_SIZE,
        hot_after: int | None = None,
    ) -> None:
        self.min_size: int = _checked_number("min_size", min_size, 0, "bytes")
        self.mimetypes: frozenset[str] = _checked_mimetypes(mimetypes)
        self.flush_seconds: float = _checked_seconds("flush_seconds", flush_seconds)
        self.offload_size: int | None = None
        if offload_size is not None:
            self.offload_size = _checked_number("offload_size", offload_size, 0, "bytes")
        self.hot_after: int | None = None
        if hot_after is not None:
            self.hot_after = _checked_number("hot_after", hot_after, 1, "uses")

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
        return _is_among(content_type[:_LONGEST_TYPE], self.mimetypes)

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
        options: As for ``Base``.

    Raises:
        InvalidSettingError: A value does not fit.
    """

    def __init__(self, level: int = 5, **options: Unpack[CompressorOptions]) -> None:
        super().__init__(**options)
        self._coding = GzipCoding(level)


class Br(_OneCoding):
    """Compresses with brotli, the smallest for text.

    Args:
        level: 0 (fastest) to 11 (smallest, and far too slow for live responses).
        options: As for ``Base``.

    Raises:
        InvalidSettingError: A value does not fit.
    """

    def __init__(self, level: int = 4, **options: Unpack[CompressorOptions]) -> None:
        super().__init__(**options)
        self._coding = BrotliCoding(level)


class Zstd(_OneCoding):
    """Compresses with zstd, the fastest for its size. Needs Python 3.14 or ``aeros[zstd]``.

    Args:
        level: 1 (fastest) to 22 (smallest).
        options: As for ``Base``.

    Raises:
        InvalidSettingError: A value does not fit.
        MissingExtraError: No zstd is installed.
    """

    def __init__(self, level: int = 3, **options: Unpack[CompressorOptions]) -> None:
        super().__init__(**options)
        self._coding = ZstdCoding(level)


class Negotiated(Base):
    """Offers several codings; the client's preference decides, and among equals the order here.

    Args:
        offered: Compressors or codings, the best liked first. None given: zstd where it is
            available, br and gzip, at their default levels.
        options: As for ``Base``; they hold for all of them.

    Raises:
        InvalidSettingError: A value does not fit, or two of them have the same coding.
    """

    def __init__(self, *offered: Base | Coding, **options: Unpack[CompressorOptions]) -> None:
        super().__init__(**options)
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
            if not is_token(coding.name):
                raise InvalidSettingError("Negotiated()", coding.name, "codings with a token as their name")
            if coding.name in codings:
                raise InvalidSettingError("Negotiated()", coding.name, "each coding once")
            codings[coding.name] = coding
    return tuple(codings.values())


@lru_cache(_MOST_TYPES)
def _is_among(content_type: str, mimetypes: frozenset[str]) -> bool:
    mimetype = content_type.partition(";")[0].strip().lower()
    if mimetype in mimetypes:
        return True
    # Somebody waits for each event of an event stream: only who names it has it compressed.
    return mimetype != EVENT_STREAM and f"{mimetype.partition('/')[0]}/*" in mimetypes


def _checked_number(setting: str, value: object, lowest: int, unit: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= lowest:
        return value
    raise InvalidSettingError(setting, value, f"a whole number of {unit} from {lowest} on")


def _checked_seconds(setting: str, value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 60:
        return float(value)
    raise InvalidSettingError(setting, value, "seconds from 0 to 60")


def _checked_mimetypes(mimetypes: object) -> frozenset[str]:
    if isinstance(mimetypes, str | bytes) or not isinstance(mimetypes, Iterable):
        raise InvalidSettingError("mimetypes", mimetypes, "a list of media types such as ['text/*']")
    checked: set[str] = set()
    for mimetype in mimetypes:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(mimetype, str) or not _is_media_range(mimetype.strip()):
            raise InvalidSettingError("mimetypes", mimetype, "media types such as 'text/html' or 'text/*'")  # pyright: ignore[reportUnknownArgumentType]
        checked.add(mimetype.strip().lower())
    return frozenset(checked)


def _is_media_range(text: str) -> bool:
    # A parameter would never match, and "*/*" would say that everything gets smaller.
    kind, _, subtype = text.partition("/")
    return is_token(kind) and is_token(subtype) and "*" not in kind and (subtype == "*" or "*" not in subtype)
