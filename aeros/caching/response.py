"""The cache's part of a response on its way out: ETag, Cache-Status, and 304."""

from __future__ import annotations

from typing import Final

from aeros.exchange import Exchange
from aeros.http.etag import is_not_modified, parse_entity_tag
from aeros.http.fields import combined_value, first_value
from aeros.types import RawHeaders, Scope

# A 304 tells nothing of a body that it does not have (RFC 9110 §15.4.5). The length of the
# client's own copy is not ours to state, so it goes as well.
_OF_CONTENT: Final = frozenset(
    {
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"content-language",
        b"content-range",
        b"transfer-encoding",
    }
)


def labelled(headers: RawHeaders, exchange: Exchange, body: bytes | None) -> RawHeaders:
    """Returns the fields with what the cache has to say.

    Args:
        headers: The response's fields so far.
        exchange: The request's exchange; on a route that is not cached nothing is added.
        body: The whole body, or None for a stream.
    """
    if exchange.cache_status is None:
        return headers
    headers = [*headers, (b"cache-status", exchange.cache_status.render().encode("ascii"))]
    kept = exchange.representation
    # Only the very body that is kept may carry its tag: a hook may have replaced it.
    if kept is not None and body is kept.body and first_value(headers, b"etag") is None:
        headers.append((b"etag", kept.etag.encode("latin-1")))
    return headers


def is_match(scope: Scope, status: int, headers: RawHeaders) -> bool:
    """Tells whether the client has this very response already (RFC 9110 §13.2.2)."""
    if status != 200 or scope["method"] not in ("GET", "HEAD"):
        return False
    asked = scope["headers"]
    if_none_match = combined_value(asked, b"if-none-match")
    if_modified_since = combined_value(asked, b"if-modified-since")
    if if_none_match is None and if_modified_since is None:
        return False
    last_modified = first_value(headers, b"last-modified")
    return is_not_modified(
        if_none_match=if_none_match,
        if_modified_since=if_modified_since,
        etag=parse_entity_tag((first_value(headers, b"etag") or b"").decode("latin-1")),
        last_modified=last_modified.decode("latin-1") if last_modified is not None else None,
    )


def without_content(headers: RawHeaders) -> RawHeaders:
    """Returns the fields of a 304 made from those of the 200 that it stands for."""
    return [(name, value) for name, value in headers if name not in _OF_CONTENT]
