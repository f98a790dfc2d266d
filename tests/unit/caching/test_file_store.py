"""A folder of files as a store: nothing in it is trusted, nothing waits, and it stays in its bounds."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from cachelib import FileSystemCache

from aeros.caching.stores.base import StoreUnavailableError
from aeros.caching.stores.files import FileStore
from aeros.caching.stores.guarded import GuardedStore
from aeros.caching.stores.marked import MarkedStore
from aeros.errors import InvalidSettingError

if TYPE_CHECKING:
    from tests.conftest import RunScript
    from tests.unit.caching.conftest import Bomb, FilePlace

IS_ROOT = os.geteuid() == 0
SOMEBODY = os.geteuid() + 12345


def mode_of(path: Path) -> int:
    """Returns the rights on a file or a folder."""
    return stat.S_IMODE(path.lstat().st_mode)


def files_in(folder: Path) -> list[Path]:
    """Returns what is in a folder, which need not be there."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


async def until(is_so: Callable[[], bool]) -> None:
    """Waits for what happens in the background."""
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline, "it does not happen"
        await asyncio.sleep(0.005)


def disown(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives a file or a folder to another user; for who may not do that, it is played."""
    if IS_ROOT:
        os.chown(path, SOMEBODY, SOMEBODY, follow_symlinks=False)
        return
    inode = path.lstat().st_ino

    def played(real: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def look(*args: Any, **options: Any) -> os.stat_result:
            found = real(*args, **options)
            if found.st_ino != inode:
                return found
            return os.stat_result((*found[:4], SOMEBODY, SOMEBODY, *found[6:]))

        return look

    monkeypatch.setattr(os, "fstat", played(os.fstat))
    monkeypatch.setattr(os, "lstat", played(os.lstat))
    monkeypatch.setattr(Path, "lstat", played(Path.lstat))


@pytest.fixture
def with_umask() -> Iterator[Callable[[int], object]]:
    """Sets an umask for the test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


# Nothing before the first use


async def test_making_a_store_touches_nothing(tmp_path: Path) -> None:
    """An application may be made at import: no thread, and no folder before there is something in it."""
    before = set(threading.enumerate())
    store = FileStore(tmp_path / "a" / "b")
    assert set(threading.enumerate()) <= before
    assert await store.get_many(["a"]) == [None]
    assert files_in(tmp_path) == []


async def test_a_relative_folder_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changing the working directory later does not move it."""
    monkeypatch.chdir(tmp_path)
    store = FileStore("kept")
    monkeypatch.chdir("/")
    await store.set("a", b"1", 60)
    assert len(files_in(tmp_path / "kept")) == 1


async def test_calls_run_in_threads_of_the_stores_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow disk must not stop the event loop."""
    seen: list[str] = []
    real = os.open

    def noting(*args: Any, **options: Any) -> int:
        seen.append(threading.current_thread().name)
        return real(*args, **options)

    store = FileStore(tmp_path / "kept")
    monkeypatch.setattr(os, "open", noting)
    await store.set("a", b"1", 60)
    await store.get_many(["a"])
    assert seen
    assert all(name.startswith("aeros-files") for name in seen)


async def test_a_closed_store_can_be_used_again(files_place: FilePlace) -> None:
    """Closing twice, or before the first use, does nothing more."""
    store = files_place.store
    await store.close()
    await store.set("a", b"1", 60)
    await store.close()
    await store.close()
    assert await store.get_many(["a"]) == [b"1"]


def test_it_says_where_it_keeps_what(tmp_path: Path) -> None:
    """The log and the banner name the folder."""
    assert repr(FileStore(tmp_path)) == f"FileStore({tmp_path})"


@pytest.mark.parametrize("max_files", [-1, 1.5, True, "10", None])
def test_a_number_of_files_that_is_none_is_refused(tmp_path: Path, max_files: object) -> None:
    """At once, with what would do."""
    with pytest.raises(InvalidSettingError, match="whole number of files"):
        FileStore(tmp_path, max_files=cast(Any, max_files))


def test_a_system_without_these_rights_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows has neither owners nor modes that say who may write."""
    folder = str(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        with pytest.raises(InvalidSettingError, match="POSIX"):
            FileStore(folder)


# Rights


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o177, 0o377])
async def test_nobody_else_can_enter_or_read(
    tmp_path: Path, with_umask: Callable[[int], object], umask: int
) -> None:
    """The folder is 0700 and each file 0600, whatever the umask takes or leaves."""
    cache = FileSystemCache(str(tmp_path / "theirs"))
    with_umask(umask & (0o777 if IS_ROOT else 0o277))
    store = FileStore(tmp_path / "alone")
    await store.set("a", b"1", 60)
    beside = FileStore.beside(cache)
    await beside.set("a", b"1", 60)
    for folder in (tmp_path / "alone", tmp_path / "theirs" / "aeros.__wz_cache"):
        assert mode_of(folder) == 0o700
        assert [mode_of(file) for file in files_in(folder)] == [0o600]


async def test_the_folder_beside_a_cache_is_closed_to_others(tmp_path: Path) -> None:
    """Also one that was there before with other rights; the user's own folder keeps its rights."""
    cache = FileSystemCache(str(tmp_path / "theirs"))
    (tmp_path / "theirs").chmod(0o775)
    inner = tmp_path / "theirs" / "aeros.__wz_cache"
    inner.mkdir()
    inner.chmod(0o777)
    await FileStore.beside(cache).get_many(["a"])
    assert mode_of(inner) == 0o700
    assert mode_of(tmp_path / "theirs") == 0o775


@pytest.mark.parametrize("mode", [0o702, 0o720, 0o777, 0o1777])
async def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    """And left as it is: it may be one that others need."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(mode)
    store = FileStore(folder)
    with pytest.raises(PermissionError, match="Other users can write"):
        await store.set("a", b"1", 60)
    with pytest.raises(PermissionError, match="Other users can write"):
        await store.get_many(["a"])
    assert mode_of(folder) == mode
    assert files_in(folder) == []


async def test_a_folder_that_others_can_only_read_keeps_its_rights(tmp_path: Path) -> None:
    """The files in it are this user's alone."""
    folder = tmp_path / "readable"
    folder.mkdir()
    folder.chmod(0o755)
    await FileStore(folder).set("a", b"1", 60)
    assert mode_of(folder) == 0o755
    assert [mode_of(file) for file in files_in(folder)] == [0o600]


def test_another_users_folder_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, within a cache's folder, and around that."""
    cache = FileSystemCache(str(tmp_path / "theirs"))
    inner = tmp_path / "theirs" / "aeros.__wz_cache"
    inner.mkdir()
    disown(inner, monkeypatch)
    with pytest.raises(InvalidSettingError, match="belongs to the user of this process"):
        FileStore(inner)
    with pytest.raises(InvalidSettingError, match="belongs to the user of this process"):
        FileStore.beside(cache)
    inner.rmdir()
    FileStore.beside(cache)
    disown(tmp_path / "theirs", monkeypatch)
    with pytest.raises(InvalidSettingError, match=r"^cache: .*/theirs' does not fit"):
        FileStore.beside(cache)


async def test_a_folder_that_becomes_another_users_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is checked anew for each call."""
    store = FileStore(tmp_path / "kept")
    await store.set("a", b"1", 60)
    disown(tmp_path / "kept", monkeypatch)
    with pytest.raises(PermissionError, match="belongs to another user"):
        await store.get_many(["a"])
    with pytest.raises(PermissionError, match="belongs to another user"):
        await store.set("a", b"2", 60)


# Symbolic links and what else is no folder


@pytest.mark.parametrize("target", ["there", "missing"])
def test_a_symbolic_link_is_refused_at_once(tmp_path: Path, target: str) -> None:
    """Wherever it leads; alone, within a cache's folder, and as that folder itself."""
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / target)
    with pytest.raises(InvalidSettingError, match="no symbolic link"):
        FileStore(tmp_path / "link")
    cache = FileSystemCache(str(tmp_path / "theirs"))
    inner = tmp_path / "theirs" / "aeros.__wz_cache"
    inner.symlink_to(tmp_path / target)
    with pytest.raises(InvalidSettingError, match="no symbolic link"):
        FileStore.beside(cache)
    inner.unlink()
    shutil.rmtree(tmp_path / "theirs")
    (tmp_path / "theirs").symlink_to(tmp_path / target)
    with pytest.raises(InvalidSettingError, match="no symbolic link"):
        FileStore.beside(cache)
    assert files_in(tmp_path / "there") == []


@pytest.mark.parametrize("folder", ["file", "file/below", "nul\0"])
def test_what_can_be_no_folder_is_refused_at_once(tmp_path: Path, folder: str) -> None:
    """A file, what would be within one, and what is no path."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidSettingError, match=r"^cache: "):
        FileStore(tmp_path / folder)


@pytest.mark.parametrize("swapped", ["theirs", "theirs/aeros.__wz_cache"])
async def test_a_folder_that_is_swapped_for_a_link_is_refused(tmp_path: Path, swapped: str) -> None:
    """Its target is neither read nor written."""
    store = FileStore.beside(FileSystemCache(str(tmp_path / "theirs")))
    await store.set("a", b"1", 60)
    (tmp_path / swapped).rename(tmp_path / "elsewhere")
    (tmp_path / swapped).symlink_to(tmp_path / "elsewhere")
    before = {path: path.lstat().st_mtime_ns for path in (tmp_path / "elsewhere").rglob("*")}
    for call in (store.get_many(["a"]), store.set("a", b"2", 60), store.set("b", b"2", 60)):
        with pytest.raises(NotADirectoryError):
            await call
    assert {path: path.lstat().st_mtime_ns for path in (tmp_path / "elsewhere").rglob("*")} == before


async def test_a_folder_that_was_removed_is_made_anew(tmp_path: Path) -> None:
    """Whoever cleans up takes the values away, not the store; also with the user's folder around it."""
    store = FileStore.beside(FileSystemCache(str(tmp_path / "a" / "theirs")))
    for gone in ("a/theirs/aeros.__wz_cache", "a/theirs", "a"):
        await store.set("a", b"1", 60)
        shutil.rmtree(tmp_path / gone)
        assert await store.get_many(["a"]) == [None]
        assert not (tmp_path / gone).exists()
    await store.set("a", b"2", 60)
    assert await store.get_many(["a"]) == [b"2"]


async def test_a_folder_that_was_moved_away_is_not_followed(tmp_path: Path) -> None:
    """Every process uses what stands under the name now, so that all see the same evictions."""
    store = FileStore(tmp_path / "kept")
    await store.set("a", b"1", 60)
    (tmp_path / "kept").rename(tmp_path / "old")
    assert await store.get_many(["a"]) == [None]
    await store.set("b", b"2", 60)
    assert len(files_in(tmp_path / "old")) == 1


async def test_the_guard_counts_a_refused_folder_and_logs_it_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The site goes on without the store."""
    store = GuardedStore(MarkedStore(FileStore(tmp_path / "kept")), deadline_seconds=5)
    (tmp_path / "there").mkdir()
    (tmp_path / "kept").symlink_to(tmp_path / "there")
    for _ in range(20):
        with pytest.raises(StoreUnavailableError):
            await store.read("a", ["m"])
    assert store.errors == 3
    assert len(caplog.messages) == 1
    assert f"FileStore({tmp_path}/kept) is away (NotADirectoryError" in caplog.messages[0]
    assert files_in(tmp_path / "there") == []


# What stands in place of a file


def link_to_victim(place: FilePlace) -> None:
    """A symbolic link to an intact file of the same name."""
    shutil.move(place.file("a"), place.folder.parent / "victim")
    place.file("a").symlink_to(place.folder.parent / "victim")


def hard_link_to_victim(place: FilePlace) -> None:
    """A second name of an intact file."""
    os.link(place.file("a"), place.folder.parent / "victim")


def pipe(place: FilePlace) -> None:
    """A pipe that nobody writes to."""
    place.file("a").unlink()
    os.mkfifo(place.file("a"), 0o600)


def socket_file(place: FilePlace) -> None:
    """A socket."""
    place.file("a").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        before = Path.cwd()
        os.chdir(place.folder)  # the path of a socket may have no more than 107 bytes
        try:
            listener.bind(place.file("a").name)
        finally:
            os.chdir(before)


def endless_link(place: FilePlace) -> None:
    """A symbolic link to a device that never ends."""
    place.file("a").unlink()
    place.file("a").symlink_to("/dev/zero")


def huge_file(place: FilePlace) -> None:
    """A file that would not fit into memory, with an intact beginning."""
    os.truncate(place.file("a"), 2**40)


def large_file_of_zeros(place: FilePlace) -> None:
    """A file of 200 MiB, no byte of which is the store's."""
    place.file("a").write_bytes(b"")
    os.truncate(place.file("a"), 200 * 2**20)


@pytest.mark.parametrize(
    "plant",
    [link_to_victim, hard_link_to_victim, pipe, socket_file, endless_link, huge_file, large_file_of_zeros],
)
async def test_what_is_no_file_of_its_own_is_a_miss_and_is_replaced(
    files_place: FilePlace, plant: Callable[[FilePlace], None]
) -> None:
    """Reading neither waits for it nor follows it; writing leaves alone what it leads to."""
    await files_place.store.set("a", b"1", 60)
    plant(files_place)
    victim = files_place.folder.parent / "victim"
    before = victim.read_bytes() if victim.exists() else b""
    began = time.monotonic()
    assert await files_place.store.get_many(["a", "b"]) == [None, None]
    await files_place.store.set("a", b"2", 60)
    assert await files_place.store.get_many(["a"]) == [b"2"]
    assert time.monotonic() - began < 2
    assert stat.S_ISREG(files_place.file("a").lstat().st_mode)
    assert (victim.read_bytes() if victim.exists() else b"") == before


async def test_a_folder_in_place_of_a_file_is_a_miss_and_stays(files_place: FilePlace) -> None:
    """It can not have come there by accident, so writing says so; nothing else is left behind."""
    files_place.folder.mkdir(mode=0o700)
    files_place.file("a").mkdir()
    assert await files_place.store.get_many(["a"]) == [None]
    with pytest.raises(IsADirectoryError):
        await files_place.store.set("a", b"1", 60)
    assert files_in(files_place.folder) == [files_place.file("a")]


async def test_another_users_file_is_a_miss_and_is_replaced(
    files_place: FilePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However intact it is."""
    await files_place.store.set("a", b"1", 60)
    disown(files_place.file("a"), monkeypatch)
    assert await files_place.store.get_many(["a"]) == [None]
    await files_place.store.set("a", b"2", 60)
    assert await files_place.store.get_many(["a"]) == [b"2"]


async def test_a_planted_pickle_is_not_loaded(tmp_path: Path, bomb: Bomb) -> None:
    """A file that cachelib itself would load reads as a miss, wherever it stands."""
    folder = tmp_path / "theirs"
    cache = FileSystemCache(str(folder))
    store = FileStore.beside(cache)
    await store.set("a", b"1", 60)
    ours = files_in(folder / "aeros.__wz_cache")[0]
    cache.set("a", bomb, 60)
    shutil.copy(cast(Any, cache)._get_filename("a"), ours)
    assert await store.get_many(["a"]) == [None]
    assert not bomb.marker.exists()
    cache.get("a")
    assert bomb.marker.exists()


# Damage


async def test_a_flipped_bit_is_a_miss(files_place: FilePlace) -> None:
    """Any of the file's: its beginning, its name, its value."""
    await files_place.store.set("a", random.Random(1).randbytes(100), 60)
    intact = files_place.file("a").read_bytes()
    bits = len(intact) * 8
    flips = list(range(bits)) * (1000 // bits + 1)
    for bit in flips[:1000]:
        damaged = bytearray(intact)
        damaged[bit // 8] ^= 1 << bit % 8
        files_place.plant("a", bytes(damaged))
        assert await files_place.store.get_many(["a"]) == [None]
    files_place.plant("a", intact)
    assert await files_place.store.get_many(["a"]) != [None]


async def test_a_torn_file_is_a_miss(files_place: FilePlace) -> None:
    """However much of it is there, and whatever follows it."""
    await files_place.store.set("a", b"value", 60)
    intact = files_place.file("a").read_bytes()
    for length in range(len(intact)):
        for rest in (b"", b"\0" * (len(intact) - length)):
            if intact[:length] + rest != intact:
                files_place.plant("a", intact[:length] + rest)
                assert await files_place.store.get_many(["a"]) == [None]
    files_place.plant("a", intact + b"\0")
    assert await files_place.store.get_many(["a"]) == [None]


async def test_noise_is_a_miss(files_place: FilePlace) -> None:
    """Also behind an intact magic number."""
    dice = random.Random(3)
    await files_place.store.set("a", b"value", 60)
    magic = files_place.file("a").read_bytes()[:8]
    for start in (b"", magic):
        for _ in range(200):
            files_place.plant("a", start + dice.randbytes(dice.randrange(200)))
            assert await files_place.store.get_many(["a"]) == [None]


@pytest.mark.parametrize("ends_at", [float("nan"), float("-inf"), -1.0, 0.0])
async def test_a_lifetime_that_is_none_is_over(files_place: FilePlace, ends_at: float) -> None:
    """An intact file may say anything."""
    await files_place.store.set("a", b"value", 60)
    rest = struct.pack("<dI", ends_at, 1) + b"avalue"
    magic = files_place.file("a").read_bytes()[:8]
    files_place.plant("a", magic + struct.pack("<I", zlib.crc32(rest)) + rest)
    assert await files_place.store.get_many(["a"]) == [None]


async def test_a_file_under_another_name_is_a_miss(files_place: FilePlace) -> None:
    """Neither another name's file nor one whose name goes on where this one ends."""
    await files_place.store.set("b", b"value", 60)
    await files_place.store.set("ab", b"value", 60)
    for other in ("b", "ab"):
        shutil.copy(files_place.file(other), files_place.file("a"))
        assert await files_place.store.get_many(["a", other]) == [None, b"value"]


@pytest.mark.parametrize("name", ["", "../x", "a/b", "\0", "ü", "\udcff", "x" * 10_000])
async def test_a_name_is_never_a_path(files_place: FilePlace, name: str) -> None:
    """Any text is a name."""
    await files_place.store.set(name, b"1", 60)
    assert await files_place.store.get_many([name, f"{name}!"]) == [b"1", None]
    assert [len(file.name) for file in files_in(files_place.folder)] == [48]


# What the system refuses


FULL = """\
import asyncio, os, resource, sys, time
from aeros.caching.stores.files import FileStore

async def main():
    store = FileStore("kept")
    await store.set("a", b"old", 60)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    began = time.monotonic()
    try:
        await store.set("a", b"x" * 5000, 60)
    except OSError as error:
        print(type(error).__name__, error.errno == 27)
    await store.set("b", b"small", 60)
    print(await store.get_many(["a", "b"]), len(os.listdir("kept")), time.monotonic() - began < 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

asyncio.run(main())
"""


def test_a_full_disk_is_told_at_once_and_changes_nothing(run_script: RunScript) -> None:
    """The value of before is still there, and nothing half written."""
    done = run_script(FULL)
    assert done.stdout.splitlines() == ["OSError True", "[b'old', b'small'] 2 True"], done.stderr


REFUSED = """\
import asyncio, atexit, os, shutil, tempfile, time
from aeros.caching.stores.files import FileStore
import concurrent.futures.thread, encodings.idna
if os.geteuid() == 0:
    os.seteuid(12345)
    atexit.register(os.seteuid, 0)

async def tell(call):
    began = time.monotonic()
    try:
        answer = repr(await call)
    except OSError as error:
        answer = type(error).__name__
    print(answer, time.monotonic() - began < 0.5)

async def main(folder):
    store = FileStore(folder + "/kept")
    await store.set("a", b"1", 60)
    os.chmod(folder + "/kept", 0o500)
    await tell(store.set("a", b"2", 60))
    await tell(store.get_many(["a", "b"]))
    os.chmod(folder + "/kept", 0o000)
    await tell(store.set("a", b"2", 60))
    await tell(store.get_many(["a", "b"]))
    os.chmod(folder + "/kept", 0o700)
    for name in os.listdir(folder + "/kept"):
        os.chmod(folder + "/kept/" + name, 0o000)
    await tell(store.get_many(["a", "b"]))
    await tell(store.set("a", b"2", 60))
    await tell(store.get_many(["a", "b"]))
    small = FileStore(folder + "/small", max_files=3)
    await small.set("a", b"1", 60)
    unreadable, = os.listdir(folder + "/small")
    os.chmod(folder + "/small/" + unreadable, 0o000)
    for name in "bcdefg":
        await small.set(name, b"1", 60)
    for _ in range(500):
        if len(os.listdir(folder + "/small")) <= 3:
            break
        await asyncio.sleep(0.01)
    print(len(os.listdir(folder + "/small")) <= 3, unreadable in os.listdir(folder + "/small"))

folder = tempfile.mkdtemp()
try:
    asyncio.run(main(folder))
finally:
    shutil.rmtree(folder)
"""


def test_missing_rights_are_told_at_once(run_script: RunScript) -> None:
    """Nothing is tried again: cachelib's own file cache would sleep for many seconds."""
    done = run_script(REFUSED)
    assert done.stdout.splitlines() == [
        "PermissionError True",
        "[b'1', None] True",
        "PermissionError True",
        "PermissionError True",
        "PermissionError True",
        "None True",
        "[b'2', None] True",
        "True False",
    ], done.stderr


async def test_a_value_that_could_not_be_read_again_is_refused(files_place: FilePlace) -> None:
    """What is larger than a file may be is an error, not a miss for ever."""
    with pytest.raises(OSError, match="large"):
        await files_place.store.set("a", bytes(256 * 2**20), 60)
    assert files_in(files_place.folder) == []


@pytest.mark.parametrize("call", ["write", "replace", "fchmod"])
async def test_a_write_that_breaks_off_leaves_nothing(
    files_place: FilePlace, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Wherever it breaks off."""
    await files_place.store.set("a", b"1", 60)

    def refuse(*args: object, **options: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="No space"):
        await files_place.store.set("a", b"2", 60)
    assert await files_place.store.get_many(["a"]) == [b"1"]
    assert files_in(files_place.folder) == [files_place.file("a")]


# Several processes


WRITER = """\
import asyncio, sys
from aeros.caching.stores.files import FileStore

async def main(folder, tag, rounds):
    store = FileStore(folder)
    for number in range(rounds):
        for name in range(20):
            await store.set(f"name {name}", f"{tag} {name} {number} ".encode() * 4000, 600)
        if number == 0:
            print("ready", flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def start(folder: Path, source: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Starts a process that writes."""
    script = folder / "writer.py"
    script.write_text(source)
    return subprocess.Popen(
        [sys.executable, str(script), str(folder / "kept"), *arguments], stdout=subprocess.PIPE, cwd=folder
    )


def wait_until_ready(process: subprocess.Popen[bytes]) -> None:
    """Waits for its first line."""
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"


def end(*processes: subprocess.Popen[bytes]) -> None:
    """Waits for processes that end by themselves."""
    for process in processes:
        with process:
            assert process.wait(30) == 0


def is_whole(value: bytes, name: int) -> bool:
    """Tells whether a value is one that a writer gave, from its first to its last byte."""
    tag, number, count, _ = value.split(b" ", 3)
    return number == b"%d" % name and value == b"%b %b %b " % (tag, number, count) * 4000


async def test_a_writer_that_is_killed_leaves_whole_values(tmp_path: Path) -> None:
    """Each name has its old value or its new one; what was half written goes later."""
    names = [f"name {name}" for name in range(20)]
    for pause in (0.01, 0.02, 0.03, 0.05, 0.08):
        writer = start(tmp_path, WRITER, "w", "100000")
        with writer:
            wait_until_ready(writer)
            await asyncio.sleep(pause)
            writer.kill()
        found = await FileStore(tmp_path / "kept").get_many(names)
        assert [value is not None and is_whole(value, name) for name, value in enumerate(found)] == [
            True
        ] * 20
    drafts = [file for file in files_in(tmp_path / "kept") if file.suffix]
    assert len(files_in(tmp_path / "kept")) == 20 + len(drafts)
    assert len(drafts) <= 5


async def test_what_a_killed_writer_left_is_removed_after_a_minute(tmp_path: Path) -> None:
    """What is younger may still be in the making."""
    store = FileStore(tmp_path / "kept", max_files=10)
    await store.set("0", b"1", 60)
    left, young = (tmp_path / "kept" / f"{digit * 32}.part" for digit in "ab")
    for draft in (left, young):
        draft.write_bytes(b"half")
    os.utime(left, (time.time() - 61, time.time() - 61))
    for number in range(1, 11):
        await store.set(f"{number}", b"1", 60)
    await until(lambda: not left.exists())
    assert young.exists()


async def test_two_processes_that_write_the_same_names_never_mix(tmp_path: Path) -> None:
    """A reader meanwhile sees one's value or the other's, and never none."""
    names = [f"name {name}" for name in range(20)]
    writers = [start(tmp_path, WRITER, tag, "40") for tag in ("one", "other")]
    for writer in writers:
        wait_until_ready(writer)
    store = FileStore(tmp_path / "kept")
    reads = 0
    while any(writer.poll() is None for writer in writers):
        found = await store.get_many(names)
        assert all(value is not None and is_whole(value, name) for name, value in enumerate(found))
        reads += 1
    end(*writers)
    assert reads > 0
    assert len(files_in(tmp_path / "kept")) == 20


# Room

FILLER = """\
import asyncio, sys
from aeros.caching.stores.files import FileStore

async def main(folder, tag):
    store = FileStore(folder, max_files=100)
    for number in range(400):
        await store.set(f"{tag} {number}", b"x", 600)
    await asyncio.sleep(0.3)
    await store.set(f"{tag} last", b"x", 600)

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


async def test_three_processes_keep_the_number_of_files_together(tmp_path: Path) -> None:
    """None of them counts only its own; 1,203 files are written, and never half as many are there."""
    fillers = [start(tmp_path, FILLER, f"{number}") for number in range(3)]
    most = 0
    while any(filler.poll() is None for filler in fillers):
        most = max(most, len(files_in(tmp_path / "kept")))
        await asyncio.sleep(0.002)
    end(*fillers)
    assert most < 600
    # Each may be over by the few that it writes without looking.
    assert 50 < len(files_in(tmp_path / "kept")) <= 100 + 3 * (100 // 50 + 1)


@pytest.mark.parametrize("max_files", [1, 2, 10, 99])
async def test_the_number_of_files_is_bounded(tmp_path: Path, max_files: int) -> None:
    """However many are written, and also where others wrote them before."""
    for start_ in range(0, 300, 100):
        store = FileStore(tmp_path / "kept", max_files=max_files)
        await asyncio.gather(*(store.set(f"{number}", b"1", 60) for number in range(start_, start_ + 100)))
        await store.set("last", b"1", 60)
        await until(lambda: len(files_in(tmp_path / "kept")) <= max_files)


async def test_the_longest_unused_leave_first(files_place: FilePlace) -> None:
    """Reading is using: a token that every request asks for stays, however long ago it was written."""
    store = FileStore(files_place.folder, max_files=10)
    for number in range(10):
        await store.set(f"{number}", b"1", 600)
        hour_ago = time.time() - 3600 + number
        os.utime(files_place.file(f"{number}"), (hour_ago, hour_ago))
    assert await store.get_many(["0", "2"]) == [b"1", b"1"]
    await store.set("new", b"1", 600)
    await until(lambda: len(files_in(files_place.folder)) == 9)
    names = [*map(str, range(10)), "new"]
    found = await store.get_many(names)
    assert [name for name, value in zip(names, found, strict=True) if value is None] == ["1", "3"]


async def test_what_is_over_leaves_before_what_is_not(files_place: FilePlace) -> None:
    """However lately it was used; so does what is damaged."""
    store = FileStore(files_place.folder, max_files=10)
    for number in range(10):
        await store.set(f"{number}", b"1", 600)
    files_place.expire("7")
    files_place.expire("8")
    files_place.plant("9", b"damaged")
    await store.set("new", b"1", 600)
    await until(lambda: len(files_in(files_place.folder)) == 8)
    assert await store.get_many([*map(str, range(7)), "new"]) == [b"1"] * 8


async def test_an_expired_file_is_removed_by_who_reads_it(files_place: FilePlace) -> None:
    """Nobody needs it any more."""
    await files_place.store.set("a", b"1", 60)
    files_place.expire("a")
    assert await files_place.store.get_many(["a"]) == [None]
    assert files_in(files_place.folder) == []


async def test_the_folder_is_not_listed_for_each_write(
    files_place: FilePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty times on the way to the bound, and not at all for what is written over."""
    looks = 0
    real = os.listdir

    def counting(folder: int) -> list[str]:
        nonlocal looks
        looks += 1
        return real(folder)

    monkeypatch.setattr(os, "listdir", counting)
    store = FileStore(files_place.folder, max_files=500)
    for number in range(500):
        await store.set(f"{number}", b"1", 60)
    assert 5 < looks <= 51
    await asyncio.sleep(0.05)  # the last look may be under way
    looks = 0
    for number in range(500):
        await store.set(f"{number}", b"2", 60)
    assert looks == 0


async def test_without_a_bound_only_what_is_over_leaves(
    files_place: FilePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From time to time; what is alive stays, however much it is."""
    monkeypatch.setattr("aeros.caching.stores.files._UNBOUNDED_FILES", 20)
    store = FileStore(files_place.folder, max_files=0)
    for number in range(20):
        await store.set(f"{number}", b"1", 600)
    for number in range(5):
        files_place.expire(f"{number}")
    await store.set("20", b"1", 600)
    await until(lambda: len(files_in(files_place.folder)) == 16)
    assert await store.get_many([f"{number}" for number in range(5, 21)]) == [b"1"] * 16


async def test_foreign_files_in_the_folder_are_never_removed(files_place: FilePlace) -> None:
    """A folder that was given by mistake loses nothing."""
    files_place.folder.mkdir(mode=0o700)
    foreign = ["notes.txt", "a" * 32, "b" * 64, "c" * 47, f"{'d' * 32}.parts", f"{'e' * 48}.bak", "F" * 48]
    for name in foreign:
        (files_place.folder / name).write_bytes(b"mine")
        os.utime(files_place.folder / name, (1, 1))
    store = FileStore(files_place.folder, max_files=2)
    for number in range(20):
        await store.set(f"{number}", b"1", 60)
    await until(lambda: len(files_in(files_place.folder)) <= len(foreign) + 2)
    assert {file.name for file in files_in(files_place.folder)} >= set(foreign)


async def test_what_can_not_be_removed_does_no_harm(files_place: FilePlace) -> None:
    """Folders under names of the store's own are left; the others leave."""
    store = FileStore(files_place.folder, max_files=5)
    await store.set("0", b"1", 60)
    for name in ("x", "y"):
        files_place.file(name).mkdir()
    for number in range(20):
        await store.set(f"{number}", b"1", 60)
    await until(lambda: len([file for file in files_in(files_place.folder) if file.is_file()]) <= 5)
    assert files_place.file("x").is_dir()


async def test_room_that_can_not_be_made_is_logged(
    files_place: FilePlace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It costs no write, and it is tried again."""
    caplog.set_level(logging.WARNING, "aeros.cache")
    store = FileStore(files_place.folder, max_files=1)

    def refuse(folder: int) -> list[str]:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", refuse)
        await store.set("0", b"1", 60)
        await until(lambda: bool(caplog.messages))
    assert "can not be tidied (OSError(5" in caplog.messages[0]
    for number in range(5):
        await store.set(f"{number}", b"1", 60)
    await until(lambda: len(files_in(files_place.folder)) == 1)


async def test_a_write_that_was_given_up_does_not_stop_the_tidying(files_place: FilePlace) -> None:
    """The guard's deadline may cut off the very write that the look was due for."""
    store = FileStore(files_place.folder, max_files=10)
    for number in range(200):
        write = asyncio.create_task(store.set(f"{number}", b"1", 60))
        await asyncio.sleep(0)
        write.cancel()
        await asyncio.wait([write])
    await store.set("last", b"1", 60)
    await until(lambda: len(files_in(files_place.folder)) <= 10)


# Beside the user's own values


async def test_the_users_own_values_are_not_touched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are kept, counted and cleared as before, and neither side warns of the other."""
    folder = tmp_path / "theirs"
    cache = FileSystemCache(str(folder), threshold=10)
    before = {**vars(cache)}
    store = FileStore.beside(cache)
    for number in range(20):
        cache.set(f"own {number}", {"number": number}, 60)
        await store.set(f"ours {number}", b"1", 60)
    ours = folder / "aeros.__wz_cache"
    await until(lambda: len(files_in(ours)) <= 10)
    own = [cache.get(f"own {number}") for number in range(20)]
    assert 9 <= len([value for value in own if value]) <= 11
    assert cast(Any, cache)._file_count == len([value for value in own if value])
    kept = files_in(ours)
    cache.set("own 20", 20, 60)
    assert cache.get("own 20") == 20
    assert cache.clear()
    assert cache.get("own 20") is None
    assert files_in(ours) == kept
    assert vars(cache) == before
    # A new object over the same folder counts none of ours.
    assert cast(Any, FileSystemCache(str(folder), threshold=10))._file_count == 0
    assert caplog.messages == []


async def test_a_store_beside_a_cache_is_as_large_as_the_cache(tmp_path: Path) -> None:
    """Its threshold; 0 is any number in both."""
    small = FileStore.beside(FileSystemCache(str(tmp_path / "small"), threshold=3))
    unbounded = FileStore.beside(FileSystemCache(str(tmp_path / "unbounded"), threshold=0))
    for number in range(50):
        await small.set(f"{number}", b"1", 60)
        await unbounded.set(f"{number}", b"1", 60)
    await until(lambda: 1 < len(files_in(tmp_path / "small" / "aeros.__wz_cache")) <= 3)
    assert len(files_in(tmp_path / "unbounded" / "aeros.__wz_cache")) == 50


async def test_a_cache_of_the_users_own_kind_names_the_folder(tmp_path: Path) -> None:
    """By the suffix that this kind passes over."""

    class Own(FileSystemCache):
        _fs_transaction_suffix = ".draft"

    await FileStore.beside(Own(str(tmp_path / "theirs"))).set("a", b"1", 60)
    assert len(files_in(tmp_path / "theirs" / "aeros.draft")) == 1


def test_cachelib_passes_over_the_folder(tmp_path: Path) -> None:
    """That is what its name is for; a release that counted it would show here."""
    cache = FileSystemCache(str(tmp_path), threshold=1)
    (tmp_path / "aeros.__wz_cache").mkdir()
    assert list(cast(Any, cache)._list_dir()) == []
    for number in range(5):
        assert cache.set(f"{number}", number, 60)
    assert cache.clear()
    assert (tmp_path / "aeros.__wz_cache").is_dir()
