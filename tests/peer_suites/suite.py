"""Runs a peer's tests of compression on the peer and on ours in its place, and compares.

Usage: ``python tests/peer_suites/suite.py PEER PATH``, where PEER is ``starlette`` or
``flask-compress`` and PATH is a checkout of it. Its own code is tested; what else it needs (httpx2,
anyio and trio, or flask, flask-caching and backports.zstd) has to be installed beside aeros and
pytest, in versions that the checkout is made for.

A test stops at the first thing that differs, so a third run follows: on ours, with tests that are
edited to expect what ours does on purpose. Exit status 0: only the tests of ``differences.toml`` are
lost, each in the way that is written there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

HERE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody else's compression: its test file, and the pytest plugin that puts ours in its place."""

    tests: str
    plugin: str


PEERS: Final = {
    "starlette": Peer("tests/middleware/test_gzip.py", "in_starlette"),
    "flask-compress": Peer("tests/test_flask_compress.py", "in_flask_compress"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Something that a peer's tests expect and ours does not do; see ``differences.toml``."""

    tests: list[str]
    failure: str
    reason: str
    edits: tuple[tuple[str, str], ...] = ()
    when_edited: bool = False


def main(name: str, checkout: Path) -> int:
    """Returns the exit status."""
    peer = PEERS[name]
    listed = tomllib.loads((HERE / "differences.toml").read_text("utf-8"))
    known = [Difference(**difference) for difference in listed[name]]
    edits = [(old.strip(), new.strip()) for difference in known for old, new in difference.edits]
    original = run_tests(checkout, peer.tests)
    ours = run_tests(checkout, peer.tests, "-p", peer.plugin)
    edited = run_tests(checkout, peer.tests, "-p", peer.plugin, edits=edits)
    passed = [test for test, failure in original.items() if failure is None]
    print(f"{name} passes {len(passed)} of {len(original)} tests.")
    as_known = [
        is_as_known("Ours", passed, ours, [item for item in known if not item.when_edited]),
        is_as_known("Ours, with edited tests,", passed, edited, [item for item in known if not item.edits]),
    ]
    return 0 if passed and all(as_known) else 1


def run_tests(
    checkout: Path, tests: str, *arguments: str, edits: Iterable[tuple[str, str]] = ()
) -> dict[str, str | None]:
    """Runs tests in a copy of the checkout; returns for each why it has not passed, None if it has."""
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder, "checkout")
        shutil.copytree(checkout, copied, ignore=shutil.ignore_patterns(".git", "docs"))
        edit(copied / tests, edits)
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", tests, "-q", "--tb=no", "-p", "no:randomly"]
        environment = {**os.environ, "PYTHONPATH": str(HERE)}
        subprocess.run(
            [*command, f"--junitxml={report}", *arguments], cwd=copied, env=environment, check=False
        )
        cases = ET.parse(report).iter("testcase")
        return {
            f"{case.get('classname', '').split('.')[-1]}::{case.get('name')}": _failure(case)
            for case in cases
        }


def edit(file: Path, edits: Iterable[tuple[str, str]]) -> None:
    """Replaces texts in a file.

    Raises:
        ValueError: The file does not have one of them: it is not the version that the edit is for.
    """
    text = file.read_text("utf-8")
    for old, new in edits:
        if old not in text:
            raise ValueError(f"{file.name} does not have {old!r}")
        text = text.replace(old, new)
    file.write_text(text, "utf-8")


def is_as_known(
    who: str, passed: Iterable[str], outcomes: dict[str, str | None], known: Iterable[Difference]
) -> bool:
    """Prints each test that is lost, and why; returns whether these are just those that are known."""
    failures = ((test, outcomes.get(test, "it did not run")) for test in passed)
    lost = {test: failure for test, failure in failures if failure is not None}
    print(f"{who} misses {len(lost)} of those.")
    is_known = True
    for difference in known:
        print(f"  {difference.reason}")
        for test in difference.tests:
            if difference.failure in lost.get(test, ""):
                print(f"    {test}")
                del lost[test]
            else:
                is_known = False
                print(f"    {test}: SHOULD FAIL WITH {difference.failure}")
    for test, failure in lost.items():
        print(f"  UNKNOWN: {test}: {failure}")
    return is_known and not lost


def _failure(case: ET.Element) -> str | None:
    for outcome in ("failure", "error", "skipped"):
        found = case.find(outcome)
        if found is not None:
            return f"{outcome}: {found.get('message')}"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
