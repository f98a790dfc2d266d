"""The writer: what waits, what is dropped and told, and what becomes of it in the end and in a fork."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from errno import EIO, ENOSPC, EPIPE
from functools import partial

import pytest

from aeros.serving.writer import Writer
from tests.unit.serving.records import PATIENCE_SECONDS, eventually


class Paper:
    """A target that takes lines while it may, and fails as it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.writes = 0
        self.most = 1_000_000
        self.error: Exception | None = None
        self.may_write = threading.Event()
        self.may_write.set()
        self.entered = threading.Event()
        self.is_closed = False

    def write(self, lines: Sequence[str]) -> int:
        """Takes lines."""
        self.entered.set()
        assert self.may_write.wait(PATIENCE_SECONDS)
        self.writes += 1
        if self.error is not None:
            raise self.error
        taken = list(lines[: self.most])
        self.lines += taken
        return len(taken)

    def close(self) -> None:
        """Takes no more."""
        self.is_closed = True


class Desk:
    """A writer on paper, with what it has reported."""

    def __init__(self, most_queued_bytes: int = 1_000) -> None:
        self.paper = Paper()
        self.reports: list[tuple[int, str]] = []
        self.writer = Writer[str](
            "paper",
            self.paper,
            list,
            lambda level, text: self.reports.append((level, text)),
            most_queued_bytes=most_queued_bytes,
            gather_seconds=0.01,
            retry_seconds=0.01,
        )

    def put(self, *entries: str, size: int = 1) -> list[bool]:
        """Puts entries; returns what the writer says to each."""
        return [self.writer.put(entry, size) for entry in entries]

    def hold(self) -> None:
        """Has the thread hang in a write of one line."""
        self.paper.may_write.clear()
        self.put("held")
        assert self.paper.entered.wait(PATIENCE_SECONDS)


@pytest.fixture
def desk() -> Iterator[Desk]:
    """A writer that runs."""
    desk = Desk()
    desk.writer.start()
    yield desk
    desk.paper.may_write.set()
    desk.paper.error = None
    desk.writer.stop()


def is_above(writer: Writer[str], count: int) -> bool:
    """Tells whether more lines were dropped than this."""
    return writer.dropped > count


def numbered(count: int) -> list[str]:
    """Returns lines that are not alike."""
    return [f"{number}\n" for number in range(count)]


def test_lines_are_written_in_order_and_together(desk: Desk) -> None:
    """What comes while a write is under way is one further write."""
    desk.hold()
    desk.put(*numbered(100))
    desk.paper.may_write.set()
    eventually(lambda: len(desk.paper.lines) == 101)
    assert desk.paper.lines == ["held", *numbered(100)]
    assert desk.paper.writes == 2
    assert (desk.reports, desk.writer.dropped) == ([], 0)


def test_a_target_may_take_some_lines_at_a_time(desk: Desk) -> None:
    """The rest follows."""
    desk.hold()
    desk.paper.most = 7
    desk.put(*numbered(100))
    desk.paper.may_write.set()
    eventually(lambda: len(desk.paper.lines) == 101)
    assert desk.paper.lines[1:] == numbered(100)


def test_what_does_not_fit_is_dropped_counted_and_told_once(desk: Desk) -> None:
    """What is being written takes room as well; room that has become free is used again."""
    desk.hold()
    assert desk.put(*numbered(10), size=100) == [True] * 10
    assert desk.writer.dropped == 1  # 999 are free, and the last one takes 100
    desk.put(*numbered(5), size=100)
    assert desk.writer.dropped == 6
    assert desk.reports == []
    desk.paper.may_write.set()
    eventually(lambda: desk.reports and desk.writer.queued_bytes == 0)
    desk.put(*numbered(9), size=100)
    eventually(lambda: len(desk.paper.lines) == 19)
    assert desk.reports == [
        (logging.WARNING, "paper: 6 lines were dropped, they came too fast to be written")
    ]
    assert desk.writer.dropped == 6


def test_an_urgent_line_does_not_wait_for_others() -> None:
    """It takes along what waited; all else waits for longer than this test takes."""
    paper = Paper()
    writer = Writer[str]("paper", paper, list, lambda _level, _text: None, gather_seconds=3_600)
    writer.start()
    writer.put("patient\n", 1)
    writer.put("urgent\n", 1, is_urgent=True)
    eventually(lambda: len(paper.lines) == 2)
    assert paper.lines == ["patient\n", "urgent\n"]
    writer.put("last\n", 1)
    writer.stop()
    assert paper.lines[2:] == ["last\n"]


@pytest.mark.parametrize("number", [ENOSPC, EIO])
def test_lines_wait_for_a_target_that_fails(desk: Desk, number: int) -> None:
    """It is told once, however often it is tried, and told again when it is over."""
    desk.paper.error = OSError(number, "no way")
    desk.put("one\n")
    eventually(lambda: desk.paper.writes > 3)
    desk.put("two\n")
    desk.paper.error = None
    eventually(lambda: len(desk.reports) == 2)
    eventually(lambda: len(desk.paper.lines) == 2)
    assert desk.reports == [
        (
            logging.ERROR,
            "paper can not be written (no way); lines wait until it can, and are dropped when too many do",
        ),
        (logging.INFO, "paper is written again; no line was lost"),
    ]
    assert desk.writer.dropped == 0


def test_what_was_lost_is_told_when_a_target_takes_lines_again(desk: Desk) -> None:
    """Its number stands in the same sentence."""
    desk.paper.error = OSError(ENOSPC, "full")
    desk.put("one\n", size=1_000)
    eventually(lambda: desk.reports)
    desk.put("two\n")
    desk.paper.error = None
    eventually(lambda: len(desk.reports) == 2)
    assert desk.reports[1] == (logging.WARNING, "paper is written again; 1 line was dropped meanwhile")


def test_nothing_waits_for_a_reader_that_has_left(desk: Desk) -> None:
    """A broken pipe is told once and its lines are dropped at once; the loss is told in the end."""
    desk.paper.error = BrokenPipeError(EPIPE, "Broken pipe")
    for _ in range(3):
        before = desk.writer.dropped
        desk.put("one\n")
        eventually(partial(is_above, desk.writer, before))
    desk.writer.stop()
    assert desk.reports == [
        (logging.ERROR, "paper can not be written (Broken pipe); lines are dropped"),
        (logging.WARNING, "paper: 3 lines were dropped when serving ended"),
    ]


def test_a_stream_that_was_closed_on_purpose_is_not_told(desk: Desk) -> None:
    """Its lines are counted."""
    desk.paper.error = ValueError("I/O operation on closed file")
    desk.put("one\n")
    desk.writer.stop()
    assert (desk.writer.dropped, desk.reports) == (1, [])


def test_a_listener_that_fails_does_not_end_the_thread() -> None:
    """Reports go to the application's logger, where foreign code is."""
    paper = Paper()
    told: list[str] = []

    def report(_level: int, text: str) -> None:
        told.append(text)
        raise LookupError("no logger")

    writer = Writer[str]("paper", paper, list, report, gather_seconds=0.01, retry_seconds=0.01)
    writer.start()
    paper.error = OSError(ENOSPC, "full")
    writer.put("one\n", 1)
    eventually(lambda: told)
    paper.error = None
    eventually(lambda: paper.lines)
    writer.stop()
    assert paper.lines == ["one\n"]


def test_stopping_writes_what_waits_and_ends_the_thread(desk: Desk) -> None:
    """Then the writer is in charge of nothing any more, as before its start."""
    other = Desk()
    assert other.put("early\n") == [False]
    before = {thread.name for thread in threading.enumerate()}
    assert "aeros-log paper" in before
    desk.put(*numbered(500))
    desk.writer.stop()
    assert desk.paper.lines == numbered(500)
    assert desk.paper.is_closed
    assert "aeros-log paper" not in {thread.name for thread in threading.enumerate()}
    assert desk.put("late\n") == [False]
    desk.writer.stop()


def test_stopping_does_not_wait_for_a_target_that_hangs() -> None:
    """What it holds is lost and told; what comes later is dropped rather than written by its caller."""
    desk = Desk()
    desk.writer.start()
    desk.hold()
    desk.put("waiting\n")
    desk.writer.stop(seconds=0.01)
    assert desk.reports == [(logging.WARNING, "paper: 2 lines were dropped when serving ended")]
    assert not desk.paper.is_closed
    assert desk.put("late\n") == [True]
    assert desk.writer.dropped == 3
    desk.paper.may_write.set()
    eventually(lambda: "aeros-log paper" not in {thread.name for thread in threading.enumerate()})


def test_lines_of_many_threads_are_all_written(desk: Desk) -> None:
    """None is lost and none doubled, and each thread's are in their order."""
    writer, paper = desk.writer, desk.paper

    def put(name: int) -> None:
        for number in range(2_000):
            while not writer.put(f"{name} {number}", 0):
                raise AssertionError("the writer runs")

    threads = [threading.Thread(target=put, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    writer.stop()
    for name in range(4):
        mine = [line for line in paper.lines if line.startswith(f"{name} ")]
        assert mine == [f"{name} {number}" for number in range(2_000)]
    assert len(paper.lines) == 8_000


FORKING = """
import os, sys, logging
from aeros.serving.log import ConsoleStyle, build_logger, written_aside
logger = build_logger(level=logging.INFO, style=ConsoleStyle())
with written_aside(logger, report=print):
    logger.info("waits in the parent")
    child = os.fork()
    if child == 0:
        logger.info("said by the child")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def test_a_forked_process_writes_its_own_lines_and_none_of_its_parents() -> None:
    """It has no thread, so it writes at once; what waited in its parent is written there, once."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING], capture_output=True, text=True, check=True
    )
    said = sorted(line.split("INFO: ")[1] for line in done.stderr.splitlines())
    assert said == ["said by the child", "waits in the parent"]
    assert done.stdout == ""


class Interruption(int):
    """A size during whose reckoning something else is done, once, as a signal's handler would do it."""

    call: Callable[[], object] | None

    def __radd__(self, other: int) -> int:
        call, self.call = self.call, None
        if call is not None:
            call()
        return int(self) + other


def test_whoever_interrupts_a_put_may_put(desk: Desk) -> None:
    """In the same thread, at the worst moment; it neither waits for itself nor loses the line."""
    size = Interruption(1)
    size.call = lambda: desk.put("inner\n")
    putting = threading.Thread(target=desk.writer.put, args=("outer\n", size), daemon=True)
    putting.start()
    putting.join(PATIENCE_SECONDS)
    assert not putting.is_alive()
    desk.writer.stop()
    assert desk.paper.lines == ["inner\n", "outer\n"]
