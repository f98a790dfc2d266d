"""Starlette."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from benchmarks.bodies import HELLO


async def answer_hello(_request: Request) -> JSONResponse:
    """The small JSON."""
    return JSONResponse(HELLO)


def hello() -> Any:
    """One view."""
    return Starlette(routes=[Route("/hello", answer_hello)])
