"""How long things take: counts for ranges of seconds, as a histogram wants them."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import Final

BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Up to how many seconds each range goes; one more has what takes longer."""


class Durations:
    """How often something took how long.

    Attributes:
        seconds: All of it together.
    """

    __slots__ = ("_counts", "seconds")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self.seconds: float = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        """Counts what took so long, once or several times."""
        self._counts[bisect_left(BOUNDS, seconds)] += times
        self.seconds += seconds * times

    def join(self, other: Durations) -> None:
        """Counts all that another one has counted."""
        self._counts = [mine + theirs for mine, theirs in zip(self._counts, other._counts, strict=True)]
        self.seconds += other.seconds

    def cumulative(self) -> list[int]:
        """Returns how often it took at most as long as each of ``BOUNDS``, and last how often at all."""
        return list(accumulate(self._counts))
