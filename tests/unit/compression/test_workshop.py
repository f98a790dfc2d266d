"""The workshop: where bodies are compressed, who shares the work, and what is done in spare time."""

from __future__ import annotations

import asyncio
import logging
import threading
import zlib
from collections.abc import Callable

import pytest

from aeros.caching.entry import StoredResponse
from aeros.compression.workshop import LARGEST_HOT_BODY, Workshop

BODY = b"The quick brown fox jumps over the lazy dog. " * 100


class OwnCoding:
    """A coding that notes where it works, and may be held or broken."""

    name = "deflate"

    def __init__(self, *, level: int = 1) -> None:
        self._level = level
        self.calls = 0
        self.thorough = 0
        self.at_once = 0
        self.most_at_once = 0
        self.threads: list[threading.Thread] = []
        self.failure: Exception | None = None
        self.may_end = threading.Event()
        self.may_end.set()
        self._lock = threading.Lock()

    def compress(self, content: bytes) -> bytes:
        """Returns ``content`` as a zlib stream."""
        self.calls += 1
        self._work()
        return zlib.compress(content, self._level)

    def compress_thoroughly(self, content: bytes) -> bytes:
        """Does it as well as can be."""
        self.thorough += 1
        self._work()
        return zlib.compress(content, 9)

    def _work(self) -> None:
        with self._lock:
            self.threads.append(threading.current_thread())
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            assert self.may_end.wait(10)
            if self.failure is not None:
                raise self.failure
        finally:
            with self._lock:
                self.at_once -= 1


def kept(body: bytes = BODY) -> StoredResponse:
    """Returns a stored response with this body."""
    return StoredResponse(b"key", 200, [], body, '"tag"', stored_at=0, lifetime=60)


async def until(is_true: Callable[[], bool]) -> None:
    """Waits for what other tasks and threads do."""
    for _ in range(1000):
        if is_true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


async def variant(
    workshop: Workshop,
    entry: StoredResponse,
    coding: OwnCoding,
    *,
    offload_size: int | None = None,
    hot_after: int | None = None,
) -> tuple[str, bytes]:
    """Asks for a variant, by default without a thread."""
    return await workshop.variant_of(entry, coding, offload_size=offload_size, hot_after=hot_after)


# Where


@pytest.mark.parametrize(
    ("offload_size", "in_thread"),
    [(None, False), (len(BODY) + 1, False), (len(BODY), True), (1, True), (0, True)],
)
async def test_work_is_done_in_a_thread_from_the_size_on(offload_size: int | None, in_thread: bool) -> None:
    """Below it the hop to a thread costs more than it saves; None: never."""
    coding = OwnCoding()
    assert await Workshop().run(coding.compress, BODY, offload_size) == zlib.compress(BODY, 1)
    (thread,) = coding.threads
    assert (thread is not threading.current_thread()) is in_thread


async def test_threads_are_as_many_as_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """More would only wait for each other, and take memory."""
    monkeypatch.setattr("aeros.compression.workshop.cpu_count", lambda: 2)
    workshop, coding = Workshop(), OwnCoding()
    coding.may_end.clear()
    tasks = [asyncio.create_task(workshop.run(coding.compress, BODY, 0)) for _ in range(6)]
    await until(lambda: coding.at_once == 2)
    for _ in range(10):
        await asyncio.sleep(0)
    assert coding.calls == 2
    coding.may_end.set()
    assert await asyncio.gather(*tasks) == [zlib.compress(BODY, 1)] * 6
    assert (coding.calls, coding.most_at_once) == (6, 2)


async def test_what_the_work_raises_is_raised() -> None:
    """An encoder that fails ends its stream; the thread is given back."""
    workshop, coding = Workshop(), OwnCoding()
    coding.failure = RuntimeError("on purpose")
    for offload_size in (None, 0):
        for _ in range(50):
            with pytest.raises(RuntimeError, match="on purpose"):
                await workshop.run(coding.compress, BODY, offload_size)


def test_every_loop_has_its_own_bench() -> None:
    """One application may be served by several loops, one after the other or at once."""
    workshop, coding = Workshop(), OwnCoding()
    for _ in range(3):
        name, content = asyncio.run(variant(workshop, kept(), coding, offload_size=0))
        assert (name, content) == ("deflate", zlib.compress(BODY, 1))


# What


async def test_content_that_gains_nothing_is_left_as_it_is() -> None:
    """The very object comes back, so that everybody can tell."""
    workshop = Workshop()
    noise = bytes(range(256))
    assert await workshop.compressed(OwnCoding(), noise, None) is noise
    assert await workshop.compressed(OwnCoding(), BODY, None) == zlib.compress(BODY, 1)


@pytest.mark.parametrize("offload_size", [None, 0], ids=["on the loop", "in a thread"])
async def test_coding_that_fails_is_logged_and_done_without(
    caplog: pytest.LogCaptureFixture, offload_size: int | None
) -> None:
    """The content is what counts; the log has the coding's name and what it raised."""
    coding = OwnCoding()
    coding.failure = MemoryError("no room")
    assert await Workshop().compressed(coding, BODY, offload_size) is BODY
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("aeros.compression", logging.ERROR)
    assert "'deflate'" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is coding.failure


# Once


async def test_variant_is_made_once_and_kept() -> None:
    """By the first who asks; it is kept where the body is."""
    workshop, coding, entry = Workshop(), OwnCoding(), kept()
    for _ in range(3):
        assert await variant(workshop, entry, coding) == ("deflate", zlib.compress(BODY, 1))
    assert coding.calls == 1
    assert entry.variants == {"deflate": zlib.compress(BODY, 1)}


async def test_variant_that_gains_nothing_is_tried_once() -> None:
    """The body itself is kept in its place."""
    workshop, coding, entry = Workshop(), OwnCoding(), kept(bytes(range(256)))
    for _ in range(3):
        assert (await variant(workshop, entry, coding))[1] is entry.body
    assert coding.calls == 1


async def test_those_who_ask_at_once_share_the_work() -> None:
    """For one body and coding; another body has work of its own."""
    workshop, coding = Workshop(), OwnCoding()
    coding.may_end.clear()
    same, other = kept(), kept()
    tasks = [
        asyncio.create_task(variant(workshop, entry, coding, offload_size=0))
        for entry in (same, same, other, same, other)
    ]
    await until(lambda: coding.calls >= 1)
    coding.may_end.set()
    assert await asyncio.gather(*tasks) == [("deflate", zlib.compress(BODY, 1))] * 5
    assert coding.calls == 2


async def test_waiter_that_is_cancelled_takes_nobody_along() -> None:
    """Neither the others who wait nor the work, whoever began it."""
    workshop, coding, entry = Workshop(), OwnCoding(), kept()
    coding.may_end.clear()
    first, *others = [asyncio.create_task(variant(workshop, entry, coding, offload_size=0)) for _ in range(4)]
    await until(lambda: coding.calls == 1)
    first.cancel()
    others[0].cancel()
    results = await asyncio.gather(first, others[0], return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 2
    coding.may_end.set()
    assert await asyncio.gather(*others[1:]) == [("deflate", zlib.compress(BODY, 1))] * 2
    assert coding.calls == 1


async def test_work_that_nobody_waits_for_any_more_is_kept() -> None:
    """The last one has left: the variant is ready for the next request."""
    workshop, coding, entry = Workshop(), OwnCoding(), kept()
    coding.may_end.clear()
    leaving = asyncio.create_task(variant(workshop, entry, coding, offload_size=0))
    await until(lambda: coding.calls == 1)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    coding.may_end.set()
    await until(lambda: "deflate" in entry.variants)
    assert await variant(workshop, entry, coding) == ("deflate", zlib.compress(BODY, 1))
    assert coding.calls == 1


async def test_job_that_fails_fails_for_all_and_is_forgotten() -> None:
    """Who asks later tries again."""
    workshop = Workshop()
    may_end = asyncio.Event()
    calls = 0

    async def fail() -> bytes:
        nonlocal calls
        calls += 1
        await may_end.wait()
        raise OSError("on purpose")

    tasks = [asyncio.create_task(workshop.once("job", fail)) for _ in range(3)]
    await asyncio.sleep(0)
    may_end.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [OSError] * 3
    assert calls == 1

    async def succeed() -> bytes:
        return b"made"

    assert await workshop.once("job", succeed) == b"made"


# Thoroughly


@pytest.mark.parametrize("hot_after", [1, 2, 5])
async def test_thorough_variant_is_begun_with_that_use_and_once(hot_after: int) -> None:
    """From when it is ready everybody gets it, under a name of its own, and the quick one is gone."""
    workshop, coding, entry = Workshop(), OwnCoding(), kept()
    coding.may_end.set()
    for use in range(1, hot_after + 1):
        assert coding.thorough == 0, use
        assert await variant(workshop, entry, coding, hot_after=hot_after) == (
            "deflate",
            zlib.compress(BODY, 1),
        )
    await until(lambda: "deflate+" in entry.variants)
    for _ in range(10):
        name, content = await variant(workshop, entry, coding, hot_after=hot_after)
        assert (name, content) == ("deflate+", zlib.compress(BODY, 9))
    assert (coding.calls, coding.thorough) == (1, 1)
    assert list(entry.variants) == ["deflate+"]
    assert threading.current_thread() not in coding.threads[1:]


async def test_without_hot_after_no_use_is_counted() -> None:
    """Who did not ask for it pays nothing."""
    workshop, coding, entry = Workshop(), OwnCoding(), kept()
    for _ in range(100):
        await variant(workshop, entry, coding)
    assert (coding.calls, coding.thorough, entry.uses) == (1, 0, None)


async def test_thorough_variants_are_made_one_after_the_other() -> None:
    """What nobody waits for takes one thread; those who wait are not behind it."""
    workshop, coding = Workshop(), OwnCoding()
    entries = [kept() for _ in range(3)]
    for entry in entries:
        await variant(workshop, entry, coding)
    coding.may_end.clear()
    for entry in entries:
        await variant(workshop, entry, coding, hot_after=1)
    await until(lambda: coding.at_once == 1)
    for _ in range(10):
        await asyncio.sleep(0)
    assert coding.thorough == 1
    assert await workshop.run(zlib.compress, BODY, 0) == zlib.compress(BODY)
    coding.may_end.set()
    await until(lambda: all("deflate+" in entry.variants for entry in entries))
    assert (coding.thorough, coding.most_at_once) == (3, 1)


@pytest.mark.parametrize(("size", "thorough"), [(LARGEST_HOT_BODY, 1), (LARGEST_HOT_BODY + 1, 0)])
async def test_largest_body_bounds_the_thorough_work(size: int, thorough: int) -> None:
    """A larger one would take seconds of a processor."""
    workshop, coding, entry = Workshop(), OwnCoding(), kept(bytes(size))
    for _ in range(3):
        await variant(workshop, entry, coding, hot_after=1)
    if thorough:
        await until(lambda: "deflate+" in entry.variants)
    else:
        # Another one that is small is in line behind it.
        await variant(workshop, small := kept(), coding, hot_after=1)
        await until(lambda: "deflate+" in small.variants)
        thorough += 1
    assert coding.thorough == 1 == thorough


async def test_thorough_variant_that_is_not_smaller_is_not_kept() -> None:
    """The quick one stays, and so does its tag."""
    workshop, coding, entry = Workshop(), OwnCoding(level=9), kept()
    await variant(workshop, entry, coding, hot_after=1)
    await variant(workshop, other := kept(), OwnCoding(), hot_after=1)
    await until(lambda: "deflate+" in other.variants)
    assert coding.thorough == 1
    assert await variant(workshop, entry, coding, hot_after=1) == ("deflate", zlib.compress(BODY, 9))


async def test_thorough_work_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody waits for it, so nobody else would say so; it is not tried again."""
    workshop, coding, entry = Workshop(), OwnCoding(), kept()
    await variant(workshop, entry, coding)
    coding.failure = RuntimeError("on purpose")
    for _ in range(3):
        assert (await variant(workshop, entry, coding, hot_after=1))[0] == "deflate"
    await until(lambda: bool(caplog.records))
    assert [record.name for record in caplog.records] == ["aeros.compression"]
    assert coding.thorough == 1


async def test_coding_without_a_thorough_way_keeps_its_variant() -> None:
    """A user's own coding needs only a name and compress()."""

    class Simple:
        name = "deflate"

        def compress(self, content: bytes) -> bytes:
            return zlib.compress(content, 1)

    workshop, entry = Workshop(), kept()
    for _ in range(5):
        assert await workshop.variant_of(entry, Simple(), offload_size=None, hot_after=1) == (
            "deflate",
            zlib.compress(BODY, 1),
        )
    assert list(entry.variants) == ["deflate"]
