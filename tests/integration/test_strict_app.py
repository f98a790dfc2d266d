"""The example service passes its own tests, runs as its page says, and needs no help to be typed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT
from tests.integration.conftest import eventually

EXAMPLES = ROOT / "examples"
APP = EXAMPLES / "strict_app"
ULYSSES = {"title": "Ulysses", "author": "James Joyce"}


@contextmanager
def served(port: int, database: Path, **further: str) -> Generator[httpx.Client]:
    """Runs the service as its page says, and stops it as an operator would."""
    environment = {
        "AEROS_HOST": "127.0.0.1",
        "AEROS_PORT": str(port),
        "LIBRARY_DATABASE_URL": f"sqlite+aiosqlite:///{database}",
        "LIBRARY_PAGE_SIZE": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "strict_app"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=EXAMPLES,
        env={**os.environ, **environment, **further},
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            eventually(lambda: process.poll() is not None or is_healthy(client))
            yield client
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, said
    assert "Traceback" not in said


def is_healthy(client: httpx.Client) -> bool:
    """Asks the service whether it is."""
    with suppress(httpx.TransportError):
        return client.get("/health").status_code == 200
    return False


def test_its_own_tests_pass() -> None:
    """All of them, in a pytest of their own that has no settings of ours."""
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "strict_app"]
    run = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=EXAMPLES, timeout=120, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    written = sum(path.read_text().count("\ndef test_") for path in APP.glob("tests/test_*.py"))
    written += sum(path.read_text().count("\nasync def test_") for path in APP.glob("tests/test_*.py"))
    passed = re.search(r"^(\d+) passed in ", run.stdout, re.MULTILINE)
    assert passed is not None
    assert int(passed[1]) >= written > 15


def test_it_runs_as_a_module_and_keeps_its_books(tmp_path: Path, free_port: int) -> None:
    """With its settings from the environment; a second start finds what the first has kept."""
    database = tmp_path / "library.db"
    with served(free_port, database) as client:
        created = client.post("/books", json=ULYSSES)
        assert created.status_code == 201
        path = created.headers["location"]
        client.post("/books", json={**ULYSSES, "title": "Dubliners"})
        first, second = [client.get("/books") for _ in range(2)]
        assert [book["title"] for book in first.json()["books"]] == ["Dubliners"]
        assert first.json()["next"] == "/books?page=2"
        assert first.headers["cache-status"] == "aeros; fwd=miss; stored"
        assert second.headers["cache-status"].startswith("aeros; hit; ttl=")
    with served(free_port, database) as client:
        assert client.get(path).json() == created.json()


def test_two_workers_may_start_on_a_new_database(tmp_path: Path, free_port: int) -> None:
    """Both make what is missing, and what one has written the other reads."""
    database = tmp_path / "library.db"
    with served(free_port, database, WEB_CONCURRENCY="2"):
        url = f"http://127.0.0.1:{free_port}"
        bodies = [{**ULYSSES, "title": str(number)} for number in range(20)]
        # A connection stays with its worker, so each request has its own.
        created = [httpx.post(f"{url}/books", json=body) for body in bodies]
        assert {response.status_code for response in created} == {201}
        for response in created:
            found = httpx.get(f"{url}{response.headers['location']}")
            assert found.json() == response.json()


def test_a_database_that_can_not_be_opened_is_one_line(tmp_path: Path, free_port: int) -> None:
    """The service does not start, and says which resource it was."""
    missing = tmp_path / "nowhere" / "library.db"
    run = subprocess.run(
        [sys.executable, "-m", "strict_app"],
        capture_output=True,
        text=True,
        cwd=EXAMPLES,
        env={
            **os.environ,
            "AEROS_HOST": "127.0.0.1",
            "AEROS_PORT": str(free_port),
            "LIBRARY_DATABASE_URL": f"sqlite+aiosqlite:///{missing}",
        },
        timeout=60,
        check=False,
    )
    assert run.returncode != 0
    (line,) = [line for line in run.stderr.splitlines() if "'database' did not open" in line]
    assert "unable to open database file" in line
    # Not that there is no traceback at all: aiosqlite's thread may outlive the loop, and says so.
    assert "ResourceError" not in run.stderr


@pytest.mark.parametrize("path", sorted(APP.rglob("*.py")), ids=lambda path: str(path.relative_to(APP)))
def test_nothing_in_it_is_hidden_from_the_type_checkers(path: Path) -> None:
    """The folder is checked with the rest, strictly; here is no comment or cast to help."""
    assert re.findall(r"\b(ignore|noqa|cast|Any)\b", path.read_text()) == []


def test_its_page_names_what_is_there() -> None:
    """Each module that is worth reading, and the settings with their defaults."""
    page = (APP / "README.md").read_text()
    named = {APP / name for name in re.findall(r"\]\(([\w/]+\.py)\)", page)}
    modules = {path for path in APP.rglob("*.py") if not path.name.startswith("__")}
    assert modules - named == {APP / "tests" / "fakes.py"}
    assert named - modules == set()
    source = (APP / "container.py").read_text()
    settings = re.findall(r'from_env\("(\w+)", "?([^",)]+)', source)
    assert len(settings) == 2
    for name, default in settings:
        assert re.search(rf"`{name}`, `?{re.escape(default)}\b", page)
