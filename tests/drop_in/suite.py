"""Runs Quart's own test suite twice, on Quart and on ``WebServer``, and compares.

Usage: ``python tests/drop_in/suite.py PATH``, where PATH is a checkout of Quart. Exit status 0:
every test that passes on Quart passes on ``WebServer``, with the same installed versions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

HERE = Path(__file__).parent


def main(checkout: Path) -> int:
    """Returns the exit status."""
    on_quart = run_suite(checkout)
    on_webserver = run_suite(checkout, "-p", "plugin")
    passed = {name for name, has_passed in on_quart.items() if has_passed}
    lost = sorted(name for name in passed if not on_webserver.get(name, False))
    print(f"Quart passes {len(passed)} of {len(on_quart)} tests; WebServer misses {len(lost)} of those.")
    for name in lost:
        print(f"  {name}")
    return 1 if lost or not passed else 0


def run_suite(checkout: Path, *arguments: str) -> dict[str, bool]:
    """Runs the suite in a copy of its own; returns whether each test has passed."""
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder)
        shutil.copytree(checkout / "tests", copied / "tests")
        shutil.copy(checkout / "pyproject.toml", copied)
        report = copied / "report.xml"
        command = [sys.executable, "-m", "pytest", "tests", "-q", "-p", "no:randomly", f"--junitxml={report}"]
        environment = {**os.environ, "PYTHONPATH": str(HERE)}
        subprocess.run([*command, *arguments], cwd=copied, env=environment, check=False)
        cases = ET.parse(report).iter("testcase")
        return {f"{case.get('classname')}::{case.get('name')}": _has_passed(case) for case in cases}


def _has_passed(case: ET.Element) -> bool:
    return all(case.find(outcome) is None for outcome in ("failure", "error", "skipped"))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
