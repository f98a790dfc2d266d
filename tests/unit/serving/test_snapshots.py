"""Metrics of several processes, in files."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from aeros.serving.snapshots import Family, Sample, Snapshots, merged


def family(value: float, *, name: str = "orders", kind: str = "counter", **labels: str) -> Family:
    """Returns a metric with one number, and when it was made."""
    samples = [Sample(f"{name}_total", labels, value), Sample(f"{name}_created", labels, 100 - value)]
    return Family(name=name, documentation="Orders.", type=kind, unit="", samples=samples)


def total(families: list[list[Family]], name: str = "orders") -> float:
    """Returns the sum of what was read."""
    return sum(
        sample.value
        for one in merged(families)
        if one["name"] == name
        for sample in one["samples"]
        if sample.name.endswith("_total")
    )


def test_numbers_with_the_same_labels_are_summed() -> None:
    """And the earliest moment of creation counts."""
    (orders, others) = merged(
        [[family(1, shop="a")], [family(2, shop="a"), family(5, name="others")], [family(3, shop="b")]]
    )
    assert others["name"] == "others"
    assert orders["samples"] == [
        Sample("orders_total", {"shop": "a"}, 3),
        Sample("orders_created", {"shop": "a"}, 98),
        Sample("orders_total", {"shop": "b"}, 3),
        Sample("orders_created", {"shop": "b"}, 97),
    ]


def test_what_a_process_has_counted_outlives_it(tmp_path: Path) -> None:
    """What there is of something now does not, and its number may be another one's later."""
    shared = Snapshots(str(tmp_path))
    assert shared.read(without=1) == [[]]
    shared.write(2, [family(2), family(7, name="open", kind="gauge")])
    shared.write(3, [family(3)])
    shared.write(2, [family(4), family(7, name="open", kind="gauge")])
    assert total(shared.read(without=1)) == 7
    assert total(shared.read(without=2)) == 3
    shared.retire(2)
    shared.retire(2)
    shared.retire(99)
    assert total(shared.read(without=1)) == 7
    assert total(shared.read(without=1), "open") == 0
    shared.write(2, [family(1)])
    assert total(shared.read(without=1)) == 8
    shared.retire(2)
    shared.retire(3)
    assert total(shared.read(without=1)) == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ended.json"]


def test_the_sum_never_goes_back_while_processes_end(tmp_path: Path) -> None:
    """Nobody reads one that ends twice, or not at all."""
    shared, has_ended, sums = Snapshots(str(tmp_path)), threading.Event(), [0.0]

    def read() -> None:
        while not has_ended.is_set():
            sums.append(total(shared.read(without=0)))

    reader = threading.Thread(target=read)
    reader.start()
    for process in range(1, 200):
        shared.write(process, [family(1)])
        shared.retire(process)
    has_ended.set()
    reader.join()
    assert sums == sorted(sums)
    assert total(shared.read(without=0)) == 199
    assert max(sums) <= 199


def test_the_folder_is_private_and_goes_with_the_context() -> None:
    """Others on the machine learn nothing from it."""
    with Snapshots.temporary() as shared:
        folder = Path(shared.folder)
        assert folder.stat().st_mode & 0o777 == 0o700
        shared.write(1, [family(1)])
    assert not folder.exists()
    with pytest.raises(FileNotFoundError):
        shared.write(1, [family(1)])
