"""A small HTTP load generator for machines without wrk; ``load.py`` runs it as a process of its own.

It reads its plan as JSON from standard input, keeps its connections busy with one request each, and
prints one line of JSON. Answers end where their ``Content-Length`` or the last chunk says.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
import sys
import time
from collections.abc import Iterator
from typing import Any, cast

import uvloop

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
LAST_CHUNK = b"0\r\n\r\n"


def targets(plan: dict[str, Any]) -> Iterator[str]:
    """Yields what is asked for, one after the other."""
    path, known, seed = plan["path"], plan["known_keys"], plan["seed"]
    if plan["each"]:
        yield from (path.replace("{key}", str(key)) for key in range(known))
        return
    chance = random.Random(seed)
    made = 0
    while True:
        if "{key}" not in path:
            yield path
        elif chance.random() < plan["new_share"]:
            made += 1
            yield path.replace("{key}", f"{seed}-{made}")
        else:
            yield path.replace("{key}", str(chance.randrange(known)))


def requests(plan: dict[str, Any]) -> Iterator[bytes]:
    """Yields the bytes of the requests."""
    body = base64.b64decode(plan["body"])
    fields = f"Host: 127.0.0.1:{plan['port']}\r\nAccept-Encoding: {plan['accept']}\r\n"
    if body:
        fields += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    for target in targets(plan):
        yield f"{plan['method']} {target} HTTP/1.1\r\n{fields}\r\n".encode() + body


class Tally:
    """What all connections did.

    Attributes:
        latencies: Seconds, one for each answer.
        errors: Answers that were not 2xx, and connections that were closed.
        done: Set when the last connection has its last answer.
    """

    def __init__(self, plan: dict[str, Any]) -> None:
        self.requests = requests(plan)
        self.until = time.perf_counter() + plan["seconds"]
        self.latencies: list[float] = []
        self.errors = 0
        self.open = plan["connections"]
        self.done = asyncio.Event()

    def next_request(self) -> bytes | None:
        """Returns what to ask next; None: it is over."""
        return None if time.perf_counter() >= self.until else next(self.requests, None)

    def leave(self) -> None:
        """Notes that a connection has ended."""
        self.open -= 1
        if self.open == 0:
            self.done.set()


class Connection(asyncio.Protocol):
    """One client: asks, waits for the answer, asks again."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.transport: asyncio.Transport | None = None
        self.buffer = b""
        self.length: int | None = None
        self.asked = 0.0
        self.over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asks first."""
        self.transport = cast(asyncio.Transport, transport)
        self.ask()

    def ask(self) -> None:
        """Sends the next request, or ends."""
        request = self.tally.next_request()
        if self.transport is None:
            return
        if request is None:
            self.over = True
            self.transport.close()
            return
        self.buffer, self.length = b"", None
        self.asked = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Takes what has come of an answer."""
        self.buffer += data
        if self.length is None:
            self.read_head()
        if self.length is not None and self.is_whole(self.length):
            self.tally.latencies.append(time.perf_counter() - self.asked)
            self.tally.errors += not self.buffer.startswith(b"HTTP/1.1 2")
            self.ask()

    def read_head(self) -> None:
        """Finds out how long the answer is; 0: it comes in chunks."""
        end = self.buffer.find(b"\r\n\r\n")
        if end >= 0:
            found = LENGTH.search(self.buffer, 0, end)
            self.length = end + 4 + int(found[1]) if found else 0

    def is_whole(self, length: int) -> bool:
        """Tells whether all of the answer is here."""
        return len(self.buffer) >= length if length else self.buffer.endswith(LAST_CHUNK)

    def connection_lost(self, exc: Exception | None) -> None:
        """Notes the end, and whether it came too early."""
        self.tally.errors += exc is not None or not self.over
        self.tally.leave()


async def generate(plan: dict[str, Any]) -> dict[str, float]:
    """Asks as the plan says, and returns what came of it."""
    loop = asyncio.get_running_loop()
    tally = Tally(plan)
    began = time.perf_counter()
    for _ in range(plan["connections"]):
        await loop.create_connection(lambda: Connection(tally), "127.0.0.1", plan["port"])
    async with asyncio.timeout(plan["seconds"] + 30):
        await tally.done.wait()
    return summary(tally.latencies, time.perf_counter() - began, tally.errors)


def summary(latencies: list[float], seconds: float, errors: int) -> dict[str, float]:
    """Returns what is printed."""
    ordered = sorted(latencies) or [0.0]
    return {
        "requests": len(latencies),
        "seconds": seconds,
        "p50_ms": ordered[len(ordered) // 2] * 1e3,
        "p99_ms": ordered[int(len(ordered) * 0.99)] * 1e3,
        "errors": errors,
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(generate(json.load(sys.stdin)))))
