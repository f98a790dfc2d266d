"""A stored response, and the bytes that it is in a shared store.

The format is a magic and version, a digest over all that follows, then a JSON head and the bodies.
Nothing in it is executed when it is read; whatever is damaged, foreign, or of another version
raises ``EntryFormatError``, which the cache counts as a miss.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, TypeAlias, cast

from aeros.caching.rendition import Rendition, Renditions
from aeros.caching.shortcut import Shortcut
from aeros.errors import EntryFormatError
from aeros.types import RawHeaders

MAGIC: Final = b"AEROS\x02\r\n"
_DIGEST_BYTES: Final = 16
_HEAD_LENGTH: Final = struct.Struct(">I")
_GREATEST_NUMBER: Final = sys.float_info.max
# The objects around the bytes and the tables that find them: how a process grows, on CPython 3.11.
_OVERHEAD_BYTES: Final = 850
# The same of a response, which is found by its request's URL as well.
_RESPONSE_BYTES: Final = _OVERHEAD_BYTES + 600

SelectingFields: TypeAlias = tuple[tuple[bytes, bytes | None], ...]


# Hits of which each came so soon after the one before: then more of the same will come.
_LEAST_HITS: Final = 3
_SOON_SECONDS: Final = 1.0


@dataclass(slots=True, eq=False)
class StoredResponse:
    """A response as the cache keeps it: the identity body and a ready variant per coding.

    Attributes:
        key: The full key that it was stored under.
        status: The status code.
        headers: End-to-end fields, without ``content-length``.
        body: The identity body.
        etag: The entity tag of the identity body, for a view that set none itself.
        stored_at: When it was stored, in seconds since the epoch.
        lifetime: How long it is fresh, in seconds, counted from its age 0.
        initial_age: How old it was already when it was stored, in seconds.
        vary: The request's fields that selected it (RFC 9111 §4.1).
        is_public: Whether it may answer requests with ``Authorization``.
        while_revalidate: For how many seconds more it may be used while a new one is made (RFC 5861 §3).
        if_error: For how many seconds more it may be used where none can be made (RFC 5861 §4).
        stamp: What the shared store said of its marks before its view began.
        variants: Bodies by content coding.
        uses: How often each was sent by this process, as far as anybody counts.
        shortcut: How this process can answer with it without its view, if it can.
        renditions: How this process has sent it.
        least_size: Bytes that it takes without what is made of it, once they were counted; else 0.
        hits: How often it was answered with since it was not asked for in a while, as far as anybody counts.
        hit_at: When it was answered with last, in seconds since the epoch.
    """

    key: bytes
    status: int
    headers: RawHeaders
    body: bytes
    etag: str
    stored_at: float
    lifetime: float
    initial_age: float = 0.0
    vary: SelectingFields = ()
    is_public: bool = False
    while_revalidate: float = 0.0
    if_error: float = 0.0
    stamp: str = ""
    variants: dict[str, bytes] = field(default_factory=dict[str, bytes])
    uses: dict[str, int] | None = field(default=None, repr=False)
    shortcut: Shortcut | None = field(default=None, repr=False)
    renditions: Renditions | None = field(default=None, repr=False)
    least_size: int = field(default=0, repr=False)
    hits: int = field(default=0, repr=False)
    hit_at: float = field(default=0.0, repr=False)
    on_growth: Callable[[StoredResponse], None] | None = field(default=None, repr=False)

    def age(self, now: float) -> float:
        """Returns its age in seconds at ``now`` (RFC 9111 §4.2.3)."""
        # A clock that was set back must not make an entry younger than it was when stored.
        return self.initial_age + max(0.0, now - self.stored_at)

    def ttl(self, now: float) -> float:
        """Returns for how many more seconds it is fresh; negative when stale."""
        return self.lifetime - self.age(now)

    def useful_for(self, now: float) -> float:
        """Returns for how many more seconds it may be used, fresh or stale."""
        return self.ttl(now) + max(self.while_revalidate, self.if_error)

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, about."""
        size = self.least_size
        if not size:
            fields = sum(len(name) + len(value) + 100 for name, value in self.headers)
            size = self.least_size = _RESPONSE_BYTES + len(self.key) + len(self.body) + fields
        for content in self.variants.values():
            if content is not self.body:  # one that is kept as its own variant takes its room once
                size += len(content)
        if self.shortcut is not None:
            size += self.shortcut.size
        if self.renditions is not None:
            size += self.renditions.size
        return size

    def variant(self, coding: str) -> bytes | None:
        """Returns the body in ``coding``, if it was made already."""
        return self.variants.get(coding)

    def add_variant(self, coding: str, content: bytes, *, instead_of: str | None = None) -> None:
        """Keeps the body in ``coding``; whoever counts this entry's bytes is told."""
        self.variants[coding] = content
        self.renditions = None  # what it says of a variant may be true no more
        if self.shortcut is not None:
            self.shortcut.recordings.clear()
        if instead_of is not None:
            self.variants.pop(instead_of, None)
        if self.on_growth is not None:
            self.on_growth(self)

    @property
    def is_in_demand(self) -> bool:
        """Whether keeping how it was sent is worth its room: of what is seldom asked for it is not."""
        return self.hits >= _LEAST_HITS

    def note_hit(self, now: float) -> None:
        """Counts a hit; those that the doors repeat from what they have recorded are not counted."""
        if not 0 <= now - self.hit_at <= _SOON_SECONDS:
            self.hits = 0
        self.hits += 1
        self.hit_at = now

    def has(self, content: bytes) -> bool:
        """Tells whether a body is one that is kept here, so that it takes no room twice."""
        return content is self.body or any(content is variant for variant in self.variants.values())

    def rendition(self, key: tuple[object, ...]) -> Rendition | None:
        """Returns how it was sent to a request of this kind, the last time."""
        return None if self.renditions is None else self.renditions.get(key)

    def keep_rendition(self, key: tuple[object, ...], rendition: Rendition) -> None:
        """Keeps how it was sent; whoever counts this entry's bytes is told."""
        if self.renditions is None:
            self.renditions = Renditions()
        if self.renditions.keep(key, rendition) and self.on_growth is not None:
            self.on_growth(self)

    def note_use(self, coding: str) -> int:
        """Counts one response with the body in ``coding``; returns how many there were."""
        if self.uses is None:
            self.uses = {}
        self.uses[coding] = self.uses.get(coding, 0) + 1
        return self.uses[coding]


@dataclass(slots=True, eq=False)
class VaryMark:
    """What stands under a primary key whose responses differ by request fields.

    Attributes:
        key: The full primary key.
        names: The fields, in lower case, that select among the responses.
        stored_at: When it was stored, in seconds since the epoch.
        lifetime: How long it stands, in seconds.
        stamp: As for ``StoredResponse``.
    """

    key: bytes
    names: tuple[bytes, ...]
    stored_at: float
    lifetime: float
    stamp: str = ""

    def ttl(self, now: float) -> float:
        """Returns for how many more seconds it stands; negative when over."""
        return self.lifetime - max(0.0, now - self.stored_at)

    def useful_for(self, now: float) -> float:
        """Returns the same: its lifetime is that of the longest response under it."""
        return self.ttl(now)

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, about."""
        return _OVERHEAD_BYTES + len(self.key) + sum(map(len, self.names))


@dataclass(slots=True, eq=False)
class StoredValue:
    """The value that a memoized function returned, in the bytes of its serializer.

    Attributes:
        key: The full key that it was stored under.
        data: The value.
        stored_at: When it was stored, in seconds since the epoch.
        lifetime: How long it is fresh, in seconds.
        while_revalidate: As for ``StoredResponse``.
        if_error: As for ``StoredResponse``.
        stamp: As for ``StoredResponse``.
    """

    key: bytes
    data: bytes
    stored_at: float
    lifetime: float
    while_revalidate: float = 0.0
    if_error: float = 0.0
    stamp: str = ""

    def ttl(self, now: float) -> float:
        """Returns for how many more seconds it is fresh; negative when stale."""
        return self.lifetime - max(0.0, now - self.stored_at)

    def useful_for(self, now: float) -> float:
        """Returns for how many more seconds it may be used, fresh or stale."""
        return self.ttl(now) + max(self.while_revalidate, self.if_error)

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, about."""
        return _OVERHEAD_BYTES + len(self.key) + len(self.data)


Entry: TypeAlias = StoredResponse | VaryMark | StoredValue


def encode_entry(entry: Entry) -> bytes:
    """Returns the bytes of an entry, for a shared store."""
    bodies: list[bytes] = []
    if isinstance(entry, VaryMark):
        head = _mark_head(entry)
    elif isinstance(entry, StoredValue):
        head, bodies = _value_head(entry), [entry.data]
    else:
        codings = sorted(entry.variants)
        head = _response_head(entry, codings)
        bodies = [entry.body, *(entry.variants[coding] for coding in codings)]
    text = json.dumps(head, separators=(",", ":")).encode("ascii")
    payload = b"".join([_HEAD_LENGTH.pack(len(text)), text, *bodies])
    return MAGIC + blake2b(payload, digest_size=_DIGEST_BYTES).digest() + payload


def decode_entry(data: bytes) -> Entry:
    """Returns the entry that ``encode_entry`` wrote.

    Raises:
        EntryFormatError: The bytes are damaged, foreign, or of another version.
    """
    start = len(MAGIC) + _DIGEST_BYTES
    payload = memoryview(data)[start:]
    if data[: len(MAGIC)] != MAGIC:
        raise EntryFormatError("not an entry of this version")
    if blake2b(payload, digest_size=_DIGEST_BYTES).digest() != data[len(MAGIC) : start]:
        raise EntryFormatError("the digest does not match: the entry is damaged")
    try:
        return _decode_payload(bytes(payload))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise EntryFormatError(f"the entry is malformed: {error!r}") from error


def _mark_head(mark: VaryMark) -> dict[str, object]:
    return {
        "kind": "vary",
        "key": _text(mark.key),
        "names": [_text(name) for name in mark.names],
        "stored_at": mark.stored_at,
        "lifetime": mark.lifetime,
        "stamp": mark.stamp,
    }


def _value_head(entry: StoredValue) -> dict[str, object]:
    return {
        "kind": "value",
        "key": _text(entry.key),
        "stored_at": entry.stored_at,
        "lifetime": entry.lifetime,
        "stale": [entry.while_revalidate, entry.if_error],
        "stamp": entry.stamp,
    }


def _response_head(entry: StoredResponse, codings: list[str]) -> dict[str, object]:
    return {
        "kind": "response",
        "key": _text(entry.key),
        "status": entry.status,
        "headers": [[_text(name), _text(value)] for name, value in entry.headers],
        "stored_at": entry.stored_at,
        "lifetime": entry.lifetime,
        "initial_age": entry.initial_age,
        "vary": [[_text(name), None if value is None else _text(value)] for name, value in entry.vary],
        "is_public": entry.is_public,
        "stale": [entry.while_revalidate, entry.if_error],
        "stamp": entry.stamp,
        "etag": entry.etag,
        "body": len(entry.body),
        "variants": [[coding, len(entry.variants[coding])] for coding in codings],
    }


def _decode_payload(payload: bytes) -> Entry:
    (length,) = cast("tuple[int]", _HEAD_LENGTH.unpack_from(payload))
    head = cast("dict[str, object]", json.loads(payload[_HEAD_LENGTH.size : _HEAD_LENGTH.size + length]))
    if head["kind"] == "vary":
        return VaryMark(
            key=_bytes(head["key"]),
            names=tuple(_bytes(name) for name in cast("list[object]", head["names"])),
            stored_at=_number(head["stored_at"]),
            lifetime=_number(head["lifetime"]),
            stamp=_text_of(head["stamp"]),
        )
    while_revalidate, if_error = cast("list[object]", head["stale"])
    if head["kind"] == "value":
        return StoredValue(
            key=_bytes(head["key"]),
            data=payload[_HEAD_LENGTH.size + length :],
            stored_at=_number(head["stored_at"]),
            lifetime=_number(head["lifetime"]),
            while_revalidate=_number(while_revalidate),
            if_error=_number(if_error),
            stamp=_text_of(head["stamp"]),
        )
    if head["kind"] != "response":
        raise ValueError("an entry of no known kind")
    entry = _decode_response(head, payload, _HEAD_LENGTH.size + length)
    entry.while_revalidate, entry.if_error = _number(while_revalidate), _number(if_error)
    return entry


def _decode_response(head: dict[str, object], payload: bytes, position: int) -> StoredResponse:
    bodies: dict[str, bytes] = {}
    sizes = [["", head["body"]], *cast("list[list[object]]", head["variants"])]
    for coding, size in sizes:
        end = position + int(_number(size))
        bodies[str(coding)] = payload[position:end]
        position = end
    if position != len(payload) or len(bodies) != len(sizes):
        raise ValueError("the bodies are not those of the head")
    return StoredResponse(
        key=_bytes(head["key"]),
        status=int(_number(head["status"])),
        headers=[
            (_bytes(name), _bytes(value)) for name, value in cast("list[list[object]]", head["headers"])
        ],
        body=bodies.pop(""),
        etag=_text_of(head["etag"]),
        stored_at=_number(head["stored_at"]),
        lifetime=_number(head["lifetime"]),
        initial_age=_number(head["initial_age"]),
        vary=tuple(
            (_bytes(name), None if value is None else _bytes(value))
            for name, value in cast("list[list[object]]", head["vary"])
        ),
        is_public=head["is_public"] is True,
        stamp=_text_of(head["stamp"]),
        variants=bodies,
    )


def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _bytes(value: object) -> bytes:
    return _text_of(value).encode("latin-1")


def _text_of(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("expected text")
    return value


def _number(value: object) -> float:
    # Not isfinite(): an integer that is too large for a float makes it raise something else.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _GREATEST_NUMBER:
        raise TypeError("expected a finite number from 0 on")
    return value
