"""How long the event loop is held up while many clients ask for a large compressible body.

``python -m benchmarks.event_loop_lag [--clients 50] [--megabytes 5] [--rounds 3]``: one server for
each row, with and without compressing in threads, asked in turn, round by round. A task of the
server's own sleeps for a millisecond again and again; the lag is how much later it wakes up. The
medians over the rounds are printed, in milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from dataclasses import dataclass, field

import uvicorn

from aeros import Br, Gzip, WebServer, Zstd
from aeros.compression import Base
from benchmarks.bodies import large_body

TICK_SECONDS = 0.001


@dataclass(slots=True)
class Row:
    """One line of the table.

    Attributes:
        title: What is measured.
        compressor: The server's compressor; None: no compression.
        accept: What the clients accept.
        lags: Milliseconds by percentile, one for each round.
    """

    title: str
    compressor: Base | None
    accept: str
    lags: list[dict[str, float]] = field(default_factory=list[dict[str, float]])


def rows() -> list[Row]:
    """Returns what is compared."""
    return [
        Row("no compression", None, "identity"),
        Row("br 4, in threads", Br(), "br"),
        Row("br 4, on the loop", Br(offload_size=None), "br"),
        Row("gzip 5, in threads", Gzip(), "gzip"),
        Row("gzip 5, on the loop", Gzip(offload_size=None), "gzip"),
        Row("zstd 3, in threads", Zstd(), "zstd"),
        Row("zstd 3, on the loop", Zstd(offload_size=None), "zstd"),
    ]


def build_app(compressor: Base | None, body: bytes) -> WebServer:
    """Returns a server with the body on ``/``; it is made small anew for each request."""
    app = WebServer(__name__, compression=compressor or False)

    @app.route("/")
    async def index() -> tuple[bytes, dict[str, str]]:
        return body, {"Content-Type": "application/json"}

    return app


class Lag:
    """How much later than asked a task of this loop wakes up."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def watch(self) -> None:
        """Measures until it is cancelled."""
        while True:
            began = time.perf_counter()
            await asyncio.sleep(TICK_SECONDS)
            self.seconds.append(time.perf_counter() - began - TICK_SECONDS)

    def summary(self) -> dict[str, float]:
        """Returns the percentiles in milliseconds."""
        ordered = sorted(self.seconds)
        return {
            "p50": ordered[len(ordered) // 2] * 1e3,
            "p99": ordered[int(len(ordered) * 0.99)] * 1e3,
            "max": ordered[-1] * 1e3,
        }


CLIENT = """
import socket, sys, threading
port, accept, clients = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
def ask():
    with socket.create_connection(("127.0.0.1", port)) as connection:
        fields = f"Host: a\\r\\nAccept-Encoding: {accept}\\r\\nConnection: close"
        connection.sendall(f"GET / HTTP/1.1\\r\\n{fields}\\r\\n\\r\\n".encode())
        head = connection.recv(65536)
        coded = f"content-encoding: {accept}".encode() in head.lower()
        if b" 200 " not in head or coded != (accept != "identity"):
            raise SystemExit(f"unexpected answer: {head[:300]!r}")
        while connection.recv(1 << 20):
            pass
threads = [threading.Thread(target=ask) for _ in range(clients)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


async def measure(row: Row, body: bytes, clients: int) -> None:
    """Serves one row to all clients at once, and notes the lag meanwhile."""
    app = build_app(row.compressor, body)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn tells of it by this attribute only
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    lag = Lag()
    watching = asyncio.create_task(lag.watch())
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CLIENT, str(port), row.accept, str(clients)
    )
    if await client.wait() != 0:
        raise RuntimeError("a client was not answered as it should be")
    watching.cancel()
    server.should_exit = True
    await serving
    row.lags.append(lag.summary())


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--megabytes", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    body = large_body(int(options.megabytes * 1e6))
    table = rows()
    for number in range(options.rounds):
        for row in table:
            print(f"round {number + 1} of {options.rounds}: {row.title}", file=sys.stderr)
            uvicorn_loop(row, body, options.clients)
    print(f"{options.clients} clients, {len(body) / 1e6:.1f} MB; event-loop lag in ms")
    print(f"{'':24} {'p50':>8} {'p99':>8} {'max':>8}")
    for row in table:
        medians = [statistics.median(lag[name] for lag in row.lags) for name in ("p50", "p99", "max")]
        print(f"{row.title:24} " + " ".join(f"{value:8.2f}" for value in medians))


def uvicorn_loop(row: Row, body: bytes, clients: int) -> None:
    """Runs one measurement on the loop that uvicorn uses in production."""
    factory = uvicorn.Config(lambda: None).get_loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(measure(row, body, clients))


if __name__ == "__main__":
    main()
