"""State that belongs to one event loop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import pytest

from aeros.per_loop import PerLoop


def on_new_loop(call: Callable[[], list[int]]) -> list[int]:
    """Calls a function on a loop of its own."""

    async def run() -> list[int]:
        return call()

    return asyncio.run(run())


async def test_a_loop_keeps_its_value() -> None:
    """The value is made at the first use and is the same one after that."""
    state: PerLoop[list[int]] = PerLoop(list)
    assert state.values() == []
    state.get().append(1)
    assert state.get() == [1]
    assert state.get() is state.get()


def test_two_loops_have_two_values() -> None:
    """What one loop holds is never seen by another."""
    state: PerLoop[list[int]] = PerLoop(list)
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()

    async def note(number: int) -> list[int]:
        state.get().append(number)
        return state.get()

    try:
        first.run_until_complete(note(1))
        assert second.run_until_complete(note(2)) == [2]
        assert first.run_until_complete(note(3)) == [1, 3]
        assert sorted(state.values()) == [[1, 3], [2]]
    finally:
        first.close()
        second.close()


def test_a_value_goes_with_its_loop() -> None:
    """A process that makes many loops does not grow."""
    state: PerLoop[list[int]] = PerLoop(list)
    assert on_new_loop(state.get) == []
    gc.collect()
    assert state.values() == []


def test_without_a_loop_there_is_no_value() -> None:
    """Asking outside of a loop is an error, not a value that nobody can use."""
    with pytest.raises(RuntimeError):
        PerLoop(list).get()
