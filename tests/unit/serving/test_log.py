"""Log lines: their shapes, where they go, and uvicorn's lines among them."""

from __future__ import annotations

import io
import json
import logging
import os
import select
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal, TextIO, cast
from unittest.mock import Mock

import pytest

from aeros.serving.log import (
    ConsoleHandler,
    ConsoleStyle,
    JsonFormatter,
    PrivateLogger,
    TextFormatter,
    build_logger,
    run_style,
    uvicorn_forwarded,
    wants_color,
)

UVICORN = logging.getLogger("uvicorn.error")


class UnprintableError(Exception):
    """An exception whose text can not be had."""

    def __str__(self) -> str:
        raise ValueError("no text")


class EndlessText:
    """A value whose text recurses without end."""

    def __str__(self) -> str:
        raise RecursionError


class Collector(logging.Handler):
    """Keeps what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps the record."""
        self.records.append(record)

    @property
    def messages(self) -> list[str]:
        """What the records say."""
        return [record.getMessage() for record in self.records]


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


def build_record(
    message: object = "hello",
    *args: object,
    level: int = logging.INFO,
    error: BaseException | None = None,
    stack: str | None = None,
    fields: object = None,
) -> logging.LogRecord:
    """Returns a record as a logging call would make it."""
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord("aeros", level, __file__, 1, message, args, exc_info, sinfo=stack)
    if fields is not None:
        record.fields = fields
    return record


def raised(error: Exception) -> Exception:
    """Returns the error with a traceback."""
    with pytest.raises(type(error)):
        raise error
    return error


def parsed(line: str) -> dict[str, object]:
    """Returns the object of a JSON line, which is one line."""
    assert len(line.splitlines()) == 1
    return cast(dict[str, object], json.loads(line))


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


def build_collecting_logger(level: int = logging.DEBUG) -> tuple[logging.Logger, Collector]:
    """Returns a logger of its own and what collects its records."""
    collector = Collector()
    logger = PrivateLogger("collecting", level)
    logger.addHandler(collector)
    return logger, collector


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


@pytest.mark.parametrize(
    ("level", "code"), [(5, "36"), (10, "36"), (20, "32"), (25, "32"), (30, "33"), (40, "31"), (50, "31")]
)
def test_each_level_has_its_color(level: int, code: str) -> None:
    """Levels between the named ones take the colour of the one below."""
    line = TextFormatter().format_colored(build_record(level=level))
    assert f"\x1b[{code}m{logging.getLevelName(level)}\x1b[0m: hello" in line


# Text


def test_text_message_can_not_inject_a_line() -> None:
    """Line breaks and escape sequences in a message are shown, not performed."""
    line = TextFormatter().format(build_record("GET %s", "/\r\n[2026] INFO: forged\x1b[2J\u2028\x85"))
    assert line.splitlines() == [line]
    assert line.endswith(r"] INFO: GET /\r\n[2026] INFO: forged\x1b[2J\u2028\x85")
    assert line.startswith("[2")


def test_text_traceback_follows_the_line() -> None:
    """The traceback comes below the line, indented, so that it can not forge a line."""
    error = raised(ValueError("bad\n[2026] INFO: forged\x1b[2J"))
    first, *rest = TextFormatter().format(build_record("oops", error=error)).split("\n")
    assert first.endswith("INFO: oops")
    assert rest[0] == "  Traceback (most recent call last):"
    assert rest[-2:] == ["  ValueError: bad", r"  [2026] INFO: forged\x1b[2J"]
    assert all(line.startswith("  ") for line in rest)


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (ValueError("bad\nvalue"), r"INFO: oops (ValueError: bad\nvalue)"),
        (TimeoutError(), "INFO: oops (TimeoutError)"),
        (UnprintableError(), "INFO: oops (UnprintableError: <UnprintableError without text>)"),
    ],
)
def test_text_without_traceback_names_the_exception(error: Exception, ending: str) -> None:
    """With tracebacks off, the exception stands at the end of the one line."""
    line = TextFormatter(traceback=False).format(build_record("oops", error=raised(error), stack="Stack"))
    assert line.splitlines() == [line]
    assert line.endswith(ending)


def test_text_without_exception_ends_with_the_message() -> None:
    """No exception adds nothing, also where exc_info=True found none."""
    record = build_record()
    record.exc_info = (None, None, None)
    assert TextFormatter(traceback=False).format(record).endswith("INFO: hello")
    assert TextFormatter().format(record).endswith("INFO: hello")


def test_text_shows_a_requested_stack() -> None:
    """What stack_info=True collected follows the line."""
    text = TextFormatter().format(build_record(stack="Stack (most recent call last):\n  here"))
    assert text.endswith("hello\n  Stack (most recent call last):\n    here")


@pytest.mark.parametrize("formatter", [TextFormatter(), TextFormatter(False), JsonFormatter()])
def test_formatters_leave_the_record_alone(formatter: logging.Formatter) -> None:
    """Other handlers find the record as it was made."""
    record = build_record("a\n%s", "b", error=raised(ValueError("x")))
    before = dict(vars(record))
    formatter.format(record)
    assert vars(record) == before


# JSON


def test_json_line_holds_the_record() -> None:
    """A record becomes one JSON object on one line."""
    record = build_record("caf\xe9 %s\n\u2028\x1b", 7)
    record.created = datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=UTC).timestamp()
    line = JsonFormatter().format(record)
    assert line.isascii()
    assert parsed(line) == {
        "time": "2026-01-02T03:04:05.678+00:00",
        "level": "INFO",
        "logger": "aeros",
        "message": "caf\xe9 7\n\u2028\x1b",
    }


def test_json_exception_with_and_without_traceback() -> None:
    """The exception is an object; its traceback and the stack can be left out."""
    record = build_record(error=raised(ValueError("bad")), stack="Stack")
    full = parsed(JsonFormatter().format(record))
    short = parsed(JsonFormatter(traceback=False).format(record))
    exception = cast(dict[str, str], full["exception"])
    assert exception.pop("traceback").startswith("Traceback (most recent call last):\n")
    assert exception == {"type": "ValueError", "message": "bad"}
    assert full["stack"] == "Stack"
    assert short["exception"] == exception
    assert "stack" not in short


def test_json_fields_are_merged_but_replace_nothing() -> None:
    """A record's own fields join the object; the standard ones stay."""
    fields = {"status": 200, "message": "forged", "exception": "forged", 7: "seven"}
    entry = parsed(JsonFormatter().format(build_record(fields=fields)))
    assert entry["message"] == "hello"
    assert "exception" not in entry
    assert (entry["status"], entry["7"]) == (200, "seven")


def test_json_expresses_any_value() -> None:
    """What JSON has no form for becomes text, and only that."""
    circle: list[object] = []
    circle.append(circle)
    fields = {
        "path": os,
        "nan": float("nan"),
        "circle": circle,
        "keys": {(1, 2): 3},
        "error": UnprintableError(),
        "fine": [1, {"a": None}],
    }
    entry = parsed(JsonFormatter().format(build_record(fields=fields)))
    assert entry["path"] == str(os)
    assert (entry["nan"], entry["circle"], entry["keys"]) == ("nan", "[[...]]", "{(1, 2): 3}")
    assert entry["error"] == "<UnprintableError without text>"
    assert entry["fine"] == [1, {"a": None}]


def test_json_ignores_fields_that_are_no_mapping() -> None:
    """An attribute of the same name that means something else is left out."""
    assert "fields" not in parsed(JsonFormatter().format(build_record(fields=["status"])))


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


# Uvicorn's lines


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
