"""What one request costs inside of the server's protocol, and where: no socket, no other process.

A connection without a network is given requests one after the other; what is measured is the CPU
time of this process for each. ``--profile WORKLOAD`` shows by function where it goes::

    python -m benchmarks.inside --rounds 7
    python -m benchmarks.inside --profile hello
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from aeros.serving.application import ServedApplication
from aeros.serving.config import build_config
from benchmarks.bodies import order
from benchmarks.servers import aeros as aeros_apps
from benchmarks.servers import empty as empty_apps
from benchmarks.servers import quart as quart_apps

_LEAST: Final = 50  # bytes of a response
BOOK = "/books/7?page=3"
HEAD = "host: 127.0.0.1:8000\r\nuser-agent: inside\r\naccept: */*\r\naccept-encoding: br\r\n"


@dataclass(frozen=True, slots=True)
class Inside:
    """One row: an application, and the request that it is asked.

    Attributes:
        title: Its name.
        make: Makes the application.
        request: Gives the bytes of the request of a number.
        is_ours: Whether aeros serves it; else uvicorn as it comes.
    """

    title: str
    make: Callable[[], Any]
    request: Callable[[int], bytes]
    is_ours: bool = True


def get(target: str) -> Callable[[int], bytes]:
    """Returns what gives a GET for a target, in which ``{n}`` is the request's number."""
    return lambda number: f"GET {target.format(n=number)} HTTP/1.1\r\n{HEAD}\r\n".encode()


ORDER: Final = order()


def posted(_number: int) -> bytes:
    """Returns a POST of 64 KB of JSON."""
    fields = f"content-type: application/json\r\ncontent-length: {len(ORDER)}\r\n"
    return f"POST /orders HTTP/1.1\r\n{HEAD}{fields}\r\n".encode() + ORDER


def proxied(_number: int) -> bytes:
    """Returns a GET as a proxy passes it on."""
    return f"GET /rows HTTP/1.1\r\n{HEAD}x-forwarded-for: 10.0.0.1\r\n\r\n".encode()


ROWS = {
    "empty": Inside("empty ASGI app", lambda: empty_apps.hello, get("/hello"), is_ours=False),
    "quart": Inside("Quart, hello", quart_apps.plain, get("/hello"), is_ours=False),
    "hello": Inside("aeros, hello", aeros_apps.plain, get("/hello")),
    "quart-hooked": Inside("Quart, path+query+hook", quart_apps.hooked, get(BOOK), is_ours=False),
    "hooked": Inside("aeros, path+query+hook", aeros_apps.hooked, get(BOOK)),
    "quart-post": Inside("Quart, 64 KB posted", quart_apps.plain, posted, is_ours=False),
    "post": Inside("aeros, 64 KB posted", aeros_apps.plain, posted),
    "quart-stream": Inside("Quart, 100 chunks", quart_apps.plain, get("/stream"), is_ours=False),
    "stream": Inside("aeros, 100 chunks", aeros_apps.plain, get("/stream")),
    "door1": Inside("aeros, hit, door 1", aeros_apps.plain, get("/rows")),
    "door2": Inside("aeros, hit, door 2", aeros_apps.plain, get("/rows"), is_ours=False),
    "behind": Inside("aeros, hit, behind a proxy", aeros_apps.plain, proxied),
    "door3": Inside("aeros, hit, door 3", aeros_apps.late, get("/rows")),
    "fresh": Inside("aeros, 24 KB, not cached, br", aeros_apps.plain, get("/fresh?page={n}")),
    "miss": Inside("aeros, 24 KB, cached, all misses", aeros_apps.plain, get("/reports?page={n}")),
}


class Pipe(asyncio.Transport):
    """A transport to nobody, which counts what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Returns addresses, as of a socket."""
        return {"peername": ("127.0.0.1", 50_000), "sockname": ("127.0.0.1", 8000)}.get(name, default)

    def is_closing(self) -> bool:
        """Tells that it is open."""
        return False

    def write(self, data: Any) -> None:
        """Counts."""
        self.sent += len(data)

    def writelines(self, list_of_data: Any) -> None:
        """Counts."""
        self.sent += sum(map(len, list_of_data))

    def pause_reading(self) -> None:
        """Nobody writes."""

    def resume_reading(self) -> None:
        """Nobody writes."""

    def close(self) -> None:
        """Nothing to close."""


class Connection:
    """An application and the one connection to it."""

    def __init__(self, row: Inside) -> None:
        self.row = row
        self.pipe = Pipe()
        self._number = 0
        self._open = ExitStack()  # to the end of the process

    async def open(self) -> None:
        """Begins."""
        app, state = self.row.make(), ServerState()
        if self.row.is_ours:
            settings = app.current_settings().replace({"access_log_to_std": False})
            self._open.enter_context(app.using_settings(settings))
            served = ServedApplication(app, settings)
            config: uvicorn.Config = build_config(served)
        else:
            config = uvicorn.Config(app, log_config=None, access_log=False)
        config.load()
        state.default_headers = config.encoded_headers
        kind: Any = config.http_protocol_class if self.row.is_ours else HttpToolsProtocol
        self.protocol: Any = kind(config, state, {}, asyncio.get_running_loop())
        self.protocol.connection_made(self.pipe)
        self._state = state
        if hasattr(app, "startup"):
            await app.startup()
        await self.ask(3)

    async def ask(self, count: int) -> None:
        """Asks so many requests, one after the other."""
        protocol, state, request = self.protocol, self._state, self.row.request
        for _ in range(count):
            self._number += 1
            done, sent = state.total_requests + 1, self.pipe.sent
            protocol.data_received(request(self._number))
            while state.total_requests < done or self.pipe.sent < sent + _LEAST:  # noqa: ASYNC110
                await asyncio.sleep(0)  # the turns of the loop are what is measured


async def measure(names: list[str], count: int, rounds: int) -> None:
    """Measures rows in turn, and prints the medians."""
    connections = {name: Connection(ROWS[name]) for name in names}
    samples: dict[str, list[float]] = {name: [] for name in names}
    for connection in connections.values():
        await connection.open()
        await connection.ask(count // 4)
    for _ in range(rounds):
        for name, connection in connections.items():
            began = time.process_time()
            await connection.ask(count)
            samples[name].append((time.process_time() - began) / count * 1e6)
    for name, taken in samples.items():
        print(
            f"{ROWS[name].title:<36}{statistics.median(taken):>8.1f} µs  (least {min(taken):.1f})", flush=True
        )


async def profile(name: str, count: int) -> None:
    """Prints where the time of one row goes."""
    connection = Connection(ROWS[name])
    await connection.open()
    await connection.ask(count // 4)
    profiler = cProfile.Profile()
    profiler.enable()
    await connection.ask(count)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(45)


def main() -> None:
    """Reads the options, and measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)} (default: all)")
    parser.add_argument("--requests", type=int, default=2_000, help="requests in each round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, in turn")
    parser.add_argument("--profile", metavar="ROW", choices=list(ROWS), help="show where its time goes")
    options = parser.parse_args()
    unknown = set(options.rows) - set(ROWS)
    if unknown:
        parser.error(f"unknown rows: {', '.join(sorted(unknown))}")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if options.profile:
            runner.run(profile(options.profile, options.requests))
        else:
            runner.run(measure(options.rows or list(ROWS), options.requests, options.rounds))


if __name__ == "__main__":
    main()
