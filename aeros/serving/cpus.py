"""How many CPUs this process may use, which is not how many the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_CONTROL_GROUPS: Final = Path("/sys/fs/cgroup")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")


def usable_cpus(control_groups: Path = _CONTROL_GROUPS, membership: Path = _MEMBERSHIP) -> int:
    """Returns how many CPUs this process may use, 1 at least.

    It is the number that its affinity allows (``taskset``, a cpuset), or what the quota of its
    control group amounts to (``docker run --cpus``, a Kubernetes limit), rounded up, if that is less.

    Args:
        control_groups: Where the control groups are mounted.
        membership: The file that says to which ones this process belongs.
    """
    allowed = _allowed_cpus()
    quota = min(_quotas(control_groups, membership), default=None)
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def _allowed_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(control_groups: Path, membership: Path) -> Iterator[float]:
    """Yields the quotas in CPUs of the process's control groups, which all hold at once."""
    with suppress(OSError, ValueError):
        for line in membership.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:  # version 2: one tree
                yield from _upwards(control_groups, path)
            elif "cpu" in controllers.split(","):
                yield from _upwards(control_groups / "cpu", path)


def _upwards(root: Path, path: str) -> Iterator[float]:
    # In a container the path may be that of the host, and the group itself stands at the root.
    group = root / path.strip("/")
    for folder in (group, *group.parents):
        quota = _quota(folder)
        if quota is not None:
            yield quota
        if folder == root:
            return


def _quota(folder: Path) -> float | None:
    with suppress(OSError, ValueError):
        if (folder / "cpu.max").exists():
            limit, period = (folder / "cpu.max").read_text().split()
        else:
            limit = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return int(limit) / int(period) if int(limit) > 0 else None  # "max" is no number, -1 no limit
    return None
