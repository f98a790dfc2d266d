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
    assert len(marked) >= 15
    for line in marked:
        assert re.search(r"# type: ignore\[[\w, -]+\]  # pyright: ignore\[[\w, ]+\]$", line), line


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
