"""An override of a provider is what the next request, or the next run, uses; undone when it ends."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, cast
from unittest.mock import Mock, create_autospec

import httpx
import pytest
import uvicorn
from dependency_injector import providers

from aeros import Cache, Gzip, ProviderError, ServerSettings, WebServer
from aeros.serving.runner import AnyServer
from aeros.serving.server import Server

DEADLINE_SECONDS = 20.0
BODY = "compressible " * 100


def overridden(provider: providers.Provider[Any], value: object) -> AbstractContextManager[object]:
    """Makes ``provider`` give ``value`` while the context lasts."""
    overriding: providers.Provider[Any] = providers.Object(value)
    return cast("AbstractContextManager[object]", provider.override(overriding))  # pyright: ignore[reportUnknownMemberType]  # its stub


def providing(app: WebServer, build: Callable[[uvicorn.Config], AnyServer]) -> AbstractContextManager[object]:
    """Makes the ``server`` provider call ``build`` while the context lasts."""
    overriding: providers.Provider[Any] = providers.Factory(build)
    return cast("AbstractContextManager[object]", app.container.server.override(overriding))  # pyright: ignore[reportUnknownMemberType]  # its stub


class OneShot(Server):
    """A server that stops as soon as it accepts requests."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, and asks to stop."""
        await super().startup(sockets=sockets)
        self.should_exit = True


def header(response: httpx.Response, name: str) -> str | None:
    """The value of a response's field."""
    return cast("str | None", response.headers.get(name))


def is_hit(response: httpx.Response) -> bool:
    """Whether the response came from the cache."""
    return str(header(response, "Cache-Status")).startswith("aeros; hit")


@pytest.fixture
def app() -> WebServer:
    """An application with a cached view, one that fails, and one that logs."""
    app = WebServer("overrides")

    @app.route("/cached")
    @app.cache(60)
    async def cached() -> str:
        return BODY

    @app.route("/plain")
    async def plain() -> str:
        return BODY

    @app.route("/log")
    async def log() -> str:
        app.logger.warning("said by the view")
        return "logged"

    @app.route("/boom")
    async def boom() -> str:
        raise ValueError("broken view")

    return app


@pytest.fixture
def client(app: WebServer) -> Iterator[httpx.Client]:
    """A client of the running application."""
    with app.run_in_thread() as server, httpx.Client(base_url=server.url) as client:
        yield client


def test_cache_override_while_serving_is_used_and_undone(app: WebServer, client: httpx.Client) -> None:
    """Requests under the override see the other cache only, and afterwards the first one again."""
    other = Cache()
    client.get("/cached")
    with overridden(app.container.cache, other):
        assert not is_hit(client.get("/cached"))
        assert is_hit(client.get("/cached"))
    assert is_hit(client.get("/cached"))
    stats = app.cache_stats()
    assert (other.stats().hits, other.stats().stores) == (1, 1)
    assert (stats.hits, stats.stores) == (1, 1)


def test_clearing_under_an_override_clears_the_overriding_cache(app: WebServer, client: httpx.Client) -> None:
    """``clear_cache()`` and ``cache_stats()`` follow the override as requests do."""
    client.get("/cached")
    with overridden(app.container.cache, Cache()):
        assert app.cache_stats().entries == 0
        assert app.clear_cache() == 0
    assert is_hit(client.get("/cached"))
    assert app.clear_cache() == 1


def test_a_request_in_progress_keeps_its_cache() -> None:
    """What a request looked up in one cache it stores there, whatever the provider gives meanwhile."""
    app = WebServer("progress")
    entered, go_on = threading.Event(), threading.Event()

    @app.route("/slow")
    @app.cache(60)
    def slow() -> str:
        entered.set()
        assert go_on.wait(DEADLINE_SECONDS)
        return "slow"

    first, second = app.current_cache(), Cache()
    with app.run_in_thread() as server, ThreadPoolExecutor(1) as pool:
        try:
            pending = pool.submit(httpx.get, f"{server.url}/slow", timeout=DEADLINE_SECONDS)
            assert entered.wait(DEADLINE_SECONDS)
            with overridden(app.container.cache, second):
                go_on.set()
                assert pending.result(DEADLINE_SECONDS).text == "slow"
        finally:
            go_on.set()
    assert (first.stats().misses, first.stats().stores) == (1, 1)
    assert (second.stats().misses, second.stats().stores) == (0, 0)


def test_compressor_override_while_serving_is_used_and_undone(app: WebServer, client: httpx.Client) -> None:
    """Off under a provider of None, another coding under another compressor, then the first again."""
    headers = {"Accept-Encoding": "br, gzip"}
    assert header(client.get("/plain", headers=headers), "Content-Encoding") == "br"
    with overridden(app.container.compressor, None):
        response = client.get("/plain", headers=headers)
        assert header(response, "Content-Encoding") is None
        assert response.text == BODY
    with overridden(app.container.compressor, Gzip()):
        assert header(client.get("/plain", headers=headers), "Content-Encoding") == "gzip"
    assert header(client.get("/plain", headers=headers), "Content-Encoding") == "br"


def test_settings_override_while_serving_is_used_and_undone(app: WebServer, client: httpx.Client) -> None:
    """Global headers come from the settings that the provider gives at that request."""
    other = app.container.settings().replace({"global_headers": {"X-Shop": "open"}})
    assert header(client.get("/plain"), "X-Shop") is None
    with overridden(app.container.settings, other):
        assert header(client.get("/plain"), "X-Shop") == "open"
        assert header(client.get("/missing"), "X-Shop") == "open"
    assert header(client.get("/plain"), "X-Shop") is None


def test_settings_override_while_serving_changes_the_limits(app: WebServer) -> None:
    """A request is admitted by the limits in force when it comes, and others again afterwards."""
    entered, go_on = threading.Event(), threading.Event()

    @app.route("/hold")
    def hold() -> str:
        entered.set()
        assert go_on.wait(DEADLINE_SECONDS)
        return "held"

    with app.run_in_thread() as server, ThreadPoolExecutor(1) as pool:
        try:
            pending = pool.submit(httpx.get, f"{server.url}/hold", timeout=DEADLINE_SECONDS)
            assert entered.wait(DEADLINE_SECONDS)
            narrow = app.container.settings().replace({"soft_limit": 1, "hard_limit": 1})
            with overridden(app.container.settings, narrow):
                refused = httpx.get(f"{server.url}/plain")
                assert refused.status_code == 503
                assert "Retry-After" in refused.headers
            assert httpx.get(f"{server.url}/plain").status_code == 200
        finally:
            go_on.set()
        assert pending.result(DEADLINE_SECONDS).text == "held"


def test_logger_override_while_serving_is_used_and_undone(app: WebServer, client: httpx.Client) -> None:
    """A mock in the logger's place gets what views and Quart say, until the override ends."""
    mock = cast(Mock, create_autospec(logging.Logger, instance=True))
    with overridden(app.container.logger, mock):
        assert app.logger is mock
        assert client.get("/log").text == "logged"
        assert client.get("/boom").status_code == 500
    client.get("/log")
    mock.warning.assert_called_once_with("said by the view")
    mock.error.assert_called_once()
    assert "/boom" in str(mock.error.call_args)
    assert app.logger is not mock


@pytest.mark.parametrize("kind", ["plain", "specified", "autospec"])
def test_any_mock_stands_in_for_the_logger_of_a_whole_run(kind: str) -> None:
    """The banner and the lifespan's own lines go to it, with nothing set up on it."""
    mock = {
        "plain": Mock(),
        "specified": Mock(spec=logging.Logger),
        "autospec": cast(Mock, create_autospec(logging.Logger, instance=True)),
    }[kind]
    app = WebServer("mocked", "127.0.0.1", 0)

    @app.before_serving
    async def begin() -> None:
        app.logger.warning("begins")

    with overridden(app.container.logger, mock), providing(app, OneShot):
        app.run_server()
    mock.warning.assert_called_once_with("begins")
    assert mock.info.call_args_list[0].args[0].startswith("Serving on %s")
    mock.error.assert_not_called()


def test_overrides_made_before_serving_last_as_long_as_their_context(app: WebServer) -> None:
    """A run that begins under overrides uses them, and the next run does not."""
    cache = Cache()
    headers = {"Accept-Encoding": "gzip"}
    with (
        overridden(app.container.cache, cache),
        overridden(app.container.compressor, None),
        overridden(app.container.settings, ServerSettings(global_headers={"X-Shop": "test"})),
        app.run_in_thread() as server,
    ):
        response = httpx.get(f"{server.url}/cached", headers=headers)
        assert header(response, "X-Shop") == "test"
        assert header(response, "Content-Encoding") is None
        assert cache.stats().stores == 1
    with app.run_in_thread() as server:
        response = httpx.get(f"{server.url}/cached", headers=headers)
        assert header(response, "X-Shop") is None
        assert header(response, "Content-Encoding") == "gzip"
    assert cache.stats().stores == 1


def test_a_run_puts_the_settings_back(app: WebServer) -> None:
    """The settings of a run are the container's only while it lasts; a later override outlives it."""
    before = app.container.settings()
    with app.run_in_thread() as server:
        during = app.container.settings()
        assert during.access_log_to_std is False
        assert during.host == server.host
    assert app.container.settings() == before
    other = ServerSettings(port=1)
    with app.run_in_thread():
        lasting = overridden(app.container.settings, other)
        lasting.__enter__()
    assert app.container.settings() is other
    lasting.__exit__(None, None, None)
    assert app.container.settings() == before


def test_a_wrong_override_while_serving_fails_the_request_and_is_named(
    app: WebServer, client: httpx.Client
) -> None:
    """The request is answered with 500, the log names the provider, and serving goes on."""
    mock = cast(Mock, create_autospec(logging.Logger, instance=True))
    with overridden(app.container.cache, {}), overridden(app.container.logger, mock):
        assert client.get("/cached").status_code == 500
        with pytest.raises(ProviderError, match=r"container\.cache: gives dict; it must give Cache"):
            app.current_cache()
    (call,) = mock.error.call_args_list
    error = call.kwargs["exc_info"]
    assert isinstance(error[1] if isinstance(error, tuple) else error, ProviderError)
    assert client.get("/cached").status_code == 200


def test_server_override_is_used_by_the_next_run_and_undone(app: WebServer) -> None:
    """``run_server()`` and ``run()`` ask the provider at each call for a server to run."""
    ran: list[str] = []

    def stub(name: str) -> Callable[[uvicorn.Config], AnyServer]:
        class Stub:
            def __init__(self, config: uvicorn.Config) -> None:
                self.config = config

            def run(self) -> None:
                ran.append(name)

        return Stub

    with providing(app, stub("outer")):
        app.run_server()
        with providing(app, stub("inner")):
            app.run_server()
            app.run(use_reloader=False)
        app.run_server()
    assert ran == ["outer", "inner", "inner", "outer"]


def test_server_override_is_used_by_run_in_thread(app: WebServer) -> None:
    """A server class of the container's own serves in the thread, too."""
    made: list[uvicorn.Config] = []

    class Counted(Server):
        def __init__(self, config: uvicorn.Config) -> None:
            super().__init__(config)
            made.append(config)

    with providing(app, Counted), app.run_in_thread() as server:
        assert httpx.get(f"{server.url}/plain").status_code == 200
    assert len(made) == 1
