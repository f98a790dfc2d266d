"""What small responses go out as is remembered, and is what would be made of them anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import httpx
import pytest
from quart import Response

from aeros import Br, WebServer
from aeros.outgoing import Plain
from aeros.testing import override
from tests.integration.wire import OWN, UVICORNS, listening


class Forgetting(dict[tuple[int, bytes, bytes], Plain]):
    """A memory that keeps nothing, so that each response is made anew."""

    def __setitem__(self, key: tuple[int, bytes, bytes], value: Plain) -> None:
        """Keeps nothing."""


def build(*, remembers: bool, **options: Any) -> WebServer:
    """Returns an application with small responses."""
    app = WebServer("plain", **options)
    if not remembers:
        app._plain = Forgetting()  # pyright: ignore[reportPrivateUsage]
    runs = iter(range(10, 100))

    @app.route("/json")
    async def json() -> dict[str, int]:
        return {"run": next(runs)}

    @app.route("/text")
    async def text() -> str:
        return f"run {next(runs)}"

    @app.route("/text/<int:size>")
    async def sized(size: int) -> str:
        return "x" * size

    @app.route("/status/<int:status>")
    async def status(status: int) -> tuple[str, int]:
        return "12345", status

    @app.route("/typed")
    async def typed() -> Response:
        return Response(b"\0" * 9, content_type="image/png")

    @app.route("/plain-typed")
    async def plain_typed() -> Response:
        return Response("123456789", content_type="text/x-of-mine")

    @app.route("/closing")
    async def closing() -> Response:
        return Response("last", headers={"Connection": "close"})

    @app.route("/opted-out")
    async def opted_out() -> Response:
        return Response("opted", headers={"Content-Encoding": "identity"})

    @app.route("/wrong")
    async def wrong() -> Response:
        response = Response("wrong")
        response.headers["Content-Length"] = "7"
        return response

    @app.route("/tagged")
    async def tagged() -> Response:
        return Response("tagged", headers={"ETag": '"mine"'})

    return app


def asking(target: str, *fields: str, method: str = "GET") -> bytes:
    """Returns a request."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: a.example", *fields, "", ""]).encode()


TARGETS: Final = (
    "/json",
    "/text",
    "/text/0",
    "/text/499",
    "/text/600",
    *(f"/status/{status}" for status in (201, 203, 206, 304, 404, 410, 503)),
    "/typed",
    "/plain-typed",
    "/closing",
    "/opted-out",
    "/wrong",
    "/tagged",
    "/missing",
)
REQUESTS: Final = [
    asking(target, *fields, method=method)
    for target in TARGETS
    for method in ("GET", "HEAD")
    for fields in ((), ("Accept-Encoding: br",), ("If-None-Match: *",), ("Connection: close",))
]


async def said(app: WebServer, requests: Sequence[bytes], options: Any = OWN) -> list[bytes]:
    """Returns what is answered to each request, on a connection of its own."""
    settings = app.current_settings().replace({"access_log_to_std": False})
    async with listening(app, options, settings) as server:
        return [(await server.say([request])).content for request in requests]


@pytest.mark.parametrize("served", [OWN, UVICORNS])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": False},
        {"compression": Br(min_size=3)},
        {"etag": True},
        {"global_headers": {"X-One": "1", "Vary": "Origin", "Content-Type": "text/x-global"}},
    ],
)
async def test_response_is_the_same_the_second_time(options: dict[str, Any], served: Any) -> None:
    """Byte for byte as it is where nothing is remembered, whatever was asked before."""
    twice = [request for request in REQUESTS for _ in range(2)]
    app = build(remembers=True, **options)
    remembering = await said(app, twice, served)
    assert remembering == await said(build(remembers=False, **options), twice, served)
    kept = app._plain  # pyright: ignore[reportPrivateUsage]
    assert bool(kept) is (served is OWN and "etag" not in options)


async def test_another_compressor_counts_at_once() -> None:
    """And other global headers; what was made before them is not said again."""
    app = build(remembers=True)
    request = asking("/text/60", "Accept-Encoding: br")
    changed = app.current_settings().replace({"global_headers": {"X-Late": "1"}})
    async with listening(app, OWN) as server:
        first = (await server.say([request])).content
        with override(app.container.compressor, Br(min_size=10)):
            coded = (await server.say([request])).content
        with app.using_settings(changed):
            marked = (await server.say([request])).content
        last = (await server.say([request])).content
    assert b"content-encoding" not in first
    assert b"content-encoding: br\r\n" in coded
    assert marked.replace(b"x-late: 1\r\n", b"") == first == last
    assert marked != first


def test_date_is_that_of_the_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that is remembered has the date of now."""
    app, dates = build(remembers=True), list[bytes]()
    now = [1e9]
    monkeypatch.setattr("aeros.serving.application.time.time", lambda: now[0])
    with app.run_in_thread() as server:
        for second in (1e9, 1e9 + 0.9, 1e9 + 1, 1e9 + 86_400):
            now[0] = second
            dates.append(httpx.get(f"{server.url}/text/5").headers["date"].encode())
    assert dates == [
        b"Sun, 09 Sep 2001 01:46:40 GMT",
        b"Sun, 09 Sep 2001 01:46:40 GMT",
        b"Sun, 09 Sep 2001 01:46:41 GMT",
        b"Mon, 10 Sep 2001 01:46:40 GMT",
    ]
    assert app._plain  # pyright: ignore[reportPrivateUsage]


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths that do not come again do not fill it up, nor do types that are long."""
    monkeypatch.setattr("aeros.outgoing._MOST_PLAIN", 5)
    app = build(remembers=True)

    @app.route("/long")
    async def long() -> Response:
        return Response("x", content_type="text/" + "x" * 200)

    requests = [asking("/long"), *(asking(f"/text/{size}") for size in range(20))]
    answers = await said(app, requests * 2)
    assert answers[: len(requests)] == answers[len(requests) :]
    kept = app._plain  # pyright: ignore[reportPrivateUsage]
    assert sorted(int(length) for _, _, length in kept) == [0, 1, 2, 3, 4]
