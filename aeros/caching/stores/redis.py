"""Redis and Valkey as the store of several processes and machines, with Sentinel and Cluster."""

from __future__ import annotations

import asyncio
import json
import secrets
import weakref
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from math import ceil, isfinite
from typing import Any, ClassVar, Final, Protocol, TypeAlias, cast

from aeros.caching.stores.base import StoreUnavailableError
from aeros.caching.stores.redis_url import RedisClient, make_client, parse_url
from aeros.errors import InvalidSettingError, MissingExtraError
from aeros.per_loop import PerLoop

_Command: TypeAlias = Sequence[str | bytes | int]

_LONGEST_SECONDS: Final = 10 * 365 * 86400.0
_GENERATION: Final = ""

# Scripts, because they are one step for everybody else, also in a cluster.
_EVICT: Final = """
for i = 5, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
local message = ARGV[3]
if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[1]) then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], '', ARGV[4])
  if tonumber(ARGV[1]) >= 0 then message = ' null' end
end
return redis.call('PUBLISH', ARGV[2], message)
"""
_LOCK: Final = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_UNLOCK: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class RedisStore:
    """Keeps responses in Redis or Valkey, and lets processes hear of each other through it.

    The tokens of all marks live in one hash, so they share their fate: where Redis has lost it,
    everything is disowned, and nothing that was evicted comes back. Only keys under the prefix
    are touched. Nothing is imported or connected before the first call.

    What Redis itself brings back (an old snapshot, a replica that was behind its master) may
    have been evicted since: a Redis that serves as a cache needs no persistence.

    Args:
        connect: Makes a client of redis-py; called once in each event loop, and closed with it.
        prefix: What all keys begin with.
        socket_timeout_seconds: How long one call may take.
        max_connections: How many calls may be under way at once in each event loop; more wait.
        label: What ``repr`` calls the server.

    Raises:
        InvalidSettingError: One of the values does not fit.
    """

    MOST_MARKS: ClassVar[int] = 100_000
    """How many marks are told apart: one more evicts everything instead."""

    def __init__(
        self,
        connect: Callable[[], RedisClient],
        *,
        prefix: str = "aeros",
        socket_timeout_seconds: float = 1.0,
        max_connections: int = 32,
        label: str = "redis",
    ) -> None:
        if not prefix:
            raise InvalidSettingError("prefix", prefix, "what the keys of no other program begin with")
        if not (isfinite(socket_timeout_seconds) and socket_timeout_seconds > 0):
            raise InvalidSettingError("socket_timeout_seconds", socket_timeout_seconds, "seconds above 0")
        if max_connections < 1:
            raise InvalidSettingError("max_connections", max_connections, "a whole number from 1 on")
        self._connect = connect
        self._prefix = prefix
        self._marks_key = f"{prefix}:aeros:1:marks"
        self._channel = f"{prefix}:aeros:1:evicted"
        self._timeout_seconds = socket_timeout_seconds
        self._max_connections = max_connections
        self._label = label
        self._seats: PerLoop[_Seat] = PerLoop(_Seat)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        prefix: str = "aeros",
        socket_timeout_seconds: float = 1.0,
        max_connections: int = 32,
    ) -> RedisStore:
        """Returns a store for the server, the Sentinels or the cluster at ``url``.

        ::

            redis://[[user]:password@]host[:6379][/db]
            unix://[[user]:password@]/path/to/socket[?db=0]
            redis+sentinel://[[user]:password@]host[:26379],host[:26379]/service[/db]
            redis+cluster://[[user]:password@]host[:6379],host[:6379]

        ``rediss`` instead of ``redis`` encrypts; ``valkey`` and ``valkeys`` mean the same two.
        Options of redis-py's connections may follow, as in ``?ssl_ca_certs=ca.pem``; Sentinels
        with a password of their own take ``?sentinel_password=``.

        Args:
            url: Where Redis is, with special characters of the password percent-encoded.
            prefix: What all keys begin with.
            socket_timeout_seconds: How long one call may take.
            max_connections: How many calls may be under way at once in each event loop; more wait.

        Raises:
            MissingExtraError: The package ``redis`` is not installed.
            InvalidSettingError: The URL, or another value, does not fit.
        """
        if find_spec("redis") is None:
            raise MissingExtraError("RedisStore", package="redis", extra="redis")
        address = parse_url(url)
        return cls(
            lambda: make_client(address, socket_timeout_seconds, max_connections),
            prefix=prefix,
            socket_timeout_seconds=socket_timeout_seconds,
            max_connections=max_connections,
            label=address.label,
        )

    async def read(self, name: str, marks: Sequence[str]) -> tuple[str, bytes | None]:
        """Returns the stamp of the marks, and the value of ``name``, in one round trip."""
        tokens_of: _Command = ("HMGET", self._marks_key, _GENERATION, *marks)
        value_of: Sequence[_Command] = [("GET", self._key(name))] if name else []
        first, *rest = await self._ask(tokens_of, *value_of)
        tokens = cast("list[bytes | None]", first)
        data = cast("bytes | None", rest[0] if rest else None)
        if tokens[0] is None:
            # Several may do this at once: the first one's token is everybody's.
            await self._ask(("HSETNX", self._marks_key, _GENERATION, _new_token()))
            (tokens,) = cast("list[list[bytes | None]]", await self._ask(tokens_of))
        return _stamp(tokens), data

    async def write(self, name: str, value: bytes, ttl_seconds: float) -> None:
        """Keeps ``value`` for ``ttl_seconds``, and for ten years at most."""
        await self._ask(("SET", self._key(name), value, "PX", _milliseconds(ttl_seconds)))

    async def evict(self, marks: Sequence[str] | None, sender: str = "") -> None:
        """Gives the marks, or with None everything, new tokens, and tells those who listen."""
        most = -1 if marks is None else self.MOST_MARKS
        renewed = [text for mark in marks or () for text in (mark, _new_token())]
        message = f"{sender} {json.dumps(None if marks is None else list(marks))}"
        await self._eval(_EVICT, self._marks_key, most, self._channel, message, _new_token(), *renewed)

    async def close(self) -> None:
        """Closes the running loop's connections. The store may be used again."""
        await self._seats.get().leave()

    async def lock(self, name: str, owner: str, lapse_seconds: float) -> bool:
        """Takes or keeps the lock of ``name`` for ``owner``; False where another one has it."""
        lapse = _milliseconds(lapse_seconds)
        return await self._eval(_LOCK, self._lock_key(name), owner, lapse) == 1

    async def unlock(self, name: str, owner: str) -> None:
        """Gives the lock back, if ``owner`` still has it."""
        await self._eval(_UNLOCK, self._lock_key(name), owner)

    async def is_locked(self, name: str) -> bool:
        """Tells whether anybody has the lock."""
        return await self._ask(("EXISTS", self._lock_key(name))) == [1]

    async def listen(
        self,
        heard: Callable[[], None],
        evicted: Callable[[Sequence[str] | None], None],
        interval_seconds: float,
        sender: str = "",
    ) -> None:
        """Listens to evictions on a connection of its own, until that breaks.

        Args:
            heard: Called once the subscription stands, and whenever the server says something.
            evicted: Called with the marks of each eviction, None for everything.
            interval_seconds: How long the server may be silent; it is asked after half of it.
            sender: Who listens: what it has evicted itself is no news.

        Raises:
            ConnectionError: The server can not be reached, went away, or is silent.
        """
        from redis.exceptions import RedisClusterException, RedisError

        try:
            async with self._subscription(interval_seconds) as connection:
                heard()
                while True:
                    reply = await _next_reply(connection, interval_seconds / 2)
                    heard()
                    _tell(reply, evicted, sender)
        except (RedisError, RedisClusterException, OSError) as error:
            raise ConnectionError(f"{self!r} is not heard ({error})") from error

    @asynccontextmanager
    async def _subscription(self, interval_seconds: float) -> AsyncGenerator[_Connection, None]:
        async with asyncio.timeout(interval_seconds) as deadline:
            connection = await (await self._link()).new_connection(self._marks_key)
            try:
                await connection.connect()
                await _send(connection, ("SUBSCRIBE", self._channel))
                await connection.read_response(push_request=True)
                deadline.reschedule(None)
                yield connection
            finally:
                await _drop(connection)

    async def _eval(self, script: str, key: str, *arguments: str | int) -> object:
        return (await self._ask(("EVAL", script, 1, key, *arguments)))[0]

    async def _ask(self, *commands: _Command) -> Sequence[object]:
        link = await self._link()
        async with link.gate, asyncio.timeout(self._timeout_seconds):
            return await link.ask(commands)

    async def _link(self) -> _Link:
        return await self._seats.get().take(self._new_link)

    def _new_link(self) -> _Link:
        client = self._connect()
        gate = asyncio.Semaphore(self._max_connections)
        return _ClusterLink(client, gate) if hasattr(client, "nodes_manager") else _ServerLink(client, gate)

    def _key(self, name: str) -> str:
        return f"{self._prefix}:{name}"

    def _lock_key(self, name: str) -> str:
        return f"{self._prefix}:aeros:1:lock:{name}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._label})"


def _new_token() -> str:
    return secrets.token_hex(8)


def _stamp(tokens: Sequence[bytes | None]) -> str:
    if tokens[0] is None:
        raise StoreUnavailableError("the store does not keep what it is given")
    # A token is hexadecimal, so no two lists of them look the same.
    return "|".join("" if token is None else token.decode("latin-1") for token in tokens)


def _milliseconds(seconds: float) -> int:
    return ceil(min(max(0.001, seconds), _LONGEST_SECONDS) * 1000)


# What goes over one connection


class _Connection(Protocol):
    """What is used of a connection of redis-py."""

    @property
    def is_connected(self) -> bool: ...
    async def connect(self) -> None: ...
    async def disconnect(self, nowait: bool = False) -> None: ...
    async def can_read(self) -> bool: ...
    def pack_commands(self, commands: Iterable[_Command]) -> list[bytes]: ...
    async def send_packed_command(self, command: Iterable[bytes]) -> None: ...
    async def read_response(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - redis-py's own
        disconnect_on_error: bool = True,
        push_request: bool = False,
    ) -> object: ...


async def _send(connection: _Connection, *commands: _Command) -> None:
    await connection.send_packed_command(connection.pack_commands(commands))


def _transport(connection: _Connection) -> asyncio.WriteTransport | None:
    writer = cast("asyncio.StreamWriter | None", getattr(connection, "_writer", None))
    return None if writer is None else writer.transport


async def _drop(connection: _Connection, transport: asyncio.WriteTransport | None = None) -> None:
    """Ends a connection at once.

    redis-py closes it only once all is sent, which a server that stands still never lets happen.
    """
    transport = transport or _transport(connection)
    if transport is not None:
        transport.abort()
    await connection.disconnect(nowait=True)


async def _next_reply(connection: _Connection, patience_seconds: float) -> object:
    """Returns what the server says next, if need be because it is asked whether it is there."""
    reply = await _reply_within(connection, patience_seconds)
    if reply is None:
        await _send(connection, ("PING",))
        reply = await _reply_within(connection, patience_seconds)
    if reply is None:
        raise TimeoutError("it does not answer")
    return reply


async def _reply_within(connection: _Connection, seconds: float) -> object:
    # After redis-py's own timeout the half of a reply that has come is still there.
    return await connection.read_response(timeout=seconds, disconnect_on_error=False, push_request=True)


def _tell(reply: object, evicted: Callable[[Sequence[str] | None], None], own: str) -> None:
    """Passes an eviction on; whatever else comes over the channel is not ours."""
    match cast("list[object]", reply):
        case [b"message", bytes(), bytes(message)]:
            try:
                sender, marks = _parse_message(message)
            except (ValueError, RecursionError):
                return
            # What overflowed is from nobody: it evicts more than was asked for.
            if not own or sender != own:
                evicted(marks)
        case _:
            pass


def _parse_message(data: bytes) -> tuple[str, list[str] | None]:
    sender, _, text = data.partition(b" ")
    marks = cast("object", json.loads(text))
    if marks is None:
        return sender.decode("latin-1"), None
    if isinstance(marks, list) and all(isinstance(mark, str) for mark in cast("list[object]", marks)):
        return sender.decode("latin-1"), cast("list[str]", marks)
    raise ValueError("not a list of marks")


# One event loop's connections


class _Link(Protocol):
    """One event loop's way to Redis."""

    @property
    def gate(self) -> asyncio.Semaphore:
        """Bounds how many calls are under way."""
        ...

    async def ask(self, commands: Sequence[_Command]) -> Sequence[object]:
        """Returns the reply to each command."""
        ...

    async def new_connection(self, key: str, /) -> _Connection:
        """Returns one to where ``key`` is, not connected yet; it belongs to the caller."""
        ...

    async def close(self) -> None:
        """Closes what is open and not in use; what is in use is closed after it."""
        ...


class _Seat:
    """Where a loop's link is, while it has one: a seat may outlive its loop, connections must not."""

    def __init__(self) -> None:
        self._link: _Link | None = None
        self._ending: AsyncGenerator[None, None] | None = None

    async def take(self, make: Callable[[], _Link]) -> _Link:
        """Returns the link, if need be a new one."""
        if self._link is None:
            self._link = make()
            self._ending = self._until_the_loop_ends()
            await anext(self._ending)
        return self._link

    async def leave(self) -> None:
        """Closes the link, if there is one."""
        ending, self._ending = self._ending, None
        if ending is not None:
            await ending.aclose()

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        # Before a loop is closed, asyncio.run() and its like close the generators that it has begun.
        # The loop must hold this one: a store that was dropped would take it, and what is open, along.
        held = weakref.finalize(asyncio.get_running_loop(), _let_go, self._ending)
        held.atexit = False
        try:
            yield
        finally:
            held.detach()
            link, self._link, self._ending = self._link, None, None
            if link is not None:
                await link.close()


def _let_go(_: object) -> None:
    """What a loop held goes with it."""


class _ServerLink:
    """Connections to one server, or to the master that the Sentinels name.

    It keeps the connections itself, to know whether one that failed had been idle before; and
    redis-py's pool refuses the call that finds all of them in use.
    """

    def __init__(self, client: RedisClient, gate: asyncio.Semaphore) -> None:
        self.gate = gate
        self._client = client
        self._pool = cast("Any", client).connection_pool
        self._idle: list[_Connection] = []
        self._is_closed = False
        self._replies = 0

    async def ask(self, commands: Sequence[_Command]) -> Sequence[object]:
        connection = await self._take_idle()
        if connection is not None:
            try:
                return await self._exchange(connection, commands)
            except Exception as error:
                if not _is_outlived(error):
                    raise
                # The server went away, or is no master any more, since it was last asked.
                await self._drop_idle()
        connection = self._new_connection()
        try:
            await connection.connect()
        except BaseException:
            # The store's deadline is a cancellation, which is no Exception. The socket may be open by now,
            # and only this function knows of it: nobody else could close it.
            await _drop(connection)
            raise
        return await self._exchange(connection, commands)

    async def new_connection(self, _key: str, /) -> _Connection:
        return self._new_connection()

    async def close(self) -> None:
        self._is_closed = True
        await self._drop_idle()
        sentinels = getattr(self._pool, "sentinel_manager", None)
        if sentinels is not None:
            await sentinels.aclose()
        await self._client.aclose()
        await asyncio.sleep(0)  # aborted transports are closed in the loop's next round

    def _new_connection(self) -> _Connection:
        return cast("_Connection", self._pool.make_connection())

    async def _take_idle(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            # What can be read though nothing was asked is the end, or not meant for us.
            if connection.is_connected and not await connection.can_read():
                return connection
            await _drop(connection)
        return None

    async def _exchange(self, connection: _Connection, commands: Sequence[_Command]) -> Sequence[object]:
        transport, before = _transport(connection), self._replies
        try:
            await _send(connection, *commands)
            replies = [await _reply(connection) for _ in commands]
        except BaseException:
            # The store's deadline, or a client that leaves, cancels this between a command and its reply. In
            # the pool the connection would give that reply to the next call: one user's entry to another.
            await _drop(connection, transport)
            if self._replies == before:
                # Nothing has come over any connection since: they may all be dead.
                await self._drop_idle()
            raise
        self._replies += 1
        if self._is_closed:
            await _drop(connection)
        else:
            self._idle.append(connection)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    async def _drop_idle(self) -> None:
        while self._idle:
            await _drop(self._idle.pop())


class _ClusterLink:
    """A cluster: redis-py knows which node to ask, and keeps the connections."""

    def __init__(self, client: RedisClient, gate: asyncio.Semaphore) -> None:
        self.gate = gate
        self._client = cast("Any", client)

    async def ask(self, commands: Sequence[_Command]) -> Sequence[object]:
        try:
            return await self._ask_once(commands)
        except Exception as error:
            if not _is_outlived(error):
                raise
            # The node went away while the connection was idle, or another one took its place.
            return await self._ask_once(commands)

    async def new_connection(self, key: str, /) -> _Connection:
        await self._client.initialize()
        # Nodes pass on what is published, but not while they do not see each other. At the one that
        # has the marks it is published.
        node = self._client.get_node_from_key(key)
        return cast("_Connection", node.connection_class(**node.connection_kwargs))

    async def close(self) -> None:
        await self._client.aclose()
        # After a failure it takes itself for closed, whatever is still open.
        await self._client.nodes_manager.aclose()
        await self._client.nodes_manager.aclose("startup_nodes")

    async def _ask_once(self, commands: Sequence[_Command]) -> Sequence[object]:
        # Not in a pipeline: redis-py would go on asking a node that another one has replaced.
        asked = (self._client.execute_command(*command) for command in commands)
        replies: list[object] = await asyncio.gather(*asked, return_exceptions=True)
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
        return replies


async def _reply(connection: _Connection) -> object:
    """Returns the next reply, or the error that it is: those after it must be read all the same."""
    from redis.exceptions import ResponseError

    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


def _is_outlived(error: Exception) -> bool:
    """Tells whether the error is that of a connection whose server has gone or was demoted."""
    from redis import exceptions

    is_broken = isinstance(error, exceptions.ConnectionError)
    is_broken = is_broken and not isinstance(error, exceptions.MaxConnectionsError)
    # In a script's error the word is not the first one.
    return is_broken or "READONLY" in str(error)
