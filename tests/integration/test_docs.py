"""What the documentation shows is what happens."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from aeros import Cache, RedisStore, WebServer
from tests.conftest import ROOT

CACHING = ROOT / "docs" / "caching.md"


def blocks(page: Path) -> list[str]:
    """Returns the Python programs of a page."""
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [CACHING, ROOT / "README.md"], ids=lambda page: page.name)
def test_every_python_block_is_python(page: Path) -> None:
    """No slip of the pen in what people copy."""
    found = blocks(page)
    assert len(found) >= 3
    for block in found:
        compile(block, page.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


async def test_the_books_are_cached_and_evicted_by_what_is_written() -> None:
    """The first program of the caching page, as the page tells it."""
    names: dict[str, object] = {"__name__": "books"}
    exec(compile(blocks(CACHING)[0], "caching.md", "exec"), names)
    app = names["app"]
    assert isinstance(app, WebServer)
    client = app.test_client()
    first = await client.get("/books/1")
    again = await client.get("/books/1")
    assert await first.get_json() == await again.get_json() == {"title": "Ulysses"}
    assert first.headers["cache-status"] == "aeros; fwd=miss; stored"
    assert again.headers["cache-status"].startswith("aeros; hit; ttl=")
    missing = [await client.get("/books/9") for _ in range(2)]
    assert [response.status_code for response in missing] == [404, 404]
    assert missing[1].headers["cache-status"].startswith("aeros; hit; ttl=")
    await client.put("/books/1")
    assert await (await client.get("/books/1")).get_json() == {"title": "Ulysses, second edition"}
    explained = await app.cache_explain("GET", "/books/1")
    assert (explained.outcome, explained.tags) == ("hit", ("books", "book:1"))
    assert str(explained).startswith("hit; stored 0 s ago with status 200")


def test_every_option_that_the_page_names_exists() -> None:
    """An option that is renamed must be renamed there."""
    text = CACHING.read_text()
    known = {
        name
        for function in (
            WebServer,
            WebServer.cache,
            WebServer.invalidates,
            WebServer.memoize,
            WebServer.evict,
            WebServer.clear_cache,
            Cache,
            RedisStore.from_url,
        )
        for name in inspect.signature(function).parameters
    }
    own = {"workers", "detail"}  # of uvicorn, and of the field Cache-Status
    table = text[text.index("## Coming from Flask-Caching") :]
    theirs = {"make_cache_key", "source_check"}
    named = set(re.findall(r"`(?:\w+\()?([a-z_]+)=", text.replace(table, ""))) | set(
        re.findall(r"`([a-z_]+)=", table)
    )
    assert named - known - own - theirs == set()
    assert len(named & known) > 20
