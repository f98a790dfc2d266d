"""Echoes over websockets; ``load.py`` runs it as a process of its own, with a plan as generator.py's."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import uvloop
from websockets.asyncio.client import connect

from benchmarks.generator import summary

MESSAGE = "x" * 64


async def chat(plan: dict[str, Any], until: float, latencies: list[float]) -> int:
    """Sends messages until it is time, each after the echo of the last; returns how many came back wrong."""
    wrong = 0
    url = f"ws://127.0.0.1:{plan['port']}{plan['path']}"
    async with connect(url, compression=None, max_queue=None) as connection:
        while (asked := time.perf_counter()) < until:
            await connection.send(MESSAGE)
            wrong += await connection.recv() != MESSAGE
            latencies.append(time.perf_counter() - asked)
    return wrong


async def generate(plan: dict[str, Any]) -> dict[str, float]:
    """Chats as the plan says, and returns what came of it."""
    latencies: list[float] = []
    began = time.perf_counter()
    until = began + plan["seconds"]
    async with asyncio.timeout(plan["seconds"] + 30):
        chats = [chat(plan, until, latencies) for _ in range(plan["connections"])]
        wrong = sum(await asyncio.gather(*chats))
    return summary(latencies, time.perf_counter() - began, wrong)


if __name__ == "__main__":
    print(json.dumps(uvloop.run(generate(json.load(sys.stdin)))))
