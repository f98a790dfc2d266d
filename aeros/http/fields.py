"""Header fields as ASGI carries them, and the small grammars their values share (RFC 9110 §5)."""

from __future__ import annotations

import re
import time
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from math import floor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from aeros.types import RawHeaders

OWS = " \t"
"""Optional whitespace (RFC 9110 §5.6.3), to be given to ``str.strip``."""

NO_NAME = re.compile(rb'[\x00-\x1f\x7f()<>@,;:\\\[\]={} \t"]')
"""Finds what no field's name may have (RFC 9110 §5.1)."""

NO_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""Finds what no field's value may have (RFC 9110 §5.5)."""

HOP_BY_HOP: frozenset[bytes] = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields that concern one connection or one proxy only (RFC 9110 §7.6.1, RFC 9111 §3.1)."""

GREATEST_DELTA_SECONDS = 2**31
"""What a larger number of seconds counts as (RFC 9111 §1.2.2)."""

_TOKEN_CHARACTERS = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_FIELD_VALUE = re.compile("[\t\x20-\x7e\x80-\xff]*")

# An element and what ends it: a comma, the end, or a quote that nothing closes. The quantifiers
# are possessive, so no input makes the expression go back over what it has read.
_ELEMENT = re.compile(r'((?:[^",]++|"(?:[^"\\]++|\\.)*+")*+)(,|"|\Z)', re.DOTALL)

# The names are those of the RFC, whatever the locale.
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SHORT_DAY = f"(?:{'|'.join(_WEEKDAYS)})"
_LONG_DAY = "(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)"
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_DAY = "(?P<day>[0-9]{2})"
_YEAR = "(?P<year>[0-9]{4})"
_TIME = "(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_IMF_FIXDATE = re.compile(f"{_SHORT_DAY}, {_DAY} {_MONTH} {_YEAR} {_TIME} GMT")
_RFC850_DATE = re.compile(f"{_LONG_DAY}, {_DAY}-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT")
_ASCTIME_DATE = re.compile(f"{_SHORT_DAY} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} {_YEAR}")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_ORDINAL = _EPOCH.toordinal()


def first_value(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """Returns the value of the first line called ``name`` (in lower case), or None."""
    for line_name, value in headers:
        if line_name == name:
            return value
    return None


def combined_value(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    """Returns the values of all lines called ``name`` as one, joined with ``", "``.

    The bytes are read as latin-1, so each character stands for one byte. None means that the
    field is absent, which is not the same as an empty value (RFC 9110 §5.3).
    """
    values = [value for line_name, value in headers if line_name == name]
    return b", ".join(values).decode("latin-1") if values else None


def split_list(value: str) -> list[str]:
    """Returns the elements of a comma-separated list, without empty ones and outer whitespace.

    Commas in quoted strings do not split; a quote that is never closed is an ordinary character,
    so that it can not hide the elements after it (RFC 9110 §5.6.1, §5.6.4).
    """
    elements = _split_outside_quotes(value) if '"' in value else value.split(",")
    return [stripped for element in elements if (stripped := element.strip(OWS))]


def _split_outside_quotes(value: str) -> list[str]:
    elements: list[str] = []
    for match in _ELEMENT.finditer(value):
        if match[2] == '"':
            return elements + value[match.start() :].split(",")
        elements.append(match[1])
    return elements


def is_sendable(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tells whether all lines have a name and a value that a server sends (RFC 9110 §5.1, §5.5)."""
    return all(name and not NO_NAME.search(name) and not NO_VALUE.search(value) for name, value in headers)


def steers_connection(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tells whether any line says how this one message is sent, or whether its connection ends."""
    return any(name == b"connection" or name == b"transfer-encoding" for name, _ in headers)


def without(headers: Iterable[tuple[bytes, bytes]], names: Container[bytes]) -> RawHeaders:
    """Returns the lines that are not called any of ``names`` (in lower case)."""
    return [line for line in headers if line[0] not in names]


def replaced(headers: Iterable[tuple[bytes, bytes]], name: bytes, value: bytes) -> RawHeaders:
    """Returns ``headers`` with exactly one line called ``name``, where the first was or at the end."""
    lines: RawHeaders = []
    missing = True
    for line in headers:
        if line[0] != name:
            lines.append(line)
        elif missing:
            lines.append((name, value))
            missing = False
    if missing:
        lines.append((name, value))
    return lines


def with_list_member(headers: Iterable[tuple[bytes, bytes]], name: bytes, member: str) -> RawHeaders:
    """Returns ``headers`` with ``member`` in the comma-separated list ``name``, e.g. in Vary.

    Nothing changes where the list has the member in any case, or has ``*``, which covers all
    (RFC 9110 §12.5.5). Else the member is appended to the last line of that name, or to a new one.
    """
    lines = list(headers)
    places = [index for index, line in enumerate(lines) if line[0] == name]
    if not places:
        lines.append((name, member.encode("latin-1")))
        return lines
    if len(places) == 1 and lines[places[0]][1] == member.encode("latin-1"):
        return lines
    present = {
        element.lower() for index in places for element in split_list(lines[index][1].decode("latin-1"))
    }
    if "*" not in present and member.lower() not in present:
        # Empty elements at the end are legal, but no reason to write one more comma.
        value = lines[places[-1]][1].rstrip(b" \t,")
        added = member.encode("latin-1")
        lines[places[-1]] = (name, value + b", " + added if value else added)
    return lines


def is_token(text: str) -> bool:
    """Tells whether ``text`` is a token, e.g. a field name or a coding (RFC 9110 §5.6.2)."""
    return bool(text) and _TOKEN_CHARACTERS.issuperset(text)


def is_field_value(text: str) -> bool:
    """Tells whether ``text`` can be sent as a value: latin-1 without controls (RFC 9110 §5.5).

    Tabs and the bytes from 0x80 on (obs-text) are allowed, so is whitespace on the outside.
    """
    return _FIELD_VALUE.fullmatch(text) is not None


def end_to_end(headers: Sequence[tuple[bytes, bytes]]) -> RawHeaders:
    """Returns the lines that may be stored and passed on to another connection.

    Drops ``HOP_BY_HOP`` and every field that Connection names (RFC 9110 §7.6.1, RFC 9111 §3.1).
    """
    connection = combined_value(headers, b"connection")
    if connection is None:
        return without(headers, HOP_BY_HOP)
    named = {option.lower().encode("latin-1") for option in split_list(connection)}
    return without(headers, HOP_BY_HOP | named)


def parse_delta_seconds(text: str) -> int | None:
    """Returns a non-negative whole number of seconds, at most 2**31; None for anything else.

    The source is RFC 9111 §1.2.2.
    """
    if not (text.isascii() and text.isdigit()):
        return None
    # int() refuses very long numbers, and the cap has ten digits.
    digits = text.lstrip("0")
    return GREATEST_DELTA_SECONDS if len(digits) > 10 else min(int(digits or "0"), GREATEST_DELTA_SECONDS)


def parse_http_date(value: str, now: float | None = None) -> float | None:
    """Returns the POSIX seconds of an HTTP-date, or None where ``value`` is not exactly one.

    Takes IMF-fixdate, RFC 850 and asctime dates in GMT. The day of the week must be a name of one,
    but not the right one. A year of two digits that is more than 50 years after ``now`` (POSIX
    seconds, by default the clock) belongs to the past (RFC 9110 §5.6.7).
    """
    match = _IMF_FIXDATE.fullmatch(value) or _ASCTIME_DATE.fullmatch(value) or _RFC850_DATE.fullmatch(value)
    if match is None:
        return None
    month = _MONTHS.index(match["month"]) + 1
    day, hour, minute, second = (int(match[name]) for name in ("day", "hour", "minute", "second"))
    # 60 is a leap second, which POSIX time counts as the first second of the next minute.
    if hour > 23 or minute > 59 or second > 60:
        return None
    year = int(match["year"])
    if match.re is _RFC850_DATE:
        year = _full_year(year, (month, day, hour, minute, second), time.time() if now is None else now)
    try:
        days = date(year, month, day).toordinal() - _EPOCH_ORDINAL
    except ValueError:
        return None
    return float(days * 86400 + hour * 3600 + minute * 60 + second)


def _full_year(two_digits: int, rest: tuple[int, ...], now: float) -> int:
    current = time.gmtime(now)
    latest = current.tm_year + 50
    year = latest - (latest - two_digits) % 100
    is_later = rest > (current.tm_mon, current.tm_mday, current.tm_hour, current.tm_min, current.tm_sec)
    return year - 100 if year == latest and is_later else year


def format_http_date(seconds: float) -> str:
    """Returns POSIX ``seconds`` as an IMF-fixdate, rounded down (RFC 9110 §5.6.7).

    Raises:
        OverflowError: The year would not be one from 1 to 9999.
    """
    return _imf_fixdate(floor(seconds))


@lru_cache(8)  # most are of the second in which they are asked for
def _imf_fixdate(seconds: int) -> str:
    moment = _EPOCH + timedelta(seconds=seconds)
    return (
        f"{_WEEKDAYS[moment.weekday()]}, {moment.day:02} {_MONTHS[moment.month - 1]} {moment.year:04}"
        f" {moment.hour:02}:{moment.minute:02}:{moment.second:02} GMT"
    )
