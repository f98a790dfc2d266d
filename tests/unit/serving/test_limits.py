"""Admission: slots are taken in order, given back once, and never lost."""

from __future__ import annotations

import asyncio

import pytest

from aeros.serving.limits import Admission, Slot


async def turns(count: int = 5) -> None:
    """Lets all that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def entered(admission: Admission, soft_limit: int | None, hard_limit: int | None = None) -> Slot:
    """Returns a slot that must be free at once."""
    async with asyncio.timeout(5):
        slot = await admission.enter(soft_limit, hard_limit)
    assert slot is not None
    return slot


async def test_as_many_as_the_soft_limit_enter_at_once() -> None:
    """The next one waits until a slot is given back."""
    admission = Admission()
    first, _ = await entered(admission, 2), await entered(admission, 2)
    third = asyncio.create_task(entered(admission, 2))
    await turns()
    assert not third.done()
    first.release()
    assert isinstance(await third, Slot)


async def test_those_who_wait_enter_first_come_first_served() -> None:
    """Nobody overtakes, not even one who comes while a slot is being handed over."""
    admission, order = Admission(), list[int]()
    slot = await entered(admission, 1)

    async def visit(number: int) -> None:
        own = await entered(admission, 1)
        order.append(number)
        await asyncio.sleep(0)
        own.release()

    tasks = [asyncio.create_task(visit(number)) for number in range(5)]
    await turns()
    slot.release()
    tasks.append(asyncio.create_task(visit(5)))
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4, 5]


async def test_past_the_hard_limit_a_request_is_refused_at_once() -> None:
    """Those who are handled and those who wait count together."""
    admission = Admission()
    first = await entered(admission, 1, 2)
    waiting = asyncio.create_task(admission.enter(1, 2))
    await turns()
    assert await admission.enter(1, 2) is None
    first.release()
    second = await waiting
    third = asyncio.create_task(admission.enter(1, 2))
    await turns()
    assert second is not None
    second.release()
    assert await third is not None


async def test_a_refusal_takes_no_slot() -> None:
    """However many were refused, a slot given back is free."""
    admission = Admission()
    slot = await entered(admission, 1, 1)
    assert [await admission.enter(1, 1) for _ in range(10)] == [None] * 10
    slot.release()
    await entered(admission, 1, 1)


async def test_none_is_no_limit() -> None:
    """Without limits nobody waits and nobody is refused."""
    admission = Admission()
    slots = [await entered(admission, None, None) for _ in range(1000)]
    assert len(slots) == 1000


async def test_a_hard_limit_alone_refuses_without_waiting() -> None:
    """All that are admitted are handled at once."""
    admission = Admission()
    first, _ = await entered(admission, None, 2), await entered(admission, None, 2)
    assert await admission.enter(None, 2) is None
    first.release()
    await entered(admission, None, 2)


async def test_a_slot_is_given_back_exactly_once() -> None:
    """A second release does not admit one too many."""
    admission = Admission()
    slot = await entered(admission, 1)
    slot.release()
    slot.release()
    await entered(admission, 1)
    waiting = asyncio.create_task(entered(admission, 1))
    await turns()
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_one_who_leaves_the_line_makes_room_in_it() -> None:
    """A client that goes away while it waits counts no more and blocks nobody behind it."""
    admission = Admission()
    slot = await entered(admission, 1, 3)
    leaving, staying = (asyncio.create_task(admission.enter(1, 3)) for _ in range(2))
    await turns()
    assert await admission.enter(1, 3) is None
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    next_one = asyncio.create_task(admission.enter(1, 3))
    await turns()
    assert not next_one.done()
    slot.release()
    second = await staying
    assert second is not None
    second.release()
    assert await next_one is not None


async def test_one_cancelled_after_being_called_passes_the_slot_on() -> None:
    """The slot was given in the moment the client left: the next in line gets it."""
    admission = Admission()
    slot = await entered(admission, 1)
    leaving, staying = (asyncio.create_task(entered(admission, 1)) for _ in range(2))
    await turns()
    slot.release()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    async with asyncio.timeout(5):
        assert isinstance(await staying, Slot)


async def test_one_cancelled_just_before_being_called_does_not_get_the_slot() -> None:
    """The client left and a slot was given back before its task could run again."""
    admission = Admission()
    slot = await entered(admission, 1)
    leaving, staying = (asyncio.create_task(entered(admission, 1)) for _ in range(2))
    await turns()
    leaving.cancel()
    slot.release()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    async with asyncio.timeout(5):
        last = await staying
    last.release()
    await entered(admission, 1)


async def test_a_raised_limit_lets_those_in_who_wait() -> None:
    """The limit is asked for at each request, and the first who comes with a higher one opens the line."""
    admission = Admission()
    await entered(admission, 1)
    waiting = [asyncio.create_task(entered(admission, 1)) for _ in range(2)]
    await turns()
    assert not any(task.done() for task in waiting)
    last = asyncio.create_task(entered(admission, 4))
    assert len(await asyncio.gather(*waiting, last)) == 3


async def test_a_lowered_limit_holds_for_the_next() -> None:
    """Those who are in stay in; nobody else enters before there is room under the new limit."""
    admission = Admission()
    slots = [await entered(admission, 3) for _ in range(3)]
    waiting = asyncio.create_task(entered(admission, 1))
    await turns()
    slots[0].release()
    slots[1].release()
    await turns()
    assert not waiting.done()
    slots[2].release()
    assert isinstance(await waiting, Slot)


def test_each_loop_has_a_line_of_its_own() -> None:
    """A server in a thread does not wait for one in another."""
    admission = Admission()

    async def take() -> bool:
        return await admission.enter(1, 1) is not None

    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        assert first.run_until_complete(take())
        assert not first.run_until_complete(take())
        assert second.run_until_complete(take())
    finally:
        first.close()
        second.close()


def test_the_first_refusal_is_told_once() -> None:
    """One warning is enough."""
    admission = Admission()
    assert [admission.is_first_refusal() for _ in range(3)] == [True, False, False]
