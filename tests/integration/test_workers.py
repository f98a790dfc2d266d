"""Worker processes: each way to start them, and what becomes of requests when one dies or all are ended."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Final

import httpx
import psutil
import pytest

from tests.conftest import RunScript
from tests.integration.conftest import PATIENCE, Child, Start, eventually
from tests.integration.load import CLIENTS, COUNTING, Load, counted

APP: Final = "from aeros import WebServer\napp = WebServer('shop', '127.0.0.1', 0)\n" + COUNTING
RUN: Final = "app.run_server(workers=2, soft_limit=16, hard_limit=None, access_log_to_std=False)\n"
MAIN: Final = f"if __name__ == '__main__':\n    {RUN}"
FACTORY: Final = (
    "from aeros import WebServer\n\ndef create_app():\n    app = WebServer('shop', '127.0.0.1', 0)\n"
    + "".join(f"    {line}\n" if line else "\n" for line in COUNTING.splitlines())
    + "    return app\n"
)
FACTORY_MAIN: Final = "if __name__ == '__main__':\n    " + RUN.replace("app.", "create_app().")

# By how it is started: Python's arguments, and the files that there are.
FORMS: Final = {
    "script": (("shop.py",), {"shop.py": APP + MAIN}),
    "module": (("-m", "store.web"), {"store/__init__.py": "", "store/web.py": APP + MAIN}),
    "package": (
        ("-m", "store"),
        {
            "store/__init__.py": "",
            "store/web.py": APP,
            "store/__main__.py": "from store.web import app\n" + RUN,
        },
    ),
    "factory": (
        ("shop.py",),
        {"shop.py": FACTORY + FACTORY_MAIN.replace("workers=2", "workers=2, factory=create_app")},
    ),
    "factory's path": (
        ("start.py",),
        {
            "web.py": FACTORY,
            "start.py": "from web import create_app\n"
            + FACTORY_MAIN.replace("workers=2", "workers=2, factory='web:create_app'"),
        },
    ),
}


def write(folder: Path, files: dict[str, str]) -> None:
    """Writes an application's files."""
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


async def end_under_load(child: Child, load: Load, *, whole_group: bool) -> set[str]:
    """Ends a server that many clients ask; returns the requests that it had begun and not ended by then.

    Args:
        child: The server.
        load: The clients.
        whole_group: Whether the workers get the signal, too, as from a shell or from systemd by default.
    """
    open_then: set[str] = set()

    async def end() -> None:
        open_then.update(counted(child.folder, "begun") - counted(child.folder, "ended"))
        if whole_group:
            os.killpg(child.process.pid, signal.SIGTERM)
        else:
            child.send(signal.SIGTERM)

    await load.run(end)
    return open_then


def assert_nothing_lost(load: Load, folder: Path) -> None:
    """Checks, on both sides, that what was begun was answered whole, once, and nothing else was answered."""
    begun = counted(folder, "begun")
    assert load.broken == []
    assert load.complete == begun == counted(folder, "ended")
    assert not (load.refused | load.unanswered) & begun


@pytest.mark.parametrize("form", FORMS)
def test_a_dead_worker_is_replaced_and_the_end_loses_no_request(
    start: Start, tmp_path: Path, form: str
) -> None:
    """One of two that answer is killed and replaced; at SIGTERM every request of 200 clients ends whole."""
    arguments, files = FORMS[form]
    write(tmp_path, files)
    child = start(*arguments)
    before = child.pids(workers=2)
    assert child.process.pid not in before
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: f"Worker {victim} has ended (SIGKILL); another one is started" in child.stderr)
    after = child.pids(workers=2)
    assert victim not in after
    assert len(after & before) == 1
    load = Load(child.port)
    open_then = asyncio.run(end_under_load(child, load, whole_group=form == "module"))
    assert child.wait() == 0
    assert len(load.complete) >= 2 * CLIENTS
    assert open_then
    assert_nothing_lost(load, tmp_path)
    eventually(child.is_alone)
    assert child.stderr.count("another one is started") == 1
    assert "Traceback" not in child.stderr


# Replacing


VERSIONED: Final = (
    APP
    + """
@app.route("/version")
async def version():
    return "first"

if __name__ == "__main__":
    app.run_server(
        workers=2, soft_limit=None, hard_limit=None, access_log_to_std=False, timeout_worker_healthcheck=2
    )
"""
)


def test_workers_are_replaced_under_load_and_for_what_goes_wrong(start: Start, tmp_path: Path) -> None:
    """One server's life: a new version, a broken one, a resize, a hang, and the loss of its supervisor."""
    script = tmp_path / "shop.py"
    script.write_text(VERSIONED)
    child = start("shop.py")
    first = child.pids(workers=2)
    load = Load(child.port)

    async def replace() -> None:
        script.write_text(VERSIONED.replace("first", "second"))
        child.send(signal.SIGHUP)
        while "All workers are replaced" not in child.stderr or any(map(psutil.pid_exists, first)):
            await asyncio.sleep(0.05)
        load.is_over = True

    asyncio.run(asyncio.wait_for(load.run(replace, clients=40), PATIENCE))
    assert (load.broken, load.refused, load.unanswered) == ([], set(), set())
    assert load.complete == counted(tmp_path, "ended")
    second = child.pids(workers=2)
    assert not first & second
    assert {child.get("/version").text for _ in range(8)} == {"second"}

    script.write_text("def")
    child.send(signal.SIGHUP)
    child.says(r"The new worker \d+ did not start \(status 1\); the others go on and are not replaced")
    assert "SyntaxError" in child.stderr
    assert child.pids(workers=2) == second
    script.write_text(VERSIONED.replace("first", "second"))

    child.send(signal.SIGTTIN)
    more = child.pids(workers=3)
    assert second < more
    child.send(signal.SIGTTOU)
    (surplus,) = more - second
    eventually(lambda: not psutil.pid_exists(surplus))
    assert child.pids(workers=2) == second

    hung = min(second)
    os.kill(hung, signal.SIGSTOP)
    child.says(rf"Worker {hung} gave no sign of life for timeout_worker_healthcheck=2 seconds and is killed")
    assert hung not in child.pids(workers=2)

    child.process.kill()
    child.wait()
    eventually(child.is_alone)
    assert child.stderr.count("The supervisor is gone; its worker stops") == 2


def test_workers_that_have_served_their_number_are_replaced_without_a_loss(
    start: Start, tmp_path: Path
) -> None:
    """``limit_max_requests`` ends one after the other; whoever connects meanwhile is answered."""
    script = APP + "if __name__ == '__main__':\n    app.run_server(workers=2, limit_max_requests=8)\n"
    (tmp_path / "shop.py").write_text(script)
    child = start("shop.py")
    with httpx.Client(base_url=child.url, headers={"Connection": "close"}, timeout=PATIENCE) as client:
        answered = {client.get("/pid").text for _ in range(30)}
    assert len(answered) >= 3
    assert child.stop() == 0
    assert child.stderr.count("has ended (status 0); another one is started") >= 2
    assert "ERROR" not in child.stderr


# How many


@pytest.mark.parametrize(
    ("arguments", "environment", "workers"),
    [
        ("", {"AEROS_WORKERS": "2", "WEB_CONCURRENCY": "3"}, 2),
        ("", {"WEB_CONCURRENCY": "2"}, 2),
        ("workers=1", {"AEROS_WORKERS": "2", "WEB_CONCURRENCY": "2"}, 1),
        ("workers='auto'", {"AEROS_WORKERS": "3"}, 1),
    ],
    ids=["AEROS_WORKERS", "WEB_CONCURRENCY", "the call", "auto"],
)
def test_the_strongest_says_how_many_workers_there_are(
    start: Start, tmp_path: Path, arguments: str, environment: dict[str, str], workers: int
) -> None:
    """The banner counts them; that each has a cache for itself is said once, where there are several."""
    script = (
        APP
        + "app.cache(60)(lambda: 'x')\n"
        + "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        + f"if __name__ == '__main__':\n    app.run_server({arguments})\n"
    )
    (tmp_path / "shop.py").write_text(script)
    child = start("shop.py", **environment)
    assert child.says(r"workers: (\d+); cache: ") == str(workers)
    assert (child.process.pid in child.pids(workers=workers)) == (workers == 1)
    assert child.stop() == 0
    caution = "The cache is in the memory of each of the 2 workers: "
    assert child.stderr.count(caution) == child.stderr.count("RedisStore") == (workers > 1)
    assert "Traceback" not in child.stderr


# What can not be started


def test_a_script_without_its_guard_is_told_what_is_missing(run_script: RunScript) -> None:
    """The workers import the script, which would start a server in each."""
    result = run_script(APP + "app.run_server(workers=2)\n")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    lines = {line for line in result.stderr.splitlines() if line.startswith("aeros: workers: ")}
    (line,) = lines
    assert line == (
        "aeros: workers: the server is started while a worker process imports the module; put the call"
        " where imports do not come: if __name__ == '__main__': app.run_server(...)"
    )


@pytest.mark.parametrize(
    ("factory", "word"),
    [("lambda: app", "factory: "), ("'shop'", "factory: 'shop'"), ("'script:nothing'", "'script:nothing()'")],
)
def test_a_factory_that_can_not_be_found_is_a_clear_error(
    run_script: RunScript, factory: str, word: str
) -> None:
    """One line says which; workers that can not find it end the run."""
    result = run_script(
        APP + f"if __name__ == '__main__':\n    app.run_server(workers=2, factory={factory})\n"
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert word in result.stderr
    assert all(line.startswith(("aeros: ", "[")) for line in result.stderr.splitlines()), result.stderr


def test_ctrl_c_does_not_break_a_worker_that_starts(start: Start, tmp_path: Path) -> None:
    """A terminal sends it to all of them: those that still import leave it to the supervisor to say stop."""
    write(tmp_path, FORMS["script"][1])
    child = start("shop.py")
    supervisor = psutil.Process(child.process.pid)

    def starting() -> list[psutil.Process]:
        return [one for one in supervisor.children() if "spawn_main" in " ".join(one.cmdline())]

    eventually(lambda: len(starting()) == 2)
    time.sleep(0.2)  # they import by now, for longer than this
    for worker in starting():
        worker.send_signal(signal.SIGINT)
    assert child.pids(workers=2) == {worker.pid for worker in starting()}
    os.killpg(child.process.pid, signal.SIGINT)
    assert child.wait() == 0
    eventually(child.is_alone)
    assert "Traceback" not in child.stderr
