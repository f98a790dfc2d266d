"""The access log: the shape of its lines and what happens to its targets."""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from aeros.errors import LogFileError
from aeros.serving.access_log import Access, AccessLog, render_json_fields, render_text

HIT = Access(
    client="127.0.0.1",
    method="GET",
    path="/x?y=1",
    http_version="1.1",
    status=200,
    body_bytes=1234,
    seconds=0.00084,
    cache="hit",
)


def messages(lines: str) -> list[str]:
    """Returns the text lines without their time and level."""
    return [line.split("] INFO: ", 1)[1] for line in lines.splitlines()]


def columns(line: str) -> list[str]:
    """Splits a line as a log parser does: the request is what the first and last quote enclose."""
    client, rest = line.split(" ", 1)
    request, tail = rest.rsplit('" ', 1)
    return [client, request.removeprefix('"'), *tail.split(" ")]


# The shape of a line


def test_text_line_of_an_access() -> None:
    """A line names client, request, status, bytes, duration and what the cache did."""
    assert render_text(HIT) == '127.0.0.1 "GET /x?y=1 HTTP/1.1" 200 1234 0.8ms hit'


def test_text_line_marks_what_is_missing() -> None:
    """A dash keeps the number of columns where there is no client or no cache."""
    line = render_text(replace(HIT, client="", cache=None, seconds=12.5))
    assert line == '- "GET /x?y=1 HTTP/1.1" 200 1234 12500.0ms -'


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ('/a" 500 0 1ms hit', r"/a\" 500 0 1ms hit"),
        ("/a\\", r"/a\\"),
        ('/a\\"', r"/a\\\""),
        ("/a\r\nforged\x1b[2J\x85\x00", r"/a\r\nforged\x1b[2J\x85\x00"),
        ("/caf\xe9", "/caf\xe9"),
    ],
)
def test_path_can_not_break_the_line(path: str, written: str) -> None:
    """Whatever the client asks for, the line stays one and splits into its columns."""
    line = render_text(replace(HIT, path=path))
    assert line.splitlines() == [line]
    assert columns(line) == ["127.0.0.1", f"GET {written} HTTP/1.1", "200", "1234", "0.8ms", "hit"]


def test_client_can_not_break_the_line() -> None:
    """An address from a forwarded header is one column even when it is none."""
    line = render_text(replace(HIT, client='1.1.1.1 "GET / HTTP/1.1" 200\n'))
    assert line.startswith(r"1.1.1.1\x20\"GET\x20/\x20HTTP/1.1\"\x20200\n ")
    assert columns(line)[1:] == columns(render_text(HIT))[1:]


def test_json_fields_of_an_access() -> None:
    """The fields are the attributes, unescaped, with the duration in microseconds' precision."""
    access = replace(HIT, path='/"\n', seconds=0.12345678, cache=None)
    assert render_json_fields(access) == {
        "client": "127.0.0.1",
        "method": "GET",
        "path": '/"\n',
        "http_version": "1.1",
        "status": 200,
        "body_bytes": 1234,
        "seconds": 0.123457,
        "cache": None,
    }


# Standard output


def test_lines_go_to_stdout(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    """Lines appear on standard output, once, and in no other log."""
    with AccessLog(True, None, "text", None) as log:
        log.write(HIT)
    output = capsys.readouterr()
    assert messages(output.out) == [render_text(HIT)]
    assert output.err == ""
    assert caplog.records == []


def test_json_lines_to_both_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output and the file get the same object."""
    file = tmp_path / "access.log"
    with AccessLog(True, str(file), "json", None) as log:
        log.write(HIT)
    line = capsys.readouterr().out
    entry = cast(dict[str, object], json.loads(line))
    assert file.read_text() == line
    assert entry["logger"] == "aeros.access"
    assert entry.items() >= render_json_fields(HIT).items()


def test_color_is_for_stdout_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file is never coloured, even where colour is forced."""
    file = tmp_path / "access.log"
    with AccessLog(True, str(file), "text", True) as log:
        log.write(HIT)
    assert "\x1b[32mINFO\x1b[0m: 127.0.0.1" in capsys.readouterr().out
    assert messages(file.read_text()) == [render_text(HIT)]


# The file


def test_file_is_opened_late_and_appended_to(tmp_path: Path) -> None:
    """Only opening touches the disk; what the file holds stays."""
    file = tmp_path / "access.log"
    log = AccessLog(False, str(file), "text", None)
    log.write(HIT)
    assert not file.exists()
    for path in ("/first", "/caf\xe9"):
        with log:
            log.open()
            log.write(replace(HIT, path=path))
        log.write(replace(HIT, path="/closed"))
    lines = messages(file.read_text(encoding="utf-8"))
    assert [columns(line)[1] for line in lines] == ["GET /first HTTP/1.1", "GET /caf\xe9 HTTP/1.1"]
    assert log.dropped == 0


def test_file_survives_logrotate(tmp_path: Path) -> None:
    """After the file was moved away, lines go to a new file of the same name."""
    file, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    with AccessLog(False, str(file), "text", None) as log:
        log.write(replace(HIT, path="/before"))
        file.rename(moved)
        log.write(replace(HIT, path="/after"))
        log.write(replace(HIT, path="/later"))
    assert ["/before" in line for line in messages(moved.read_text())] == [True]
    assert len(messages(file.read_text())) == 2


def test_file_comes_back_with_its_folder(tmp_path: Path) -> None:
    """A folder that is missing for a while costs the lines of that while only."""
    folder, moved = tmp_path / "logs", tmp_path / "moved"
    folder.mkdir()
    file = folder / "access.log"
    with AccessLog(False, str(file), "text", None) as log:
        log.write(HIT)
        folder.rename(moved)
        log.write(HIT)
        log.write(HIT)
        assert log.dropped == 2
        folder.mkdir()
        log.write(HIT)
        log.write(HIT)
    assert len(messages(file.read_text())) == 2
    assert log.dropped == 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing/access.log", "No such file or directory"),
        ("folder", "Is a directory"),
        ("plain/access.log", "Not a directory"),
        ("nul\0", "embedded null byte"),
    ],
)
def test_file_that_can_not_be_opened(name: str, reason: str, tmp_path: Path) -> None:
    """Opening says which file it is and what the operating system has against it."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").touch()
    path = str(tmp_path / name)
    log = AccessLog(True, path, "text", None)
    with pytest.raises(LogFileError) as caught:
        log.open()
    assert (caught.value.setting, caught.value.path) == ("access_log_file", path)
    assert caught.value.reason == reason
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder", "plain"]


def test_full_disk_is_counted_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    """A disk that takes nothing neither raises nor fills the error log, and closing works."""
    log = AccessLog(True, "/dev/full", "text", None)
    with log:
        for _ in range(3):
            log.write(HIT)
        assert log.dropped == 3
    output = capsys.readouterr()
    assert len(messages(output.out)) == 3
    assert output.err == ""
    assert log.dropped == 3


def test_closed_stdout_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A standard output that is gone counts as well."""
    with Path(os.devnull).open("w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
    with AccessLog(True, None, "text", None) as log:
        log.write(HIT)
    assert log.dropped == 1


# Switching it on and off


@pytest.mark.parametrize(
    ("to_std", "file", "enabled"),
    [(False, None, False), (True, None, True), (False, "access.log", True), (True, "access.log", True)],
)
def test_enabled_tells_whether_there_is_a_target(to_std: bool, file: str | None, enabled: bool) -> None:
    """Without a target, measuring can be skipped."""
    assert AccessLog(to_std, file, "text", None).enabled is enabled


def test_disabled_log_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A log without a target can be opened and written to, and nothing appears."""
    with AccessLog(False, None, "text", None) as log:
        log.write(HIT)
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "")


def test_logs_share_nothing(tmp_path: Path) -> None:
    """Two servers in one process write to their own files, and no logger is registered."""
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    with (
        AccessLog(False, str(first), "text", None) as one,
        AccessLog(False, str(second), "text", None) as two,
    ):
        one.write(HIT)
        two.write(replace(HIT, status=404))
    assert [columns(line)[2] for line in messages(first.read_text())] == ["200"]
    assert [columns(line)[2] for line in messages(second.read_text())] == ["404"]
    assert "aeros.access" not in logging.root.manager.loggerDict
