"""How long a response is fresh and how old it arrives (RFC 9111 §4.2)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aeros.http.cache_control import ResponseDirectives, parse_response_directives
from aeros.http.fields import format_http_date
from aeros.http.freshness import explicit_lifetime, initial_age
from aeros.types import RawHeaders

NOW = 784111777.0
"""Sun, 06 Nov 1994 08:49:37 GMT."""


def at(seconds: float) -> bytes:
    """Returns the HTTP-date that is ``seconds`` after NOW."""
    return format_http_date(NOW + seconds).encode()


def headers_of(*lines: tuple[str, bytes]) -> RawHeaders:
    """Returns lines as ASGI carries them."""
    return [(name.encode(), value) for name, value in lines]


@pytest.mark.parametrize(
    ("cache_control", "expected"),
    [
        ("s-maxage=5, max-age=60", 5.0),
        ("s-maxage=0, max-age=60", 0.0),
        ("s-maxage=x, max-age=60", 0.0),
        ("max-age=60", 60.0),
        ("max-age=0", 0.0),
        ("max-age=-1", 0.0),
        ("public", 100.0),
        ("stale-while-revalidate=60", 100.0),
    ],
)
def test_s_maxage_precedes_max_age_precedes_expires(cache_control: str, expected: float) -> None:
    """The first of the three that is stated counts, also when it says 0 (RFC 9111 §4.2.1)."""
    headers = headers_of(("date", at(0)), ("expires", at(100)))
    assert explicit_lifetime(headers, parse_response_directives(cache_control), NOW) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], None),
        ([("date", at(0))], None),
        ([("expires", at(60)), ("date", at(0))], 60.0),
        ([("expires", at(60)), ("date", at(-40))], 100.0),
        ([("expires", at(60)), ("date", at(10))], 50.0),
        ([("expires", at(60))], 60.0),
        ([("expires", at(60)), ("date", b"yesterday")], 60.0),
        ([("expires", at(-60))], 0.0),
        ([("expires", at(0)), ("date", at(0))], 0.0),
        ([("expires", at(60)), ("date", at(100))], 0.0),
        ([("expires", b"0"), ("date", at(0))], 0.0),
        ([("expires", b"-1")], 0.0),
        ([("expires", b"")], 0.0),
        ([("expires", b"\xff")], 0.0),
        ([("expires", b"Thu, 01 Dec 1994 16:00:00 GMT"), ("date", at(0))], 2185823.0),
        ([("expires", at(60)), ("expires", at(60)), ("date", at(0))], 60.0),
        ([("expires", at(60)), ("expires", at(61)), ("date", at(0))], 0.0),
        ([("expires", at(60)), ("expires", b"0"), ("date", at(0))], 0.0),
        ([("expires", b"Sunday, 06-Nov-94 08:50:37 GMT"), ("date", b"Sun Nov  6 08:49:37 1994")], 60.0),
    ],
)
def test_expires_counts_from_date(lines: list[tuple[str, bytes]], expected: float | None) -> None:
    """Expires less Date, ``now`` for no valid Date; unreadable or contradictory is stale (§5.3)."""
    assert explicit_lifetime(headers_of(*lines), ResponseDirectives(), NOW) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], 0.0),
        ([("age", b"7")], 7.0),
        ([("age", b"7"), ("date", at(-3))], 7.0),
        ([("age", b"3"), ("date", at(-7))], 7.0),
        ([("date", at(-7))], 7.0),
        ([("date", at(7))], 0.0),
        ([("age", b"2"), ("date", at(7))], 2.0),
        ([("age", b"-7")], 0.0),
        ([("age", b"7.5")], 0.0),
        ([("age", b"")], 0.0),
        ([("age", b"old"), ("date", at(-3))], 3.0),
        ([("age", b"7"), ("date", b"yesterday")], 7.0),
        ([("age", b"7, 9")], 7.0),
        ([("age", b"7 , x")], 7.0),
        ([("age", b"x, 9")], 0.0),
        ([("age", b"7"), ("age", b"9")], 7.0),
        ([("age", b"99999999999999999999")], float(2**31)),
        ([("age", b"\xb2")], 0.0),
    ],
)
def test_initial_age_is_the_larger_of_age_and_the_time_since_date(
    lines: list[tuple[str, bytes]], expected: float
) -> None:
    """Age or the apparent age, never negative; invalid values are ignored (RFC 9111 §4.2.3, §5.1)."""
    assert initial_age(headers_of(*lines), NOW) == expected


def test_initial_age_keeps_fractions_of_now() -> None:
    """A clock with fractions gives an age with fractions."""
    assert initial_age([(b"date", at(-3))], NOW + 0.25) == 3.25


@settings(max_examples=200, deadline=None)
@given(st.binary(), st.binary(), st.binary())
def test_no_bytes_make_it_raise(expires: bytes, date: bytes, age: bytes) -> None:
    """Any bytes in the three fields give numbers that are not negative."""
    headers = [(b"expires", expires), (b"date", date), (b"age", age)]
    lifetime = explicit_lifetime(headers, ResponseDirectives(), NOW)
    assert lifetime is not None
    assert lifetime >= 0
    assert initial_age(headers, NOW) >= 0
