"""The places that the contract of stores is tested on: each with a way to what it really holds."""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import pytest
import redis
from cachelib import BaseCache, RedisCache, SimpleCache

from aeros.caching.stores.base import Store
from aeros.caching.stores.cachelib import CachelibStore
from aeros.caching.stores.files import FileStore

if TYPE_CHECKING:
    from tests.conftest import RedisProcess


class Place(Protocol):
    """A store and a way to what it really holds."""

    @property
    def store(self) -> Store:
        """The store."""
        ...

    def plant(self, name: str, data: bytes) -> None:
        """Puts raw bytes under a name, with a lifetime ahead where that is kept apart."""
        ...

    def expires_in(self, name: str) -> float:
        """Returns after how many seconds a value goes; infinity for never."""
        ...

    def expire(self, name: str) -> None:
        """Makes the lifetime of a value end in the past."""
        ...

    def lose(self, name: str) -> None:
        """Takes a value away."""
        ...


class CachelibPlace(Place, Protocol):
    """A place behind a cache object of cachelib."""

    @property
    def cache(self) -> BaseCache:
        """The cache object as a user made it."""
        ...


class SimplePlace:
    """A dictionary of this process."""

    def __init__(self) -> None:
        self.cache = SimpleCache()
        self.store = CachelibStore(self.cache)
        self._raw: dict[str, tuple[float, bytes]] = cast(Any, self.cache)._cache

    def plant(self, name: str, data: bytes) -> None:
        """Puts the pair that cachelib would."""
        self._raw[name] = (time.time() + 100, data)

    def expires_in(self, name: str) -> float:
        """Reads the pair."""
        return (self._raw[name][0] or float("inf")) - time.time()

    def expire(self, name: str) -> None:
        """Changes the pair."""
        self._raw[name] = (1, self._raw[name][1])

    def lose(self, name: str) -> None:
        """Takes the pair out."""
        del self._raw[name]


class RedisPlace:
    """A real Redis server, under a prefix of the user's."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = cast(Any, client)
        self.cache = RedisCache(client, key_prefix="shop:")
        self.store = CachelibStore(self.cache)

    def plant(self, name: str, data: bytes) -> None:
        """Sets the key that cachelib would."""
        self.client.set(f"shop:{name}", data, ex=100)

    def expires_in(self, name: str) -> float:
        """Asks the server."""
        left = int(self.client.pttl(f"shop:{name}"))
        return left / 1000 if left >= 0 else float("inf")

    def expire(self, name: str) -> None:
        """Tells the server."""
        assert self.client.pexpireat(f"shop:{name}", 1000)

    def lose(self, name: str) -> None:
        """Deletes the key."""
        assert self.client.delete(f"shop:{name}")


class FilePlace:
    """A folder; a file is magic number, CRC-32, end of lifetime, length of the name, name, value."""

    HEAD = struct.Struct("<8sIdI")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = FileStore(folder)

    def file(self, name: str) -> Path:
        """Returns the file of a name."""
        return self.folder / blake2b(name.encode(), digest_size=24).hexdigest()

    def plant(self, name: str, data: bytes) -> None:
        """Writes a file of this user's own."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.file(name).write_bytes(data)

    def expires_in(self, name: str) -> float:
        """Reads it from the file."""
        head = self.HEAD.unpack_from(self.file(name).read_bytes())
        return float(head[2]) - time.time()

    def expire(self, name: str) -> None:
        """Writes an intact file whose time is over."""
        data = self.file(name).read_bytes()
        magic, _, _, length = self.HEAD.unpack_from(data)
        rest = struct.pack("<dI", 1.0, length) + data[self.HEAD.size :]
        self.file(name).write_bytes(magic + struct.pack("<I", zlib.crc32(rest)) + rest)

    def lose(self, name: str) -> None:
        """Removes the file."""
        self.file(name).unlink()


@pytest.fixture(params=["simple", "redis", "files"])
def place(request: pytest.FixtureRequest) -> Place:
    """Each of the places, one after the other."""
    return cast(Place, request.getfixturevalue(f"{request.param}_place"))


@pytest.fixture(params=["simple", "redis"])
def cachelib_place(request: pytest.FixtureRequest) -> CachelibPlace:
    """Each of those that belong to cachelib."""
    return cast(CachelibPlace, request.getfixturevalue(f"{request.param}_place"))


@pytest.fixture
def simple_place() -> SimplePlace:
    """A dictionary."""
    return SimplePlace()


@pytest.fixture
def redis_place(redis_server: RedisProcess) -> Iterator[RedisPlace]:
    """A server."""
    with redis.Redis(port=redis_server.port) as client:
        yield RedisPlace(client)


@pytest.fixture
def files_place(tmp_path: Path) -> FilePlace:
    """A folder that is not there yet."""
    return FilePlace(tmp_path / "cache")


class Bomb:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def bomb(tmp_path: Path) -> Bomb:
    """An object that must not be unpickled."""
    return Bomb(tmp_path / "ran")
