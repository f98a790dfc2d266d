"""Evictions that a store is still to be told of: none is forgotten, and none is told for another."""

from __future__ import annotations

import threading

import pytest

from aeros.caching.pending import Pending


def test_nothing_is_pending_at_first() -> None:
    """And nothing is to be told."""
    pending = Pending()
    assert not pending
    assert pending.batch() is None


def test_marks_are_told_together_and_once() -> None:
    """In one call, whatever number of evictions they came from."""
    pending = Pending()
    pending.add(["a", "b"])
    pending.add(["b", "c"])
    assert pending
    batch = pending.batch()
    assert batch is not None
    assert list(batch.marks or ()) == ["a", "b", "c"]
    pending.told(batch)
    assert (bool(pending), pending.batch()) == (False, None)


def test_a_batch_that_was_not_told_stays() -> None:
    """The store may have been away."""
    pending = Pending()
    pending.add(["a"])
    first, second = pending.batch(), pending.batch()
    assert first == second is not None
    assert pending


def test_what_is_evicted_again_while_it_is_told_is_told_again() -> None:
    """A view may have begun between: it needs a stamp of after the second eviction."""
    pending = Pending()
    pending.add(["a", "b"])
    batch = pending.batch()
    assert batch is not None
    pending.add(["b", "c"])
    pending.told(batch)
    left = pending.batch()
    assert left is not None
    assert list(left.marks or ()) == ["b", "c"]


def test_everything_is_told_at_once_and_before_what_came_later() -> None:
    """What is a part of everything need not be told; what was evicted later must be."""
    pending = Pending()
    pending.add(["a"])
    pending.add(None)
    pending.add(["b"])
    first = pending.batch()
    assert first is not None
    assert first.marks is None
    pending.told(first)
    second = pending.batch()
    assert second is not None
    assert second.marks == ["b"]
    pending.told(second)
    assert not pending


def test_everything_that_is_evicted_again_while_it_is_told_is_told_again() -> None:
    """As with marks."""
    pending = Pending()
    pending.add(None)
    batch = pending.batch()
    assert batch is not None
    pending.add(None)
    pending.told(batch)
    again = pending.batch()
    assert again is not None
    assert again.marks is None
    pending.told(again)
    assert not pending


def test_marks_that_are_told_while_everything_is_evicted_leave_it_to_be_told() -> None:
    """And telling everything does not count for marks that came after it."""
    pending = Pending()
    pending.add(["a"])
    marks = pending.batch()
    pending.add(None)
    everything = pending.batch()
    pending.add(["a"])
    assert marks is not None
    assert everything is not None
    pending.told(marks)
    assert pending.batch() == everything
    pending.told(everything)
    left = pending.batch()
    assert left is not None
    assert left.marks == ["a"]


@pytest.mark.parametrize(("count", "is_everything"), [(1000, False), (1001, True)])
def test_more_than_a_thousand_marks_are_everything(count: int, is_everything: bool) -> None:
    """A store that is away for a day does not fill the memory."""
    pending = Pending()
    for number in range(count):
        pending.add([f"m{number}"])
    batch = pending.batch()
    assert batch is not None
    assert (batch.marks is None) is is_everything
    assert batch.numbers == {} if is_everything else len(batch.numbers) == count
    pending.told(batch)
    assert not pending


def test_an_eviction_of_nothing_is_none() -> None:
    """A list may be empty."""
    pending = Pending()
    pending.add([])
    assert pending.batch() is None


def test_threads_lose_no_eviction() -> None:
    """Whoever adds while another one tells."""
    pending, told = Pending(), list[str]()
    is_over = threading.Event()

    def add(seed: int) -> None:
        for number in range(2000):
            pending.add([f"{seed}:{number % 100}"])
        pending.add([f"{seed}:last"])

    def tell() -> None:
        while not is_over.is_set() or pending:
            batch = pending.batch()
            if batch is not None:
                told.extend(batch.marks or ())
                pending.told(batch)

    adding = [threading.Thread(target=add, args=(seed,)) for seed in range(4)]
    telling = threading.Thread(target=tell)
    telling.start()
    for thread in adding:
        thread.start()
    for thread in adding:
        thread.join()
    is_over.set()
    telling.join()
    assert set(told) == {f"{seed}:{name}" for seed in range(4) for name in [*range(100), "last"]}
    assert not pending
