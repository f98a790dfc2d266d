"""The shape of log lines: text for people, JSON for programs."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from typing import cast

import pytest

from aeros.serving.formatters import JsonFormatter, TextFormatter
from tests.unit.serving.records import build_record, parsed, raised


class UnprintableError(Exception):
    """An exception whose text can not be had."""

    def __str__(self) -> str:
        raise ValueError("no text")


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
