"""BlackSheep. It is imported by name: the tests' environment, which checks the types, lacks it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks.bodies import HELLO


def hello() -> Any:
    """One view."""
    blacksheep: Any = import_module("blacksheep")
    app: Any = blacksheep.Application()

    async def answer_hello() -> Any:
        return blacksheep.json(HELLO)

    app.router.add_get("/hello", answer_hello)
    return app
