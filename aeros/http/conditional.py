"""Conditional requests: is this the response that the client has already? (RFC 9110 §13)."""

from __future__ import annotations

from typing import Final

from aeros.http.etag import EntityTag, is_not_modified, parse_entity_tag, parse_entity_tags
from aeros.http.fields import combined_value, first_value, replaced
from aeros.types import RawHeaders

# A 304 tells nothing of a body that it does not have (RFC 9110 §15.4.5). The length of the
# client's own copy is not ours to state, so it goes as well.
_OF_CONTENT: Final = frozenset(
    {
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"content-language",
        b"content-range",
        b"content-digest",
        b"transfer-encoding",
        b"accept-ranges",
    }
)


def is_match(method: str, asked: RawHeaders, status: int, headers: RawHeaders) -> bool:
    """Tells whether the client has this very response already (RFC 9110 §13.2.2).

    Args:
        method: The request's method; only GET and HEAD are answered with 304.
        asked: The request's fields.
        status: The response's status; only a 200 is.
        headers: The response's fields, with the tag of its content coding.
    """
    if status != 200 or method not in ("GET", "HEAD"):
        return False
    if_none_match = combined_value(asked, b"if-none-match")
    if_modified_since = combined_value(asked, b"if-modified-since")
    if if_none_match is None and if_modified_since is None:
        return False
    return is_not_modified(
        if_none_match=if_none_match,
        if_modified_since=if_modified_since,
        etag=entity_tag_in(headers),
        last_modified=text_of(first_value(headers, b"last-modified")),
    )


def entity_tag_in(headers: RawHeaders) -> EntityTag | None:
    """Returns the entity tag that a response carries; None without a valid one."""
    return parse_entity_tag((first_value(headers, b"etag") or b"").decode("latin-1"))


def without_content(headers: RawHeaders) -> RawHeaders:
    """Returns the fields of a 304 made from those of the 200 that it stands for."""
    return [(name, value) for name, value in headers if name not in _OF_CONTENT]


def is_content_field(name: bytes) -> bool:
    """Tells whether a field, in lower case, is one that a 304 does not have."""
    return name in _OF_CONTENT


def with_known_tag(asked: RawHeaders, headers: RawHeaders) -> RawHeaders:
    """Returns the fields of a 304 with its tag weak, where the client has it weak only.

    The tag of a coded stream is the application's own, weakened, which the application does not
    know. A strong one in the 304 would stand for another stored response (RFC 9111 §4.3.4).

    Args:
        asked: The request's fields.
        headers: The fields of a 304 that an application made.
    """
    tag, stated = entity_tag_in(headers), combined_value(asked, b"if-none-match")
    if tag is None or stated is None:
        return headers
    known, weak = parse_entity_tags(stated), EntityTag(tag.opaque, weak=True)
    if known == "*" or tag in known or weak not in known:
        return headers
    return replaced(headers, b"etag", str(weak).encode("latin-1"))


def text_of(value: bytes | None) -> str | None:
    """Returns a field's value as text."""
    return None if value is None else value.decode("latin-1")
