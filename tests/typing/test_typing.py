"""What the type checkers say of ``accepts.py``, of ``rejects.py``, and of the installed package."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import aeros

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent
ACCEPTS = FOLDER / "accepts.py"
REJECTS = FOLDER / "rejects.py"


def run_checker(*arguments: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a module of this Python as a command, in ``folder``."""
    inherited = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**inherited, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1", **environment},
        timeout=300,
        check=False,
    )


def test_mypy_accepts_and_rejects() -> None:
    """Strict mypy accepts what users write, and reports each mistake under its code."""
    done = run_checker("mypy", "--config-file", "mypy.ini", str(ACCEPTS), str(REJECTS))
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_accepts_and_rejects() -> None:
    """Strict pyright accepts what users write, and reports each mistake under its rule."""
    done = run_checker("pyright", "--pythonpath", sys.executable, str(ACCEPTS), str(REJECTS))
    assert done.returncode == 0, done.stdout + done.stderr


def test_both_checkers_see_each_mistake() -> None:
    """A mistake that only one of the checkers reports would be one that half of the users find."""
    marked = [line for line in REJECTS.read_text().splitlines() if "ignore[" in line]
    assert len(marked) >= 150
    for line in marked:
        assert re.search(r"# type: ignore\[[\w, -]+\]  # pyright: ignore\[[\w, ]+\]$", line), line


# Two more checkers, each with what it does not follow yet: lines of the two files, as they are there.

MORE_CHECKERS = {
    "ty": ("check", "--output-format", "concise", "--python", sys.prefix),
    "pyrefly": (
        *("check", "--output-format", "min-text", "--preset", "strict"),
        *("--python-interpreter-path", sys.executable),
    ),
}

# To them the parameters that a class is generic in are invariant: a function with a parameter that has a
# name does not stand for one without. mypy and pyright let it, as they do for a plain Callable.
REFUSED_BY_BOTH = ["await takes_a_memoized(divisors)"]

# ty takes any keyword where a function has **options: Unpack[...] of a TypedDict.
NOT_SEEN_BY_TY = [
    'app.route("/", method="GET")',
    "app.run_server(wrokers=4)",
    "app.run(use_relaoder=True)",
    'app.run_in_thread(acces_log_file="access.log")',
    "Br(quality=5)",
    "Gzip(minimum_size=500)",
]


def lines_with_errors(checker: str, source: Path, folder: Path) -> list[str]:
    """Returns the lines of a file that a checker reports, where no comment hides what is wrong."""
    bare = [re.sub(r"\s*# type: ignore\[.*$", "", line) for line in source.read_text().splitlines()]
    copy = folder / f"bare_{source.name}"
    copy.write_text("\n".join(bare) + "\n")
    done = run_checker(checker, *MORE_CHECKERS[checker], str(copy), folder=folder)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    numbers = {int(found) for found in re.findall(rf"{copy.name}:(\d+):", done.stdout)}
    assert numbers or done.returncode == 0, done.stdout + done.stderr
    return [bare[number - 1].strip() for number in sorted(numbers)]


@pytest.mark.parametrize("checker", MORE_CHECKERS)
def test_more_checkers_accept_what_users_write(checker: str, tmp_path: Path) -> None:
    """All of it but what is listed above; what one has learnt since is to be taken off the list."""
    assert lines_with_errors(checker, ACCEPTS, tmp_path) == REFUSED_BY_BOTH


@pytest.mark.parametrize(("checker", "not_seen"), [("ty", NOT_SEEN_BY_TY), ("pyrefly", list[str]())])
def test_more_checkers_see_each_mistake(checker: str, not_seen: list[str], tmp_path: Path) -> None:
    """Each that mypy and pyright report, and no other line; but for what is listed above."""
    marked = [
        line.partition("# type: ignore[")[0].strip()
        for line in REJECTS.read_text().splitlines()
        if "# type: ignore[" in line
    ]
    seen = lines_with_errors(checker, REJECTS, tmp_path)
    assert [line for line in marked if line not in seen] == not_seen
    assert [line for line in seen if line not in marked] == []


def test_every_public_name_is_used() -> None:
    """``accepts.py`` imports each name that ``aeros`` exports."""
    imported = {
        alias.name
        for node in ast.walk(ast.parse(ACCEPTS.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "aeros"
        for alias in node.names
    }
    assert imported == set(aeros.__all__)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """An environment's scripts: aeros installed there, its dependencies from this environment."""
    base = tmp_path / "environment"
    venv.create(base, with_pip=False)
    places = {"base": str(base), "platbase": str(base)}
    packages = Path(sysconfig.get_path("purelib", "venv", places))
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "dependencies.pth").write_text("\n".join(sorted(dependencies)))
    shutil.copytree(ROOT / "aeros", packages / "aeros", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "typings" / "flask-stubs", packages / "flask-stubs")
    return Path(sysconfig.get_path("scripts", "venv", places))


def test_all_types_are_known(installed: Path, tmp_path: Path) -> None:
    """A checker that reads the installed package knows the type of every public symbol."""
    # Pyright takes no --pythonpath here; it asks the first Python on PATH where packages are.
    path = os.pathsep.join([str(installed), os.environ["PATH"]])
    done = run_checker("pyright", "--verifytypes", "aeros", "--ignoreexternal", folder=tmp_path, PATH=path)
    assert f"{installed.parent}" in done.stdout, done.stdout + done.stderr
    assert "Type completeness score: 100%" in done.stdout, done.stdout
    assert done.returncode == 0, done.stdout
