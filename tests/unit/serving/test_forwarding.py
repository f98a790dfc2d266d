"""What uvicorn logs, forwarded to the application's logger."""

from __future__ import annotations

import logging
import threading

import pytest

from aeros.serving.forwarding import uvicorn_forwarded
from tests.unit.serving.records import Collector, build_collecting_logger

UVICORN = logging.getLogger("uvicorn.error")


def test_uvicorn_lines_reach_the_logger(capsys: pytest.CaptureFixture[str]) -> None:
    """Uvicorn's records arrive at aeros's logger only, without a closing line break."""
    logger, collector = build_collecting_logger()
    with uvicorn_forwarded(lambda: logger, level=logging.INFO):
        UVICORN.info("Waiting for %s to close.\n", "connections", extra={"color_message": "\x1b[1mW"})
        UVICORN.error(ValueError("bad"))
    UVICORN.error("later")
    assert collector.messages == ["Waiting for connections to close.", "bad"]
    assert [record.levelno for record in collector.records] == [logging.INFO, logging.ERROR]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("Started server process [%d]", (7,)),
        ("Waiting for application startup.", ()),
        ("Application startup complete.", ()),
        ("Uvicorn running on %s://%s:%d (Press CTRL+C to quit)", ("http", "::1", 80)),
        ("Shutting down", ()),
        ("Waiting for application shutdown.", ()),
        ("Application shutdown complete.", ()),
        ("Finished server process [%d]", (7,)),
    ],
)
def test_uvicorn_routine_is_demoted(message: str, arguments: tuple[object, ...]) -> None:
    """The lines of every run are DEBUG, so a logger at INFO does not show them."""
    quiet, hidden = build_collecting_logger(logging.INFO)
    logger, collector = build_collecting_logger()
    with uvicorn_forwarded(lambda: quiet, level=logging.INFO):
        UVICORN.info(message, *arguments)
    with uvicorn_forwarded(lambda: logger, level=logging.INFO):
        UVICORN.info(message, *arguments)
        UVICORN.warning(message, *arguments)
    assert hidden.records == []
    assert [record.levelname for record in collector.records] == ["DEBUG", "WARNING"]
    assert collector.messages == [message % arguments] * 2


def test_demoting_does_not_change_uvicorns_record() -> None:
    """A handler that the user put on uvicorn's logger sees the record unchanged."""
    logger, _ = build_collecting_logger()
    theirs = Collector()
    with uvicorn_forwarded(lambda: logger, level=logging.INFO):
        UVICORN.addHandler(theirs)
        UVICORN.info("Finished server process [%d]", 7)
    UVICORN.removeHandler(theirs)
    assert [(record.levelname, record.args) for record in theirs.records] == [("INFO", (7,))]


def test_logger_is_resolved_for_each_record() -> None:
    """An override of the logger takes effect while the server runs."""
    first, first_lines = build_collecting_logger()
    second, second_lines = build_collecting_logger()
    loggers = [first]
    with uvicorn_forwarded(lambda: loggers[-1], level=logging.INFO):
        UVICORN.info("one")
        loggers.append(second)
        UVICORN.info("two")
    assert (first_lines.messages, second_lines.messages) == (["one"], ["two"])


def test_failing_provider_does_not_stop_uvicorn(capsys: pytest.CaptureFixture[str]) -> None:
    """A provider that raises is reported; one that recurses raises as logging's handlers do."""

    def fail() -> logging.Logger:
        raise LookupError("no logger")

    def recurse() -> logging.Logger:
        raise RecursionError

    with uvicorn_forwarded(fail, level=logging.INFO):
        UVICORN.info("x")
    assert "LookupError: no logger" in capsys.readouterr().err
    with uvicorn_forwarded(recurse, level=logging.INFO), pytest.raises(RecursionError):
        UVICORN.info("x")


@pytest.mark.parametrize(
    ("level", "expected"),
    [(logging.NOTSET, logging.DEBUG), (logging.DEBUG, logging.DEBUG), (logging.ERROR, logging.INFO)],
)
def test_uvicorn_logger_is_as_it_was_afterwards(
    level: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Level, propagation and handlers are put back, also after an error."""
    monkeypatch.setattr(UVICORN, "propagate", True)
    before = (UVICORN.level, UVICORN.propagate, list(UVICORN.handlers))
    logger, _ = build_collecting_logger()

    def run() -> None:
        with uvicorn_forwarded(lambda: logger, level=level):
            assert (UVICORN.level, UVICORN.propagate) == (expected, False)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert (UVICORN.level, UVICORN.propagate, UVICORN.handlers) == before


def test_two_servers_in_threads_keep_their_lines_apart() -> None:
    """Each thread's lines go to its own logger, and the last one to leave restores uvicorn's."""
    before = (UVICORN.level, UVICORN.propagate, list(UVICORN.handlers))
    both_in, first_out = threading.Barrier(2, timeout=10), threading.Event()
    during: list[tuple[int, bool]] = []
    lines: dict[str, list[str]] = {}

    def serve(name: str, level: int) -> None:
        logger, collector = build_collecting_logger()
        with uvicorn_forwarded(lambda: logger, level=level):
            both_in.wait()
            UVICORN.info("from %s", name)
            both_in.wait()
            if name == "second":
                assert first_out.wait(10)
                during.append((UVICORN.level, UVICORN.propagate))
                UVICORN.info("still %s", name)
        lines[name] = collector.messages
        first_out.set()

    threads = [
        threading.Thread(target=serve, args=("first", logging.DEBUG)),
        threading.Thread(target=serve, args=("second", logging.INFO)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert lines == {"first": ["from first"], "second": ["from second", "still second"]}
    assert during == [(logging.INFO, False)]
    assert (UVICORN.level, UVICORN.propagate, UVICORN.handlers) == before


def test_nested_contexts_of_a_thread_forward_once() -> None:
    """Where one thread entered twice, the newer context gets the lines."""
    outer, outer_lines = build_collecting_logger()
    inner, inner_lines = build_collecting_logger()
    with uvicorn_forwarded(lambda: outer, level=logging.INFO):
        with uvicorn_forwarded(lambda: inner, level=logging.INFO):
            UVICORN.info("inner")
        UVICORN.info("outer")
    assert (outer_lines.messages, inner_lines.messages) == (["outer"], ["inner"])


@pytest.mark.parametrize(("propagates", "expected"), [(True, ["warned"]), (False, [])])
def test_lines_of_other_threads_go_where_they_went(
    propagates: bool, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is not of aeros logs as before: same level, same propagation, once."""
    uvicorn = logging.getLogger("uvicorn")
    theirs = Collector()
    uvicorn.addHandler(theirs)
    monkeypatch.setattr(uvicorn, "propagate", False)
    monkeypatch.setattr(UVICORN, "propagate", propagates)
    monkeypatch.setattr(uvicorn, "level", logging.WARNING)
    logger, collector = build_collecting_logger()

    def log() -> None:
        UVICORN.info("informed")
        UVICORN.warning("warned")

    other = threading.Thread(target=log)
    forwarded = [uvicorn_forwarded(lambda: logger, level=logging.INFO) for _ in range(2)]
    with forwarded[0], forwarded[1]:
        other.start()
        other.join(10)
    uvicorn.removeHandler(theirs)
    assert theirs.messages == expected
    assert collector.messages == []


def test_lines_are_forwarded_without_thread_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """An application that switched off the thread on records gets uvicorn's lines all the same."""
    monkeypatch.setattr(logging, "logThreads", False)
    logger, collector = build_collecting_logger()
    with uvicorn_forwarded(lambda: logger, level=logging.INFO):
        UVICORN.info("one")
    assert collector.messages == ["one"]
