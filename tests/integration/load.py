"""Many clients at once that count what they got, and an application that counts what it began."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

CLIENTS: Final = 200
# A server that does not end must not be asked for ever.
MOST: Final = 20_000

# Lines of an application: what it began and what it ended, each in the file of its process.
COUNTING = """
import asyncio, os

def note(text):
    number = os.open(f"counted-{os.getpid()}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(number, f"{text}\\n".encode())
    os.close(number)

@app.route("/pid")
async def pid():
    import time
    time.sleep(0.02)  # so that another worker takes the next connection
    return str(os.getpid())

@app.route("/work/<name>")
async def work(name):
    note(f"begun {name}")
    await asyncio.sleep(0.02)
    note(f"ended {name}")
    return f"{name} " * 500
"""


@dataclass
class Load:
    """What clients got.

    Attributes:
        port: Where they ask.
        complete: The names that were answered whole, with success.
        refused: Names for which there was no connection any more.
        unanswered: Names that were sent, and nothing came before the connection ended.
        broken: What was wrong with any other answer.
        is_over: Whether they are to end; being refused ends each of them, too.
    """

    port: int
    complete: set[str] = field(default_factory=set[str])
    refused: set[str] = field(default_factory=set[str])
    unanswered: set[str] = field(default_factory=set[str])
    broken: list[str] = field(default_factory=list[str])
    is_over: bool = False
    names: count[int] = field(default_factory=count)

    async def run(self, meanwhile: Callable[[], Awaitable[None]], *, clients: int = CLIENTS) -> None:
        """Has the clients ask until each of them is refused, or it is over.

        Args:
            meanwhile: What is done when there were two answers for each of them.
            clients: How many; every second one keeps its connection.
        """
        asking = [asyncio.create_task(self._ask_on(bool(number % 2))) for number in range(clients)]
        try:
            while len(self.complete) < 2 * clients and not all(task.done() for task in asking):
                await asyncio.sleep(0.01)
            await meanwhile()
            await asyncio.gather(*asking)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def _ask_on(self, is_kept: bool) -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self.is_over and (number := next(self.names)) < MOST:
            name = f"n{number}"
            try:
                connection = connection or await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                self.refused.add(name)
                return
            is_open = await self._ask(name, *connection, is_kept=is_kept)
            if not is_open:
                connection[1].close()
                with suppress(OSError):
                    await connection[1].wait_closed()
                connection = None
        if connection is not None:
            connection[1].close()

    async def _ask(
        self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_kept: bool
    ) -> bool:
        """Asks once; returns whether the connection can be used again."""
        closing = "" if is_kept else "Connection: close\r\n"
        head = b""
        try:
            writer.write(f"GET /work/{name} HTTP/1.1\r\nHost: shop\r\n{closing}\r\n".encode())
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().lower().splitlines()[1:] if line)
            body = await reader.readexactly(int(fields["content-length"]))
        except (OSError, asyncio.IncompleteReadError) as error:
            partial = error.partial if isinstance(error, asyncio.IncompleteReadError) else b""
            if head or partial:
                self.broken.append(f"{name}: {head + partial!r}")
            else:
                self.unanswered.add(name)
            return False
        if not head.startswith(b"HTTP/1.1 200 ") or body.decode() != f"{name} " * 500:
            self.broken.append(f"{name}: {head!r}")
        else:
            self.complete.add(name)
        return is_kept and fields.get("connection") != "close"


def counted(folder: Path, word: str) -> set[str]:
    """Returns the names that the processes of an application have begun, or ended."""
    lines = [line.split() for file in folder.glob("counted-*") for line in file.read_text().splitlines()]
    names = [name for what, name in lines if what == word]
    assert len(names) == len(set(names)), "a request was handled twice"
    return set(names)
