"""The service as it is: a real server, a real database in a file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from aeros import Cache, WebServer
from aeros.serving.runner import RunningServer
from aeros.testing import assert_cached
from pytest_aeros import OverrideFixture

from ..app import app as catalogue
from ..container import AppContainer

ULYSSES = {"title": "Ulysses", "author": "James Joyce"}


@pytest.fixture
def database_file(tmp_path: Path) -> Path:
    """Where the database is."""
    return tmp_path / "library.db"


@pytest.fixture
def app(override: OverrideFixture, database_file: Path) -> WebServer[AppContainer]:
    """The application, with a new database and an empty cache."""
    override(catalogue.container.database_url, f"sqlite+aiosqlite:///{database_file}")
    override(catalogue.container.page_size, 3)
    override(catalogue.container.cache, Cache())
    return catalogue


@pytest.fixture
def http(live_server: RunningServer) -> Iterator[httpx.Client]:
    """A client of the running application."""
    with httpx.Client(base_url=live_server.url) as client:
        yield client


def test_a_book_is_added_read_and_changed(http: httpx.Client) -> None:
    """The second reader is answered from the cache, and nobody gets what was written over."""
    created = http.post("/books", json=ULYSSES)
    assert created.status_code == 201
    path = created.headers["location"]
    assert http.get(path).json() == created.json()
    assert_cached(http.get(path))
    changed = {**ULYSSES, "title": "Dubliners"}
    assert http.put(path, json=changed).json() == {**created.json(), **changed}
    assert http.get(path).json()["title"] == "Dubliners"


def test_pages_follow_each_other(http: httpx.Client) -> None:
    """Until there is none."""
    for title in "gfedcba":
        http.post("/books", json={"title": title, "author": "Anonymous"})
    first = http.get("/books").json()
    second = http.get(first["next"]).json()
    third = http.get(second["next"]).json()
    titles = ["".join(book["title"] for book in page["books"]) for page in (first, second, third)]
    assert titles == ["abc", "def", "g"]
    assert third["next"] is None
    assert http.get("/authors").json() == {"Anonymous": 7}


def test_the_same_book_is_added_once(http: httpx.Client) -> None:
    """However many add it at the same time; the others leave nothing behind, no lock either."""

    def add(_: int) -> int:
        return http.post("/books", json=ULYSSES).status_code

    with ThreadPoolExecutor(10) as pool:
        statuses = list(pool.map(add, range(30)))
    assert sorted(statuses) == [201] + [409] * 29
    assert len(http.get("/books").json()["books"]) == 1


def test_books_outlive_the_server(app: WebServer[AppContainer]) -> None:
    """Another start opens the same database."""
    with app.run_in_thread() as server:
        path = httpx.post(f"{server.url}/books", json=ULYSSES).headers["location"]
    app.clear_cache()
    with app.run_in_thread() as server:
        assert httpx.get(server.url + path).json()["title"] == "Ulysses"


def test_health_tells_what_is_broken(http: httpx.Client, database_file: Path) -> None:
    """Here somebody takes the table away."""
    assert (http.get("/health").status_code, http.get("/health").json()) == (200, {"problems": {}})
    other = sqlite3.connect(database_file)
    other.execute("DROP TABLE book")
    other.close()
    response = http.get("/health")
    assert response.status_code == 503
    assert "no such table: book" in response.json()["problems"]["database"]
