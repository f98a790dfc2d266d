"""Responses in this process's memory: bounded in bytes, the least recently used leave first."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from aeros.caching.entry import StoredResponse, VaryMark
from aeros.caching.stores.memory import MemoryStore


def entry(name: bytes, size: int = 0) -> StoredResponse:
    """Returns an entry whose body has ``size`` bytes."""
    return StoredResponse(
        key=name, status=200, headers=[], body=b"x" * size, etag="", stored_at=0.0, lifetime=60.0
    )


EMPTY = entry(b"a").size


def filled(*names: bytes, room_for: int) -> tuple[MemoryStore, dict[bytes, StoredResponse]]:
    """Returns a memory of empty entries with one-byte names that has room for so many."""
    memory = MemoryStore(EMPTY * room_for)
    entries = {name: entry(name) for name in names}
    for name in names:
        assert memory.set(name, entries[name], checked_at=1.0) is None
    return memory, entries


def internals(memory: MemoryStore) -> Any:
    """Returns the memory with what it shows to nobody."""
    return memory


def kept(memory: MemoryStore, names: Sequence[bytes]) -> list[bytes]:
    """Returns which of the names are there, without using them: the memory is of no use afterwards."""
    found: list[bytes] = []
    for name in names:
        before = len(memory)
        memory.delete(name)
        if len(memory) < before:
            found.append(name)
    return found


def test_memory_gives_the_entry_and_what_is_known_of_it() -> None:
    """None for what is not there."""
    memory, entries = filled(b"a", room_for=3)
    memory.set(b"b", entries[b"a"], checked_at=7.5, epoch=3, marks=("m",))
    found = memory.get(b"a")
    assert found is not None
    assert found.entry is entries[b"a"]
    assert (found.checked_at, found.epoch, tuple(found.marks), found.size) == (1.0, 0, (), EMPTY)
    other = memory.get(b"b")
    assert other is not None
    assert other.entry is entries[b"a"]
    assert (other.checked_at, other.epoch, tuple(other.marks)) == (7.5, 3, ("m",))
    assert memory.get(b"c") is None


def test_the_least_recently_used_leave_first() -> None:
    """Reading is using, and so is setting again."""
    memory, entries = filled(b"a", b"b", b"c", room_for=3)
    memory.get(b"a")
    memory.set(b"b", entries[b"b"], checked_at=1.0)
    memory.set(b"d", entry(b"d"), checked_at=1.0)
    memory.set(b"e", entry(b"e"), checked_at=1.0)
    assert memory.evictions == 2
    assert kept(memory, [b"a", b"b", b"c", b"d", b"e"]) == [b"b", b"d", b"e"]


def test_memory_is_bounded_in_bytes() -> None:
    """However many and however large the entries are, up to the very last byte."""
    source = random.Random(3)
    memory = MemoryStore(50_000)
    for number in range(2000):
        memory.set(
            b"%d" % source.randrange(300),
            entry(b"k%d" % number, source.randrange(5000)),
            checked_at=0.0,
            marks=[f"m{source.randrange(50)}" for _ in range(source.randrange(4))],
        )
        assert 0 < memory.total_bytes <= 50_000
    exact, _ = filled(b"a", b"b", room_for=2)
    assert (exact.total_bytes, exact.max_bytes, exact.evictions) == (2 * EMPTY, 2 * EMPTY, 0)


def test_an_entry_larger_than_the_bound_is_not_kept_and_evicts_nobody() -> None:
    """Nor does an older one stay under its key."""
    memory, _ = filled(b"a", b"b", room_for=2)
    assert memory.set(b"a", entry(b"a", 10 * EMPTY), checked_at=1.0) == "too-large"
    assert memory.evictions == 0
    assert memory.total_bytes == EMPTY
    assert kept(memory, [b"a", b"b"]) == [b"b"]


def test_setting_again_counts_once() -> None:
    """The room of the old entry is free."""
    memory = MemoryStore(10 * EMPTY)
    memory.set(b"a", entry(b"a", 500), checked_at=1.0)
    memory.set(b"a", entry(b"a", 100), checked_at=1.0)
    assert (len(memory), memory.total_bytes) == (1, EMPTY + 100)


def test_an_entry_that_grew_is_counted_again() -> None:
    """And others leave, if it needs their room."""
    memory, entries = filled(b"a", b"b", b"c", room_for=3)
    grown = entries[b"c"]
    grown.add_variant("br", b"x" * 10)
    assert memory.total_bytes == 3 * EMPTY
    assert memory.recount(grown)
    assert memory.evictions == 1
    assert memory.total_bytes == 2 * EMPTY + 10
    assert memory.recount(grown)
    assert memory.total_bytes == 2 * EMPTY + 10
    assert kept(memory, [b"a", b"b", b"c"]) == [b"b", b"c"]


def test_an_entry_that_is_kept_no_more_is_not_counted() -> None:
    """Neither one that was replaced nor one that was deleted."""
    memory, entries = filled(b"a", b"b", room_for=5)
    memory.set(b"a", entry(b"a"), checked_at=1.0)
    memory.delete(b"b")
    for old in entries.values():
        old.add_variant("br", b"x" * 100)
        assert not memory.recount(old)
    assert memory.total_bytes == EMPTY


def test_an_entry_that_grew_past_the_bound_leaves_alone() -> None:
    """One response with large variants does not empty the cache."""
    memory, entries = filled(b"a", b"b", b"c", room_for=3)
    entries[b"c"].add_variant("br", b"x" * 3 * EMPTY)
    assert not memory.recount(entries[b"c"])
    assert (memory.total_bytes, memory.evictions) == (2 * EMPTY, 1)
    assert kept(memory, [b"a", b"b", b"c"]) == [b"a", b"b"]


def test_deleting_and_clearing_free_the_room() -> None:
    """Deleting what is not there does nothing; clearing tells how many left."""
    memory, _ = filled(b"a", b"b", b"c", room_for=3)
    memory.delete(b"a")
    memory.delete(b"a")
    assert (len(memory), memory.total_bytes) == (2, 2 * EMPTY)
    assert memory.clear() == 2
    assert (len(memory), memory.total_bytes, memory.clear()) == (0, 0, 0)
    assert memory.evictions == 0


def test_a_full_memory_looks_at_no_more_entries_than_it_moves() -> None:
    """Each new entry asks for one size, its own, however many are kept."""
    asked: list[bytes] = []

    class Counted(VaryMark):
        __slots__ = ()

        @property
        def size(self) -> int:
            asked.append(self.key)
            return 10

    memory = MemoryStore(10 * 1000)
    for number in range(3000):
        name = b"%d" % number
        counted = Counted(key=name, names=(), stored_at=0.0, lifetime=1.0)
        memory.set(name, counted, checked_at=0.0)
        memory.get(name)
    assert (len(memory), memory.evictions) == (1000, 2000)
    assert asked == [b"%d" % number for number in range(3000)]


# Evicting by mark


def test_evicting_a_mark_makes_all_with_it_leave_and_no_others() -> None:
    """Whatever other marks they have; each is counted once."""
    memory = MemoryStore(10**6)
    marked = {b"a": ("m",), b"b": ("m", "n"), b"c": ("n",), b"d": (), b"e": ("n", "o", "m")}
    for name, marks in marked.items():
        memory.set(name, entry(name), checked_at=0.0, marks=marks)
    assert memory.evict(["m", "o"]) == 3
    assert memory.evict(["m", "o", "never"]) == 0
    assert (len(memory), memory.evictions) == (2, 0)
    assert kept(memory, list(marked)) == [b"c", b"d"]


def test_an_entry_has_the_marks_that_it_was_last_set_with() -> None:
    """Those of the one it has replaced are gone."""
    memory = MemoryStore(10**6)
    memory.set(b"a", entry(b"a"), checked_at=0.0, marks=("old", "both"))
    memory.set(b"b", entry(b"b"), checked_at=0.0, marks=("both",))
    memory.set(b"a", entry(b"a"), checked_at=0.0, marks=("both", "new"))
    assert memory.evict(["old"]) == 0
    assert memory.evict(["new"]) == 1
    assert memory.evict(["both"]) == 1
    assert (len(memory), memory.total_bytes) == (0, 0)


def test_a_mark_that_is_named_twice_is_one() -> None:
    """By an entry or by an eviction; the books stay right."""
    memory = MemoryStore(10**6)
    for name in (b"a", b"b"):
        memory.set(name, entry(name), checked_at=0.0, marks=("m", "m"))
    memory.delete(b"a")
    assert memory.evict(["m", "m"]) == 1
    assert (len(memory), memory.total_bytes) == (0, 0)


def test_marks_take_room() -> None:
    """They are kept beside the entry, and a store full of tags must not be larger than it may."""
    memory = MemoryStore(10**6)
    memory.set(b"a", entry(b"a"), checked_at=0.0)
    plain = memory.total_bytes
    memory.set(b"a", entry(b"a"), checked_at=0.0, marks=("m", "n"))
    with_two = memory.total_bytes
    memory.set(b"a", entry(b"a"), checked_at=0.0, marks=("m", "n", "o"))
    assert memory.total_bytes - with_two == (with_two - plain) // 2 > 100
    memory.delete(b"a")
    assert memory.total_bytes == 0


def test_an_entry_that_left_for_room_has_left_its_marks() -> None:
    """Its name may come back with other ones."""
    memory = MemoryStore(2 * EMPTY + 500)
    for name in (b"a", b"b", b"c"):
        memory.set(name, entry(name), checked_at=0.0, marks=("m",))
    memory.set(b"a", entry(b"a"), checked_at=0.0)
    before = len(memory)
    assert memory.evict(["m"]) == before - 1
    assert kept(memory, [b"a", b"b", b"c"]) == [b"a"]


# The order of evictions


def test_what_was_made_before_its_eviction_is_not_kept() -> None:
    """What it was made from is out of date; what came since stands."""
    memory = MemoryStore(10**6)
    before = memory.moment
    memory.evict(["m"])
    newer = entry(b"a")
    assert memory.set(b"a", newer, checked_at=0.0, marks=("m",), since=memory.moment) is None
    assert memory.set(b"a", entry(b"a"), checked_at=0.0, marks=("n", "m"), since=before) == "evicted"
    room = memory.get(b"a")
    assert room is not None
    assert room.entry is newer
    assert memory.set(b"b", entry(b"b"), checked_at=0.0, marks=("n",), since=before) is None
    assert memory.set(b"c", entry(b"c"), checked_at=0.0, marks=("m",)) is None


def test_what_was_made_before_everything_was_evicted_is_not_kept() -> None:
    """Whatever its marks, and also without any."""
    memory = MemoryStore(10**6)
    before = memory.moment
    memory.clear()
    for marks in ((), ("m",)):
        assert memory.set(b"a", entry(b"a"), checked_at=0.0, marks=marks, since=before) == "evicted"
        assert memory.set(b"a", entry(b"a"), checked_at=0.0, marks=marks, since=memory.moment) is None


def test_each_eviction_is_a_moment_of_its_own() -> None:
    """Also of what is not there: somebody may be making it just now."""
    memory = MemoryStore(10**6)
    moments = [memory.moment]
    for marks in (["m"], ["m"], None):
        _ = memory.clear() if marks is None else memory.evict(marks)
        moments.append(memory.moment)
    assert moments == sorted(set(moments))
    for number, moment in enumerate(moments):
        found = memory.set(b"a", entry(b"a"), checked_at=0.0, marks=("m",), since=moment)
        assert found == (None if number == 3 else "evicted")


def test_ten_thousand_evictions_are_remembered() -> None:
    """What began before one that is forgotten counts as evicted, whatever its marks."""
    memory = MemoryStore(10**6)
    moments: list[int] = []
    for number in range(10_003):
        moments.append(memory.moment)
        memory.evict([f"m{number}"])

    def keeps(since: int, mark: str) -> bool:
        return memory.set(b"a", entry(b"a"), checked_at=0.0, marks=(mark,), since=since) is None

    # Three are forgotten: m0, m1 and m2.
    assert not keeps(moments[0], "other")
    assert not keeps(moments[2], "other")
    assert keeps(moments[3], "other")
    assert not keeps(moments[3], "m3")
    assert keeps(moments[4], "m3")
    assert not keeps(moments[4], "m10002")
    assert keeps(memory.moment, "m10002")
    assert len(internals(memory)._log._moments) == 10_000


def test_a_mark_that_is_evicted_again_is_remembered_as_the_latest() -> None:
    """So the log of a site that evicts the same few tags for ever never overflows."""
    memory = MemoryStore(10**6)
    start = memory.moment
    for number in range(30_000):
        memory.evict([f"m{number % 5}"])
    assert memory.set(b"a", entry(b"a"), checked_at=0.0, marks=("other",), since=start) is None
    assert memory.set(b"a", entry(b"a"), checked_at=0.0, marks=("m1",), since=start) == "evicted"


def test_a_mark_that_was_evicted_again_is_not_the_first_to_be_forgotten() -> None:
    """Else all that began before its latest eviction would count as evicted."""
    memory = MemoryStore(10**6)
    for number in range(10_000):
        memory.evict([f"m{number}"])
    start = memory.moment
    memory.evict(["m0"])
    memory.evict(["one more"])
    assert memory.set(b"a", entry(b"a"), checked_at=0.0, marks=("other",), since=start) is None
    assert memory.set(b"a", entry(b"a"), checked_at=0.0, marks=("m0",), since=start) == "evicted"


def test_clearing_begins_the_log_anew() -> None:
    """There is nothing left to remember but that everything went."""
    memory = MemoryStore(10**6)
    for number in range(100):
        memory.evict([f"m{number}"])
    memory.clear()
    assert len(internals(memory)._log._moments) == 0


# Trimming


def trimmed(most: int, *names: bytes) -> tuple[MemoryStore, list[bytes]]:
    """Returns a memory in which the entries of one mark were trimmed, and which of them are left."""
    memory = MemoryStore(10**6)
    memory.set(b"other", entry(b"other"), checked_at=0.0, marks=("n",))
    for name in names:
        memory.set(name, entry(name), checked_at=0.0, marks=("m", "n"))
    memory.trim("m", most)
    return memory, [name for name in dict.fromkeys(names) if memory.get(name) is not None]


@pytest.mark.parametrize(
    ("most", "names", "left"),
    [
        (2, [b"a", b"b", b"c", b"d"], [b"c", b"d"]),
        (1, [b"a", b"b"], [b"b"]),
        (4, [b"a", b"b", b"c", b"d"], [b"a", b"b", b"c", b"d"]),
        (9, [b"a"], [b"a"]),
        (9, [], []),
        (1, [b"a"], [b"a"]),
        (2, [b"a", b"b", b"c", b"a"], [b"a", b"c"]),
    ],
)
def test_the_oldest_of_a_mark_leave_first(most: int, names: list[bytes], left: list[bytes]) -> None:
    """The one that was set again is the newest; what has other marks stays."""
    memory, found = trimmed(most, *names)
    assert found == left
    assert memory.get(b"other") is not None
    assert memory.evictions == len(set(names)) - len(left)
    assert len(memory) == len(left) + 1


def test_trimming_costs_the_same_however_many_there_are() -> None:
    """One that came leads to one that goes: the others are not looked at."""
    memory = MemoryStore(10**9)
    for number in range(50_000):
        memory.set(b"%d" % number, entry(b""), checked_at=0.0, marks=("m",))
    steps = 0

    class Watched(dict[bytes, None]):
        def __iter__(self) -> Iterator[bytes]:
            nonlocal steps
            for key in super().__iter__():
                steps += 1
                yield key

    index = internals(memory)._index._keys
    index["m"] = Watched(index["m"])
    memory.trim("m", 49_999)
    assert memory.get(b"0") is None
    assert len(memory) == 49_999
    assert steps <= 2


def test_threads_do_not_lose_count() -> None:
    """After a storm of every call from many threads the books are right."""
    memory = MemoryStore(40 * EMPTY)
    names = [b"%d" % number for number in range(60)]
    errors: list[BaseException] = []

    def storm(seed: int) -> None:
        source = random.Random(seed)
        try:
            for _ in range(2000):
                name = source.choice(names)
                match source.randrange(20):
                    case 0:
                        memory.delete(name)
                    case 1 if seed == 0:
                        memory.clear()
                    case 2:
                        memory.evict([f"m{source.randrange(8)}"])
                    case 3:
                        memory.trim(f"m{source.randrange(8)}", 3)
                    case number if number < 12:
                        marks = [f"m{source.randrange(8)}" for _ in range(source.randrange(3))]
                        since = source.choice([None, memory.moment])
                        big = entry(name, source.randrange(400))
                        memory.set(name, big, checked_at=0.0, marks=marks, since=since)
                    case _:
                        found = memory.get(name)
                        if found is not None and isinstance(found.entry, StoredResponse):
                            found.entry.add_variant("br", b"x" * source.randrange(100))
                            memory.recount(found.entry)
                assert memory.total_bytes <= 2 * memory.max_bytes
        except BaseException as error:  # noqa: BLE001 - it is shown by the test
            errors.append(error)

    threads = [threading.Thread(target=storm, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert 0 < memory.total_bytes <= memory.max_bytes
    for mark in range(8):
        memory.evict([f"m{mark}"])
    for name in names:
        memory.delete(name)
    assert (len(memory), memory.total_bytes) == (0, 0)
    assert internals(memory)._index._keys == {}
