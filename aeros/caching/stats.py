"""The counters of a cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """The counters of one cache in this process, as they were when it was asked.

    Values of memoized functions count like responses.

    Attributes:
        hits: Responses from the cache, fresh.
        hits_by_door: Those, by where they were answered: 1, before the application was called; 2, before
            a view was looked for; 3, where the view would have run.
        stale: Responses from the cache that were stale: a new one was being made, or could not be.
        misses: Requests whose view ran and whose response could be stored.
        collapsed: Requests that waited for another one's view and got its response.
        bypasses: Responses that were not stored or requests not looked up, by reason.
        stores: Responses stored.
        refreshes: Views that ran in the background to replace a stale response.
        refresh_failures: Those of them that brought an error; the stale response stayed.
        evictions: Responses that left to make room.
        evicted: Responses that were told to leave, by tag, path or everything.
        entries: Entries in memory now.
        bytes: What they take in memory, about.
        damaged: Entries of the shared store that could not be read.
        store_errors: Calls to the shared store that failed.
    """

    hits: int
    hits_by_door: Mapping[int, int]
    stale: int
    misses: int
    collapsed: int
    bypasses: Mapping[str, int]
    stores: int
    refreshes: int
    refresh_failures: int
    evictions: int
    evicted: int
    entries: int
    bytes: int
    damaged: int
    store_errors: int
