"""Evictions that the shared store has not been told of yet."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

_MOST_PENDING: Final = 1_000


@dataclass(frozen=True, slots=True)
class Batch:
    """Evictions to tell the store of together; numbers tell them from later ones of the same marks."""

    everything: int
    numbers: dict[str, int]

    @property
    def marks(self) -> Sequence[str] | None:
        """What to evict; None: everything."""
        return None if self.everything else list(self.numbers)


class Pending:
    """Evictions that the store has not been told of, from any thread."""

    __slots__ = ("_everything", "_lock", "_marks", "_numbers")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._marks: dict[str, int] = {}
        self._everything = 0
        self._numbers = count(1)

    def __bool__(self) -> bool:
        return bool(self._marks or self._everything)

    def add(self, marks: Sequence[str] | None) -> None:
        """Takes an eviction; None: of everything."""
        with self._lock:
            number = next(self._numbers)
            if marks is not None:
                self._marks.update(dict.fromkeys(marks, number))
            if marks is None or len(self._marks) > _MOST_PENDING:
                self._everything = number
                self._marks.clear()

    def batch(self) -> Batch | None:
        """Returns what to tell next; None where all has been told."""
        with self._lock:
            if self._everything:
                return Batch(self._everything, {})
            return Batch(0, dict(self._marks)) if self._marks else None

    def told(self, batch: Batch) -> None:
        """Forgets a batch, but for what was evicted again meanwhile."""
        with self._lock:
            if batch.everything and self._everything == batch.everything:
                self._everything = 0
            for mark, number in batch.numbers.items():
                if self._marks.get(mark) == number:
                    del self._marks[mark]
