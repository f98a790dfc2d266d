"""How a stored response was sent: what its hooks, coding and labels have made of it, for the next one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from aeros.http.cache_status import CacheStatus
from aeros.types import RawHeaders

_MOST_RENDITIONS: Final = 4
_RENDITION_BYTES: Final = 1_200  # its objects, and the head that is made of it


@dataclass(slots=True)
class Memory:
    """A head, and what it was made of: the fields, and those that the server adds."""

    head: tuple[object, object, bytes, bool] | None = None


@dataclass(frozen=True, slots=True)
class Rendition:
    """One way in which a stored response went out. It stands while all that it was made of is the same.

    Attributes:
        given: The fields with which the response came.
        told: What the cache had to say of it.
        terms: What else it was made of: the same objects.
        status: The status code that was sent.
        headers: The fields that were sent.
        content: The body that was sent; one of those that the entry keeps.
        memory: Where a server keeps the head that it made of the fields.
    """

    given: RawHeaders
    told: CacheStatus
    terms: tuple[object, ...]
    status: int
    headers: RawHeaders
    content: bytes
    memory: Memory = field(default_factory=Memory, compare=False)

    def is_of(self, given: RawHeaders, told: CacheStatus, terms: tuple[object, ...]) -> bool:
        """Tells whether a response with these fields goes out in the same way."""
        return (
            given == self.given
            and told == self.told
            and all(mine is theirs for mine, theirs in zip(self.terms, terms, strict=True))
        )

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, about; the content is the entry's."""
        return _RENDITION_BYTES + sum(len(name) + len(value) + 100 for name, value in self.headers)


class Renditions(dict[tuple[object, ...], Rendition]):
    """The ways in which a stored response went out, by what of a request decides between them."""

    def keep(self, key: tuple[object, ...], rendition: Rendition) -> bool:
        """Keeps one, in place of the oldest where there are too many; returns whether they take more room."""
        before = self.get(key)
        if before is None and len(self) >= _MOST_RENDITIONS:
            del self[next(iter(self))]
        self[key] = rendition
        return before is None or rendition.size > before.size

    @property
    def size(self) -> int:
        """Bytes of memory that they take, about."""
        return sum(rendition.size for rendition in self.values())
