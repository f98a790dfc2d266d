"""The one range of bytes that a request asks for (RFC 9110 §13.1.5, §14)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from aeros.http.etag import EntityTag, parse_entity_tag, strong_match
from aeros.http.fields import OWS, parse_http_date

_RANGE = re.compile("([0-9]*+)-([0-9]*+)")

_STRONG_AFTER_SECONDS = 60
"""How much later than Last-Modified a Date must be: §8.8.2.2 asks for one second, older RFCs for these."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes from ``first`` to ``last``, both included, counted from 0.

    Raises:
        ValueError: No range is from ``first`` to ``last``.
    """

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last:
            msg = f"no range goes from {self.first} to {self.last}"
            raise ValueError(msg)

    def content_range(self, length: int) -> str:
        """Returns the value of Content-Range for this part of ``length`` bytes, e.g. ``bytes 0-4/10``."""
        return f"bytes {self.first}-{self.last}/{length}"


def parse_range(value: str | None, length: int) -> ByteRange | Literal["unsatisfiable"] | None:
    """Returns the range of a representation of ``length`` bytes that a Range value asks for.

    None means to send the whole: the field is absent, malformed, or in another unit; it asks for
    several ranges, which one part can not answer; or for the end of no bytes, which is all of them.
    ``"unsatisfiable"`` is what 416 answers. No text raises (RFC 9110 §14.1.2, §14.2).
    """
    if value is None:
        return None
    unit, _, ranges = value.strip(OWS).partition("=")
    if unit.lower() != "bytes":
        return None
    # Whitespace surrounds commas only, so what stands before the first element makes it malformed.
    first, *others = ranges.split(",")
    elements = [first.rstrip(OWS), *(element.strip(OWS) for element in others)]
    present = [element for element in elements if element]
    match = _RANGE.fullmatch(present[0]) if len(present) == 1 else None
    return None if match is None else _resolved(match[1], match[2], length)


def _resolved(first: str, last: str, length: int) -> ByteRange | Literal["unsatisfiable"] | None:
    if not first:
        return _suffix(last, length) if last else None
    if last and _magnitude(first) > _magnitude(last):
        return None
    start = _number(first, length)
    if start >= length:
        return "unsatisfiable"
    return ByteRange(start, _number(last, length - 1) if last else length - 1)


def _suffix(digits: str, length: int) -> ByteRange | Literal["unsatisfiable"] | None:
    wanted = _number(digits, length or 1)
    if wanted == 0:
        return "unsatisfiable"
    return ByteRange(length - wanted, length - 1) if length else None


def _magnitude(digits: str) -> tuple[int, str]:
    """Orders numbers of any length without int(), which refuses long ones and is slow on them."""
    significant = digits.lstrip("0")
    return len(significant), significant


def _number(digits: str, greatest: int) -> int:
    """Returns the number, or ``greatest`` where it is larger."""
    size, significant = _magnitude(digits)
    return greatest if (size, significant) > _magnitude(str(greatest)) else int(significant or "0")


def if_range_holds(
    value: str | None, *, etag: EntityTag | None, last_modified: str | None, date: str | None
) -> bool:
    """Tells whether an If-Range value is that of this representation, so that Range counts.

    The others are the response's fields, None where absent. A tag must match strongly. A date must
    be that of Last-Modified, neither earlier nor later, and Date a minute after it: until then the
    content may have changed twice within one second (RFC 9110 §8.8.2.2, §13.1.5).
    """
    if value is None:
        return True
    value = value.strip(OWS)
    tag = parse_entity_tag(value)
    if tag is not None:
        return etag is not None and strong_match(tag, etag)
    stated = parse_http_date(value)
    modified = None if last_modified is None else parse_http_date(last_modified)
    sent = None if date is None else parse_http_date(date)
    if stated is None or modified is None or sent is None:
        return False
    return stated == modified and sent - modified >= _STRONG_AFTER_SECONDS
