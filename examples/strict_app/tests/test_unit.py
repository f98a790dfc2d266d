"""The service alone, and the views on fakes: no database, no server, nothing opened."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
from aeros import Cache, WebServer
from aeros.testing import Clock, assert_cached, assert_not_cached
from pytest_aeros import OverrideFixture
from quart.typing import TestClientProtocol as Client

from ..app import app as catalogue
from ..container import AppContainer
from ..models import Book, Draft, DuplicateBookError, InvalidBookError, NoSuchBookError
from ..service import Library
from .fakes import FakeBooks, FakeDatabase, FakeSession

ULYSSES = {"title": "Ulysses", "author": "James Joyce"}
EMMA = {"title": "Emma", "author": "Jane Austen"}


@pytest.fixture
def books() -> FakeBooks:
    """A catalogue of one book."""
    return FakeBooks(Book(id="1", **ULYSSES))


@pytest.fixture
def session() -> FakeSession:
    """A session that counts its commits."""
    return FakeSession()


@pytest.fixture
def database() -> FakeDatabase:
    """A database that answers."""
    return FakeDatabase()


@pytest.fixture
def app(
    override: OverrideFixture, database: FakeDatabase, books: FakeBooks, session: FakeSession
) -> WebServer[AppContainer]:
    """The application, with a fake in the place of every provider but the library."""
    container = catalogue.container
    override(container.database_url, "nowhere://")
    override(container.page_size, 2)
    override(container.database, database)
    override(container.session, session)
    override(container.books, books)
    override(container.new_id, "2")
    override(container.cache, Cache())
    override(container.compressor, None)
    override(container.logger, logging.getLogger("test of the catalogue"))
    return catalogue


# The service: no application at all


async def test_what_is_added_is_committed(books: FakeBooks, session: FakeSession) -> None:
    """Once, before the caller goes on."""
    added = await Library(books, session, page_size=2).add("2", Draft(**EMMA))
    assert books.by_id["2"] is added
    assert (added.title, added.author, session.commits) == ("Emma", "Jane Austen", 1)


async def test_what_can_not_be_saved_is_not_committed(books: FakeBooks, session: FakeSession) -> None:
    """The session rolls back what nobody commits."""
    with pytest.raises(DuplicateBookError):
        await Library(books, session, page_size=2).add("2", Draft(**ULYSSES))
    assert session.commits == 0


async def test_a_book_that_is_not_there_can_not_be_changed(books: FakeBooks, session: FakeSession) -> None:
    """And nothing is committed."""
    with pytest.raises(NoSuchBookError):
        await Library(books, session, page_size=2).change("9", Draft(**EMMA))
    assert (list(books.by_id), session.commits) == (["1"], 0)


@pytest.mark.parametrize(
    ("number", "titles", "has_more"), [(1, ["a", "b"], True), (2, ["c", "d"], False), (3, [], False)]
)
async def test_a_page_knows_whether_there_are_more(
    session: FakeSession, number: int, titles: list[str], has_more: bool
) -> None:
    """Also where the last page is full."""
    books = FakeBooks(*(Book(id=title, title=title, author="") for title in "badc"))
    found, more = await Library(books, session, page_size=2).page(number)
    assert ([book.title for book in found], more) == (titles, has_more)


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "Emma",
        {"title": "Emma"},
        {"title": 1, "author": "a"},
        {"title": " ", "author": "a"},
        {"title": "t", "author": "a" * 201},
    ],
)
def test_a_body_that_is_no_book_is_refused(body: object) -> None:
    """Whatever a client sends."""
    with pytest.raises(InvalidBookError, match=r"title|author"):
        Draft.parse(body)


# The views: the application, with fakes below it


async def test_a_book_is_read_once_while_it_is_cached(
    client: Client, books: FakeBooks, cache_clock: Clock
) -> None:
    """For its sixty seconds the database is not asked."""
    first, second = [await client.get("/books/1") for _ in range(2)]
    assert await first.get_json() == await second.get_json() == {"id": "1", **ULYSSES}
    assert_cached(second)
    assert books.reads == 1
    cache_clock.advance(61)
    await client.get("/books/1")
    assert books.reads == 2


async def test_a_new_book_is_told_where_it_is_and_is_in_the_list(
    client: Client, session: FakeSession
) -> None:
    """What was cached of all books before it is not served any more."""
    before = await client.get("/books")
    assert await (await client.get("/authors")).get_json() == {"James Joyce": 1}
    created = await client.post("/books", json=EMMA)
    assert (created.status_code, created.headers["Location"]) == (201, "/books/2")
    assert await created.get_json() == {"id": "2", **EMMA}
    assert session.commits == 1
    after = await client.get("/books")
    assert await before.get_json() == {"books": [{"id": "1", **ULYSSES}], "next": None}
    assert await after.get_json() == {
        "books": [{"id": "2", **EMMA}, {"id": "1", **ULYSSES}],
        "next": None,
    }
    assert await (await client.get("/authors")).get_json() == {"James Joyce": 1, "Jane Austen": 1}


async def test_a_change_evicts_the_book_and_what_is_made_of_all(client: Client) -> None:
    """And no other book."""
    await client.post("/books", json=EMMA)
    for path in ("/books", "/books/1", "/books/2", "/authors"):
        await client.get(path)
    changed = {"title": "Dubliners", "author": "Joyce"}
    assert (await client.put("/books/1", json=changed)).status_code == 200
    assert await (await client.get("/books/1")).get_json() == {"id": "1", **changed}
    assert (await (await client.get("/books")).get_json())["books"][0]["title"] == "Dubliners"
    assert await (await client.get("/authors")).get_json() == {"Jane Austen": 1, "Joyce": 1}
    for path in ("/books/2", "/authors"):
        assert_cached(await client.get(path))


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/books/9", None, 404),
        ("PUT", "/books/9", EMMA, 404),
        ("POST", "/books", ULYSSES, 409),
        ("POST", "/books", {"title": "Emma"}, 400),
        ("GET", "/books?page=0", None, 400),
        ("GET", "/books?page=1e3", None, 400),
        ("DELETE", "/books", None, 405),
        ("GET", "/films", None, 404),
    ],
)
async def test_errors_are_json(
    client: Client, method: str, path: str, body: dict[str, str] | None, status: int
) -> None:
    """Ours and those of the framework alike."""
    send = {"GET": client.get, "POST": client.post, "PUT": client.put, "DELETE": client.delete}
    response = await send[method](path, json=body)
    assert response.status_code == status
    assert list(await response.get_json()) == ["error"]


async def test_an_error_is_not_cached(client: Client) -> None:
    """A book that is not there may be added at any time."""
    assert_not_cached(await client.get("/books/2"))
    await client.post("/books", json=EMMA)
    assert (await client.get("/books/2")).status_code == 200


class BrokenLibrary(Library):
    """A library that does not work."""

    async def page(self, number: int) -> tuple[Sequence[Book], bool]:
        """Fails."""
        raise RuntimeError(f"page {number} is lost")


async def test_a_bug_is_logged_and_not_shown(
    app: WebServer[AppContainer],
    override: OverrideFixture,
    books: FakeBooks,
    session: FakeSession,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The client learns that there was one, the log which one."""
    override(app.container.library, BrokenLibrary(books, session, page_size=2))
    response = await app.test_client().get("/books")
    assert response.status_code == 500
    assert "lost" not in (await response.get_data(as_text=True))
    (record,) = caplog.records
    assert record.name == "test of the catalogue"
    assert "page 1 is lost" in caplog.text


async def test_starting_opens_nothing_that_is_replaced(
    app: WebServer[AppContainer], database: FakeDatabase
) -> None:
    """There is no database at ``nowhere://``; its stand-in says how it is."""
    async with app.test_app() as started:
        client = started.test_client()
        assert (await client.get("/health")).status_code == 200
        database.is_away = True
        response = await client.get("/health")
        assert response.status_code == 503
        assert "the database is away" in (await response.get_json())["problems"]["database"]
