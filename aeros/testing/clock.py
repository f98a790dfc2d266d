"""A clock that goes when a test tells it to."""

from __future__ import annotations

import time
from datetime import timedelta

from aeros.caching.server import Cache
from aeros.errors import InvalidSettingError


class Clock:
    """Seconds since the epoch, for ``Cache(clock=...)``; it stands still until it is moved.

    Args:
        now: Where it begins; None: now.
    """

    def __init__(self, now: float | None = None) -> None:
        self.now: float = time.time() if now is None else now

    def __call__(self) -> float:
        """Returns the time."""
        return self.now

    def advance(self, by: float | timedelta) -> None:
        """Moves the time on.

        Args:
            by: Seconds, or a ``timedelta``.

        Raises:
            InvalidSettingError: It is no duration; the time does not go back.
        """
        seconds = by.total_seconds() if isinstance(by, timedelta) else by
        if isinstance(seconds, bool) or not seconds >= 0:
            raise InvalidSettingError("advance(by=)", by, "seconds from 0 on, or a timedelta")
        self.now += seconds


def clocked(cache: Cache, clock: Clock) -> Cache:
    """Returns an empty cache with the settings of ``cache`` that goes by ``clock``, in memory alone."""
    return Cache(
        default_timeout=cache.default_timeout,
        max_bytes=cache.max_bytes,
        max_variants=cache.max_variants,
        flight_deadline_seconds=cache.flight_deadline_seconds,
        clock=clock,
    )
