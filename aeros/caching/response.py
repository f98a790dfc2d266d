"""The cache's part of a response on its way out: Vary, ETag, Cache-Status and 206."""

from __future__ import annotations

from aeros.caching.entry import StoredResponse
from aeros.exchange import Exchange
from aeros.http.conditional import entity_tag_in, text_of, without_content
from aeros.http.digest import with_digests
from aeros.http.fields import combined_value, first_value, replaced, with_list_member
from aeros.http.ranges import if_range_holds, parse_range
from aeros.types import RawHeaders, Scope


def fields_of_hit(stored: StoredResponse, *, age: int, is_dated: bool) -> RawHeaders:
    """Returns the fields with which a view's decorator answers to a hit.

    Args:
        stored: What it answers with.
        age: Its age in whole seconds.
        is_dated: Whether aeros writes ``Date``: a server of another kind would write a second one.
    """
    fields = [field for field in stored.headers if is_dated or field[0] != b"date"]
    if stored.status != 204:
        fields.append((b"content-length", b"%d" % len(stored.body)))
    fields.append((b"age", b"%d" % age))
    return fields


def labelled(headers: RawHeaders, exchange: Exchange, body: bytes | None) -> RawHeaders:
    """Returns the fields with what the cache has to say.

    Args:
        headers: The response's fields so far.
        exchange: The request's exchange; on a route that is not cached nothing is added.
        body: The whole body, or None for a stream.
    """
    transaction = exchange.transaction
    if transaction is None:
        return headers
    headers = list(headers)
    for name in exchange.selecting_fields:
        headers = with_list_member(headers, b"vary", name)
    if transaction.shows_status:
        headers.append((b"cache-status", transaction.status.render().encode("ascii")))
    kept = exchange.representation
    # Only the very body that is kept may carry its tag: a hook may have replaced it.
    if kept is not None and body is kept.body and first_value(headers, b"etag") is None:
        headers.append((b"etag", kept.etag.encode("latin-1")))
    return headers


def sliced(scope: Scope, status: int, headers: RawHeaders, body: bytes) -> tuple[int, RawHeaders, bytes]:
    """Returns the part of a response that the client asked for (RFC 9110 §14), or all of it.

    Args:
        scope: The request's ASGI scope.
        status: The response's status code; only a 200 to GET has parts, of which HEAD tells.
        headers: Its fields, those of the chosen content coding.
        body: Its body in that coding, which is what a range counts in.
    """
    if status != 200 or scope["method"] not in ("GET", "HEAD"):
        return status, headers, body
    if first_value(headers, b"accept-ranges") == b"none":
        return status, headers, body
    headers = replaced(headers, b"accept-ranges", b"bytes")
    asked = combined_value(scope["headers"], b"range") if scope["method"] == "GET" else None
    if asked is None or not _if_range(scope["headers"], headers):
        return status, headers, body
    part = parse_range(asked, len(body))
    if part is None:
        return status, headers, body
    if part == "unsatisfiable":
        where = b"bytes */%d" % len(body)
        headers = [*without_content(headers), (b"accept-ranges", b"bytes"), (b"content-range", where)]
        return 416, replaced(headers, b"content-length", b"0"), b""
    headers = replaced(headers, b"content-range", part.content_range(len(body)).encode("ascii"))
    content = body[part.first : part.last + 1]
    headers = with_digests(headers, content, whole=False)
    return 206, replaced(headers, b"content-length", b"%d" % len(content)), content


def _if_range(asked: RawHeaders, headers: RawHeaders) -> bool:
    return if_range_holds(
        combined_value(asked, b"if-range"),
        etag=entity_tag_in(headers),
        last_modified=text_of(first_value(headers, b"last-modified")),
        date=text_of(first_value(headers, b"date")),
    )
