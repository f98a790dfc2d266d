"""Where a Redis or Valkey is: what a URL says, and the client of redis-py that it stands for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias, cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from aeros.errors import InvalidSettingError


class RedisClient(Protocol):
    """What ``redis.asyncio.Redis`` and ``redis.asyncio.RedisCluster`` have in common."""

    async def aclose(self) -> None:
        """Closes its connections."""
        ...


_Masters: TypeAlias = dict[str, dict[str, Any]]

_SCHEME: Final = re.compile("(redis|valkey)(s?)(?:[+](sentinel|cluster))?")
_HOST: Final = re.compile(r"(\[[^][\s]+\]|[^][:\s]+)(?::([0-9]{1,5}))?")
_PATH: Final = {
    "server": re.compile("()([0-9]{0,9})/?"),
    "sentinel": re.compile("([^/]+)(?:/([0-9]{0,9}))?/?"),
    "cluster": re.compile("()(0?)"),
}
_EXPECTED_PATH: Final = {
    "server": "the number of a database, or nothing, after the host's '/'",
    "sentinel": "the name of the service after the hosts' '/', and perhaps '/' and the number of a database",
    "cluster": "nothing after the hosts: a cluster has one database",
}
_TEXT: Final = ".+"
_WHOLE: Final = "[0-9]{1,9}"
_SECONDS: Final = "[0-9]{1,9}([.][0-9]+)?"
_OPTIONS: Final = {
    "client_name": _TEXT,
    "health_check_interval": _WHOLE,
    "password": _TEXT,
    "protocol": "[23]",
    "socket_connect_timeout": _SECONDS,
    "socket_keepalive": _TEXT,
    "socket_read_size": _WHOLE,
    "socket_timeout": _SECONDS,
    "ssl_ca_certs": _TEXT,
    "ssl_ca_data": _TEXT,
    "ssl_cert_reqs": "none|optional|required",
    "ssl_certfile": _TEXT,
    "ssl_check_hostname": _TEXT,
    "ssl_ciphers": _TEXT,
    "ssl_keyfile": _TEXT,
    "ssl_min_version": _WHOLE,
    "username": _TEXT,
}
_MORE_OPTIONS: Final = {
    "server": {"db": _WHOLE, "ssl_ca_path": _TEXT, "ssl_password": _TEXT},
    "sentinel": {"sentinel_password": _TEXT, "sentinel_username": _TEXT},
    "cluster": dict[str, str](),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """What a URL says; the hosts are the server, the Sentinels, or some of the cluster's nodes."""

    label: str
    layout: str
    is_encrypted: bool = False
    hosts: Sequence[tuple[str, int]] = ()
    socket: str | None = None
    service: str = ""
    db: int = 0
    options: Mapping[str, str] = field(repr=False)


class _UnfitUrlError(ValueError):
    """Says what the URL should have had."""


def parse_url(url: object) -> RedisAddress:
    """Returns what a URL says, as ``RedisStore.from_url`` explains it.

    Raises:
        InvalidSettingError: It is no such URL; the message hides its secrets.
    """
    if not isinstance(url, str):
        raise InvalidSettingError("url", type(url), "a text such as 'redis://host:6379/0'")
    try:
        return _parse_parts(urlsplit(url))
    except _UnfitUrlError as error:
        expected = str(error)
    except ValueError:
        expected = "a URL such as 'redis://host:6379/0'"
    # Not inside of the except clause: what urllib says may quote the password.
    raise InvalidSettingError("url", _without_secrets(url), expected)


def _parse_parts(parts: SplitResult) -> RedisAddress:
    if parts.fragment:
        raise _UnfitUrlError("the '#' in a password as '%23'")
    user_and_password, _, authority = parts.netloc.rpartition("@")
    user, _, password = user_and_password.partition(":")
    credentials = {"username": unquote(user), "password": unquote(password)}
    credentials = {name: text for name, text in credentials.items() if text}
    if parts.scheme == "unix":
        return _parse_socket(parts, authority, credentials)
    return _parse_hosts(parts, authority, credentials)


def _parse_socket(parts: SplitResult, authority: str, credentials: Mapping[str, str]) -> RedisAddress:
    if authority or not parts.path.strip("/"):
        raise _UnfitUrlError("the path of a socket after three slashes, as in 'unix:///run/redis.sock'")
    options = _parse_options(parts.query, "server", is_encrypted=False)
    db = int(options.pop("db", "0"))
    return RedisAddress(
        label=f"unix://{parts.path}?db={db}",
        layout="server",
        socket=unquote(parts.path),
        db=db,
        options={**options, **credentials},
    )


def _parse_hosts(parts: SplitResult, authority: str, credentials: Mapping[str, str]) -> RedisAddress:
    scheme = _SCHEME.fullmatch(parts.scheme)
    if scheme is None:
        raise _UnfitUrlError(
            "one of the schemes redis, rediss, valkey, valkeys and unix,"
            " or one of the first four with +sentinel or +cluster"
        )
    layout = scheme[3] or "server"
    default_port = 26379 if layout == "sentinel" else 6379
    hosts = [_parse_host(host, default_port) for host in authority.split(",")]
    if layout == "server" and len(hosts) > 1:
        raise _UnfitUrlError("one host, or the scheme redis+sentinel or redis+cluster for several")
    path = _PATH[layout].fullmatch(parts.path.removeprefix("/"))
    if path is None:
        raise _UnfitUrlError(_EXPECTED_PATH[layout])
    options = _parse_options(parts.query, layout, is_encrypted=bool(scheme[2]))
    db = int(options.pop("db", path[2] or "0"))
    where = {"server": f"/{db}", "sentinel": f"/{path[1]}/{db}", "cluster": ""}[layout]
    return RedisAddress(
        label=f"{parts.scheme}://{','.join(f'{host}:{port}' for host, port in hosts)}{where}",
        layout=layout,
        is_encrypted=bool(scheme[2]),
        hosts=hosts,
        service=unquote(path[1]),
        db=db,
        options={**options, **credentials},
    )


def _parse_host(text: str, default_port: int) -> tuple[str, int]:
    if not text or text.startswith(":"):
        raise _UnfitUrlError("a host after '//', and special characters of a password percent-encoded")
    match = _HOST.fullmatch(text)
    port = int(match[2] or default_port) if match is not None else 0
    if match is None or not 0 < port < 65536:
        raise _UnfitUrlError("a host, or a host, ':' and a port from 1 to 65535")
    return unquote(match[1].strip("[]")), port


def _parse_options(query: str, layout: str, *, is_encrypted: bool) -> dict[str, str]:
    options = dict(parse_qsl(query, strict_parsing=True)) if query else {}
    known = {**_OPTIONS, **_MORE_OPTIONS[layout]}
    for name, value in options.items():
        if name not in known:
            raise _UnfitUrlError(f"no options but {', '.join(sorted(known))} after '?'")
        if name.startswith("ssl_") and not is_encrypted:
            raise _UnfitUrlError("the scheme rediss or valkeys with options that begin with ssl_")
        if re.fullmatch(known[name], value) is None:
            raise _UnfitUrlError(f"a value of {name} that matches {known[name]}")
    return options


def _without_secrets(url: str) -> str:
    """Returns what may be shown of a URL in which anything may be in the wrong place."""
    before, at, after = url.rpartition("@")
    scheme = re.match(r"[\w+.-]*://", before)
    shown = f"{scheme[0] if scheme else ''}***@{after}" if at else after
    shown = re.sub(r"[?#].*", "", shown, flags=re.DOTALL)
    # Without its '@' a password looks like a port.
    return re.sub(r":(?!//)(?![0-9]{1,5}(?:[,/]|$))[^],/]*(?=[,/]|$)", ":***", shown)


# Which client of redis-py that is


def make_client(address: RedisAddress, socket_timeout_seconds: float, max_connections: int) -> RedisClient:
    """Returns a client of redis-py for an address; nothing is connected yet."""
    from redis.asyncio import Redis, RedisCluster
    from redis.asyncio.cluster import ClusterNode
    from redis.asyncio.connection import parse_url
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    options: dict[str, Any] = {
        # RESP 3 would begin each connection with two more round trips.
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": socket_timeout_seconds,
        # Each call has a deadline of ours. With its own, redis-py sends through asyncio.wait_for(),
        # which swallows some cancellations (python/cpython#86296; mended in Python 3.12).
        "socket_timeout": None,
        "ssl": address.is_encrypted,
        **parse_url(f"redis://?{urlencode(address.options)}"),
    }
    if address.layout == "sentinel":
        return _make_sentinel_client(address, options)
    if address.layout == "cluster":
        nodes = [ClusterNode(host, port) for host, port in address.hosts]
        # A call is two commands at most, and both may be for one node.
        return RedisCluster(startup_nodes=nodes, max_connections=2 * max_connections, **options)
    if address.socket is not None:
        return Redis(unix_socket_path=address.socket, db=address.db, **options)
    ((host, port),) = address.hosts
    return Redis(host=host, port=port, db=address.db, **options)


def _make_sentinel_client(address: RedisAddress, options: dict[str, Any]) -> RedisClient:
    from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
    from redis.exceptions import RedisError

    class Sentinels(Sentinel):
        """Asks all Sentinels at once.

        redis-py asks them in turn, so that each call waits for a first one that is away; and when
        two calls ask at once, it loses Sentinels from its list.
        """

        async def discover_master(self, service_name: str) -> tuple[str, int]:
            """Returns the address of the master, as the first Sentinel says that knows it."""
            questions = (sentinel.sentinel_masters() for sentinel in self.sentinels)
            asked = [asyncio.ensure_future(cast("Awaitable[_Masters]", question)) for question in questions]
            try:
                for answer in asyncio.as_completed(asked):
                    with suppress(RedisError, OSError):
                        master = (await answer).get(service_name)
                        if master and cast("Any", self).check_master_state(master, service_name):
                            return master["ip"], master["port"]
            finally:
                for task in asked:
                    task.cancel()
                await asyncio.gather(*asked, return_exceptions=True)
            raise MasterNotFoundError(f"no Sentinel knows a master of {service_name!r} that is up")

    own = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    others = {name: value for name, value in options.items() if name not in ("username", "password")}
    sentinels = cast("Any", Sentinels)(address.hosts, sentinel_kwargs={**others, **own})
    return cast("RedisClient", sentinels.master_for(address.service, db=address.db, **options))
