"""What the tests of the cache's engine do as the requests of an application would."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

from aeros.caching.entry import StoredResponse
from aeros.caching.keys import request_key, store_key
from aeros.caching.rules import CacheRules
from aeros.caching.server import Cache
from aeros.caching.transaction import Refresh, Transaction
from aeros.http.cache_status import CacheStatus
from aeros.types import RawHeaders

PATIENCE = 10.0
RULES = CacheRules()


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Returns seconds since the epoch."""
        return self.now


def scope_of(path: str = "/a", *fields: tuple[bytes, bytes], method: str = "GET") -> dict[str, object]:
    """Returns the ASGI scope of a request."""
    return {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"localhost"), *fields],
    }


def language(value: bytes | None) -> dict[str, object]:
    """Returns a request for one language, None for whatever there is."""
    return scope_of("/a") if value is None else scope_of("/a", (b"accept-language", value))


def key_of(path: str = "/a") -> bytes:
    """Returns the key of the response to a path."""
    return request_key(scope_of(path), template=("view/", ""), query=None, hash_method=hashlib.md5)


def name_of(path: str = "/a") -> str:
    """Returns the name in a shared store of the response to a path."""
    return store_key(key_of(path), hashlib.md5)


def offer(
    transaction: Transaction,
    body: bytes = b"x",
    *,
    status: int = 200,
    headers: RawHeaders | None = None,
    personal: str | None = None,
) -> StoredResponse | None:
    """Proposes and commits a view's response as a finished one; returns what was proposed."""
    headers = headers or []
    proposed = transaction.propose(status=status, headers=headers, body=body)
    transaction.commit(status=status, headers=headers, personal=personal)
    transaction.abandon()
    return proposed


async def opened(
    cache: Cache,
    scope: dict[str, object] | None = None,
    rules: CacheRules = RULES,
    *,
    update: bool = False,
    tags: str | None = None,
    refresh: Refresh | None = None,
) -> Transaction:
    """Opens a request that must not have to wait for another one."""
    named: Callable[[], object] | None = None if tags is None else lambda: tags
    async with asyncio.timeout(PATIENCE):
        return await cache.open(scope or scope_of(), rules, update=update, tags=named, refresh=refresh)


def boarding(
    cache: Cache, scope: dict[str, object] | None = None, rules: CacheRules = RULES
) -> asyncio.Task[Transaction]:
    """Opens a request that may have to wait for another one."""
    return asyncio.create_task(cache.open(scope or scope_of(), rules))


async def stored(
    cache: Cache,
    body: bytes = b"x",
    scope: dict[str, object] | None = None,
    *,
    headers: RawHeaders | None = None,
    rules: CacheRules = RULES,
    tags: str | None = None,
) -> None:
    """Lets a view run whose response is stored, here and in the store."""
    transaction = await opened(cache, scope, rules, tags=tags)
    assert transaction.hit is None
    offer(transaction, body, headers=headers)
    assert transaction.status == CacheStatus(fwd="miss", stored=True)
    await cache.settle()


async def body_of(
    cache: Cache,
    scope: dict[str, object] | None = None,
    rules: CacheRules = RULES,
    *,
    tags: str | None = None,
) -> bytes | None:
    """Returns the body of a hit, None for a miss."""
    transaction = await opened(cache, scope, rules, tags=tags)
    if transaction.refresh is not None:
        transaction.refresh.give_up()
    transaction.abandon()
    return None if transaction.hit is None else transaction.hit.body


async def turns(count: int = 10) -> None:
    """Lets all that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Waits until something has happened in the background."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)
