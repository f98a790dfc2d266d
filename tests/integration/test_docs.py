"""What the documentation shows is what happens."""

from __future__ import annotations

import ast
import inspect
import logging
import re
import time
from pathlib import Path
from typing import get_args

import pytest
from quart import Quart, Response

from aeros import Cache, CacheControl, RedisStore, WebServer
from aeros.compression import Base, CompressorOptions
from aeros.errors import InvalidSettingError
from aeros.serving.access_log import Access, AccessLog
from aeros.settings import LogFormat, ServerSettings
from tests.conftest import ROOT

CACHING = ROOT / "docs" / "caching.md"
COMPRESSION = ROOT / "docs" / "compression.md"
CACHE_CONTROL = ROOT / "docs" / "cache-control.md"
LOGS = ROOT / "docs" / "logging.md"


def blocks(page: Path) -> list[str]:
    """Returns the Python programs of a page."""
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def program(page: Path, text: str) -> Quart:
    """Runs the one program of a page that has this text, and returns its application."""
    (source,) = (block for block in blocks(page) if text in block)
    names: dict[str, object] = {"__name__": "program"}
    exec(compile(source, page.name, "exec"), names)
    app = names["app"]
    assert isinstance(app, Quart)
    return app


async def ask(app: Quart, path: str, **fields: str) -> Response:
    """Returns the answer to a GET; the names of fields have underscores."""
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    return await app.test_client().get(path, headers=headers)


@pytest.mark.parametrize("page", [CACHING, CACHE_CONTROL, ROOT / "README.md"], ids=lambda page: page.name)
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


@pytest.mark.parametrize("text", ["all_prices", "Quart(__name__)"])
async def test_the_prices_are_told_and_asked_for_again(text: str) -> None:
    """The first program of the page, and the one for plain Quart."""
    app = program(CACHE_CONTROL, text)
    first = await ask(app, "/prices")
    assert first.headers["cache-control"].endswith(("max-age=60", "max-age=60, stale-while-revalidate=30"))
    again = await ask(app, "/prices", if_none_match=first.headers["etag"])
    assert (again.status_code, await again.get_data()) == (304, b"")
    shown = re.findall(r"^cache-control: (.*)$", CACHE_CONTROL.read_text(), re.MULTILINE)
    if text == "all_prices":
        assert [first.headers["cache-control"]] == shown
        assert f"etag: {first.headers['etag']}\n" in CACHE_CONTROL.read_text()


async def test_the_cache_and_its_clients_are_told_apart() -> None:
    """Below the cache it is the lifetime as well; above it, clients ask and are answered from memory."""
    app = program(CACHE_CONTROL, '@app.route("/report")')
    await ask(app, "/news")
    hit = await ask(app, "/news")
    assert hit.headers["cache-control"] == "public, max-age=30"
    assert re.fullmatch("aeros; hit; ttl=(29|30)", hit.headers["cache-status"])
    first = await ask(app, "/report")
    again = await ask(app, "/report", if_none_match=first.headers["etag"])
    assert again.status_code == 304
    assert again.headers["cache-control"] == "max-age=0, must-revalidate"
    assert again.headers["cache-status"].startswith("aeros; hit; ttl=")


async def test_hashed_assets_are_kept_for_a_year(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is there, and what Quart says of files has given way."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "app.3f2a.js").write_text("let x")
    monkeypatch.chdir(tmp_path)
    app = program(CACHE_CONTROL, "@immutable")
    for fields in ({}, {"if_none_match": (await ask(app, "/assets/app.3f2a.js")).headers["etag"]}):
        response = await ask(app, "/assets/app.3f2a.js", **fields)
        assert response.status_code == (304 if fields else 200)
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert "cache-control" not in (await ask(app, "/assets/other.js")).headers


async def test_a_cdn_keeps_the_page_and_browsers_ask() -> None:
    """Each has a field of its own."""
    app = program(CACHE_CONTROL, "cdn=CacheControl(max_age=timedelta")
    first = await ask(app, "/")
    again = await ask(app, "/", if_none_match=first.headers["etag"])
    assert (first.status_code, again.status_code) == (200, 304)
    for response in (first, again):
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["cdn-cache-control"] == "max-age=600, stale-if-error=86400"


async def test_private_pages_are_not_shared() -> None:
    """Errors and unknown paths are told as well; the decorator comes before the hook."""
    app = program(CACHE_CONTROL, "no_store\nasync def statement")
    inbox = await ask(app, "/inbox")
    assert inbox.headers["cache-control"] == "private, no-cache"
    assert (await ask(app, "/inbox", if_none_match=inbox.headers["etag"])).status_code == 304
    assert (await ask(app, "/nowhere")).headers["cache-control"] == "private, no-cache"
    for number, status in ((1, 200), (10, 404)):
        response = await ask(app, f"/statement/{number}")
        assert (response.status_code, response.headers["cache-control"]) == (status, "no-store")


async def test_error_pages_are_kept_for_some_seconds() -> None:
    """By clients and here, and not for as long as the page that is there."""
    app = program(CACHE_CONTROL, "statuses={404: 10}")
    for number, status, seconds in ((1, 200, 300), (2, 404, 10)):
        first, again = [await ask(app, f"/books/{number}") for _ in range(2)]
        assert (first.headers["cache-status"], first.status_code) == ("aeros; fwd=miss; stored", status)
        for response in (first, again):
            assert response.headers["cache-control"] == f"public, max-age={seconds}"
        assert re.fullmatch(f"aeros; hit; ttl=({seconds}|{seconds - 1})", again.headers["cache-status"])


def test_the_page_names_every_argument_of_cache_control_and_its_error_is_real() -> None:
    """An argument that is renamed or added must be named there."""
    text = CACHE_CONTROL.read_text()
    known = {name for name in inspect.signature(CacheControl).parameters if name != "views"}
    named = set(re.findall(r"`([a-z_]+)=", text))
    assert named - known == {"cache_timeout"}  # of Quart's send_file()
    assert known - named == set()
    with pytest.raises(InvalidSettingError) as caught:
        CacheControl(public=True, private=True)
    assert f"\n{caught.value}\n" in text


@pytest.mark.parametrize("number", range(len(blocks(COMPRESSION))))
def test_each_program_of_the_compression_page_runs(number: int) -> None:
    """By itself: what it uses it imports."""
    block = blocks(COMPRESSION)[number]
    exec(compile(block, "compression.md", "exec"), {"__name__": "page"})


def test_every_option_of_a_compressor_is_on_its_page() -> None:
    """And no other one."""
    text = COMPRESSION.read_text()
    table = text[text.index("Options, of all four:") : text.index("A value that does not fit")]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(CompressorOptions.__annotations__)
    defaults = inspect.signature(Base.__init__).parameters
    for name in ("min_size", "flush_seconds", "offload_size", "hot_after"):
        shown = re.search(rf"^\| `{name}` \| `?([\w.]+)`? \|", table, re.MULTILINE)
        assert shown is not None
        assert shown[1] == str(defaults[name].default)


@pytest.mark.parametrize("number", range(len(blocks(LOGS))))
async def test_each_program_of_the_page_on_logs_answers(number: int) -> None:
    """By itself, without being served."""
    names: dict[str, object] = {"__name__": "page"}
    exec(compile(blocks(LOGS)[number], "logging.md", "exec"), names)
    app = names["app"]
    assert isinstance(app, WebServer)
    client = app.test_client()
    answers = [await client.get("/books/1"), await client.post("/orders")]
    assert 200 in [answer.status_code for answer in answers]


def test_every_setting_of_logs_is_on_their_page_with_its_default() -> None:
    """What ``run_server()`` takes for its logs, and no other name."""
    table = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", LOGS.read_text(), re.MULTILINE)
    parameters = inspect.signature(WebServer.run_server).parameters
    settings = ServerSettings()
    for name, default in table:
        assert name in parameters
        value = getattr(settings, name)
        if name == "log_level":
            assert value == logging.getLevelNamesMapping()[default]
        else:
            assert default == repr(value).replace("'", '"')
    logs = {name for name in parameters if "log" in name or name in ("traceback", "color")}
    assert {name for name, _ in table} == logs


def test_the_lines_on_the_page_are_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In both formats, for the same request."""
    access = Access(
        "203.0.113.7", "GET", "/books/1?page=2", "1.1", 200, 1234, 0.00084, "hit", 1_767_323_045.678
    )
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        for log_format in get_args(LogFormat):
            with AccessLog(False, str(tmp_path / log_format), log_format, None, ignore) as log:
                log.write(access)
    time.tzset()
    for log_format in get_args(LogFormat):
        assert f"\n{(tmp_path / log_format).read_text()}```" in LOGS.read_text()


def ignore(_level: int, _text: str) -> None:
    """Listens to nobody."""
