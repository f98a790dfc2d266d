"""``timeout_handler``: hooks and view have their time; then the client gets 504."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

import httpx
import pytest
from quart import Response, request
from quart.signals import request_started
from werkzeug.exceptions import GatewayTimeout

from aeros import Container, WebServer

BOUND = 0.2


def build_app(notes: list[str], bound: float | None = BOUND) -> WebServer:
    """Returns an application in which some views take too long."""
    container = Container()
    container.config.from_dict({"timeout_handler": bound})
    app = WebServer(__name__, container=container, global_headers={"X-Global": "1"})

    @app.before_request
    async def slow_hook() -> None:
        if request.path == "/hook":
            await asyncio.sleep(10)

    @app.after_request
    async def mark(response: Response) -> Response:
        response.headers["X-Hook"] = "1"
        return response

    @app.route("/quick")
    async def quick() -> str:
        return "quick"

    @app.route("/hook")
    async def hooked() -> str:
        return "too late"

    @app.route("/slow")
    async def slow() -> str:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            notes.append("cancelled")
            raise
        return "too late"

    @app.route("/sync")
    def sync() -> str:
        time.sleep(4 * BOUND)
        return "too late"

    @app.route("/cached")
    @app.cache()
    async def cached() -> str:
        notes.append("run")
        await asyncio.sleep(10)
        return "too late"

    @app.route("/own")
    async def own() -> str:
        raise TimeoutError("of a database")

    @app.route("/stream")
    async def stream() -> Response:
        async def parts() -> AsyncGenerator[str]:
            for _ in range(4):
                yield "part"
                await asyncio.sleep(BOUND / 2)

        return Response(parts())

    return app


@pytest.mark.parametrize("with_listeners", [False, True])
async def test_what_takes_too_long_is_504(with_listeners: bool) -> None:
    """And is cancelled; hooks see the response, and its slot is free again."""
    notes: list[str] = []
    app = build_app(notes)

    async def listen(_app: object, **_: object) -> None:
        """Has the request take Quart's own steps."""

    if with_listeners:
        request_started.connect(listen, app)
    try:
        with app.run_in_thread(soft_limit=1, hard_limit=1, log_level="critical") as server:
            async with httpx.AsyncClient(base_url=server.url, timeout=10) as client:
                for path in ("/slow", "/hook", "/sync"):
                    response = await client.get(path)
                    assert (response.status_code, path) == (504, path)
                    assert response.headers["X-Hook"] == response.headers["X-Global"] == "1"
                    assert (await client.get("/quick")).text == "quick"
                assert (await client.get("/own")).status_code == 500
                assert (await client.get("/stream")).text == "part" * 4
    finally:
        request_started.disconnect(listen, app)
    assert notes == ["cancelled"]


async def test_an_error_handler_says_what_the_client_gets() -> None:
    """As for every other status."""
    app = build_app([])

    @app.errorhandler(504)
    async def late(error: GatewayTimeout) -> tuple[str, int]:
        return "come again", 504

    response = await app.test_client().get("/slow")
    assert (response.status_code, await response.get_data(as_text=True)) == (504, "come again")


async def test_all_who_wait_for_a_view_get_it_and_nothing_is_stored() -> None:
    """The next request runs the view anew."""
    notes: list[str] = []
    app = build_app(notes)
    with app.run_in_thread(log_level="critical") as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=10) as client:
            responses = await asyncio.gather(*(client.get("/cached") for _ in range(5)))
            assert {response.status_code for response in responses} == {504}
            runs = len(notes)
            assert (await client.get("/cached")).status_code == 504
            assert len(notes) == runs + 1


async def test_hooks_that_take_too_long_as_well() -> None:
    """A hook that sees each response may be what hangs."""
    app = build_app([])

    @app.after_request
    async def hang(response: Response) -> Response:
        await asyncio.sleep(10)
        return response

    response = await asyncio.wait_for(app.test_client().get("/quick"), 5)
    assert response.status_code == 504


async def test_none_is_no_bound() -> None:
    """Which is the default."""
    app = build_app([], None)
    task = asyncio.ensure_future(app.test_client().get("/sync"))
    assert (await task).status_code == 200
    assert WebServer(__name__).current_settings().timeout_handler is None
