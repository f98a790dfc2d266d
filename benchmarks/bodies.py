"""What all servers are asked and answer, so that they do the same work."""

from __future__ import annotations

import json
from typing import Any, cast

HELLO = {"hello": "world"}
# About 24 KB of JSON, as a list view of an API would send.
ROWS: list[dict[str, Any]] = [
    {"id": number, "name": f"item {number}", "tags": ["a", "b", "c"], "price": number * 1.5}
    for number in range(370)
]
CHUNK = b"x" * 1024
CHUNKS = 100
BROTLI_QUALITY = 4
COMPRESS_FROM_BYTES = 500
CACHE_SECONDS = 3600


def item(key: str) -> dict[str, Any]:
    """Returns one item of a catalogue, about 2 KB of JSON."""
    lines = [{"line": number, "text": f"part {number} of {key}", "price": number / 4} for number in range(36)]
    return {"key": key, "lines": lines}


def large_body(size: int) -> bytes:
    """Returns JSON of about ``size`` bytes, as an export of a table would be."""
    row = {"id": 0, "name": "item", "tags": ["a", "b", "c"], "price": 1.5}
    length = len(json.dumps(row)) + 20
    items = [{**row, "id": number, "name": f"item {number * 7919}"} for number in range(size // length)]
    return json.dumps(items).encode()


def order() -> bytes:
    """Returns an order of about 64 KB of JSON, as a client posts it."""
    lines = [
        {"article": f"article {number}", "count": number % 9 + 1, "price": number / 4, "note": "x" * 20}
        for number in range(790)
    ]
    return json.dumps({"customer": "somebody", "lines": lines}).encode()


def count_valid(posted: object) -> int:
    """Returns how many lines an order has, validated by hand as a view would.

    Raises:
        ValueError: Something is not as it must be.
    """
    if not isinstance(posted, dict):
        raise ValueError("an order is an object")
    fields = cast("dict[str, object]", posted)
    lines = fields.get("lines")
    if not isinstance(fields.get("customer"), str) or not isinstance(lines, list):
        raise ValueError("an order has a customer and lines")
    for line in cast("list[dict[str, object]]", lines):
        count, price = line["count"], line["price"]
        if not isinstance(line["article"], str) or not isinstance(count, int) or count < 1:
            raise ValueError("a line has an article and a count")
        if not isinstance(price, int | float) or price < 0:
            raise ValueError("a line has a price")
    return len(cast("list[object]", lines))
