"""Metrics that workers tell each other: a file for each, and one for those that have ended.

Each worker writes what it has counted to a file of its own, again and again and before it is asked. Whoever
is asked reads them all. What a worker has said so outlives it, and the sum never goes back.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias, TypedDict

LabelPairs: TypeAlias = tuple[tuple[str, str], ...]

# What counts on when the process has ended: how much of something there is now does not.
_LASTING: Final = frozenset({"counter", "histogram", "summary"})
_MOST_TRIES: Final = 100


class Sample(NamedTuple):
    """One number.

    Attributes:
        name: Its name, e.g. ``"orders_total"``.
        labels: Its labels by name.
        value: The number.
    """

    name: str
    labels: dict[str, str]
    value: float


class Family(TypedDict):
    """All numbers of one metric, as Prometheus groups them."""

    name: str
    documentation: str
    type: str
    unit: str
    samples: list[Sample]


class _Ended(TypedDict):
    """What workers have left that have ended; ``last`` are those whose files may still be there."""

    last: list[str]
    families: list[Family]


class Snapshots:
    """A folder with the metrics of several processes.

    Args:
        folder: The folder; it exists.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._ended = Path(folder, "ended.json")

    @classmethod
    @contextmanager
    def temporary(cls) -> Generator[Snapshots]:
        """Makes a folder that only this user can look into; it goes with the context."""
        with tempfile.TemporaryDirectory(prefix="aeros-metrics-", ignore_cleanup_errors=True) as folder:
            yield cls(folder)

    def write(self, process: int, families: Iterable[Family]) -> None:
        """Keeps what a process has counted, in place of what it has said before.

        Args:
            process: The number of the process.
            families: Its metrics.

        Raises:
            OSError: It can not be written.
        """
        _replace(self._file(process), list(families))

    def retire(self, process: int) -> None:
        """Adds what a process has counted that has ended to what others have left."""
        file = self._file(process)
        # Where it can not be done, the file stays, and counts on as that of one that lives: because of the
        # disk, or of a user's collector that gave what is no number.
        with suppress(OSError, TypeError, ValueError, LookupError):
            left = _families_in(file)
            if left is None:
                return
            lasting = [family for family in left if family["type"] in _LASTING]
            families = merged([self._read_ended()[1], lasting])
            _replace(self._ended, _Ended(last=[file.name], families=families))
            file.unlink()
            # Another process may get its number.
            _replace(self._ended, _Ended(last=[], families=families))

    def read(self, *, without: int) -> list[list[Family]]:
        """Returns the metrics of all processes but one, and of those that have ended.

        Args:
            without: The number of the process whose metrics are known.
        """
        for _ in range(_MOST_TRIES):
            text, ended, last = self._read_ended()
            skipped = {*last, self._file(without).name}
            found = [ended]
            for file in sorted(Path(self.folder).glob("worker-*.json")):
                families = _families_in(file) if file.name not in skipped else None
                if families is not None:
                    found.append(families)
            # Else one has ended meanwhile: it was read twice, or not at all.
            if self._read_ended()[0] == text:
                return found
        raise TimeoutError("workers end too fast")

    def _file(self, process: int) -> Path:
        return Path(self.folder, f"worker-{process}.json")

    def _read_ended(self) -> tuple[str, list[Family], list[str]]:
        try:
            text = self._ended.read_text(encoding="ascii")
        except FileNotFoundError:
            return "", [], []
        ended: _Ended = json.loads(text)
        return text, _restored(ended["families"]), ended["last"]


def merged(several: Iterable[Iterable[Family]]) -> list[Family]:
    """Returns the sum of several processes' metrics, in the order in which they are first met.

    Moments at which something was created (``..._created``) are not summed: the first one counts.
    """
    families: dict[str, Family] = {}
    sums: dict[str, dict[tuple[str, LabelPairs], Sample]] = {}
    for one in several:
        for family in one:
            name = family["name"]
            families.setdefault(name, family)
            into = sums.setdefault(name, {})
            for sample in family["samples"]:
                key = sample.name, tuple(sorted(sample.labels.items()))
                before = into.get(key)
                if before is None:
                    into[key] = sample
                elif sample.name.endswith("_created"):
                    into[key] = before._replace(value=min(before.value, sample.value))
                else:
                    into[key] = before._replace(value=before.value + sample.value)
    return [{**family, "samples": list(sums[name].values())} for name, family in families.items()]


def _families_in(file: Path) -> list[Family] | None:
    try:
        families: list[Family] = json.loads(file.read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
    return _restored(families)


def _restored(families: list[Family]) -> list[Family]:
    """Returns what JSON has made lists of with samples again."""
    return [{**family, "samples": [Sample(*sample) for sample in family["samples"]]} for family in families]


def _replace(file: Path, value: object) -> None:
    """Writes a file so that whoever reads it finds the old or the new one, whole."""
    # Never two at once for one file: a worker writes its own, their supervisor what they leave.
    new = file.with_suffix(".new")
    new.write_text(json.dumps(value), encoding="ascii")
    os.replace(new, file)  # noqa: PTH105 - beside os.replace, Path has a name that means less
