"""Counts for ranges of seconds."""

from __future__ import annotations

import pytest

from aeros.durations import BOUNDS, Durations


def test_each_is_counted_in_its_range() -> None:
    """A bound belongs to the range that it ends."""
    counted = Durations()
    for seconds in (0.0, BOUNDS[0], BOUNDS[0] * 1.01, 11.0):
        counted.add(seconds)
    assert counted.cumulative() == [2, *[3] * (len(BOUNDS) - 1), 4]
    assert counted.seconds == pytest.approx(BOUNDS[0] * 2.01 + 11)


def test_counts_are_joined() -> None:
    """As if all had been counted in one place."""
    one, other = Durations(), Durations()
    one.add(0.002, times=3)
    other.add(0.2)
    one.join(other)
    assert one.cumulative()[-1] == 4
    assert one.seconds == pytest.approx(0.206)
