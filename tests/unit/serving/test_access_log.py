"""The access log: the shape of its lines and what happens to its targets."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Literal, cast

import pytest

from aeros.errors import LogFileError
from aeros.serving.access_log import Access, AccessLog, render_json_fields, render_text
from tests.unit.serving.records import eventually

HIT = Access(
    client="127.0.0.1",
    method="GET",
    path="/x?y=1",
    http_version="1.1",
    status=200,
    body_bytes=1234,
    seconds=0.00084,
    cache="hit",
    ended=1_767_323_045.678,
)

WAIT = "; lines wait until it can, and are dropped when too many do"


class Reports(list[tuple[int, str]]):
    """What an access log has reported: levels and sentences."""

    def __call__(self, level: int, text: str) -> None:
        """Takes a report."""
        self.append((level, text))


def build(
    to_std: bool,
    file: Path | str | None = None,
    log_format: Literal["text", "json"] = "text",
    color: bool | None = None,
) -> tuple[AccessLog, Reports]:
    """Returns an access log, and what it will have reported."""
    reports = Reports()
    return AccessLog(to_std, None if file is None else str(file), log_format, color, reports), reports


def access_log(
    to_std: bool,
    file: Path | str | None = None,
    log_format: Literal["text", "json"] = "text",
    color: bool | None = None,
) -> AccessLog:
    """Returns an access log of which nobody listens to the reports."""
    return build(to_std, file, log_format, color)[0]


def lines_of(file: Path, count: int) -> list[str]:
    """Returns the lines of a file, once there are so many."""
    return eventually(lambda: found if len(found := file.read_text().splitlines()) >= count else None)


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
    line = render_text(HIT._replace(client="", cache=None, seconds=12.5))
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
    line = render_text(HIT._replace(path=path))
    assert line.splitlines() == [line]
    assert columns(line) == ["127.0.0.1", f"GET {written} HTTP/1.1", "200", "1234", "0.8ms", "hit"]


def test_client_can_not_break_the_line() -> None:
    """An address from a forwarded header is one column even when it is none."""
    line = render_text(HIT._replace(client='1.1.1.1 "GET / HTTP/1.1" 200\n'))
    assert line.startswith(r"1.1.1.1\x20\"GET\x20/\x20HTTP/1.1\"\x20200\n ")
    assert columns(line)[1:] == columns(render_text(HIT))[1:]


def test_json_fields_of_an_access() -> None:
    """The fields are the attributes, unescaped, with the duration in microseconds' precision."""
    access = HIT._replace(path='/"\n', seconds=0.12345678, cache=None)
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
    with access_log(True) as log:
        log.write(HIT)
    output = capsys.readouterr()
    assert messages(output.out) == [render_text(HIT)]
    assert output.err == ""
    assert caplog.records == []


def test_json_lines_to_both_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output and the file get the same object."""
    file = tmp_path / "access.log"
    with access_log(True, file, "json") as log:
        log.write(HIT)
    line = capsys.readouterr().out
    entry = cast(dict[str, object], json.loads(line))
    assert file.read_text() == line
    assert entry["logger"] == "aeros.access"
    assert entry.items() >= render_json_fields(HIT).items()


def test_color_is_for_stdout_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file is never coloured, even where colour is forced."""
    file = tmp_path / "access.log"
    with access_log(True, file, color=True) as log:
        log.write(HIT)
    assert "\x1b[32mINFO\x1b[0m: 127.0.0.1" in capsys.readouterr().out
    assert messages(file.read_text()) == [render_text(HIT)]


# The file


def test_file_is_opened_late_and_appended_to(tmp_path: Path) -> None:
    """Only opening touches the disk; what the file holds stays."""
    file = tmp_path / "access.log"
    log = access_log(False, file)
    log.write(HIT)
    assert not file.exists()
    for path in ("/first", "/caf\xe9"):
        with log:
            log.open()
            log.write(HIT._replace(path=path))
        log.write(HIT._replace(path="/closed"))
    lines = messages(file.read_text(encoding="utf-8"))
    assert [columns(line)[1] for line in lines] == ["GET /first HTTP/1.1", "GET /caf\xe9 HTTP/1.1"]
    assert log.dropped == 0


def test_file_survives_logrotate(tmp_path: Path) -> None:
    """After the file was moved away, lines go to a new file of the same name."""
    file, moved = tmp_path / "access.log", tmp_path / "access.log.1"
    with access_log(False, file) as log:
        log.write(HIT._replace(path="/before"))
        lines_of(file, 1)
        file.rename(moved)
        log.write(HIT._replace(path="/after"))
        log.write(HIT._replace(path="/later"))
    assert ["/before" in line for line in messages(moved.read_text())] == [True]
    assert ["/after" in line for line in messages(file.read_text())] == [True, False]


def test_file_survives_being_cut(tmp_path: Path) -> None:
    """With ``copytruncate`` lines go on at the beginning of the emptied file, without a hole."""
    file = tmp_path / "access.log"
    with access_log(False, file) as log:
        log.write(HIT._replace(path="/before"))
        lines_of(file, 1)
        os.truncate(file, 0)
        log.write(HIT._replace(path="/after"))
    (line,) = messages(file.read_text())
    assert "/after" in line


def test_file_comes_back_with_its_folder(tmp_path: Path) -> None:
    """Lines wait for a folder that is missing for a while; that is told once, and so is its end."""
    folder, moved = tmp_path / "logs", tmp_path / "moved"
    folder.mkdir()
    file = folder / "access.log"
    log, reports = build(False, file)
    with log:
        log.write(HIT)
        lines_of(file, 1)
        folder.rename(moved)
        for number in range(3):
            log.write(HIT._replace(path=f"/{number}"))
            eventually(lambda: reports)
        folder.mkdir()
        eventually(file.exists)
        lines = lines_of(file, 3)
    assert [columns(line)[1] for line in messages("\n".join(lines))] == [
        f"GET /{number} HTTP/1.1" for number in range(3)
    ]
    assert reports == [
        (
            logging.ERROR,
            f"access_log_file {str(file)!r} can not be written (No such file or directory)" + WAIT,
        ),
        (logging.INFO, f"access_log_file {str(file)!r} is written again; no line was lost"),
    ]
    assert log.dropped == 0


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
    log = access_log(True, path)
    with pytest.raises(LogFileError) as caught:
        log.open()
    assert (caught.value.setting, caught.value.path) == ("access_log_file", path)
    assert caught.value.reason == reason
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder", "plain"]


def test_full_disk_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A disk that takes nothing costs its own lines only; in the end they are counted as lost."""
    log, reports = build(True, "/dev/full")
    with log:
        for _ in range(3):
            log.write(HIT)
        eventually(lambda: reports)
        assert log.dropped == 0
    assert len(messages(capsys.readouterr().out)) == 3
    assert log.dropped == 3
    assert reports == [
        (logging.ERROR, "access_log_file '/dev/full' can not be written (No space left on device)" + WAIT),
        (logging.WARNING, "access_log_file '/dev/full': 3 lines were dropped when serving ended"),
    ]


def test_closed_stdout_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A standard output that was closed on purpose counts as well, and nobody is told."""
    with Path(os.devnull).open("w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
    log, reports = build(True)
    with log:
        log.write(HIT)
    assert (log.dropped, reports) == (1, [])


# Switching it on and off


@pytest.mark.parametrize(
    ("to_std", "file", "enabled"),
    [(False, None, False), (True, None, True), (False, "access.log", True), (True, "access.log", True)],
)
def test_enabled_tells_whether_there_is_a_target(to_std: bool, file: str | None, enabled: bool) -> None:
    """Without a target, measuring can be skipped."""
    assert access_log(to_std, file).enabled is enabled


def test_disabled_log_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A log without a target can be opened and written to, and nothing appears."""
    with access_log(False) as log:
        log.write(HIT)
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "")


def test_logs_share_nothing(tmp_path: Path) -> None:
    """Two servers in one process write to their own files, and no logger is registered."""
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    with (
        access_log(False, first) as one,
        access_log(False, second) as two,
    ):
        one.write(HIT)
        two.write(HIT._replace(status=404))
    assert [columns(line)[2] for line in messages(first.read_text())] == ["200"]
    assert [columns(line)[2] for line in messages(second.read_text())] == ["404"]
    assert "aeros.access" not in logging.root.manager.loggerDict
