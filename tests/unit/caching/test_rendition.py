"""How a stored response was sent is remembered for as long as all that it was made of is the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, cast

import pytest

from aeros.caching.entry import StoredResponse
from aeros.caching.rendition import Rendition, Renditions
from aeros.caching.stores.memory import MemoryStore
from aeros.http.cache_status import CacheStatus
from aeros.types import RawHeaders

GIVEN: Final[RawHeaders] = [(b"content-type", b"text/plain"), (b"age", b"1")]
TOLD: Final = CacheStatus(hit=True, ttl=59)


def rendition(*terms: object, headers: RawHeaders | None = None) -> Rendition:
    """Returns a rendition."""
    return Rendition(GIVEN, TOLD, terms, 200, headers or [*GIVEN, (b"vary", b"Accept-Encoding")], b"body")


def stored() -> StoredResponse:
    """Returns a stored response."""
    return StoredResponse(
        key=b"key", status=200, headers=list(GIVEN), body=b"body", etag='"a"', stored_at=0.0, lifetime=60.0
    )


def test_rendition_stands_while_nothing_differs() -> None:
    """Equal fields and labels, and the very same terms."""
    terms: list[Any] = [[1], {"a": 1}]
    kept = rendition(*terms)
    assert kept.is_of(list(GIVEN), replace(TOLD), tuple(terms))
    assert not kept.is_of([*GIVEN, (b"x", b"y")], TOLD, tuple(terms))
    assert not kept.is_of(GIVEN[::-1], TOLD, tuple(terms))
    assert not kept.is_of([(b"content-type", b"text/plain"), (b"age", b"2")], TOLD, tuple(terms))
    assert not kept.is_of(GIVEN, CacheStatus(hit=True, ttl=58), tuple(terms))
    assert not kept.is_of(GIVEN, TOLD, ([1], terms[1]))
    assert not kept.is_of(GIVEN, TOLD, (terms[0], {"a": 1}))
    with pytest.raises(ValueError, match="shorter"):
        kept.is_of(GIVEN, TOLD, (terms[0],))


def test_renditions_are_few() -> None:
    """Four kinds; the one that came first leaves for a fifth, and one of a known kind takes its place."""
    entry = stored()
    assert entry.rendition((0,)) is None
    for number in range(4):
        entry.keep_rendition((number,), rendition())
    newest = rendition(1)
    entry.keep_rendition((2,), newest)
    assert entry.renditions is not None
    assert list(entry.renditions) == [(0,), (1,), (2,), (3,)]
    assert entry.rendition((2,)) is newest
    entry.keep_rendition((4,), rendition())
    assert list(entry.renditions) == [(1,), (2,), (3,), (4,)]
    assert entry.rendition((0,)) is None


def test_variant_forgets_them() -> None:
    """What was sent before there was a body in this coding is not what is sent now."""
    entry = stored()
    entry.keep_rendition(("GET", b"gzip"), rendition())
    entry.add_variant("gzip", b"coded")
    assert entry.rendition(("GET", b"gzip")) is None
    assert entry.renditions is None


def test_their_room_counts() -> None:
    """In the entry's size, and in what the store in memory takes, also where one replaces a smaller one."""
    store, entry = MemoryStore(10**6), stored()
    entry.on_growth = cast(Any, store.recount)
    bare = entry.size
    store.set(entry.key, entry, checked_at=0.0)
    assert store.total_bytes == bare
    sizes: list[int] = []
    for key, headers in [("a", GIVEN), ("b", GIVEN), ("a", [(b"x", b"y" * 5_000)]), ("b", GIVEN)]:
        made = rendition(headers=list(headers))
        entry.keep_rendition((key,), made)
        assert made.size > sum(len(name) + len(value) for name, value in headers)
        assert store.total_bytes == entry.size
        sizes.append(entry.size)
    assert bare < sizes[0] < sizes[1] < sizes[2] - 4_000
    assert sizes[2] == sizes[3]
    entry.add_variant("gzip", b"coded")
    assert store.total_bytes == entry.size == bare + len(b"coded")


def test_too_many_bytes_of_them_drive_the_entry_out() -> None:
    """They are no way around the bound of the store."""
    entry = stored()
    store = MemoryStore(entry.size + 3_000)
    entry.on_growth = cast(Any, store.recount)
    store.set(entry.key, entry, checked_at=0.0)
    entry.keep_rendition((0,), rendition())
    assert len(store) == 1
    entry.keep_rendition((0,), rendition(headers=[(b"x", b"y" * 5_000)]))
    assert (len(store), store.total_bytes, store.evictions) == (0, 0, 1)


def test_size_is_the_sum_of_all() -> None:
    """Growing is told, shrinking is not."""
    kept = Renditions()
    assert kept.keep((0,), rendition())
    assert kept.keep((1,), rendition(headers=[(b"a", b"b" * 100)]))
    assert not kept.keep((1,), rendition(headers=[(b"a", b"b")]))
    assert kept.keep((1,), rendition(headers=[(b"a", b"b" * 9)]))
    assert kept.size == sum(one.size for one in kept.values())
