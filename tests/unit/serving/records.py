"""Log records as tests make them, what collects them, and waiting for lines."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import TypeVar, cast

import pytest

from aeros.serving.log import PrivateLogger

T = TypeVar("T")

PATIENCE_SECONDS = 20.0


def eventually(ask: Callable[[], T | None]) -> T:
    """Asks until the answer is true, and returns it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        answer = ask()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not true after {PATIENCE_SECONDS} s: {answer!r}"
        time.sleep(0.01)


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


def build_collecting_logger(level: int = logging.DEBUG) -> tuple[logging.Logger, Collector]:
    """Returns a logger of its own and what collects its records."""
    collector = Collector()
    logger = PrivateLogger("collecting", level)
    logger.addHandler(collector)
    return logger, collector
