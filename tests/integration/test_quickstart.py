"""The quickstart, as the README tells a newcomer to run it, on a free port."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import brotli
import httpx

ROOT = Path(__file__).parent.parent.parent
SOURCE = (ROOT / "examples" / "quickstart.py").read_text()
PATH = "/primes/300000"


@contextmanager
def quickstart(folder: Path, port: int) -> Generator[subprocess.Popen[str]]:
    """Serves the quickstart on ``port`` from a folder of its own."""
    script = folder / "quickstart.py"
    script.write_text(SOURCE.replace("8000", str(port)))
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def wait_until_served(url: str) -> None:
    """Waits until the server answers."""
    for _ in range(200):
        with suppress(httpx.ConnectError):
            httpx.get(f"{url}/nothing")
            return
        time.sleep(0.05)
    raise AssertionError("the quickstart does not answer")


def test_the_quickstart_shows_what_the_readme_says(tmp_path: Path, free_port: int) -> None:
    """A miss that is stored, a hit with its Age, brotli, and 304 for the ETag, in turn."""
    url = f"http://127.0.0.1:{free_port}"
    with quickstart(tmp_path, free_port), httpx.Client(base_url=url) as client:
        wait_until_served(url)
        first = client.get(PATH, headers={"Accept-Encoding": "identity"})
        assert first.headers["cache-status"] == "aeros; fwd=miss; stored"
        assert first.json()["primes"][:5] == [2, 3, 5, 7, 11]
        second = client.get(PATH, headers={"Accept-Encoding": "identity"})
        assert second.headers["cache-status"].startswith("aeros; hit; ttl=")
        assert int(second.headers["age"]) >= 0
        assert second.content == first.content
        with client.stream("GET", PATH, headers={"Accept-Encoding": "br"}) as third:
            coded = b"".join(third.iter_raw())
        assert third.headers["content-encoding"] == "br"
        assert brotli.decompress(coded) == first.content
        tag = third.headers["etag"]
        fourth = client.get(PATH, headers={"Accept-Encoding": "br", "If-None-Match": tag})
        assert (fourth.status_code, fourth.content, fourth.headers["etag"]) == (304, b"", tag)


def test_the_first_lines_say_what_to_open_and_what_to_try(tmp_path: Path, free_port: int) -> None:
    """A newcomer reads them before anything else."""
    with quickstart(tmp_path, free_port) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
    assert lines[0].split() == ["Open", f"http://127.0.0.1:{free_port}{PATH}"]
    assert lines[1].startswith("Try    curl -i")
    assert "Accept-Encoding: br" in lines[2]


def test_the_readme_names_the_quickstart_and_the_tests() -> None:
    """CI runs the line that stands there, so it has to be found."""
    readme = (ROOT / "README.md").read_text()
    run, test = (readme.partition(f"<!-- {name} command -->\n```sh\n")[2] for name in ("run", "test"))
    assert run.splitlines()[0].endswith("python examples/quickstart.py")
    assert test.splitlines()[0].endswith("python -m pytest")
