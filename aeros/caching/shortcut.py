"""What a hit was answered with, so that the next one need not ask for its view."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import floor
from typing import Final, Protocol, TypeAlias

from aeros.http.cache_status import CacheStatus
from aeros.types import RawHeaders

RecordingKey: TypeAlias = tuple[object, ...]
"""What of a request decides between the answers that one entry has been given."""

_MOST_RECORDINGS: Final = 8
_RECORDING_BYTES: Final = 1_200  # its objects, and the head that is made of it


class Aging(Protocol):
    """What becomes older."""

    @property
    def stored_at(self) -> float:
        """When it was stored, in seconds since the epoch."""
        ...

    def age(self, now: float) -> float:
        """Returns its age in seconds."""
        ...

    def ttl(self, now: float) -> float:
        """Returns for how many more seconds it is fresh."""
        ...


class Recording:
    """One answer to a hit: its fields, of which those that tell the time are made anew each second.

    Args:
        headers: The fields as they were sent.
        content: The body as it was sent.
        terms: What else decides about the answer; it stands while each of them is the same object.

    Attributes:
        headers: The fields as they are now, once ``is_current()`` has said so.
        head: Whatever a server makes of ``headers``, and what it was made for.
        answer: Whatever the doors have made of it; None: it says another time than that.
    """

    __slots__ = (
        "_age_at",
        "_since",
        "_status_at",
        "_stored_at",
        "_ttl_until",
        "_until",
        "answer",
        "content",
        "head",
        "headers",
        "terms",
    )

    def __init__(self, headers: RawHeaders, content: bytes, terms: tuple[object, ...]) -> None:
        self.headers: RawHeaders = headers
        self.content: bytes = content
        self.terms: tuple[object, ...] = terms
        self.head: tuple[object, object, bytes, bool] | None = None
        self.answer: object = None
        self._age_at = self._status_at = -1
        self._since = self._until = self._ttl_until = 0.0
        self._stored_at: float = 0.0

    def begins_at(self, entry: Aging, now: float, status: CacheStatus | None) -> bool:
        """Finds the fields that tell the time; returns whether they are as they should be.

        Args:
            entry: What was answered with.
            now: When, in seconds since the epoch.
            status: What ``Cache-Status`` told; None where it is not shown.
        """
        age = b"%d" % int(entry.age(now))
        ages = [index for index, (name, _) in enumerate(self.headers) if name == b"age"]
        told = [index for index, (name, _) in enumerate(self.headers) if name == b"cache-status"]
        if len(ages) != 1 or self.headers[ages[0]][1] != age:
            return False
        self._age_at = ages[0]
        if status is not None:
            if not told or self.headers[told[-1]][1] != status.render().encode("ascii"):
                return False
            self._status_at = told[-1]
        return True

    def is_current(self, entry: Aging, now: float) -> bool:
        """Makes ``headers`` tell the time; returns whether the answer is fresh still."""
        if (
            self._since <= now < self._until
            and now <= self._ttl_until
            and entry.stored_at == self._stored_at  # which moves where the clock is set back
        ):
            return True
        age = entry.age(now)
        ttl = entry.ttl(now)
        if ttl <= 0 or now < entry.stored_at:  # the clock was set back: that is not for here
            return False
        headers = list(self.headers)
        headers[self._age_at] = (b"age", b"%d" % int(age))
        if self._status_at >= 0:
            told = CacheStatus(hit=True, ttl=int(ttl)).render().encode("ascii")
            headers[self._status_at] = (b"cache-status", told)
        self.headers = headers
        self.answer = None
        self._since = now
        self._stored_at = entry.stored_at
        # Whole seconds are told: an age is one more from the full second on, a rest one less after it.
        # At the moment at which no rest is left it is fresh no more.
        self._until = now + min(floor(age) + 1 - age, ttl)
        self._ttl_until = now + ttl - floor(ttl)
        return True

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, about; the content is the entry's."""
        return _RECORDING_BYTES + 2 * sum(len(name) + len(value) + 100 for name, value in self.headers)


@dataclass(slots=True, eq=False)
class Shortcut:
    """How an entry can be answered with, without its view.

    Attributes:
        way: What the application has said of the way to its view; its own.
        path: The path as the router sees it.
        root_path: Where the application is mounted.
        methods: Of which requests it is known that the way is theirs.
        is_direct: Whether the path is what a server makes of the raw one, and nothing is mounted.
        recordings: Answers, by what of a request decides between them.
    """

    way: object
    path: str
    root_path: str
    methods: tuple[str, ...]
    is_direct: bool = False
    recordings: dict[tuple[object, ...], Recording] = field(
        default_factory=dict[tuple[object, ...], Recording]
    )

    def add(self, key: RecordingKey, recording: Recording) -> None:
        """Keeps an answer; the oldest leaves where there are too many."""
        self.recordings.pop(key, None)
        while len(self.recordings) >= _MOST_RECORDINGS:
            self.recordings.pop(next(iter(self.recordings)))
        self.recordings[key] = recording

    @property
    def size(self) -> int:
        """Bytes of memory that the recordings take, about; the rest is the same for each response."""
        return sum(recording.size for recording in self.recordings.values())
