"""Values that live as long as one request, on real sockets: one each, closed once, told how it ended."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, cast

import httpx
import pytest
from dependency_injector import containers, providers
from quart import Response, abort, after_this_request, request, websocket
from quart.typing import ResponseTypes
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from aeros import Cache, CacheControl, Container, Gzip, InvalidSettingError, WebServer, inject
from aeros.containers import RequestScoped
from aeros.errors import ProviderError, RequestScopeError
from aeros.testing import override
from tests.integration.conftest import eventually


class Session:
    """A database session that counts what is done with it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.closes = 0
        self.error: BaseException | None = None
        self.users: list[str] = []

    def use(self, who: str) -> int:
        """Is what a session is there for; a closed one is none."""
        assert self.closes == 0, f"{who} uses a session that is closed"
        self.users.append(who)
        return self.number


class Ledger:
    """Every session that was opened, in order."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []

    def open(self) -> Session:
        """Makes one more."""
        self.sessions.append(Session(len(self.sessions)))
        return self.sessions[-1]

    def only(self) -> Session:
        """Returns the one session there is, once it is closed."""
        eventually(self.all_closed)
        (session,) = self.sessions
        assert session.closes == 1
        return session

    def all_closed(self) -> bool:
        """Tells whether none is open."""
        return bool(self.sessions) and all(session.closes for session in self.sessions)


async def open_session(ledger: Ledger) -> AsyncGenerator[Session]:
    """The factory of the tests."""
    session = ledger.open()
    try:
        yield session
    except BaseException as error:
        session.error = error
        raise
    finally:
        await asyncio.sleep(0)
        session.closes += 1


def open_sync_session(ledger: Ledger) -> Generator[Session]:
    """The same, sync."""
    session = ledger.open()
    try:
        yield session
    except BaseException as error:
        session.error = error
        raise
    finally:
        session.closes += 1


class Books:
    """A repository, made anew for each who asks."""

    def __init__(self, session: Session) -> None:
        self.session = session


class AppContainer(Container):
    ledger = providers.Singleton(Ledger)
    session: providers.Provider[Session] = RequestScoped(open_session, ledger)
    sync_session: providers.Provider[Session] = RequestScoped(open_sync_session, ledger)
    books = providers.Factory(Books, session)


def shop(**options: Any) -> WebServer[AppContainer]:
    """An application with a ledger of its own."""
    return WebServer(__name__, container=AppContainer(), **options)


@contextmanager
def serving(app: WebServer[Any], **options: Any) -> Generator[httpx.Client]:
    """A client of the running application."""
    with app.run_in_thread(**options) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def address(client: httpx.Client) -> tuple[str, int]:
    """Where the application listens."""
    return client.base_url.host, client.base_url.port or 80


def ask(client: httpx.Client, path: str) -> socket.socket:
    """Sends a request on a socket of its own."""
    sending = socket.create_connection(address(client), timeout=30)
    sending.sendall(f"GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n".encode())
    return sending


def leave(sending: socket.socket) -> None:
    """Ends a connection at once, as a client does that is switched off."""
    sending.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sending.close()


# One for all


def test_one_session_is_shared_by_all_who_inject_it_in_a_request() -> None:
    """Hooks, the view, other providers, error handlers; the next request has its own."""
    app = shop()
    ledger = app.container.ledger()

    @app.before_request
    async def before(session: Session = inject(AppContainer.session)) -> None:
        session.use("before")

    @app.route("/")
    async def view(
        session: Session = inject(AppContainer.session),
        books: Books = inject(AppContainer.books),
        more: Books = inject(AppContainer.books),
    ) -> str:
        assert books is not more
        assert books.session is more.session is session is app.container.session()
        assert app.container.books().session is session
        return str(session.use("view"))

    @app.route("/sync")
    def sync_view(books: Books = inject(AppContainer.books)) -> str:
        assert app.container.session() is books.session
        return str(books.session.use("view"))

    @app.after_request
    async def after(
        response: ResponseTypes, session: Session = inject(AppContainer.session)
    ) -> ResponseTypes:
        session.use("after")
        return response

    @app.teardown_request
    async def teardown(_: BaseException | None, session: Session = inject(AppContainer.session)) -> None:
        session.use("teardown")

    @app.errorhandler(404)
    async def missing(_: Exception, session: Session = inject(AppContainer.session)) -> tuple[str, int]:
        return str(session.use("handler")), 404

    with serving(app) as client:
        assert client.get("/").text == "0"
        assert client.get("/sync").text == "1"
        assert client.get("/nothing").text == "2"
        eventually(ledger.all_closed)
    users = [session.users for session in ledger.sessions]
    assert users[:2] == [["before", "view", "after", "teardown"]] * 2
    assert users[2] == ["before", "handler", "after", "teardown"]
    assert [session.closes for session in ledger.sessions] == [1, 1, 1]


def test_a_request_that_asks_for_none_opens_none() -> None:
    """The function is registered with one; it is opened when the function runs."""
    app = shop()

    @app.route("/session")
    async def view(session: Session = inject(AppContainer.session)) -> str:
        return str(session.use("view"))

    @app.route("/")
    async def plain() -> str:
        return "plain"

    with serving(app) as client:
        assert [client.get("/").text, client.get("/nothing").status_code] == ["plain", 404]
        assert app.container.ledger().sessions == []
        client.get("/session")
        app.container.ledger().only()


def test_a_hit_opens_none() -> None:
    """The view does not run, so nobody needs a database."""
    app = shop()

    @app.route("/")
    @app.cache(timeout=60)
    async def view(books: Books = inject(AppContainer.books)) -> str:
        return str(books.session.use("view"))

    with serving(app) as client:
        assert [client.get("/").text for _ in range(3)] == ["0"] * 3
        app.container.ledger().only()


def test_what_the_cache_asks_shares_the_session_of_the_request() -> None:
    """A condition that needs the database, and the view below it."""
    app = shop()
    ledger = app.container.ledger()

    async def is_off(session: Session = inject(AppContainer.session)) -> bool:
        return session.use("unless") < 0

    def wants_all(session: Session = inject(AppContainer.session)) -> bool:
        return session.use("forced") < 0

    @app.route("/")
    @app.cache(timeout=60, unless=is_off, forced_update=wants_all)
    @CacheControl(max_age=60)
    async def view(session: Session = inject(AppContainer.session)) -> str:
        return str(session.use("view"))

    with serving(app) as client:
        assert [client.get("/").text for _ in range(2)] == ["0", "0"]
        eventually(lambda: len(ledger.sessions) == 2 and ledger.all_closed())
    assert [session.users for session in ledger.sessions] == [
        ["unless", "forced", "view"],
        ["unless", "forced"],
    ]


def test_tasks_of_a_request_share_its_session() -> None:
    """However they are started; it is opened once."""
    app = shop()

    async def use(session: Session = inject(AppContainer.session)) -> int:
        await asyncio.sleep(0)
        return session.use("task")

    @app.route("/")
    async def view() -> list[int]:
        run = app.ensure_async(use)
        return [*await asyncio.gather(*(run() for _ in range(20)))]

    with serving(app) as client:
        assert client.get("/").json() == [0] * 20
        app.container.ledger().only()


def test_a_sync_session_is_opened_by_a_plain_call() -> None:
    """Async ones can be had by one where they are open already; else the error says what to do."""
    app = shop()

    @app.route("/sync")
    def sync_view() -> str:
        return str(app.container.sync_session().use("view"))

    @app.route("/async")
    async def view() -> str:
        with pytest.raises(RequestScopeError, match="opened with await, and asked for without"):
            app.container.session()
        with pytest.raises(RequestScopeError, match="opened with await"):
            app.container.books()
        return "refused"

    with serving(app) as client:
        assert client.get("/sync").text == "0"
        assert client.get("/async").text == "refused"
        app.container.ledger().only()


def test_sessions_that_need_each_other_are_closed_in_reverse() -> None:
    """What was opened last is closed first."""
    said: list[str] = []

    async def open_connection() -> AsyncGenerator[str]:
        said.append("open connection")
        yield "connection"
        said.append("close connection")

    async def open_transaction(connection: str) -> AsyncGenerator[str]:
        said.append(f"open transaction of {connection}")
        yield "transaction"
        said.append("close transaction")

    class DatabaseContainer(Container):
        connection: providers.Provider[str] = RequestScoped(open_connection)
        transaction: providers.Provider[str] = RequestScoped(open_transaction, connection)

    app = WebServer(__name__, container=DatabaseContainer())

    @app.route("/")
    async def view(
        transaction: str = inject(DatabaseContainer.transaction),
        connection: str = inject(DatabaseContainer.connection),
    ) -> str:
        return f"{transaction} {connection}"

    with serving(app) as client:
        assert client.get("/").text == "transaction connection"
        eventually(lambda: len(said) == 4)
    assert said == [
        "open connection",
        "open transaction of connection",
        "close transaction",
        "close connection",
    ]


# How the request ended


def failing_shop() -> WebServer[AppContainer]:
    """An application that fails in each way; each path says in which one."""
    app = shop()

    @app.before_request
    async def before(session: Session = inject(AppContainer.session)) -> None:
        if request.path == "/before":
            raise ValueError("before")

    @app.after_request
    async def after(response: ResponseTypes) -> ResponseTypes:
        if request.path == "/after":
            raise ValueError("after")
        return response

    @app.route("/before")
    @app.route("/after")
    @app.route("/good")
    async def good() -> str:
        return "good"

    @app.route("/view")
    async def raising() -> str:
        raise ValueError("view")

    @app.route("/sync")
    def sync_raising() -> str:
        raise ValueError("sync")

    @app.route("/cached")
    @app.cache(timeout=60, statuses={404: 10})
    async def cached() -> str:
        raise ValueError("cached")

    @app.route("/abort")
    async def aborting() -> str:
        abort(404)

    @app.route("/cached-abort")
    @app.cache(timeout=60, statuses={404: 10})
    async def cached_abort() -> str:
        abort(404)

    @app.route("/handled")
    async def handled() -> str:
        raise LookupError("handled")

    @app.errorhandler(LookupError)
    async def handle(_: LookupError) -> tuple[str, int]:
        return "handled", 200

    @app.route("/handler")
    async def handler() -> str:
        raise KeyError("first")

    @app.errorhandler(KeyError)
    async def failing_handler(_: KeyError) -> str:
        raise ValueError("handler")

    @app.route("/late")
    async def late() -> str:
        async def raise_late(_: ResponseTypes) -> ResponseTypes:
            raise ValueError("late")

        after_this_request(raise_late)
        return "late"

    return app


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/good", 200, "None"),
        ("/before", 500, "ValueError('before')"),
        ("/after", 500, "ValueError('after')"),
        ("/late", 500, "ValueError('late')"),
        ("/view", 500, "ValueError('view')"),
        ("/sync", 500, "ValueError('sync')"),
        ("/cached", 500, "ValueError('cached')"),
        ("/abort", 404, "<NotFound '404: Not Found'>"),
        ("/cached-abort", 404, "<NotFound '404: Not Found'>"),
        ("/nothing", 404, "<NotFound '404: Not Found'>"),
        ("/handled", 200, "LookupError('handled')"),
        ("/handler", 500, "ValueError('handler')"),
    ],
)
def test_a_session_is_told_of_the_error(path: str, status: int, error: str) -> None:
    """Also if an error handler has made a response of it: the view has not done what it was to do."""
    app = failing_shop()
    with serving(app) as client:
        response = client.get(path)
        if path == "/after":
            # The hook fails on the response to its own error as well.
            assert response.status_code == 500
        assert response.status_code == status
        assert repr(app.container.ledger().only().error) == error


def test_an_error_of_a_view_is_the_very_same() -> None:
    """With its traceback and its cause; in debug mode, too."""
    for debug in (False, True):
        app = shop()
        app.debug = debug
        raised: list[BaseException] = []

        @app.route("/")
        async def view(
            session: Session = inject(AppContainer.session), raised: list[BaseException] = raised
        ) -> str:
            raised.append(ValueError("view"))
            raise raised[0]

        with serving(app) as client:
            assert client.get("/").status_code == 500
            assert app.container.ledger().only().error is raised[0]


# Streams


@pytest.mark.parametrize("compression", [False, Gzip(min_size=0)], ids=["plain", "gzip"])
@pytest.mark.parametrize("is_async", [True, False])
def test_a_session_is_closed_after_the_last_chunk_of_a_stream(compression: Any, *, is_async: bool) -> None:
    """The stream reads from it until its end."""
    app = shop(compression=compression)

    @app.route("/async")
    async def view(session: Session = inject(AppContainer.session)) -> AsyncIterator[str]:
        async def chunks() -> AsyncGenerator[str]:
            for number in range(3):
                await asyncio.sleep(0.01)
                session.use(f"chunk {number}")
                yield f"{number} "

        return chunks()

    @app.route("/sync")
    def sync_view(session: Session = inject(AppContainer.session)) -> Generator[str]:
        for number in range(3):
            session.use(f"chunk {number}")
            yield f"{number} "

    with serving(app) as client:
        assert client.get("/async" if is_async else "/sync").text == "0 1 2 "
        session = app.container.ledger().only()
    assert session.users == ["chunk 0", "chunk 1", "chunk 2"]
    assert session.error is None


def test_a_stream_that_raises_tells_its_session() -> None:
    """The client sees that the response breaks off."""
    app = shop()

    @app.route("/")
    async def view(session: Session = inject(AppContainer.session)) -> AsyncIterator[str]:
        async def chunks() -> AsyncGenerator[str]:
            yield "first"
            raise ValueError("second")

        return chunks()

    with serving(app) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/")
        assert repr(app.container.ledger().only().error) == "ValueError('second')"


def test_a_stream_that_runs_out_of_time_tells_its_session() -> None:
    """Quart says nothing of it; what was sent is not all."""
    app = shop()
    app.config["RESPONSE_TIMEOUT"] = 0.1

    @app.route("/")
    async def view(session: Session = inject(AppContainer.session)) -> AsyncIterator[str]:
        async def chunks() -> AsyncGenerator[str]:
            yield "first"
            await asyncio.Event().wait()

        return chunks()

    with serving(app) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/")
        error = app.container.ledger().only().error
    assert isinstance(error, asyncio.CancelledError)
    assert str(error) == "the response broke off"


def test_head_of_a_stream_tells_of_no_error() -> None:
    """A response without a body is as whole as one with it."""
    app = shop()

    @app.route("/")
    async def view(session: Session = inject(AppContainer.session)) -> AsyncIterator[str]:
        async def chunks() -> AsyncGenerator[str]:
            session.use("chunk")
            yield "chunk"

        return chunks()

    @app.route("/empty")
    async def empty(session: Session = inject(AppContainer.session)) -> tuple[str, int]:
        return "", 204

    ledger = app.container.ledger()
    with serving(app) as client:
        assert client.head("/").status_code == 200
        assert client.get("/empty").status_code == 204
        tag = client.get("/", headers={"accept-encoding": "identity"}).headers.get("etag", '"x"')
        client.get("/", headers={"if-none-match": tag})
        eventually(lambda: len(ledger.sessions) == 4 and ledger.all_closed())
    assert [session.error for session in ledger.sessions] == [None] * 4


# Clients that leave


def test_a_client_that_leaves_a_view_ends_its_session() -> None:
    """It is told that the view was cancelled, so nothing half done is committed."""
    app = shop()
    running = threading.Event()

    @app.route("/")
    async def view(session: Session = inject(AppContainer.session)) -> str:
        running.set()
        await asyncio.Event().wait()
        return ""

    with serving(app) as client:
        sending = ask(client, "/")
        assert running.wait(30)
        leave(sending)
        assert isinstance(app.container.ledger().only().error, asyncio.CancelledError)
        assert client.get("/nothing").status_code == 404


def test_a_client_that_leaves_a_stream_ends_its_session() -> None:
    """As one that leaves a view."""
    app = shop()

    @app.route("/")
    async def view(session: Session = inject(AppContainer.session)) -> AsyncIterator[bytes]:
        async def chunks() -> AsyncGenerator[bytes]:
            while True:
                yield b"x" * 2**16
                await asyncio.sleep(0.001)

        return chunks()

    with serving(app) as client:
        sending = ask(client, "/")
        assert sending.recv(2**16)
        leave(sending)
        assert isinstance(app.container.ledger().only().error, asyncio.CancelledError)


def test_a_client_that_leaves_while_a_session_is_opened_leaves_none() -> None:
    """The factory itself is cancelled, and what it needed is closed."""
    said: list[str] = []
    opening = threading.Event()

    async def open_connection() -> AsyncGenerator[str]:
        said.append("open")
        yield "connection"
        said.append("close")

    async def open_slowly(connection: str) -> AsyncGenerator[str]:
        opening.set()
        try:
            await asyncio.Event().wait()
        finally:
            said.append("given up")
        yield connection

    class SlowContainer(Container):
        connection: providers.Provider[str] = RequestScoped(open_connection)
        session: providers.Provider[str] = RequestScoped(open_slowly, connection)

    app = WebServer(__name__, container=SlowContainer())

    @app.route("/")
    async def view(session: str = inject(SlowContainer.session)) -> str:
        return session

    with serving(app) as client:
        sending = ask(client, "/")
        assert opening.wait(30)
        leave(sending)
        # The connection is told of the cancellation at its yield, and says no "close".
        eventually(lambda: said[-1] == "given up")
        assert client.get("/nothing").status_code == 404
    assert said == ["open", "given up"]


def test_a_session_that_is_being_closed_is_closed_though_its_client_leaves() -> None:
    """A commit that has begun is not broken off."""
    said: list[str] = []
    committing, go = threading.Event(), threading.Event()

    async def open_slowly() -> AsyncGenerator[str]:
        yield "session"
        committing.set()
        while not go.is_set():
            await asyncio.sleep(0.01)
        said.append("committed")

    class SlowContainer(Container):
        session: providers.Provider[str] = RequestScoped(open_slowly)

    app = WebServer(__name__, container=SlowContainer())

    @app.route("/")
    async def view(session: str = inject(SlowContainer.session)) -> str:
        return session

    with serving(app) as client:
        sending = ask(client, "/")
        assert committing.wait(30)
        leave(sending)
        time.sleep(0.05)  # the server is told meanwhile
        go.set()
        eventually(lambda: said == ["committed"])


def test_a_view_that_cancels_itself_tells_its_session() -> None:
    """Some libraries raise ``CancelledError`` where nobody has cancelled."""
    app = shop()

    @app.route("/")
    async def view(session: Session = inject(AppContainer.session)) -> str:
        raise asyncio.CancelledError("by a library")

    with serving(app) as client:
        assert client.get("/").status_code == 500
        assert str(app.container.ledger().only().error) == "by a library"


# Websockets


@contextmanager
def talking(client: httpx.Client, path: str) -> Generator[ClientConnection]:
    """A websocket of the running application."""
    host, port = address(client)
    with connect(f"ws://{host}:{port}{path}") as talk:
        yield talk


def socket_shop() -> WebServer[AppContainer]:
    """An application with websockets that end in each way."""
    app = shop()

    @app.before_websocket
    async def before(session: Session = inject(AppContainer.session)) -> None:
        session.use("before")

    @app.websocket("/good")
    async def good(books: Books = inject(AppContainer.books)) -> None:
        while (message := str(await websocket.receive())) != "end":
            await websocket.send(f"{message} {books.session.use(message)}")

    @app.websocket("/bad")
    async def bad() -> None:
        await websocket.send("accepted")
        raise ValueError("bad")

    @app.websocket("/after")
    async def fine() -> None:
        await websocket.send("accepted")

    @app.after_websocket
    async def after(response: ResponseTypes | None) -> ResponseTypes | None:
        if websocket.path == "/after":
            raise ValueError("after")
        return response

    return app


def test_a_websocket_has_one_session_until_its_end() -> None:
    """For all of its messages; the next has its own."""
    app = socket_shop()
    ledger = app.container.ledger()
    with serving(app) as client:
        for number in range(2):
            with talking(client, "/good") as talk:
                for message in ("a", "b"):
                    talk.send(message)
                    assert talk.recv(30) == f"{message} {number}"
                assert ledger.sessions[-1].closes == 0
                talk.send("end")
                with pytest.raises(ConnectionClosed):
                    talk.recv(30)
        eventually(ledger.all_closed)
    assert [session.users for session in ledger.sessions] == [["before", "a", "b"]] * 2
    assert [session.error for session in ledger.sessions] == [None, None]


@pytest.mark.parametrize("path", ["/bad", "/after"])
def test_a_websocket_that_raises_tells_its_session(path: str) -> None:
    """The view, and what runs after it."""
    app = socket_shop()
    with serving(app) as client:
        with suppress(ConnectionClosed), talking(client, path) as talk:
            talk.recv(30)
        assert repr(app.container.ledger().only().error) == f"ValueError('{path[1:]}')"


def test_a_client_that_leaves_a_websocket_ends_its_session() -> None:
    """Quart cancels the view then, and the session is told."""
    app = socket_shop()
    with serving(app) as client:
        with talking(client, "/good") as talk:
            talk.send("a")
            assert talk.recv(30) == "a 0"
        assert isinstance(app.container.ledger().only().error, asyncio.CancelledError)


# Factories that fail


def fickle(*, enter: bool, close: bool) -> WebServer[Any]:
    """An application whose second session fails, in its beginning or in its end."""

    async def open_fickle(session: Session) -> AsyncGenerator[Session]:
        if enter:
            raise OSError("no database")
        yield session
        if close:
            raise OSError("commit failed")

    class FickleContainer(AppContainer):
        fickle: providers.Provider[Session] = RequestScoped(open_fickle, AppContainer.session)

    app = WebServer(__name__, container=FickleContainer())

    @app.route("/")
    async def view(session: Session = inject(FickleContainer.fickle)) -> str:
        return str(session.use("view"))

    return app


def test_a_factory_that_raises_is_an_error_of_the_request(caplog: pytest.LogCaptureFixture) -> None:
    """An error handler answers it; what was open is told and closed."""
    app = fickle(enter=True, close=False)
    with serving(app) as client:
        assert client.get("/").status_code == 500
        assert "no database" in caplog.text

    @app.errorhandler(OSError)
    async def handle(error: OSError) -> tuple[str, int]:
        return str(error), 503

    app = fickle(enter=True, close=False)
    app.register_error_handler(OSError, handle)
    with serving(app) as client:
        response = client.get("/")
        assert (response.status_code, response.text) == (503, "no database")
        assert repr(app.container.ledger().only().error) == "OSError('no database')"


def test_a_session_that_cannot_be_closed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The response is out; the others are closed."""
    app = fickle(enter=False, close=True)
    with serving(app) as client:
        assert client.get("/").text == "0"
        assert app.container.ledger().only().error is None
        eventually(lambda: "could not be closed" in caplog.text)
        assert client.get("/").text == "1"
    assert "commit failed" in caplog.text


# Outside of requests


def test_a_background_task_has_a_session_of_its_own() -> None:
    """It outlives the request, whose session is closed; it is told of its own error."""
    app = shop()
    ledger = app.container.ledger()

    async def job(fail: bool, books: Books = inject(AppContainer.books)) -> None:
        await asyncio.sleep(0.05)
        books.session.use("job")
        if fail:
            raise ValueError("job")

    @app.route("/<int:fail>")
    async def view(fail: int, session: Session = inject(AppContainer.session)) -> str:
        session.use("view")
        app.add_background_task(job, bool(fail))
        return ""

    with serving(app) as client:
        for fail in (0, 1):
            ledger.sessions.clear()
            client.get(f"/{fail}")
            eventually(lambda: len(ledger.sessions) == 2 and ledger.all_closed())
            assert [session.users for session in ledger.sessions] == [["view"], ["job"]]
            assert [session.closes for session in ledger.sessions] == [1, 1]
            assert [repr(session.error) for session in ledger.sessions] == [
                "None",
                "ValueError('job')" if fail else "None",
            ]


def test_a_task_that_outlives_its_request_gets_no_session() -> None:
    """Nobody would close it: whether the request had one or not."""
    app = shop()
    found: list[str] = []

    async def use(session: Session = inject(AppContainer.session)) -> str:
        return "used"

    async def late() -> None:
        await asyncio.sleep(0.05)
        for act in (app.ensure_async(use), _asking(app.container.sync_session)):
            try:
                found.append(str(await act()))
            except RequestScopeError as error:
                found.append(error.problem)

    tasks: list[asyncio.Task[None]] = []

    @app.route("/<int:opens>")
    async def view(opens: int) -> str:
        if opens:
            await app.ensure_async(use)()
        tasks.append(asyncio.create_task(late()))
        return ""

    with serving(app) as client:
        for opens in (0, 1):
            client.get(f"/{opens}")
            eventually(lambda: len(found) == 2)
            assert found == ["asked for after its request was over"] * 2
            found.clear()
    assert len(app.container.ledger().sessions) == 1


def _asking(provider: Callable[[], object]) -> Callable[[], Awaitable[object]]:
    async def act() -> object:
        return provider()

    return act


async def test_outside_of_a_request_there_is_none() -> None:
    """The error says how to open a scope for a job or a test."""
    app = shop()
    for provider in (app.container.session, app.container.sync_session, app.container.books):
        with pytest.raises(RequestScopeError, match=r"outside of a request; .*app\.request_scope\(\)"):
            provider()


def test_before_serving_there_is_none() -> None:
    """The start fails, rather than a session that stays open for ever."""
    app = shop()

    @app.before_serving
    async def before(session: Session = inject(AppContainer.session)) -> None: ...

    with pytest.raises(BaseException, match="did not start") as caught, app.run_in_thread():
        pass
    assert not isinstance(caught.value, AssertionError)
    assert app.container.ledger().sessions == []


async def test_a_scope_can_be_opened_for_a_job() -> None:
    """It is closed at its end; what leaves it is told."""
    app = shop()
    ledger = app.container.ledger()

    async def job(books: Books = inject(AppContainer.books)) -> int:
        return books.session.use("job")

    async with app.request_scope():
        assert await app.ensure_async(job)() == 0
        assert app.container.session() is ledger.sessions[0]
        assert app.container.sync_session().use("plain") == 1
        assert not any(session.closes for session in ledger.sessions)
    assert [(session.closes, session.error) for session in ledger.sessions] == [(1, None), (1, None)]

    async def fail() -> None:
        async with app.request_scope():
            await app.ensure_async(job)()
            raise ValueError("job")

    with pytest.raises(ValueError, match="job"):
        await fail()
    assert repr(ledger.sessions[2].error) == "ValueError('job')"
    with pytest.raises(RequestScopeError):
        app.container.session()


async def test_scopes_nest() -> None:
    """The inner one has values of its own, and leaves those of the outer one alone."""
    app = shop()
    async with app.request_scope():
        outer = app.container.sync_session()
        async with app.request_scope():
            inner = app.container.sync_session()
            assert inner is not outer
        assert (inner.closes, outer.closes) == (1, 0)
        assert app.container.sync_session() is outer


async def test_a_request_in_a_scope_has_its_own() -> None:
    """A test that has one open sees what its client's requests open and close."""
    app = shop()

    @app.route("/")
    async def view(session: Session = inject(AppContainer.session)) -> str:
        return str(session.use("view"))

    async with app.request_scope():
        mine = app.container.sync_session()
        assert await (await app.test_client().get("/")).get_data() == b"1"
        assert [session.closes for session in app.container.ledger().sessions] == [0, 1]
        assert app.container.sync_session() is mine


@pytest.fixture
async def scoped_app() -> AsyncIterator[WebServer[AppContainer]]:
    """A fixture may hold a scope open for a test."""
    app = shop()
    async with app.request_scope():
        yield app
    assert [session.closes for session in app.container.ledger().sessions] == [1]


async def test_a_fixture_may_hold_a_scope(scoped_app: WebServer[AppContainer]) -> None:
    """pytest-asyncio runs both in one context."""
    scoped_app.container.sync_session().use("test")


# Fakes


def test_a_fake_is_used_in_place_of_a_session() -> None:
    """An object as it is; a request-scoped one is opened and closed."""
    app = shop()
    ledger = app.container.ledger()

    @app.route("/")
    async def view(
        books: Books = inject(AppContainer.books), session: Session = inject(AppContainer.session)
    ) -> str:
        assert books.session is session is app.container.session()
        return str(session.use("view"))

    with serving(app) as client:
        fake = Session(99)
        with override(app.container.session, fake):
            assert [client.get("/").text for _ in range(2)] == ["99", "99"]
        assert (fake.closes, ledger.sessions) == (0, [])
        other = Ledger()
        other.sessions = [Session(-1)] * 5
        replacing: providers.Provider[Session] = RequestScoped(open_session, other)
        with override(app.container.session, replacing):
            assert client.get("/").text == "5"
            eventually(lambda: other.sessions[-1].closes == 1)
        assert client.get("/").text == "0"
        assert ledger.only().users == ["view"]


@pytest.mark.parametrize("kind", [providers.Singleton, providers.Resource])
@pytest.mark.parametrize("is_between", [True, False])
def test_what_outlives_requests_must_not_need_a_session(
    kind: Callable[..., providers.Provider[Books]], *, is_between: bool
) -> None:
    """The application is not made: the error names both and the cure."""

    class KeepingContainer(AppContainer):
        between = providers.Factory(Books, AppContainer.session)
        kept: providers.Provider[Books] = kind(Books, between if is_between else AppContainer.session)
        above = providers.Factory(Books, kept)

    with pytest.raises(ProviderError) as caught:
        WebServer(__name__, container=KeepingContainer())
    assert caught.value.provider == "kept"
    name = cast(type, kind).__name__
    assert str(caught.value) == (
        f"container.kept: is a {name}, which would keep 'session' (open_session) beyond its request;"
        " make it a Factory, or give it what is not closed after each request"
    )


def test_a_captive_of_a_container_within_is_refused() -> None:
    """With its dotted name; also where only one branch of a selector would be kept."""
    called: list[str] = []

    def choose() -> str:
        called.append("choose")
        return "plain"

    class Storage(containers.DeclarativeContainer):
        session = RequestScoped(open_session, Ledger())
        chosen = providers.Selector(
            providers.Callable(choose), plain=providers.Object(None), scoped=providers.Factory(Books, session)
        )
        books = providers.Singleton(Books, chosen)

    class OuterContainer(AppContainer):
        storage = providers.Container(Storage)

    with pytest.raises(ProviderError, match=r"container\.storage\.books: .*'storage\.session'"):
        WebServer(__name__, container=OuterContainer())
    assert called == []


def test_a_session_that_a_fake_stands_in_for_is_no_captive() -> None:
    """Nothing is closed then; without the fake the application is refused."""

    class KeepingContainer(AppContainer):
        kept = providers.Singleton(Books, AppContainer.session)

    container = KeepingContainer()
    with override(container.session, Session(1)):
        WebServer(__name__, container=container)
    with pytest.raises(ProviderError, match="'session'"):
        WebServer(__name__, container=container)


def test_a_provider_of_ones_own_must_not_keep_a_session() -> None:
    """One that is no part of the container is seen when the view is registered: the parameter is named."""
    app = shop()
    keeping = providers.Singleton(Books, AppContainer.session)

    async def view(kept: Books = inject(keeping)) -> str:
        return ""

    with pytest.raises(InvalidSettingError, match=r"view\(kept=\).*open_session") as caught:
        app.route("/")(view)
    assert "make it a Factory" in str(caught.value)


# Requests that no client has sent


def test_a_refresh_in_the_background_has_a_session_of_its_own() -> None:
    """The request that finds a stale response is over when the view runs again."""
    now = [1_000_000.0]
    app = shop(cache=Cache(clock=lambda: now[0]))
    ledger = app.container.ledger()
    runs: list[int] = []

    @app.route("/")
    @app.cache(timeout=10, stale_while_revalidate=60)
    async def view(books: Books = inject(AppContainer.books)) -> str:
        runs.append(books.session.use("view"))
        if len(runs) == 3:
            raise ValueError("third")
        return str(len(runs))

    with serving(app) as client:
        assert client.get("/").text == "1"
        now[0] += 20
        assert client.get("/").text == "1"
        eventually(lambda: client.get("/").text == "2")
        eventually(ledger.all_closed)
        assert [session.closes for session in ledger.sessions] == [1, 1]
        assert [session.error for session in ledger.sessions] == [None, None]
        now[0] += 20
        assert client.get("/").text == "2"
        eventually(lambda: len(ledger.sessions) == 3 and ledger.all_closed())
        assert repr(ledger.sessions[2].error) == "ValueError('third')"


async def test_the_cache_explains_with_a_session() -> None:
    """Its conditions are asked as in a request; no view runs."""
    app = shop()

    async def is_off(session: Session = inject(AppContainer.session)) -> bool:
        return session.use("unless") < 0

    @app.route("/")
    @app.cache(timeout=60, unless=is_off)
    async def view() -> str:
        return ""

    explanation = await app.cache_explain("GET", "/")
    assert explanation.outcome == "miss"
    (session,) = app.container.ledger().sessions
    assert (session.users, session.closes) == (["unless"], 1)


# Many at once


def crowded_shop() -> WebServer[AppContainer]:
    """An application whose requests end in every way there is; each checks its session while it waits."""
    app = shop()

    async def work(session: Session, books: Books, request_id: str) -> None:
        """Uses the session across waits; another request that had it would be seen."""
        assert books.session is session
        session.users.append(request_id)
        for _ in range(3):
            await asyncio.sleep(random.uniform(0, 0.01))
            assert session.closes == 0
            assert set(session.users) == {request_id}, session.users

    @app.before_request
    async def before(session: Session = inject(AppContainer.session)) -> None:
        session.users.append(request.args["id"])

    @app.route("/<how>")
    async def view(
        how: str, session: Session = inject(AppContainer.session), books: Books = inject(AppContainer.books)
    ) -> ResponseTypes | AsyncIterator[bytes]:
        request_id = request.args["id"]
        await work(session, books, request_id)
        if how == "raise":
            raise ValueError(request_id)
        if how == "abort":
            abort(404)
        if how in ("wait", "websocket"):
            await asyncio.Event().wait()
        if how == "good":
            return Response(request_id)

        async def chunks() -> AsyncGenerator[bytes]:
            for number in range(1_000 if how == "endless" else 5):
                await work(session, books, request_id)
                yield b"x" * 1_000
                if how == "broken" and number == 2:
                    raise ValueError(request_id)

        return chunks()

    return app


async def one_client(host: str, port: int, how: str, request_id: str) -> None:
    """Sends one request on a connection of its own; some leave before they have their answer."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(
            f"GET /{how}?id={request_id} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n".encode()
        )
        await writer.drain()
        if how == "wait":
            await asyncio.sleep(random.uniform(0.05, 0.3))
            return  # before there is an answer
        if how == "endless":
            await reader.read(1_500)
            return  # in the middle of one
        answer = await reader.read(-1)
        status = {b"good": b"200", b"raise": b"500", b"abort": b"404"}.get(how.encode(), b"200")
        assert answer.split(b" ", 2)[1] == status, answer[:200]
        if how == "good":
            assert answer.endswith(request_id.encode())
        assert answer.endswith(b"0\r\n\r\n") == (how == "stream"), answer[-50:]
    finally:
        writer.transport.abort() if how in ("wait", "endless") else writer.close()


WAYS = ("good", "raise", "abort", "stream", "broken", "wait", "endless")


def test_500_requests_at_once_have_a_session_each_that_is_closed_once() -> None:
    """Also when clients leave, views raise, or streams break off; none is shared."""
    app = crowded_shop()
    ledger = app.container.ledger()
    ways = [WAYS[number % len(WAYS)] for number in range(500)]

    async def crowd(host: str, port: int) -> None:
        await asyncio.gather(*(one_client(host, port, how, f"r{number}") for number, how in enumerate(ways)))

    with app.run_in_thread(soft_limit=None, hard_limit=None, log_level="critical") as server:
        asyncio.run(crowd(server.host, server.port))
        eventually(lambda: len(ledger.sessions) == 500 and ledger.all_closed())
    assert [session.closes for session in ledger.sessions] == [1] * 500
    owners = [set(session.users) for session in ledger.sessions]
    assert all(len(owner) == 1 for owner in owners)
    assert set().union(*owners) == {f"r{number}" for number in range(500)}
    kinds = {"good": type(None), "stream": type(None), "raise": ValueError, "broken": ValueError}
    kinds |= {"wait": asyncio.CancelledError, "endless": asyncio.CancelledError}
    for session in ledger.sessions:
        how = ways[int(session.users[0][1:])]
        if how != "abort":
            assert type(session.error) is kinds[how], (how, session.error)


def test_overrides_while_sessions_are_open_leave_them_as_they_are() -> None:
    """A request goes on with what it has, and closes it; those that come after get the new one."""
    app = shop()
    ledger = app.container.ledger()
    running, go = threading.Semaphore(0), threading.Event()

    @app.route("/")
    async def view(books: Books = inject(AppContainer.books)) -> str:
        running.release()
        await asyncio.to_thread(go.wait, 30)
        return str(books.session.use("view"))

    answers: list[str] = []
    with serving(app, soft_limit=None, hard_limit=None) as client:
        url = str(client.base_url)
        asking = [
            threading.Thread(target=lambda: answers.append(httpx.get(url, timeout=30).text)) for _ in range(3)
        ]
        with ExitStack() as stack:
            for thread in asking:
                thread.start()
                stack.callback(thread.join, 30)
            for _ in asking:
                assert running.acquire(timeout=30)
            fake = Session(99)
            with override(app.container.session, fake):
                go.set()
                assert client.get("/").text == "99"
        assert sorted(answers) == ["0", "1", "2"]
        eventually(ledger.all_closed)
        assert client.get("/").text == "3"
    assert [session.closes for session in ledger.sessions] == [1] * 4
    assert fake.closes == 0
