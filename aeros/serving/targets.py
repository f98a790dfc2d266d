"""Where log lines go: a file that may be rotated, a standard stream. Whole lines only."""

from __future__ import annotations

import errno
import os
import select
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Literal, Protocol, TextIO

from aeros.errors import LogFileError

StreamName = Literal["stderr", "stdout"]

# Other processes write to the same pipe: the system keeps what is written at once together up to
# PIPE_BUF bytes, and for files without such a bound. Files are looked for again after each write.
_PIPE_BYTES: Final = getattr(select, "PIPE_BUF", 512)
_FILE_BYTES: Final = 262_144
_WAIT_MILLISECONDS: Final = 1_000


class Target(Protocol):
    """Takes lines in their order."""

    def write(self, lines: Sequence[str]) -> int:
        """Writes as many of the lines as fit at once; returns how many are written to their end.

        It may be 0: the beginning of a line is written then, and its rest is next if the same line comes.

        Args:
            lines: At least one; each ends with a line break and has no other at its end.

        Raises:
            OSError: Nothing could be written now.
            ValueError: The same, for a stream that is closed.
        """
        ...

    def close(self) -> None:
        """Lets go of what is open."""
        ...


class FileTarget:
    """A file that lines are appended to, in UTF-8; opened anew when it was moved or removed.

    Each write is one call with ``O_APPEND``, so several processes may write to the same file, and
    it may be cut to nothing meanwhile (logrotate's ``copytruncate``).

    Args:
        path: The file; it is opened here, and made where there is none.
        setting: What names it, for the error.

    Raises:
        LogFileError: It can not be opened for appending.
    """

    def __init__(self, path: str, *, setting: str) -> None:
        self.path = path
        self._progress = _Progress()
        try:
            self._descriptor = _open(path)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            reason = getattr(error, "strerror", None) or str(error)
            raise LogFileError(setting, path, reason) from error
        self._identity = _identity(os.fstat(self._descriptor))

    def write(self, lines: Sequence[str]) -> int:
        """Appends lines; see `Target`."""
        self._follow()
        data = self._progress.begin(lines, _FILE_BYTES, "utf-8")
        return self._progress.advance(os.write(self._descriptor, data))

    def close(self) -> None:
        """Closes the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _follow(self) -> None:
        """Opens the file again where another one, or none, has its name by now."""
        if self._descriptor >= 0 and not self._was_moved():
            return
        self.close()
        # Whoever moved the file has the beginning of the line; here it is written whole.
        self._progress = _Progress()
        self._descriptor = _open(self.path)
        self._identity = _identity(os.fstat(self._descriptor))

    def _was_moved(self) -> bool:
        try:
            return _identity(os.stat(self.path)) != self._identity  # noqa: PTH116 - for each write
        except FileNotFoundError:
            return True
        except OSError:  # this user may write to it, but not look for it any more
            return False


class StreamTarget:
    """A standard stream, looked up for each write, so a redirection is followed.

    Args:
        name: ``"stderr"`` or ``"stdout"``.
    """

    def __init__(self, name: StreamName) -> None:
        self.name: StreamName = name
        self._progress = _Progress()
        self._begun_on: TextIO | None = None

    @property
    def title(self) -> str:
        """What people call it, e.g. ``"standard error"``."""
        return "standard error" if self.name == "stderr" else "standard output"

    @property
    def stream(self) -> TextIO | None:
        """The stream that has the name now; Python has None in a process without a console."""
        return sys.stderr if self.name == "stderr" else sys.stdout

    def write(self, lines: Sequence[str]) -> int:
        """Writes lines to the stream; see `Target`."""
        stream = self.stream
        if stream is None:
            raise ValueError("there is no such stream")
        descriptor = _descriptor(stream)
        if descriptor is None:
            _write_text(stream, lines)
            return len(lines)
        # What was printed comes first. Not through the stream itself: what a full disk or pipe does
        # not take would stay in its buffer, and be written a second time.
        with suppress(OSError):
            stream.flush()
        if stream is not self._begun_on:
            self._begun_on, self._progress = stream, _Progress()
        data = self._progress.begin(lines, _PIPE_BYTES, stream.encoding)
        return self._progress.advance(_write_waiting(descriptor, data))

    def close(self) -> None:
        """Does nothing: the stream belongs to the process."""


def _open(path: str) -> int:
    # As open() would: what may be read and written is the umask's business.
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


class _Progress:
    """How far a target is in its lines: a full disk takes a part of one."""

    def __init__(self) -> None:
        self._begun: str | None = None
        self._begun_bytes = 0
        self._lines: Sequence[str] = ()
        self._batch: list[bytes] = []
        self._lead = b""
        self._skipped = 0

    def begin(self, lines: Sequence[str], most_bytes: int, encoding: str) -> bytes:
        """Returns what is to be written at once: at least the rest of a line, at most so many bytes."""
        is_rest = lines[0] is self._begun
        self._lines, self._batch = lines, _batch(lines, most_bytes, encoding)
        self._lead = b"\n" if self._begun_bytes and not is_rest else b""
        self._skipped = self._begun_bytes if is_rest else 0
        return self._lead + b"".join(self._batch)[self._skipped :]

    def advance(self, written: int) -> int:
        """Takes note of how many bytes were written; returns how many lines they end."""
        written += self._skipped - len(self._lead)
        if written < 0:
            return 0
        for count, data in enumerate(self._batch):
            if written < len(data):
                self._begun, self._begun_bytes = self._lines[count], written
                return count
            written -= len(data)
        self._begun, self._begun_bytes = None, 0
        return len(self._batch)


def _batch(lines: Sequence[str], most_bytes: int, encoding: str) -> list[bytes]:
    batch: list[bytes] = []
    length = 0
    for line in lines:
        data = line.encode(encoding, "backslashreplace")
        length += len(data)
        if batch and length > most_bytes:
            break
        batch.append(data)
    return batch


def _descriptor(stream: TextIO) -> int | None:
    """Returns the stream's descriptor; None for a stand-in that has none.

    Raises:
        ValueError: The stream is closed.
    """
    try:
        return stream.fileno()
    except (AttributeError, OSError):  # io.UnsupportedOperation is an OSError
        return None


def _write_waiting(descriptor: int, data: bytes) -> int:
    """Writes to a descriptor, which may be one that does not block; then waits for a moment."""
    try:
        return os.write(descriptor, data)
    except BlockingIOError:
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        poll.poll(_WAIT_MILLISECONDS)
        return os.write(descriptor, data)


def _write_text(stream: TextIO, lines: Sequence[str]) -> None:
    text = "".join(lines)
    try:
        stream.write(text)
    except UnicodeEncodeError:  # standard output is strict, and an ASCII locale is common in containers
        stream.write(text.encode(stream.encoding, "backslashreplace").decode(stream.encoding))
    stream.flush()


def is_gone(error: Exception) -> bool:
    """Tells whether a target that failed so will fail for ever: its reader left, or it was closed."""
    return not isinstance(error, OSError) or error.errno == errno.EPIPE
