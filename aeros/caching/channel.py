"""Hearing of what other processes evict."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Final

from aeros.caching.stores.base import CoordinatedStore

_RETRY_SECONDS: Final = 1.0


class Channel:
    """One loop's subscription to what other processes evict."""

    __slots__ = ("_epoch", "_epochs", "_forget", "_heard_at", "_local_seconds", "_name", "_next_try", "_task")

    def __init__(
        self,
        forget: Callable[[Sequence[str] | None], object],
        epochs: Iterator[int],
        local_seconds: float,
        name: str,
    ) -> None:
        self._forget = forget
        self._epochs = epochs
        self._local_seconds = local_seconds
        self._name = name
        self._epoch = 0
        self._heard_at = 0.0
        self._next_try = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def epoch(self) -> int:
        """The subscription that stands and was heard of lately; 0: none."""
        is_alive = self._epoch and monotonic() - self._heard_at <= self._local_seconds
        return self._epoch if is_alive else 0

    def open(self, store: CoordinatedStore) -> int:
        """Makes sure that this loop listens, or tries to; returns the subscription that stands."""
        if self._task is None and self._local_seconds > 0 and monotonic() >= self._next_try:
            self._task = asyncio.create_task(self._listen(store))
        return self.epoch

    async def close(self) -> None:
        """Ends the subscription."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            self._task = None  # it may have been ended before it began

    async def _listen(self, store: CoordinatedStore) -> None:
        try:
            await store.listen(self._heard, self._evicted, self._local_seconds / 2, self._name)
        except Exception as error:  # noqa: BLE001 - whatever a store raises
            # The guard tells of an outage; without this channel memory is trusted less, that is all.
            _logger().debug("Not listening to evictions of other processes: %r", error)
        finally:
            self._epoch = 0
            self._next_try = monotonic() + _RETRY_SECONDS
            self._task = None

    def _heard(self) -> None:
        self._heard_at = monotonic()
        if not self._epoch:
            self._epoch = next(self._epochs)

    def _evicted(self, marks: Sequence[str] | None) -> None:
        self._forget(marks)


def _logger() -> logging.Logger:
    return logging.getLogger("aeros.cache")
