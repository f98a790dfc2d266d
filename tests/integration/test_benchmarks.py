"""The benchmarks run, with tiny numbers and without programs that not every machine has; nothing is timed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import psutil
import pytest

from benchmarks import load, rounds, workloads
from benchmarks.answers import Expected, WrongAnswerError, check
from benchmarks.load import Asked, Generator
from benchmarks.process import LeftOutError, cpu_seconds, ended_with, free_port, running
from benchmarks.servers.proxies import NginxServer, VarnishServer
from benchmarks.servers.python import PythonServer

ROOT = Path(__file__).parent.parent.parent
TINY = ("--seconds", "0.1", "--rounds", "1")


def environment(folder: Path) -> dict[str, str]:
    """Returns one in which no program is found, and nobody measures coverage."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    return {**kept, "PATH": str(folder)}


def run(module: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs a benchmark, and returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *options],
        cwd=ROOT,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_peers_prints_its_rows_and_writes_chart_and_samples(tmp_path: Path) -> None:
    """The rows of what the tests' environment has, each with a table, and a chart that is well-formed."""
    svg, samples = tmp_path / "chart.svg", tmp_path / "samples.json"
    only = "^(cached 24 KB JSON, br|JSON hello, not cached|path.*|64 KB.*|stream.*|websocket.*|24 KB.*): "
    only += "(aeros|Quart$|Starlette)"
    done = run("peers", tmp_path, *TINY, "--only", only, "--svg", str(svg), "--json", str(samples))
    for title in (
        "cached 24 KB JSON, br",
        "JSON hello, not cached",
        "path parameter, query, before_request hook",
        "64 KB JSON posted and validated",
        "stream of 100 chunks",
        "websocket echo",
        "24 KB JSON, br, each request another query",
    ):
        assert f"\n{title} (per " in done.stdout
    for row in (
        "empty ASGI app (c)",
        "aeros, door 1",
        "aeros, door 2",
        "aeros, door 3",
        "Quart",
        "Starlette",
    ):
        assert f"\n{row} " in done.stdout
    assert "wrk is not installed" in done.stdout
    assert "round 1" in done.stderr
    told = json.loads(samples.read_text())
    rows = [row for workload in told["workloads"] for row in workload["rows"]]
    assert all(row["median"]["micros"] > 0 and row["left_out"] is None for row in rows)
    assert all(row["peak_bytes"] > 2**20 for row in rows)
    assert "aeros, door 1" in "".join(ET.fromstring(svg.read_text()).itertext())


def test_several_workers_and_access_logs_are_measured(tmp_path: Path) -> None:
    """Workers that share a Redis, and an access log that is really written."""
    only = "two workers: aeros, in Redis|hello, access log to a file: aeros"
    done = run("peers", tmp_path, *TINY, "--only", only)
    assert "aeros, in Redis, two workers " in done.stdout
    assert "JSON hello, access log to a file (per request; ref: Quart)" in done.stdout


def test_growth_prints_its_curves(tmp_path: Path) -> None:
    """Every quantity at its smallest."""
    svg = tmp_path / "growth.svg"
    done = run("growth", tmp_path, *TINY, "--most", "1", "--svg", str(svg))
    for row in ("routes (µs of CPU)", "entries in the cache (µs of CPU)", "aeros, hit ", "Quart, hello "):
        assert row in done.stdout
    assert "left out" not in done.stdout
    assert "clients at once" in "".join(ET.fromstring(svg.read_text()).itertext())


def test_startup_prints_imports_and_first_answers(tmp_path: Path) -> None:
    """Both tables, with aeros and what it is compared with."""
    done = run("startup", tmp_path, "--rounds", "1")
    for row in ("import ", "quart, uvicorn, dependency_injector ", "first answer ", "Quart on uvicorn "):
        assert f"\n{row}" in done.stdout
    assert done.stdout.count("\naeros ") == 2


def test_inside_prints_its_rows_and_a_profile(tmp_path: Path) -> None:
    """Of ours and of Quart, without a socket."""
    printed = run("inside", tmp_path, "--requests", "4", "--rounds", "1").stdout
    for row in ("Quart, hello", "aeros, hello", "aeros, hit, door 1", "aeros, 24 KB, cached, all misses"):
        assert f"\n{row} " in printed
    profile = run("inside", tmp_path, "--requests", "4", "--profile", "hello").stdout
    assert "(data_received)" in profile


def test_injection_prints_its_pairs(tmp_path: Path) -> None:
    """One framework's two rows, and their difference."""
    done = run("injection", tmp_path, *TINY, "--only", r"inject\(\)")
    assert "aeros, inject() " in done.stdout


def test_a_benchmark_that_is_interrupted_ends_its_servers(tmp_path: Path) -> None:
    """CTRL+C that only the benchmark hears of."""
    options = (*TINY, "--rounds", "1000", "--only", "hello, not.*: Starlette")
    command = [sys.executable, "-m", "benchmarks.peers", *options]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(tmp_path), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while not process.stderr.readline().startswith("[1/"):
            assert process.poll() is None
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert len(children) >= 2
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


def test_programs_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that can not be measured says what it lacks."""

    def which(_name: str, path: str | None = None) -> str | None:
        return None

    monkeypatch.setattr(shutil, "which", which)
    empty = PythonServer("empty:rows")
    assert NginxServer(empty).missing() == "nginx is not installed"
    assert VarnishServer(empty).missing() == "varnishd is not installed"
    assert load.find_generator() == Generator(None)
    assert "no_such_package not installed" in (PythonServer("x:y", ("no_such_package",)).missing() or "")


def test_a_server_that_does_not_start_is_left_out_with_its_last_line(tmp_path: Path) -> None:
    """The reader learns why."""
    command = [sys.executable, "-c", "raise SystemExit('no luck today')"]
    with pytest.raises(LeftOutError, match="no luck today"), running(command, free_port(), tmp_path / "log"):
        pass


def test_a_wrong_answer_is_noticed(tmp_path: Path) -> None:
    """Another body, and a coding that was not expected."""
    with PythonServer("empty:hello").started(tmp_path) as server:
        assert check(Asked("/"), Expected({"hello": "world"}), server.port) == 18
        with pytest.raises(WrongAnswerError, match="another body"):
            check(Asked("/"), Expected({"hello": "moon"}), server.port)
        with pytest.raises(WrongAnswerError, match="coding ''"):
            check(Asked("/"), Expected({"hello": "world"}, "br"), server.port)


def test_errors_under_load_are_not_counted_as_requests(tmp_path: Path) -> None:
    """Answers that are not 2xx fail the round."""
    with (
        PythonServer("quart:plain").started(tmp_path) as server,
        pytest.raises(RuntimeError, match="errors in"),
    ):
        Generator(None).run(Asked("/nowhere"), server.port, 2, 0.1, 1)


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_wrk_asks_what_our_own_generator_asks(tmp_path: Path) -> None:
    """Known and new keys, and a body to post."""
    wrk = load.find_generator()
    with PythonServer("aeros:plain").started(tmp_path) as server:
        some = Asked("/items/{key}", "br", known_keys=10, new_share=0.5)
        posted = workloads.posted().rows[-1]
        for asked in (some, posted.asked):
            answered = wrk.run(asked, server.port, 2, 1, 7)
            assert answered.requests > 0
            assert answered.p50_ms <= answered.p99_ms


def test_cpu_is_counted_in_small_steps() -> None:
    """Less than a tick of the system's clock of work is seen."""
    own = psutil.Process()
    before = cpu_seconds(own)
    sum(range(20_000))
    assert 0 < cpu_seconds(own) - before < 1


def test_all_workloads_begin_with_the_empty_application() -> None:
    """It is what every row is compared with; a workload's reference is one of its rows."""
    made = list(workloads.workloads())
    assert len({workload.title for workload in made}) == len(made)
    for workload in made:
        assert workload.rows[0].title == workloads.EMPTY
        assert workload.reference in ("", *(row.title for row in workload.rows))
    assert rounds.count_steps(made, 2) == 2 * sum(len(workload.rows) for workload in made)


def test_what_was_started_is_ended_where_its_context_ends(tmp_path: Path) -> None:
    """A child of the process too, which would not end by itself."""
    source = (
        "import subprocess, sys, time; "
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "print('up', flush=True); time.sleep(60)"
    )
    log = tmp_path / "log"
    with log.open("wb") as output, ended_with([sys.executable, "-c", source], output) as process:
        while not log.read_text():
            assert process.poll() is None
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    assert len(family) == 2
    _gone, alive = psutil.wait_procs(family, timeout=10)
    assert all(member.status() == psutil.STATUS_ZOMBIE for member in alive)
