"""Single flight: a view runs once for all who ask for the same thing at the same time.

One request leads: it runs the view, and the others wait for what it brings. With a shared store that
has locks, the leaders of several processes agree in the same way on one among them. What has just
shown that it can not be stored is not waited for: such requests run side by side at once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from time import monotonic
from typing import Final, Generic, TypeVar

from aeros.caching.leases import Lease
from aeros.per_loop import PerLoop

EntryT = TypeVar("EntryT")

_FIRST_POLL_SECONDS: Final = 0.01
_LONGEST_POLL_SECONDS: Final = 0.1
_REFUSAL_SECONDS: Final = 10.0
_MOST_REFUSALS: Final = 10_000
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 30.0


class Landing(Enum):
    """How a flight ended that brought nothing to share."""

    NOTHING = "the view ran, and what it returned is for its own client only"
    TURNED_BACK = "the leader left before its view ran: somebody else may lead"
    TOO_LONG = "it takes longer than anybody may wait"


class Flight(Generic[EntryT]):
    """One view that runs for several requests."""

    __slots__ = ("_brought", "_flights", "_key", "_landed", "_lease", "ends_at")

    def __init__(self, flights: dict[bytes, Flight[EntryT]], key: bytes, deadline_seconds: float) -> None:
        self.ends_at: float = monotonic() + deadline_seconds
        self._flights = flights
        self._key = key
        self._brought: EntryT | Landing | None = None
        self._landed: asyncio.Future[EntryT | Landing] | None = None  # made for the first who waits
        self._lease: Lease | None = None

    @property
    def is_over(self) -> bool:
        """Whether it takes longer than anybody may wait."""
        return monotonic() > self.ends_at

    def remove(self) -> None:
        """Makes room for another flight of the same key."""
        if self._flights.get(self._key) is self:
            del self._flights[self._key]

    def hold(self, lease: Lease | None) -> None:
        """Keeps a lock until the flight lands."""
        self._lease = lease

    async def wait(self) -> EntryT | Landing:
        """Returns what the leader brought, or why there is nothing."""
        if self._brought is not None:
            return self._brought
        landed = self._landed
        if landed is None:
            landed = self._landed = asyncio.get_running_loop().create_future()
        done, _ = await asyncio.wait([landed], timeout=max(0.0, self.ends_at - monotonic()))
        if done:
            return landed.result()
        self.remove()
        return Landing.TOO_LONG

    def land(self, brought: EntryT | Landing) -> None:
        """Gives those who wait what was brought; a second call does nothing."""
        self.remove()
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()
        if self._brought is None:
            self._brought = brought
            if self._landed is not None:
                self._landed.set_result(brought)


@dataclass(frozen=True, slots=True)
class _Failure:
    count: int = 0
    until: float = 0.0


class Flights(Generic[EntryT]):
    """The flights of one cache, on each event loop its own.

    Args:
        deadline_seconds: How long a request waits for another one's view.
        most: How many flights there may be at once on a loop; past it, views just run.
    """

    def __init__(self, *, deadline_seconds: float, most: int) -> None:
        self._deadline_seconds = deadline_seconds
        self._most = most
        self._flights: PerLoop[dict[bytes, Flight[EntryT]]] = PerLoop(dict)
        self._refusals: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        self._failures: OrderedDict[bytes, _Failure] = OrderedDict()

    def under_way(self, key: bytes) -> Flight[EntryT] | None:
        """Returns the flight of a key, if there is one to wait for."""
        flight = self._flights.get().get(key)
        if flight is not None and flight.is_over:
            flight.remove()  # it hangs: who comes from now on does not wait for it
            return None
        return flight

    def begin(self, key: bytes, *, grace_seconds: float = 0.0) -> Flight[EntryT] | None:
        """Begins the flight of a key; None where there are too many flights already.

        Args:
            key: The key.
            grace_seconds: How much longer than usual it may take.
        """
        flights = self._flights.get()
        if len(flights) >= self._most:
            return None
        flight: Flight[EntryT] = Flight(flights, key, self._deadline_seconds + grace_seconds)
        flights[key] = flight
        return flight

    # What can not be stored

    def refuse(self, key: bytes, reason: str) -> None:
        """Takes note that what a key stands for could not be stored: nobody waits for it for a while."""
        # Not move_to_end(): another thread may have taken it out meanwhile.
        self._refusals.pop(key, None)
        self._refusals[key] = reason, monotonic() + _REFUSAL_SECONDS
        if len(self._refusals) > _MOST_REFUSALS:
            self._refusals.popitem(last=False)

    def refusal(self, key: bytes) -> str | None:
        """Returns why the last response could not be stored; None where it was, or that is long ago."""
        refused = self._refusals.get(key)
        return refused[0] if refused is not None and monotonic() < refused[1] else None

    def accept(self, key: bytes) -> None:
        """Takes note that a response was stored."""
        self._refusals.pop(key, None)
        self._failures.pop(key, None)

    # What could not be refreshed

    def fail(self, key: bytes) -> None:
        """Takes note that no new response could be made: the next try waits, longer each time."""
        failure = self._failures.pop(key, None) or _Failure()
        pause = min(_FIRST_PAUSE_SECONDS * 2**failure.count, _LONGEST_PAUSE_SECONDS)
        self._pause(key, min(failure.count + 1, 16), pause)

    def hold_off(self, key: bytes) -> None:
        """Lets another process try first."""
        failure = self._failures.pop(key, None) or _Failure()
        self._pause(key, failure.count, _FIRST_PAUSE_SECONDS)

    def pauses(self, key: bytes) -> bool:
        """Whether it is too early to try again."""
        failure = self._failures.get(key)
        return failure is not None and monotonic() < failure.until

    def _pause(self, key: bytes, count: int, seconds: float) -> None:
        self._failures[key] = _Failure(count, monotonic() + seconds)
        if len(self._failures) > _MOST_REFUSALS:
            self._failures.popitem(last=False)


def polls(ends_at: float) -> Iterator[float]:
    """Returns the pauses in which another process's result is asked for, up to a monotonic time."""
    pause = _FIRST_POLL_SECONDS
    # The time that asking takes counts as well.
    while (left := ends_at - monotonic()) > 0:
        yield min(pause, left)
        pause = min(pause * 2, _LONGEST_POLL_SECONDS)
