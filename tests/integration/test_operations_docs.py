"""What the page on operations shows is what happens."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from aeros import WebServer
from aeros.settings import ServerSettings
from tests.conftest import ROOT
from tests.integration.conftest import check_strictly

PAGE = ROOT / "docs" / "operations.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def program(text: str) -> WebServer[Any]:
    """Runs the one program of the page that has this text, and returns its application."""
    (source,) = (block for block in PROGRAMS if text in block)
    names: dict[str, Any] = {"__name__": "program"}
    exec(compile(source, PAGE.name, "exec"), names)
    app: WebServer[Any] = names["app"]
    return app


def test_the_programs_are_strictly_typed(tmp_path: Path) -> None:
    """Each is complete, and mypy finds nothing in it."""
    assert len(PROGRAMS) == 3
    check_strictly(tmp_path, PROGRAMS)


def test_the_first_program_has_it_all() -> None:
    """Ids, probes, metrics and Server-Timing."""
    app = program("server_timing=True")
    with app.run_in_thread() as server, httpx.Client(base_url=server.url) as client:
        answer = client.get("/books/1", headers={"x-request-id": "mine"})
        assert answer.json() == {"title": "Ulysses", "made_by": "mine"}
        assert answer.headers["x-request-id"] == "mine"
        assert re.fullmatch(
            r"total;dur=\d+\.\d{3}, app;dur=\d+\.\d{3}, cache;desc=stored", answer.headers["server-timing"]
        )
        assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
        assert 'route="/books/<int:number>"' in client.get("/metrics").text


def test_your_own_metrics_are_on_the_page() -> None:
    """Beside those of aeros."""
    app = program("ORDERS = Counter")
    with app.run_in_thread() as server, httpx.Client(base_url=server.url) as client:
        client.post("/orders/book")
        client.post("/orders/anything")
        lines = client.get("/metrics").text.splitlines()
    assert 'shop_orders_total{kind="book"} 1.0' in lines
    assert 'shop_orders_total{kind="other"} 1.0' in lines


def test_every_request_has_its_span(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Misses, hits at door 2, and errors; and the lines of the log name its trace."""
    exporter = InMemorySpanExporter()
    monkeypatch.setattr("opentelemetry.sdk.trace.export.BatchSpanProcessor", SimpleSpanProcessor)
    monkeypatch.setattr("opentelemetry.sdk.trace.export.ConsoleSpanExporter", lambda: exporter)
    app = program("OpenTelemetryMiddleware")
    log = tmp_path / "error.log"
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    with (
        app.run_in_thread(error_log_file=str(log), log_format="json", livez="/livez") as server,
        httpx.Client(base_url=server.url) as client,
    ):
        headers = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
        for _ in range(6):
            assert client.get("/books/1", headers=headers).text == "book 1"
        assert client.get("/missing").status_code == 404
        assert client.get("/livez").status_code == 200
    doors = app.cache_stats().hits_by_door
    assert (doors[1], doors[2] > 0) == (0, True)
    spans: list[ReadableSpan] = [
        span for span in exporter.get_finished_spans() if span.kind is SpanKind.SERVER
    ]
    books = [
        span for span in spans if span.context is not None and f"{span.context.trace_id:032x}" == trace_id
    ]
    assert len(books) == 6
    assert [span.attributes["book"] for span in books if span.attributes and "book" in span.attributes] == [1]
    assert len(spans) == 7
    (line,) = [json.loads(line) for line in log.read_text().splitlines() if "looking" in line]
    assert line["trace_id"] == trace_id
    context = books[0].context
    assert context is not None
    assert line["span_id"] == f"{context.span_id:016x}"


def test_the_settings_are_those_of_the_page() -> None:
    """With their defaults."""
    rows = dict(re.findall(r"^\| `(\w+)` \| `(None|False)` \|", PAGE.read_text(), re.MULTILINE))
    assert set(rows) == {"request_ids", "livez", "readyz", "metrics", "server_timing"}
    defaults = ServerSettings()
    assert {name: str(getattr(defaults, name)) for name in rows} == rows


def test_the_metrics_are_those_of_the_page() -> None:
    """Each that there is, and no other."""
    from cachelib import SimpleCache

    from aeros import Cache

    app = WebServer("shop", metrics="/metrics", cache=Cache(SimpleCache()))
    app.cache(timeout=60)(lambda: "page")
    told: set[str] = set()
    for row in re.findall(r"^\| (`aeros_.*?) \|", PAGE.read_text(), re.MULTILINE):
        names: list[str] = re.findall(r"`(\S+)`", row)
        stem = names[0].removesuffix("_total").rpartition("_")[0]
        if names[0] == "aeros_compression_input_bytes_total":
            stem = "aeros_compression"
        told |= {name.replace("...", stem) for name in names}
    there = {
        metric.name + ("_total" if metric.type == "counter" else "")
        for metric in app.metrics_registry.collect()
    }
    assert told == there
