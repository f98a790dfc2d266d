"""The application's logger: where its lines go, and how they look in one run."""

from __future__ import annotations

import io
import logging
import os
import select
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, TextIO, cast
from unittest.mock import Mock

import pytest

from aeros.serving.log import ConsoleHandler, ConsoleStyle, build_logger, run_style, wants_color
from tests.unit.serving.records import Collector, build_record, parsed


class EndlessText:
    """A value whose text recurses without end."""

    def __str__(self) -> str:
        raise RecursionError


@pytest.fixture
def unconfigured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the handlers that pytest puts on the root logger from the logger "aeros"."""
    # Not by propagate = False: to loggers that do not propagate pytest adds its handlers too.
    monkeypatch.setattr(logging.getLogger("aeros"), "parent", None)


@pytest.fixture
def parent() -> Iterator[Collector]:
    """A handler that the user put on the logger "aeros"."""
    collector = Collector()
    logging.getLogger("aeros").addHandler(collector)
    yield collector
    logging.getLogger("aeros").removeHandler(collector)


@contextmanager
def terminal() -> Generator[tuple[TextIO, int]]:
    """Gives a text stream that is a real terminal, and the other side of it."""
    controller, follower = os.openpty()
    try:
        with open(follower, "w", encoding="utf-8") as stream:  # noqa: PTH123 - a descriptor
            yield stream, controller
    finally:
        os.close(controller)


def read_terminal(controller: int) -> str:
    """Returns what was written to the terminal, waiting for it at most ten seconds."""
    assert select.select([controller], [], [], 10)[0] == [controller]
    return os.read(controller, 1000).decode()


# Colour


@pytest.mark.parametrize(
    ("color", "environ", "expected"),
    [
        (None, {}, True),
        (None, {"TERM": "xterm"}, True),
        (None, {"NO_COLOR": ""}, True),
        (None, {"NO_COLOR": "0"}, False),
        (None, {"TERM": "dumb"}, False),
        (True, {"NO_COLOR": "1", "TERM": "dumb"}, True),
        (False, {}, False),
    ],
)
def test_color_on_a_terminal(color: bool | None, environ: Mapping[str, str], expected: bool) -> None:
    """On a terminal the setting decides first, then NO_COLOR and TERM."""
    with terminal() as (stream, _):
        assert wants_color(stream, color, environ) is expected


def test_color_off_a_terminal() -> None:
    """What is no terminal gets colour only when asked for."""
    closed = io.StringIO()
    closed.close()
    stand_in = cast(TextIO, Mock(spec=["write"]))
    assert not wants_color(io.StringIO(), None, {})
    assert not wants_color(closed, None, {})
    assert not wants_color(stand_in, None, {})
    assert wants_color(io.StringIO(), True, {})


def test_console_colors_the_level_name_on_a_terminal(
    unconfigured: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written to a real terminal, the level name is coloured and nothing else."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with terminal() as (stream, controller):
        monkeypatch.setattr(sys, "stderr", stream)
        build_logger(level=logging.INFO, style=ConsoleStyle()).warning("hot")
        written = read_terminal(controller)
        monkeypatch.setenv("NO_COLOR", "1")
        build_logger(level=logging.INFO, style=ConsoleStyle()).warning("cold")
        plain = read_terminal(controller)
    assert written.endswith("] \x1b[33mWARNING\x1b[0m: hot\r\n")
    assert plain.endswith("] WARNING: cold\r\n")


# The console


@pytest.mark.parametrize("name", ["stderr", "stdout"])
def test_console_follows_a_redirection(
    name: Literal["stderr", "stdout"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream is the one that has the name when the record comes."""
    handler = ConsoleHandler(name)
    replaced = io.StringIO()
    monkeypatch.setattr(sys, name, replaced)
    handler.handle(build_record())
    assert replaced.getvalue().endswith("INFO: hello\n")


def test_console_style_takes_effect_with_the_next_record(capsys: pytest.CaptureFixture[str]) -> None:
    """Assigning a style changes the format, and assigning the former brings it back."""
    handler = ConsoleHandler("stdout", log_format="json", traceback=False)
    before = handler.style
    assert before == ConsoleStyle(log_format="json", color=None, traceback=False)
    handler.handle(build_record("one"))
    handler.style = ConsoleStyle(color=True)
    handler.handle(build_record("two"))
    handler.style = before
    handler.handle(build_record("three"))
    first, second, third = capsys.readouterr().out.splitlines()
    assert parsed(first)["message"] == "one"
    assert second.endswith("\x1b[32mINFO\x1b[0m: two")
    assert parsed(third)["message"] == "three"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_console_survives_a_stream_that_is_gone(
    log_format: Literal["text", "json"], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A closed stream, none at all and a full disk are counted, silently."""
    handler = ConsoleHandler("stdout", log_format=log_format)
    closed = io.StringIO()
    closed.close()
    for stream in (closed, None):
        monkeypatch.setattr(sys, "stdout", stream)
        handler.handle(build_record())
    full = io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True)
    monkeypatch.setattr(sys, "stdout", full)
    handler.handle(build_record())
    full.close()
    assert handler.dropped == 3
    assert capsys.readouterr().err == ""


def test_console_survives_a_broken_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reader that left is counted, silently."""
    reader, writer = os.pipe()
    os.close(reader)
    with io.TextIOWrapper(io.FileIO(writer, "w"), write_through=True) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        handler = ConsoleHandler("stdout")
        handler.handle(build_record())
    assert handler.dropped == 1
    assert capsys.readouterr().err == ""


def test_console_writes_what_the_encoding_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream in ASCII gets escapes instead of losing the line."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    handler = ConsoleHandler("stdout")
    handler.handle(build_record("caf\xe9"))
    assert raw.getvalue().endswith(rb"INFO: caf\xe9" + b"\n")
    assert handler.dropped == 0


def test_console_reports_a_message_that_can_not_be_formatted(capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake in a logging call is reported as logging does, and does not raise."""
    ConsoleHandler("stdout").handle(build_record("%d", "text"))
    assert "--- Logging error ---" in capsys.readouterr().err


def test_console_does_not_hide_a_recursion() -> None:
    """A message whose text recurses without end raises, as with logging's own handlers."""
    with pytest.raises(RecursionError):
        ConsoleHandler("stdout").handle(build_record("%s", EndlessText()))


# The logger


def test_logger_is_not_registered_and_not_shared(unconfigured: None) -> None:
    """Two loggers have nothing in common but their parent."""
    one = build_logger(level=logging.INFO, style=ConsoleStyle())
    two = build_logger(level=logging.ERROR, style=ConsoleStyle())
    registered = logging.getLogger("aeros")
    assert len({id(one), id(two), id(registered)}) == 3
    assert registered.handlers == []
    assert one.handlers != two.handlers
    assert (one.name, one.level, two.level) == ("aeros", logging.INFO, logging.ERROR)


def test_logger_writes_to_stderr_where_nothing_is_configured(
    unconfigured: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without any configuration the lines appear on standard error."""
    logger = build_logger(level=logging.INFO, style=ConsoleStyle(log_format="json"))
    logger.info("seen")
    logger.debug("hidden")
    output = capsys.readouterr()
    assert parsed(output.err)["message"] == "seen"
    assert output.out == ""


def test_logger_leaves_the_lines_to_the_users_handlers(
    unconfigured: None, parent: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    """A handler on the logger "aeros" gets the records, and the console none."""
    build_logger(level=logging.INFO, style=ConsoleStyle()).info("theirs")
    assert parent.messages == ["theirs"]
    assert capsys.readouterr().err == ""


def test_logger_is_seen_by_caplog(caplog: pytest.LogCaptureFixture) -> None:
    """Handlers on the root logger get the records."""
    build_logger(level=logging.INFO, style=ConsoleStyle()).info("captured")
    assert caplog.messages == ["captured"]


def test_level_changes_are_seen_at_once() -> None:
    """No stale answer stays behind, although logging can not reach the logger's cache."""
    logger = build_logger(level=logging.WARNING, style=ConsoleStyle())
    assert not logger.isEnabledFor(logging.INFO)
    logger.setLevel(logging.INFO)
    assert logger.isEnabledFor(logging.INFO)
    logging.disable(logging.INFO)
    try:
        assert not logger.isEnabledFor(logging.INFO)
        assert logger.isEnabledFor(logging.WARNING)
    finally:
        logging.disable(logging.NOTSET)
    logger.disabled = True
    assert not logger.isEnabledFor(logging.CRITICAL)


@pytest.mark.parametrize(("configured", "expected"), [(True, ["INFO:aeros:once"]), (False, ["] INFO: once"])])
def test_lines_are_not_doubled_in_a_process(configured: bool, expected: list[str]) -> None:
    """A program has each line once, with and without logging.basicConfig."""
    program = (
        "import logging\n"
        "from aeros.serving.log import ConsoleStyle, build_logger\n"
        f"if {configured}: logging.basicConfig(level=logging.INFO)\n"
        "build_logger(level=logging.INFO, style=ConsoleStyle()).info('once')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert [line[-len(end) :] for line, end in zip(lines, expected, strict=True)] == expected
    assert done.stdout == ""


def test_logger_survives_a_closed_stderr_in_a_process() -> None:
    """A daemon without standard error goes on."""
    program = (
        "import logging, os, sys\n"
        "from aeros.serving.log import ConsoleStyle, build_logger\n"
        "sys.stderr.close()\n"
        "build_logger(level=logging.INFO, style=ConsoleStyle()).info('nowhere')\n"
        "print('alive')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("alive\n", "")


# The style of a run


def test_run_style_lasts_for_the_run(unconfigured: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Level and style change and come back, also when the run fails."""
    style = ConsoleStyle(traceback=False)
    logger = build_logger(level=logging.WARNING, style=style)

    def run() -> None:
        with run_style(logger, level=logging.DEBUG, style=ConsoleStyle(log_format="json")):
            logger.debug("during")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    logger.info("after")
    assert parsed(capsys.readouterr().err)["message"] == "during"
    assert logger.level == logging.WARNING
    assert [handler.style for handler in logger.handlers if isinstance(handler, ConsoleHandler)] == [style]


def test_run_style_without_level_keeps_it() -> None:
    """None leaves the level alone, also one that was set meanwhile; foreign handlers stay too."""
    logger = build_logger(level=logging.WARNING, style=ConsoleStyle())
    foreign = Collector()
    logger.addHandler(foreign)
    with run_style(logger, level=None, style=ConsoleStyle(color=True)):
        logger.setLevel(logging.ERROR)
        assert foreign.formatter is None
    assert logger.level == logging.ERROR


@pytest.mark.parametrize("stand_in", [Mock(), Mock(spec=logging.Logger), object()])
def test_run_style_tolerates_what_is_no_logger(stand_in: object) -> None:
    """A mock in the logger's place is left alone."""
    with run_style(cast(logging.Logger, stand_in), level=logging.DEBUG, style=ConsoleStyle()):
        pass
    if isinstance(stand_in, Mock):
        assert stand_in.mock_calls == []
