"""Admission: how many requests one worker handles at once, and how many may wait in line."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

from aeros.per_loop import PerLoop


class Slot:
    """The right to be handled, given back exactly once."""

    __slots__ = ("_line",)

    def __init__(self, line: _Line) -> None:
        self._line: _Line | None = line

    def release(self) -> None:
        """Gives the slot to the next in line; a second call does nothing."""
        line, self._line = self._line, None
        if line is not None:
            line.leave()


class Admission:
    """Slots for requests, first come first served; one line for each event loop, so per worker.

    Attributes:
        refused: How many requests were told 503.
    """

    __slots__ = ("_has_refused", "_lines", "refused")

    def __init__(self) -> None:
        self.refused: int = 0
        self._lines: PerLoop[_Line] = PerLoop(_Line)
        self._has_refused = False

    def is_first_refusal(self) -> bool:
        """Tells once that a request was refused: the first time it is asked."""
        first, self._has_refused = not self._has_refused, True
        return first

    def occupancy(self) -> tuple[int, int]:
        """Returns how many requests hold a slot, and how many wait for one. From any thread."""
        lines = self._lines.values()
        return sum(line.handled for line in lines), sum(line.waiting for line in lines)

    def enter_at_once(self, soft_limit: int | None, hard_limit: int | None) -> Slot | None:
        """Returns a slot where there is one and nobody waits for it; None: ``enter()`` has to be asked.

        Args:
            soft_limit: As for ``enter``.
            hard_limit: As for ``enter``.
        """
        line = self._lines.get()
        return Slot(line) if line.take(soft_limit, hard_limit) else None

    async def enter(self, soft_limit: int | None, hard_limit: int | None) -> Slot | None:
        """Waits for a slot and returns it; None where the request must be refused.

        Args:
            soft_limit: How many hold a slot at once; None: any number.
            hard_limit: How many hold or wait for one; None: any number.
        """
        line = self._lines.get()
        if hard_limit is not None and line.total >= hard_limit:
            return None
        await line.wait(soft_limit)
        return Slot(line)


class _Line:
    """The slots of one loop and those who wait for one."""

    __slots__ = ("_handled", "_soft_limit", "_waiting")

    def __init__(self) -> None:
        self._handled = 0
        self._soft_limit: int | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def handled(self) -> int:
        """How many hold a slot."""
        return self._handled

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._waiting)

    @property
    def total(self) -> int:
        """How many hold a slot or wait for one."""
        return self._handled + len(self._waiting)

    def take(self, soft_limit: int | None, hard_limit: int | None = None) -> bool:
        """Takes a slot if one is free, and nobody waits for it."""
        self._soft_limit = soft_limit
        handled = self._handled
        if (
            self._waiting
            or (soft_limit is not None and handled >= soft_limit)
            or (hard_limit is not None and handled >= hard_limit)
        ):
            return False
        self._handled = handled + 1
        return True

    async def wait(self, soft_limit: int | None) -> None:
        if self.take(soft_limit):
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._call()  # the limit may have been raised since the others began to wait
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with suppress(ValueError):  # passed over when its turn came
                    self._waiting.remove(turn)
            else:
                self.leave()  # called in the same moment: the slot goes to the next
            raise

    def leave(self) -> None:
        """Gives one slot to the next in line."""
        self._handled -= 1
        if self._waiting:
            self._call()

    def _call(self) -> None:
        while self._waiting and self._has_room():
            turn = self._waiting.popleft()
            if not turn.done():  # else its client has left, and its task has not run yet
                self._handled += 1
                turn.set_result(None)

    def _has_room(self) -> bool:
        return self._soft_limit is None or self._handled < self._soft_limit
