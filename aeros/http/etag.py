"""Entity tags and the conditional requests that carry them (RFC 9110 §8.8.3, §13)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from aeros.http.fields import OWS, parse_http_date

_OPAQUE = re.compile("[\x21\x23-\x7e\x80-\xff]*")

# A backslash is an ordinary character in an entity tag, so split_list would see other quotes.
# A quote that nothing closes takes the rest: in doubt, the client gets the whole response.
_MEMBER = re.compile(r'(?:[^",]++|"[^"]*+"?+)++')


@dataclass(frozen=True, slots=True)
class EntityTag:
    """A validator; ``str`` of it is the value to send in ETag (RFC 9110 §8.8.3).

    Raises:
        ValueError: ``opaque`` has a character that no entity tag can have, e.g. a quote or a space.
    """

    opaque: str
    weak: bool = False

    def __post_init__(self) -> None:
        if _OPAQUE.fullmatch(self.opaque) is None:
            msg = f"no entity tag can have the opaque part {self.opaque!r}"
            raise ValueError(msg)

    def __str__(self) -> str:
        return f'W/"{self.opaque}"' if self.weak else f'"{self.opaque}"'


def parse_entity_tag(text: str) -> EntityTag | None:
    """Returns the one entity tag that ``text`` is, or None; ``W/`` counts in upper case only."""
    text = text.strip(OWS)
    weak = text.startswith("W/")
    quoted = text[2:] if weak else text
    if len(quoted) < 2 or quoted[0] != '"' or quoted[-1] != '"':
        return None
    opaque = quoted[1:-1]
    return EntityTag(opaque, weak) if _OPAQUE.fullmatch(opaque) else None


def parse_entity_tags(text: str) -> list[EntityTag] | Literal["*"]:
    """Returns the tags of an If-None-Match or If-Match value, or ``"*"`` where it is just that.

    Commas within the quotes belong to the tag. Members that are not tags are ignored, also a ``*``
    among others; no text raises (RFC 9110 §13.1.1, §13.1.2).
    """
    if text.strip(OWS) == "*":
        return "*"
    parsed = (parse_entity_tag(member[0]) for member in _MEMBER.finditer(text))
    return [tag for tag in parsed if tag is not None]


def weak_match(a: EntityTag, b: EntityTag) -> bool:
    """Tells whether the tags are the same, weak or not: what If-None-Match asks (RFC 9110 §8.8.3.2)."""
    return a.opaque == b.opaque


def strong_match(a: EntityTag, b: EntityTag) -> bool:
    """Tells whether the tags are the same and neither is weak: what If-Match asks (RFC 9110 §8.8.3.2)."""
    return a.opaque == b.opaque and not (a.weak or b.weak)


def entity_tag_of(body: bytes) -> EntityTag:
    """Returns a strong tag that is the same for the same bytes, in every process (SHA-256, 96 bits)."""
    # Of the sound ones the fastest where the processor has instructions for it, as all of today have.
    return EntityTag(sha256(body, usedforsecurity=False).hexdigest()[:24])


def for_coding(tag: EntityTag, coding: str) -> EntityTag:
    """Returns the tag of the same content under a content coding, e.g. ``"x"`` as ``"x-gzip"``.

    A strong tag must differ between codings, because the bytes do (RFC 9110 §8.8.3.3); a weak one
    stays as it is.
    """
    return tag if tag.weak else EntityTag(f"{tag.opaque}-{coding}")


def is_not_modified(
    *,
    if_none_match: str | None,
    if_modified_since: str | None,
    etag: EntityTag | None,
    last_modified: str | None,
) -> bool:
    """Tells whether a GET or HEAD is to be answered with 304: the client has this representation.

    The first two are the request's fields, the others the response's; None where absent. Tags are
    compared weakly, ``*`` matches any representation. If-Modified-Since counts only without
    If-None-Match, and only where both dates are valid (RFC 9110 §13.1.2, §13.1.3, §13.2.2).
    """
    if if_none_match is not None:
        return _matches_any(if_none_match, etag)
    if if_modified_since is None or last_modified is None:
        return False
    since = parse_http_date(if_modified_since)
    modified = parse_http_date(last_modified)
    return since is not None and modified is not None and modified <= since


def _matches_any(if_none_match: str, etag: EntityTag | None) -> bool:
    tags = parse_entity_tags(if_none_match)
    if tags == "*":
        return True
    return etag is not None and any(weak_match(tag, etag) for tag in tags)
