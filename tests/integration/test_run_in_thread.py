"""``run_in_thread()``: a real server for the length of a block, on a real socket."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import httpx
import pytest
from dependency_injector import providers

from aeros import AddressInUseError, InvalidSettingError, StartupError, UnknownOptionError, WebServer

T = TypeVar("T")

DEADLINE_SECONDS = 20.0
THREAD_NAME = "aeros-server"


def server_threads() -> list[threading.Thread]:
    """The threads of servers that run now."""
    return [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]


@pytest.fixture(autouse=True)
def no_thread_remains() -> Iterator[None]:
    """Whatever a test does, the server's thread has ended with the block."""
    yield
    assert server_threads() == []


def shop(name: str = "shop") -> WebServer:
    """An application that says its name."""
    app = WebServer(name)

    @app.route("/")
    @app.cache(60)
    async def index() -> str:
        return name

    return app


def within_deadline(act: Callable[[], T]) -> T:
    """Calls in another thread, so that a hang is a failure and not a hang of all tests."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(act).result(DEADLINE_SECONDS)


@contextmanager
def listening() -> Generator[int]:
    """A port that somebody listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def is_refused(port: int) -> bool:
    """Whether nobody listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


# Where it answers


def test_free_port_is_taken_by_default() -> None:
    """``port=0`` is the default, and the attributes say what it became."""
    with shop().run_in_thread() as server:
        assert server.port > 0
        assert server.host == "127.0.0.1"
        assert server.url == f"http://127.0.0.1:{server.port}"
        assert httpx.get(server.url).text == "shop"
        assert len(server_threads()) == 1
    assert is_refused(server.port)


def test_given_address_is_used(free_port: int) -> None:
    """A host and a port of the caller's, whatever the application was made with."""
    app = WebServer("shop", "0.0.0.0", 1)
    with app.run_in_thread("127.0.0.1", free_port) as server:
        assert (server.host, server.port) == ("127.0.0.1", free_port)
        assert httpx.get(server.url).status_code == 404
    with app.run_in_thread(port=free_port) as server:
        assert server.port == free_port


def test_address_that_the_machine_lacks_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with an IPv6 address is served at its IPv4 one where IPv6 is off, as in many containers."""
    ask = socket.getaddrinfo

    def resolve(host: str | None, *arguments: Any, **options: Any) -> list[Any]:
        if host != "two-addresses.test":
            return ask(host, *arguments, **options)
        # An address that is for documentation only (RFC 3849), so no machine has it.
        return [*ask("2001:db8::1", *arguments, **options), *ask("127.0.0.1", *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with shop().run_in_thread("two-addresses.test") as server:
        assert server.host == "127.0.0.1"
        assert httpx.get(server.url).text == "shop"


def test_options_of_uvicorn_are_used() -> None:
    """They mean what they mean for ``run_server()``."""
    with shop().run_in_thread(server_header=False, headers=[("X-Shop", "1")]) as server:
        response = httpx.get(server.url)
    assert "Server" not in response.headers
    assert response.headers["X-Shop"] == "1"


def test_it_is_one_process_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """``WEB_CONCURRENCY`` on a machine must not make tests fail there."""
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    with shop().run_in_thread() as server:
        assert httpx.get(server.url).text == "shop"


# Errors


def test_port_in_use_is_raised_in_the_caller() -> None:
    """One line that names the address, with the error itself as the cause."""
    with (
        listening() as port,
        pytest.raises(StartupError, match=rf"^aeros: port: can not listen on 127\.0\.0\.1:{port} ") as caught,
    ):
        shop().run_in_thread(port=port).__enter__()
    assert isinstance(caught.value.__cause__, AddressInUseError)


def test_failing_start_of_the_application_is_raised_in_the_caller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A ``before_serving`` function that raises ends the start; its error is in the log."""
    app = shop()

    @app.before_serving
    async def begin() -> None:
        raise RuntimeError("no database")

    with pytest.raises(StartupError, match="the application did not start"):
        app.run_in_thread().__enter__()
    assert "no database" in caplog.text


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"prot": 1}, UnknownOptionError),
        ({"port": 70000}, InvalidSettingError),
        ({"workers": 2}, InvalidSettingError),
        ({"reload": True}, InvalidSettingError),
    ],
)
def test_bad_option_is_raised_in_the_caller(options: dict[str, Any], cause: type[Exception]) -> None:
    """The error names the option that was given."""
    with pytest.raises(StartupError, match=rf"^aeros: {next(iter(options))}: ") as caught:
        shop().run_in_thread(**options).__enter__()
    assert isinstance(caught.value.__cause__, cause)


def test_error_in_the_block_is_raised_as_it_is() -> None:
    """Only what goes wrong at the start becomes a ``StartupError``; the server stops all the same."""
    app = shop()
    with pytest.raises(InvalidSettingError), app.run_in_thread():
        app.cache(timeout=-1)
    with pytest.raises(ZeroDivisionError), app.run_in_thread():
        _ = 1 // 0


def test_a_failed_start_leaves_the_application_as_it_was() -> None:
    """The next start of the same application works, with its own settings."""
    app = shop()
    before = app.container.settings()
    with listening() as port, pytest.raises(StartupError):
        app.run_in_thread(port=port).__enter__()
    assert app.container.settings() == before
    with app.run_in_thread() as server:
        assert httpx.get(server.url).text == "shop"


# The end


def with_lifespan(app: WebServer) -> list[str]:
    """Returns what the application's lifespan will have done."""
    done: list[str] = []

    @app.before_serving
    async def begin() -> None:
        done.append("began")

    @app.after_serving
    async def end() -> None:
        done.append("ended")

    return done


def test_stop_with_an_idle_client_connected() -> None:
    """A connection that is kept alive does not keep the server."""
    app = shop()
    done = with_lifespan(app)

    def serve() -> None:
        with ExitStack() as stack:
            client = stack.enter_context(httpx.Client())
            with app.run_in_thread() as server:
                assert client.get(server.url).text == "shop"
            assert is_refused(server.port)

    within_deadline(serve)
    assert done == ["began", "ended"]


def test_stop_with_a_client_in_the_middle_of_a_stream() -> None:
    """A response without end is cut off after the grace that was given, and the stop is complete."""
    app = shop()
    done = with_lifespan(app)

    @app.route("/endless")
    async def endless() -> AsyncIterator[bytes]:
        async def chunks() -> AsyncIterator[bytes]:
            while True:
                yield b"chunk"
                await asyncio.sleep(0.01)

        return chunks()

    def serve() -> None:
        with ExitStack() as stack:
            client = stack.enter_context(httpx.Client())
            with app.run_in_thread(timeout_graceful_shutdown=1) as server:
                response = stack.enter_context(client.stream("GET", f"{server.url}/endless"))
                received = response.iter_bytes()
                assert next(received).startswith(b"chunk")
            assert is_refused(server.port)
            with pytest.raises(httpx.TransportError):
                for _ in received:
                    pass

    within_deadline(serve)
    assert done == ["began", "ended"]


def test_a_request_in_progress_is_finished_before_the_stop() -> None:
    """Leaving the block while a view works lets it answer."""
    app = shop()
    entered = threading.Event()

    @app.route("/slow")
    async def slow() -> str:
        entered.set()
        await asyncio.sleep(0.3)
        return "finished"

    def serve() -> str:
        with ThreadPoolExecutor(1) as pool:
            with app.run_in_thread() as server:
                pending = pool.submit(httpx.get, f"{server.url}/slow", timeout=DEADLINE_SECONDS)
                assert entered.wait(DEADLINE_SECONDS)
            return pending.result(DEADLINE_SECONDS).text

    assert within_deadline(serve) == "finished"


def test_an_application_can_be_served_again(free_port: int) -> None:
    """Each block starts and ends the application, and the same port; what it cached remains."""
    app = shop()
    done = with_lifespan(app)
    for _ in range(3):
        with app.run_in_thread(port=free_port) as server:
            assert httpx.get(server.url).text == "shop"
    assert done == ["began", "ended"] * 3
    assert (app.cache_stats().stores, app.cache_stats().hits) == (1, 2)


# Several at once


class Lines(logging.Handler):
    """Keeps the messages that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps one message."""
        self.messages.append(record.getMessage())


def with_own_log(app: WebServer) -> list[str]:
    """Gives the application a logger of its own and returns what will be logged there."""
    lines = Lines()
    logger = logging.Logger(app.name, logging.DEBUG)  # noqa: LOG001 - it must not be shared
    logger.addHandler(lines)
    overriding: providers.Provider[Any] = providers.Object(logger)
    app.container.logger.override(overriding)  # pyright: ignore[reportUnknownMemberType]  # its stub
    return lines.messages


def test_two_servers_at_once_do_not_mix() -> None:
    """Each has its own port, cache, settings and log, uvicorn's lines included."""
    first, second = shop("first"), shop("second")
    logs = with_own_log(first), with_own_log(second)
    for app in (first, second):
        app.container.config.log_level.from_value("debug")

        @app.route("/log")
        async def log(app: WebServer = app) -> str:
            app.logger.info("said by %s", app.name)
            return app.name

    with first.run_in_thread() as one, second.run_in_thread(headers=[("X-Second", "1")]) as two:
        assert one.port != two.port
        with ThreadPoolExecutor(4) as pool:
            urls = [f"{server.url}{path}" for server in (one, two) for path in ("/", "/log")] * 5
            responses = list(pool.map(httpx.get, urls))
    assert [response.text for response in responses] == ["first", "first", "second", "second"] * 5
    assert ["X-Second" in response.headers for response in responses] == [False, False, True, True] * 5
    assert first.cache_stats().stores == second.cache_stats().stores == 1
    assert first.cache_stats().entries == 1
    for log_lines, own, other in ((logs[0], "first", "second"), (logs[1], "second", "first")):
        assert log_lines.count(f"said by {own}") == 5
        assert f"said by {other}" not in log_lines
        assert sum(line.startswith("Started server process") for line in log_lines) == 1
        assert sum(line.startswith("Finished server process") for line in log_lines) == 1


def test_ending_one_of_two_servers_leaves_the_other() -> None:
    """They may end in any order, and the later one's log is still its own."""
    first, second = shop("first"), shop("second")
    lines = with_own_log(second)
    second.container.config.log_level.from_value("debug")
    with ExitStack() as stack:
        earlier = stack.enter_context(ExitStack())
        one = earlier.enter_context(first.run_in_thread())
        two = stack.enter_context(second.run_in_thread())
        earlier.close()
        assert is_refused(one.port)
        assert httpx.get(two.url).text == "second"
    assert any(line.startswith("Finished server process") for line in lines)
    assert logging.getLogger("uvicorn.error").handlers == []


# Async tests


async def test_async_tests_can_use_it() -> None:
    """The server has a loop of its own, so the test's loop is free to ask it."""
    with shop().run_in_thread() as server:
        async with httpx.AsyncClient(base_url=server.url) as client:
            responses = await asyncio.gather(*(client.get("/") for _ in range(10)))
    assert {response.text for response in responses} == {"shop"}


async def test_async_with_leaves_the_loop_free() -> None:
    """A client on the same loop goes on while the server starts and while it stops, with its request."""
    app = shop()
    done = with_lifespan(app)
    begun = threading.Event()

    @app.route("/slow")
    async def slow() -> str:
        begun.set()
        await asyncio.sleep(0.3)
        return "whole"

    async with httpx.AsyncClient() as client:
        async with app.run_in_thread() as server:
            asking = asyncio.create_task(client.get(f"{server.url}/slow"))
            await asyncio.to_thread(begun.wait, DEADLINE_SECONDS)
        assert asking.done()
        assert (await asking).text == "whole"
    assert is_refused(server.port)
    assert done == ["began", "ended"]


async def test_async_with_raises_what_goes_wrong() -> None:
    """An error at the start is raised in the caller, one in the block as it is, and no loop ends by it."""
    with listening() as port, pytest.raises(StartupError, match="address already in use"):
        await shop().run_in_thread(port=port).__aenter__()
    with pytest.raises(ZeroDivisionError):
        async with shop().run_in_thread():
            _ = 1 // 0


async def test_a_start_that_is_cancelled_leaves_no_server() -> None:
    """Who gives up waiting for the start gets a server that has ended."""
    app = shop()
    done = with_lifespan(app)
    starting = asyncio.create_task(app.run_in_thread().__aenter__())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert done == ["began", "ended"]
