"""A shared store that can not take the site down: deadlines and a circuit breaker."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from aeros.caching.stores.base import CoordinatedStore, SharedStore, StoreUnavailableError
from aeros.durations import Durations

T = TypeVar("T")


@dataclass(slots=True)
class _Circuit:
    """What is known of calls that fail.

    Attributes:
        failures: How many failed in a row.
        pause: For how many seconds none is made after the next try has failed.
        closed_until: When one may be tried again, in monotonic seconds.
    """

    failures: int
    pause: float
    closed_until: float


class GuardedStore:
    """A shared store that can not take the site down.

    Each call has a deadline. After three failures in a row the store is not asked for a while
    (one second, doubling up to thirty); one call then tries it again. A store that answers, but
    fails each call of one kind (its disk is full, it is a replica that takes no changes), is not
    asked for that. An outage is logged once when it begins and once when it ends.

    Args:
        store: The store itself.
        deadline_seconds: How long one call may take.
        clock: Monotonic seconds.

    Attributes:
        durations: By the kind of call, e.g. ``"read"``, how long calls took, failed ones too.
    """

    FAILURES_TO_OPEN: Final = 3
    FIRST_PAUSE_SECONDS: Final = 1.0
    LONGEST_PAUSE_SECONDS: Final = 30.0

    def __init__(
        self, store: SharedStore, *, deadline_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.store = store
        self.errors: int = 0
        self.durations: defaultdict[str, Durations] = defaultdict(Durations)
        self._deadline_seconds = deadline_seconds
        self._clock = clock
        self._whole = self._new_circuit()
        self._kinds: defaultdict[str, _Circuit] = defaultdict(self._new_circuit)

    @property
    def coordinates(self) -> bool:
        """Whether processes hear of each other through this store."""
        return isinstance(self.store, CoordinatedStore)

    @property
    def is_away(self) -> bool:
        """Whether the store is not asked, for all that is asked of it or for a part."""
        return self._is_away()

    async def answers(self) -> bool:
        """Tells whether the store can be read now, within the deadline."""
        try:
            await self.read("", ())
        except StoreUnavailableError:
            return False
        return True

    async def read(self, name: str, marks: Sequence[str]) -> tuple[str, bytes | None]:
        """Returns the stamp of the marks and the value of ``name``.

        Raises:
            StoreUnavailableError: The store failed, was too slow, or is not asked for now.
        """
        return await self._guarded("read", lambda: self.store.read(name, marks))

    async def write(self, name: str, value: bytes, ttl_seconds: float) -> None:
        """Keeps ``value``.

        Raises:
            StoreUnavailableError: As for ``read``.
        """
        await self._guarded("write", lambda: self.store.write(name, value, ttl_seconds))

    async def evict(self, marks: Sequence[str] | None, sender: str = "", *, insists: bool = False) -> None:
        """Gives the marks, or with None everything, new stamps.

        Args:
            marks: What to evict.
            sender: Who evicts, for those who listen.
            insists: Whether the store is asked even while it is away: nobody waits for the answer.

        Raises:
            StoreUnavailableError: As for ``read``.
        """
        await self._guarded("evict", lambda: self.store.evict(marks, sender), insists=insists)

    async def lock(self, name: str, owner: str, lapse_seconds: float) -> bool:
        """Takes or keeps a lock; True also where there are no locks, or the store is away."""
        store = self.store
        if not isinstance(store, CoordinatedStore):
            return True
        try:
            return await self._guarded("lock", lambda: store.lock(name, owner, lapse_seconds))
        except StoreUnavailableError:
            return True

    async def unlock(self, name: str, owner: str) -> None:
        """Gives a lock back; one that can not be given back lapses."""
        store = self.store
        if isinstance(store, CoordinatedStore):
            with suppress(StoreUnavailableError):
                await self._guarded("unlock", lambda: store.unlock(name, owner))

    async def is_locked(self, name: str) -> bool:
        """Tells whether anybody has the lock; False where that is not known."""
        store = self.store
        if not isinstance(store, CoordinatedStore):
            return False
        try:
            return await self._guarded("is_locked", lambda: store.is_locked(name))
        except StoreUnavailableError:
            return False

    async def close(self) -> None:
        """Gives back what belongs to the running event loop, within the deadline."""
        try:
            async with asyncio.timeout(self._deadline_seconds):
                await self.store.close()
        except Exception as error:  # noqa: BLE001 - whatever a store raises
            _logger().debug("The cache's store %r was not closed: %r", self.store, error)

    async def _guarded(self, kind: str, call: Callable[[], Awaitable[T]], *, insists: bool = False) -> T:
        circuit = self._whole if self._is_open(self._whole) else self._kinds[kind]
        is_trial = self._is_open(circuit) and not insists
        if is_trial:
            if self._clock() < circuit.closed_until:
                raise StoreUnavailableError("the store is not asked until its pause is over")
            # This call tries it; the others go on without until it has answered.
            circuit.closed_until = self._clock() + self._deadline_seconds
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self._deadline_seconds):
                answer = await call()
        except Exception as error:
            self._failed(kind, error, circuit if is_trial else None)
            raise StoreUnavailableError(f"{self.store!r}: {error!r}") from error
        finally:
            self.durations[kind].add(time.perf_counter() - began)
        self._answered(kind)
        return answer

    def _failed(self, kind: str, error: Exception, tried: _Circuit | None) -> None:
        self.errors += 1
        was_away = self._is_away()
        if tried is not None:
            tried.pause = min(tried.pause * 2, self.LONGEST_PAUSE_SECONDS)
            tried.closed_until = self._clock() + tried.pause
        counting = [self._whole] if self._is_open(self._whole) else [self._kinds[kind], self._whole]
        for circuit in counting:
            circuit.failures += 1
            # Calls that were under way when the outage began do not lengthen the pause.
            if circuit.failures == self.FAILURES_TO_OPEN:
                circuit.closed_until = self._clock() + circuit.pause
        if not was_away and self._is_away():
            _logger().warning(
                "The cache's store %r is away (%s): responses are made without it", self.store, _told(error)
            )

    def _answered(self, kind: str) -> None:
        was_away = self._is_away()
        # What failed by its own kind is tried by itself: that a change was taken says nothing of reading.
        self._whole = self._new_circuit()
        self._kinds.pop(kind, None)
        if was_away and not self._is_away():
            _logger().warning("The cache's store %r is back", self.store)

    def _is_away(self) -> bool:
        return self._is_open(self._whole) or any(map(self._is_open, self._kinds.values()))

    def _is_open(self, circuit: _Circuit) -> bool:
        return circuit.failures >= self.FAILURES_TO_OPEN

    def _new_circuit(self) -> _Circuit:
        return _Circuit(failures=0, pause=self.FIRST_PAUSE_SECONDS, closed_until=0.0)


def _told(error: Exception) -> str:
    # redis-py's own repr leaves out what the server said.
    return f"{type(error).__name__}({str(error)!r})" if str(error) else repr(error)


def _logger() -> logging.Logger:
    return logging.getLogger("aeros.cache")
