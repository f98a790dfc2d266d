"""Targets: whole lines in files that are rotated, and on streams that take a part, nothing, or block."""

from __future__ import annotations

import io
import os
import select
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pytest

from aeros.errors import LogFileError
from aeros.serving.targets import FileTarget, StreamTarget
from tests.unit.serving.records import PATIENCE_SECONDS


def open_descriptors() -> int:
    """Returns how many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


# Files


def test_lines_are_appended_in_utf_8(tmp_path: Path) -> None:
    """What stands there stays; what UTF-8 has no form for is escaped."""
    file = tmp_path / "a.log"
    file.write_text("older\n")
    target = FileTarget(str(file), setting="error_log_file")
    assert target.write(["caf\xe9\n", "\udc80\n"]) == 2
    target.close()
    assert file.read_text() == "older\ncaf\xe9\n\\udc80\n"


def test_a_file_that_was_moved_or_removed_is_made_again(tmp_path: Path) -> None:
    """Each line stands where the file was when it was written."""
    file = tmp_path / "a.log"
    target = FileTarget(str(file), setting="error_log_file")
    target.write(["one\n"])
    file.rename(tmp_path / "a.log.1")
    target.write(["two\n"])
    file.unlink()
    target.write(["three\n"])
    file.rename(tmp_path / "a.log.3")
    file.write_text("made by logrotate\n")
    target.write(["four\n"])
    target.close()
    assert (tmp_path / "a.log.1").read_text() == "one\n"
    assert (tmp_path / "a.log.3").read_text() == "three\n"
    assert file.read_text() == "made by logrotate\nfour\n"


def test_no_descriptor_is_left_behind_by_rotation(tmp_path: Path) -> None:
    """A server that runs for years rotates often."""
    file = tmp_path / "a.log"
    target = FileTarget(str(file), setting="error_log_file")
    before = open_descriptors()
    for number in range(20):
        target.write(["line\n"])
        file.rename(tmp_path / f"a.log.{number}")
    assert open_descriptors() == before
    target.close()
    assert open_descriptors() == before - 1


def test_two_files_open_on_one_path_write_whole_lines(tmp_path: Path) -> None:
    """As two worker processes have it: neither writes over the other."""
    file = tmp_path / "a.log"
    targets = [FileTarget(str(file), setting="error_log_file") for _ in range(2)]
    for number in range(100):
        for name, target in enumerate(targets):
            target.write([f"{name} {number}\n"])
    for target in targets:
        target.close()
    assert file.read_text().splitlines() == [f"{name} {number}" for number in range(100) for name in (0, 1)]


@pytest.mark.parametrize(
    ("name", "reason"), [("missing/a.log", "No such file or directory"), ("a\0", "null")]
)
def test_a_file_that_can_not_be_opened_is_named_with_its_setting(
    tmp_path: Path, name: str, reason: str
) -> None:
    """Before anything is served."""
    with pytest.raises(LogFileError) as caught:
        FileTarget(str(tmp_path / name), setting="error_log_file")
    assert caught.value.setting == "error_log_file"
    assert reason in caught.value.reason


# What only a process with a limit of its own shows: how a disk that becomes full takes a part of a line.
FULL_DISK = """
import os, resource, sys
from pathlib import Path
from aeros.serving.targets import FileTarget
file = Path(sys.argv[1])
target = FileTarget(str(file), setting="error_log_file")
lines = [f"line {number}\\n" for number in range(100)]
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
def may_have(count):
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, unlimited[1]))
may_have(100)
def write_all(lines):
    while lines:
        lines = lines[target.write(lines):]
    return lines
left = list(lines)
try:
    while left:
        left = left[target.write(left):]
except OSError as error:
    print(error.strerror)
assert file.stat().st_size == 100
"""


def run_on_a_full_disk(file: Path, what: str) -> str:
    """Runs a program that has filled its disk, and returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK + what, str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_line_that_was_begun_is_ended_when_there_is_room(tmp_path: Path) -> None:
    """Nothing is lost and nothing stands twice."""
    file = tmp_path / "a.log"
    run = run_on_a_full_disk(file, "may_have(unlimited[0])\nwrite_all(left)\n")
    assert run == "File too large\n"
    assert file.read_text().splitlines() == [f"line {number}" for number in range(100)]


def test_a_line_that_was_begun_is_whole_in_the_next_file(tmp_path: Path) -> None:
    """Its beginning went with the file that was moved away."""
    file = tmp_path / "a.log"
    run_on_a_full_disk(file, "file.rename(sys.argv[1] + '.1')\nmay_have(unlimited[0])\nwrite_all(left)\n")
    before = (tmp_path / "a.log.1").read_text().splitlines()
    assert before[:-1] == [f"line {number}" for number in range(len(before) - 1)]
    assert file.read_text().splitlines() == [f"line {number}" for number in range(len(before) - 1, 100)]


def test_a_line_that_was_begun_and_given_up_is_ended_before_the_next(tmp_path: Path) -> None:
    """Nobody's line begins in the middle of another one."""
    file = tmp_path / "a.log"
    run_on_a_full_disk(file, "may_have(unlimited[0])\nwrite_all(['other\\n'])\n")
    text = file.read_text()
    assert text[:100] == "".join(f"line {number}\n" for number in range(100))[:100]
    assert text[100:] == "\nother\n"


# Streams


@contextmanager
def pipe_as_stdout() -> Generator[tuple[int, int]]:
    """Puts a pipe in standard output's place: its reading and its writing end."""
    reader, writer = os.pipe()
    with io.TextIOWrapper(io.FileIO(writer, "w"), encoding="utf-8") as stream, redirect_stdout(stream):
        yield reader, writer
    os.close(reader)


def test_what_is_written_to_a_pipe_at_once_is_whole_lines() -> None:
    """At most as many bytes as the system keeps together among several workers."""
    target = StreamTarget("stdout")
    lines = [f"{number:0100d}\n" for number in range(100)]
    long = "x" * 10_000 + "\n"
    with pipe_as_stdout() as (reader, _):
        count = target.write(lines)
        assert count == select.PIPE_BUF // 101
        assert os.read(reader, 100_000).decode() == "".join(lines[:count])
        assert target.write([long, "next\n"]) == 1
        assert os.read(reader, 100_000).decode() == long


def test_what_was_printed_comes_before() -> None:
    """A view's ``print()`` is not kept back in the stream's buffer."""
    with pipe_as_stdout() as (reader, _):
        print("printed")
        StreamTarget("stdout").write(["logged\n"])
        assert os.read(reader, 1_000) == b"printed\nlogged\n"


def test_a_pipe_that_does_not_block_is_waited_for() -> None:
    """One that stays full is an error; when it is read again, nothing is lost or written twice."""
    target = StreamTarget("stdout")
    lines = [f"{number:0100d}\n" for number in range(3_000)]
    left = list(lines)
    read: list[bytes] = []

    def write_left() -> None:
        while left:
            del left[: target.write(left)]

    def read_all(reader: int) -> None:
        while not b"".join(read[-2:]).endswith(lines[-1].encode()):
            read.append(os.read(reader, 4_096))

    with pipe_as_stdout() as (reader, writer):
        os.set_blocking(writer, False)
        with pytest.raises(BlockingIOError):
            write_left()
        assert 0 < len(left) < len(lines)
        reading = threading.Thread(target=read_all, args=(reader,), daemon=True)
        reading.start()
        write_left()
        reading.join(PATIENCE_SECONDS)
    assert b"".join(read).decode() == "".join(lines)


def test_a_stream_in_ascii_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than losing the line, with a descriptor or without."""
    reader, writer = os.pipe()
    raw = io.BytesIO()
    streams = (io.TextIOWrapper(io.FileIO(writer, "w"), "ascii"), io.TextIOWrapper(raw, "ascii"))
    for stream in streams:
        monkeypatch.setattr(sys, "stderr", stream)
        assert StreamTarget("stderr").write(["caf\xe9\n"]) == 1
    assert os.read(reader, 100) == raw.getvalue() == b"caf\\xe9\n"
    os.close(reader)
    for stream in streams:
        stream.close()


def test_a_stream_that_is_gone_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed one, and none at all, as in a process without a console."""
    target = StreamTarget("stdout")
    closed = io.StringIO()
    closed.close()
    for stream in (closed, None):
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(ValueError):
            target.write(["line\n"])
