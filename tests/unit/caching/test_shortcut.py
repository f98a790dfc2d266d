"""What an answer tells of the time is what the entry would tell, at every moment."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from aeros.caching.shortcut import Recording
from aeros.http.cache_status import CacheStatus
from aeros.types import RawHeaders


@dataclass
class Entry:
    """What becomes older, from a moment on that the cache moves where its clock is set back."""

    stored_at: float
    lifetime: float = 60.0

    def age(self, now: float) -> float:
        """Returns its age in seconds."""
        return max(0.0, now - self.stored_at)

    def ttl(self, now: float) -> float:
        """Returns for how many more seconds it is fresh."""
        return self.lifetime - self.age(now)


def recorded(entry: Entry, now: float) -> Recording:
    """Returns the recording of an answer that was given at a moment."""
    status = CacheStatus(hit=True, ttl=int(entry.ttl(now)))
    recording = Recording(told(entry, now), b"body", ())
    assert recording.begins_at(entry, now, status)
    return recording


def told(entry: Entry, now: float) -> RawHeaders:
    """Returns the fields that door 3 would send at a moment."""
    status = CacheStatus(hit=True, ttl=int(entry.ttl(now))).render().encode()
    return [(b"age", b"%d" % int(entry.age(now))), (b"x-one", b"1"), (b"cache-status", status)]


@pytest.mark.parametrize("step", [0.125, 0.25, 0.5, 1.0, 1.75])
@pytest.mark.parametrize("lifetime", [7.0, 6.5, 6.125])
def test_fields_are_those_of_the_moment(step: float, lifetime: float) -> None:
    """On full seconds, between them, and where age and lifetime do not change at the same time."""
    entry, now = Entry(1_000.0, lifetime), 1_000.0
    recording = recorded(entry, now)
    while entry.ttl(now) > 0:
        for moment in (now, now):
            assert recording.is_current(entry, moment)
            assert recording.headers == told(entry, moment)
        now += step
    assert not recording.is_current(entry, now)


def test_clock_that_is_set_back_counts_from_there() -> None:
    """The entry counts as stored at the earlier moment then, and what was told before is told no more."""
    entry = Entry(1_000.0)
    recording = recorded(entry, 1_000.0)
    assert recording.is_current(entry, 1_000.0)
    assert not recording.is_current(entry, 998.0)
    entry.stored_at = 998.0
    assert recording.is_current(entry, 1_000.0)
    assert recording.headers == told(entry, 1_000.0)
    assert recording.headers[0] == (b"age", b"2")
