"""A folder of files as a store, for the processes of one machine."""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import stat
import struct
import threading
import time
import zlib
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from cachelib import FileSystemCache

from aeros.caching.stores.threads import Threads
from aeros.errors import InvalidSettingError

_MAGIC: Final = b"aeros\x00f1"
_CHECKSUM: Final = struct.Struct("<I")
_TERMS: Final = struct.Struct("<dI")
_FIXED_BYTES: Final = len(_MAGIC) + _CHECKSUM.size + _TERMS.size
_MAX_FILE_BYTES: Final = 256 * 2**20
_DRAFT: Final = ".part"
_DRAFT_SECONDS: Final = 60.0
_USE_SECONDS: Final = 1.0
_UNBOUNDED_FILES: Final = 10_000

_OUR_NAMES: Final = re.compile(r"[0-9a-f]{48}|[0-9a-f]{32}\.part", re.ASCII)
_NOTHING_TO_READ: Final = (
    errno.ENOENT,
    errno.ELOOP,
    errno.EMLINK,
    errno.ENXIO,
    errno.ENODEV,
    errno.EOPNOTSUPP,
)


class FileStore:
    """Keeps each value in a file of its own, in a folder that only this process's user can enter.

    Nothing that stands in the folder is trusted: what is no regular file of this user's own, or
    is not exactly what this store has written, is a miss. Nothing waits for a failure to go away:
    what the system refuses is raised at once.

    A file's name is a digest, so no request decides it. A file is its magic number, a CRC-32 of
    the rest, the end of its lifetime (seconds since the epoch), its name with its length, its value.

    Args:
        folder: The store's own. It is made by the first write, and closed to other users (0700);
            one that is there already is refused if other users can write to it.
        max_files: How many values are kept, 0 for any number; the longest unused leave first.
            Each process that writes may be 2 % over it for a moment.

    Raises:
        InvalidSettingError: The folder is a symbolic link, or another user's.
    """

    def __init__(self, folder: str | os.PathLike[str], *, max_files: int = 10_000) -> None:
        if type(max_files) is not int or max_files < 0:
            raise InvalidSettingError("cache", max_files, "a whole number of files, 0 for any number")
        self._folder = _checked_folder(folder)
        # The users' own folder, where this store's is in one.
        self._outer: Path | None = None
        self._max_files = max_files
        self._threads = Threads(4, "aeros-files")
        self._lock = threading.Lock()
        # How many new files may be written before the folder is looked at again.
        self._new_files_left = 0 if max_files else _UNBOUNDED_FILES
        self._is_tidying = False

    @classmethod
    def beside(cls, cache: FileSystemCache) -> FileStore:
        """Returns a store that is as large as ``cache``, in a folder within that cache's own.

        cachelib takes no notice of it: it passes over what has the name of its own temporary
        files, when it counts, prunes and clears. The values and the object that the user has
        there are not touched.

        Raises:
            InvalidSettingError: The cache's folder is a symbolic link, or another user's.
        """
        theirs = cast(Any, cache)  # cachelib shows neither its folder nor its threshold
        outer = _checked_folder(theirs._path)
        store = cls(outer / f"aeros{theirs._fs_transaction_suffix}", max_files=theirs._threshold)
        store._outer = outer
        return store

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """Returns the value of each name; None where there is none, or nothing that can be trusted.

        Raises:
            OSError: The folder or a file can not be read.
        """
        return await self._threads.run(partial(self._read_many, names))

    async def set(self, name: str, value: bytes, ttl_seconds: float) -> None:
        """Keeps ``value`` under ``name`` for ``ttl_seconds``.

        Raises:
            OSError: The folder can not be written to, or is full; what was there before stays.
        """
        await self._threads.run(partial(self._write, name, value, ttl_seconds))
        if self._new_files_left < 0 and not self._is_tidying:
            # Nobody waits for it: a large folder takes longer than a response may.
            self._threads.start(self._tidy).add_done_callback(self._tidied)

    async def close(self) -> None:
        """Lets the threads go, without waiting for them. The store may be used again."""
        self._threads.close()

    def _read_many(self, names: Sequence[str]) -> list[bytes | None]:
        try:
            with self._opened_folder() as folder:
                return [self._read(folder, name) for name in names]
        except FileNotFoundError:
            # Nothing was ever written, or somebody has cleaned up.
            return [None for _ in names]

    def _read(self, folder: int, name: str) -> bytes | None:
        label = _label(name)
        file_name = _file_name(label)
        with _opened_file(folder, file_name) as (file, found):
            if found is None:
                return None
            head = _read_bytes(file, _FIXED_BYTES + len(label))
            terms = _parse_head(head)
            if terms is None or terms.label_bytes != len(label) or head[_FIXED_BYTES:] != label:
                return None
            now = time.time()
            if not now < terms.ends_at:
                # Where another process renews it at this moment, that costs one more view.
                _remove(folder, file_name)
                return None
            value = _read_bytes(file, found.st_size - len(head))
            if not _is_intact(head, value):
                return None
            if self._max_files and now - found.st_mtime > _USE_SECONDS:
                # It is by this time that the longest unused are found.
                with suppress(OSError):
                    os.utime(file)
            return value

    def _write(self, name: str, value: bytes, ttl_seconds: float) -> None:
        label = _label(name)
        file_name = _file_name(label)
        head = _head(label, value, time.time() + max(0.0, ttl_seconds))
        if len(head) + len(value) > _MAX_FILE_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        with self._opened_folder(make=True) as folder:
            is_new = not _exists(folder, file_name)
            _replace_file(folder, file_name, head, value)
        with self._lock:
            self._new_files_left -= is_new

    def _tidy(self) -> None:
        """Looks at what all processes have written, until it has seen what this one has."""
        while self._begins_to_tidy():
            room = _slack(self._max_files)
            try:
                with suppress(FileNotFoundError), self._opened_folder() as folder:
                    room = self._make_room(folder)
            finally:
                with self._lock:
                    self._new_files_left += room
                    self._is_tidying = False

    def _begins_to_tidy(self) -> bool:
        with self._lock:
            if self._is_tidying or self._new_files_left >= 0:
                return False
            self._is_tidying = True
            # What is written from now on is counted against the room that is found.
            self._new_files_left = 0
            return True

    def _make_room(self, folder: int) -> int:
        """Returns how many new files may come until the next look."""
        most, slack = self._max_files, _slack(self._max_files)
        names = list(filter(_OUR_NAMES.fullmatch, os.listdir(folder)))
        if not most:
            return max(slack, _prune(folder, names, len(names)) // 2)
        count = len(names)
        if count > most:
            count = _prune(folder, names, max(1, most * 9 // 10))
        return min(slack, most - count)

    def _tidied(self, done: Future[None]) -> None:
        error = done.exception()
        if error is not None:
            logging.getLogger("aeros.cache").warning("%r can not be tidied (%r)", self, error)

    @contextmanager
    def _opened_folder(self, *, make: bool = False) -> Generator[int]:
        """Opens the folder for one call, checked anew each time: what was swapped is refused."""
        try:
            folder = self._open_folder(make=False)
        except FileNotFoundError:
            if not make:
                raise
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            folder = self._open_folder(make=True)
        try:
            yield folder
        finally:
            os.close(folder)

    def _open_folder(self, *, make: bool) -> int:
        if self._outer is None:
            return _open_private_folder(self._folder, make=make)
        outer = _open_folder(self._outer)
        try:
            return _open_private_folder(self._folder.name, outer, make=make, close_to_others=True)
        finally:
            os.close(outer)

    def __repr__(self) -> str:
        return f"FileStore({self._folder})"


# Folders


def _checked_folder(folder: str | os.PathLike[str]) -> Path:
    """Returns a folder's absolute path; early and loud where it will never do."""
    if os.name != "posix":
        raise InvalidSettingError("cache", str(folder), "another store: this one needs a POSIX system")
    path = Path(folder).absolute()
    try:
        found = path.lstat()
    except FileNotFoundError:
        return path
    except (OSError, ValueError) as error:
        raise _unfit(path) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise _unfit(path)
    return path


def _unfit(folder: Path) -> InvalidSettingError:
    expected = f"a folder that is no symbolic link and belongs to the user of this process ({os.geteuid()})"
    return InvalidSettingError("cache", str(folder), expected)


def _open_folder(folder: str | Path, within: int | None = None) -> int:
    """Opens a folder; neither a symbolic link nor another user's."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
    if os.fstat(opened).st_uid != os.geteuid():
        os.close(opened)
        raise PermissionError(errno.EPERM, "The folder belongs to another user", str(folder))
    return opened


def _open_private_folder(
    folder: str | Path, within: int | None = None, *, make: bool, close_to_others: bool = False
) -> int:
    """Opens a folder that nobody else can write to; one that others use too keeps its rights."""
    if make:
        try:
            os.mkdir(folder, 0o700, dir_fd=within)
            close_to_others = True  # an umask may have taken this user's own rights
        except FileExistsError:
            pass
    opened = _open_folder(folder, within)
    rights = stat.S_IMODE(os.fstat(opened).st_mode) & 0o777
    try:
        if close_to_others and rights != 0o700:
            os.fchmod(opened, 0o700)
        elif rights & 0o022 and not close_to_others:
            raise PermissionError(errno.EPERM, "Other users can write to the folder", str(folder))
    except OSError:
        os.close(opened)
        raise
    return opened


# Files


def _label(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def _file_name(label: bytes) -> str:
    return blake2b(label, digest_size=24).hexdigest()


@contextmanager
def _opened_file(folder: int, file_name: str) -> Generator[tuple[int, os.stat_result | None]]:
    """Opens a file to read, and tells what it is; None for what this store can not have written.

    ``O_NONBLOCK``: opening a pipe would wait for somebody who writes.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        file = os.open(file_name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno not in _NOTHING_TO_READ:
            raise
        yield -1, None
        return
    try:
        found = os.fstat(file)
        yield file, found if _is_ours(found) else None
    finally:
        os.close(file)


def _is_ours(found: os.stat_result) -> bool:
    # A file that is replaced while it is open has no name any more, and is still what it was.
    return (
        stat.S_ISREG(found.st_mode)
        and found.st_uid == os.geteuid()
        and found.st_nlink <= 1
        and found.st_size <= _MAX_FILE_BYTES
    )


def _read_bytes(file: int, size: int) -> bytes:
    """Returns the next ``size`` bytes, or as many as there are."""
    parts: list[bytes] = []
    while size > 0 and (part := os.read(file, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _replace_file(folder: int, file_name: str, *parts: bytes) -> None:
    """Writes a file that is there completely or not at all."""
    draft = f"{secrets.token_hex(16)}{_DRAFT}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(draft, flags, 0o600, dir_fd=folder)
    try:
        try:
            os.fchmod(file, 0o600)  # an umask may have taken this user's own rights
            for part in parts:
                _write_bytes(file, part)
        finally:
            os.close(file)
        os.replace(draft, file_name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        # Not only a full disk: KeyboardInterrupt and SystemExit end a write half way, too. A draft has a
        # random name, so nothing would ever find it again and it would take its room for good.
        _remove(folder, draft)
        raise


def _write_bytes(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def _remove(folder: int, file_name: str) -> None:
    """Removes a file, if there is one and it can be removed."""
    with suppress(OSError):
        os.unlink(file_name, dir_fd=folder)


def _exists(folder: int, file_name: str) -> bool:
    try:
        os.stat(file_name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


# What a file says


class _Terms(NamedTuple):
    ends_at: float
    label_bytes: int


def _head(label: bytes, value: bytes, ends_at: float) -> bytes:
    terms = _TERMS.pack(ends_at, len(label)) + label
    return _MAGIC + _CHECKSUM.pack(zlib.crc32(value, zlib.crc32(terms))) + terms


def _parse_head(head: bytes) -> _Terms | None:
    """Returns what the beginning of a file says, None where it is no file of this store."""
    if len(head) < _FIXED_BYTES or not head.startswith(_MAGIC):
        return None
    return _Terms._make(_TERMS.unpack_from(head, len(_MAGIC) + _CHECKSUM.size))


def _is_intact(head: bytes, value: bytes) -> bool:
    checksum = int(_CHECKSUM.unpack_from(head, len(_MAGIC))[0])
    return checksum == zlib.crc32(value, zlib.crc32(head[len(_MAGIC) + _CHECKSUM.size :]))


# Room


def _slack(max_files: int) -> int:
    """Returns how many new files one process writes before it counts those of all processes."""
    return max(1, max_files // 50) if max_files else _UNBOUNDED_FILES


def _prune(folder: int, names: Sequence[str], most: int) -> int:
    """Removes what is of no use, then the longest unused until there are ``most``.

    Other processes may do the same at once; what has gone is gone.

    Returns:
        How many files are left.
    """
    used: list[tuple[float, str]] = []
    for name in names:
        if name.endswith(_DRAFT):
            if _is_abandoned(folder, name):
                _remove(folder, name)
            continue
        last_use = _last_use(folder, name)
        if last_use is None:
            _remove(folder, name)
        else:
            used.append((last_use, name))
    used.sort()
    surplus = max(0, len(used) - most)
    for _, name in used[:surplus]:
        _remove(folder, name)
    return len(used) - surplus


def _is_abandoned(folder: int, draft: str) -> bool:
    """Tells whether a file has been in the making for so long that its writer must have been killed."""
    try:
        return time.time() - os.stat(draft, dir_fd=folder, follow_symlinks=False).st_mtime > _DRAFT_SECONDS
    except FileNotFoundError:
        return False


def _last_use(folder: int, file_name: str) -> float | None:
    """Returns when a file was last used, seconds since the epoch; None for one of no use."""
    try:
        with _opened_file(folder, file_name) as (file, found):
            terms = _parse_head(_read_bytes(file, _FIXED_BYTES)) if found else None
            return found.st_mtime if found and terms and time.time() < terms.ends_at else None
    except PermissionError:
        return None
