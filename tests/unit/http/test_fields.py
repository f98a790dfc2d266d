"""Operations on header fields and the grammars that values share (RFC 9110 §5)."""

from __future__ import annotations

import time
from calendar import timegm
from email.utils import formatdate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aeros.http.fields import (
    HOP_BY_HOP,
    combined_value,
    end_to_end,
    first_value,
    format_http_date,
    is_field_value,
    is_token,
    parse_delta_seconds,
    parse_http_date,
    replaced,
    split_list,
    with_list_member,
    without,
)
from aeros.types import RawHeaders

EXAMPLE_SECONDS = 784111777.0
"""Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110 §5.6.7."""

MID_2026 = float(timegm((2026, 7, 1, 12, 0, 0)))

HEADERS: RawHeaders = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"c", b"\xe9")]


def test_first_value_is_that_of_the_first_line() -> None:
    """Of several lines the first counts, and an empty value is not an absent field."""
    assert first_value(HEADERS, b"a") == b"1"
    assert first_value([(b"a", b"")], b"a") == b""
    assert first_value(HEADERS, b"d") is None


@pytest.mark.parametrize(
    ("name", "expected"), [(b"a", "1, 3"), (b"b", "2"), (b"c", "\xe9"), (b"d", None), (b"", None)]
)
def test_combined_value_joins_lines_in_order(name: bytes, expected: str | None) -> None:
    """Lines of one name become one latin-1 value; no line becomes None."""
    assert combined_value(HEADERS, name) == expected


def test_combined_value_tells_empty_from_absent() -> None:
    """An empty field is the empty text: Accept-Encoding means something else when empty."""
    assert combined_value([(b"a", b"")], b"a") == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", []),
        (" \t", []),
        (",", []),
        ("foo ,bar,charlie", ["foo", "bar", "charlie"]),
        ("foo , ,bar,charlie", ["foo", "bar", "charlie"]),
        (",   ,", []),
        ("\tfoo\t,\tbar", ["foo", "bar"]),
        ("a b, c", ["a b", "c"]),
        ("\xa0a,b\v", ["\xa0a", "b\v"]),
        ('"a,b",c', ['"a,b"', "c"]),
        ('x="a,b" ; y="c,d", e', ['x="a,b" ; y="c,d"', "e"]),
        (r'"a\",b",c', [r'"a\",b"', "c"]),
        (r'"a\\",b', [r'"a\\"', "b"]),
        ('"",a', ['""', "a"]),
        ('" a ", b', ['" a "', "b"]),
        ('"a\n,b",c', ['"a\n,b"', "c"]),
        ('a, "b, c', ["a", '"b', "c"]),
        ('a"b, c', ['a"b', "c"]),
        ('"a" b"c, d', ['"a" b"c', "d"]),
        (r'"a\", b', [r'"a\"', "b"]),
        ("a\\,b", ["a\\", "b"]),
        ('"', ['"']),
        ('"a",', ['"a"']),
    ],
)
def test_split_list_splits_at_commas_outside_quotes(value: str, expected: list[str]) -> None:
    """Quoted commas stay, escapes are seen, empty elements go, a lone quote hides nothing."""
    assert split_list(value) == expected


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='a",\\ \t', max_size=30))
def test_split_list_loses_only_commas_and_outer_whitespace(value: str) -> None:
    """Whatever the quotes, every other character is in some element, in the same order."""

    def essence(text: str) -> str:
        return text.replace(",", "").replace(" ", "").replace("\t", "")

    assert essence("".join(split_list(value))) == essence(value)


def test_split_list_is_linear_for_hostile_quotes() -> None:
    """64 KiB of quotes and backslashes, which defeat a backtracking expression, take no time."""
    started = time.perf_counter()
    for unit in ('"\\', '\\"', '"', '",', 'a"\\"'):
        split_list(unit * (65536 // len(unit)) + '"')
    assert time.perf_counter() - started < 2


def test_without_drops_every_line_of_the_names() -> None:
    """All lines of the given names go, the order of the others stays, the input is not changed."""
    headers = list(HEADERS)
    assert without(headers, {b"a", b"z"}) == [(b"b", b"2"), (b"c", b"\xe9")]
    assert headers == HEADERS


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (HEADERS, [(b"a", b"new"), (b"b", b"2"), (b"c", b"\xe9")]),
        ([(b"b", b"2"), (b"a", b"1")], [(b"b", b"2"), (b"a", b"new")]),
        ([(b"b", b"2")], [(b"b", b"2"), (b"a", b"new")]),
        ([], [(b"a", b"new")]),
    ],
)
def test_replaced_leaves_one_line_at_the_first_place(headers: RawHeaders, expected: RawHeaders) -> None:
    """One line remains where the first one was; a new one goes to the end."""
    before = list(headers)
    assert replaced(headers, b"a", b"new") == expected
    assert headers == before


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], [(b"vary", b"Accept-Encoding")]),
        ([(b"a", b"1")], [(b"a", b"1"), (b"vary", b"Accept-Encoding")]),
        ([(b"vary", b"Cookie"), (b"a", b"1")], [(b"vary", b"Cookie, Accept-Encoding"), (b"a", b"1")]),
        ([(b"vary", b"accept-encoding")], [(b"vary", b"accept-encoding")]),
        ([(b"vary", b"Cookie,ACCEPT-ENCODING ")], [(b"vary", b"Cookie,ACCEPT-ENCODING ")]),
        ([(b"vary", b"*")], [(b"vary", b"*")]),
        ([(b"vary", b"Cookie, *")], [(b"vary", b"Cookie, *")]),
        ([(b"vary", b"Cookie"), (b"vary", b"*")], [(b"vary", b"Cookie"), (b"vary", b"*")]),
        (
            [(b"vary", b"Cookie"), (b"vary", b"Accept")],
            [(b"vary", b"Cookie"), (b"vary", b"Accept, Accept-Encoding")],
        ),
        (
            [(b"vary", b"accept-encoding"), (b"vary", b"Accept")],
            [(b"vary", b"accept-encoding"), (b"vary", b"Accept")],
        ),
        ([(b"vary", b"")], [(b"vary", b"Accept-Encoding")]),
        ([(b"vary", b"Cookie, ")], [(b"vary", b"Cookie, Accept-Encoding")]),
        ([(b"vary", b"X-Accept-Encoding")], [(b"vary", b"X-Accept-Encoding, Accept-Encoding")]),
        ([(b"vary", b"\xe9")], [(b"vary", b"\xe9, Accept-Encoding")]),
    ],
)
def test_with_list_member_adds_once(headers: RawHeaders, expected: RawHeaders) -> None:
    """A member is added to the last line, unless any line has it or a star."""
    before = list(headers)
    assert with_list_member(headers, b"vary", "Accept-Encoding") == expected
    assert headers == before


@pytest.mark.parametrize("text", ["a", "Accept-Encoding", "!#$%&'*+-.^_`|~09azAZ", "*"])
def test_is_token_takes_tokens(text: str) -> None:
    """Each character of the grammar is taken."""
    assert is_token(text)


@pytest.mark.parametrize(
    "text", ["", *(f"a{char}" for char in '"(),/:;<=>?@[\\]{} \t\r\n\0\x7fé\u0663\u212a'), " a"]
)
def test_is_token_refuses_all_else(text: str) -> None:
    """Delimiters, whitespace, controls, and letters and digits beyond ASCII are refused."""
    assert not is_token(text)


@pytest.mark.parametrize("text", ["", "a", " a\t", "\xff\x80", "~!", 'a; b="c"'])
def test_is_field_value_takes_latin_1(text: str) -> None:
    """Visible ASCII, obs-text, spaces and tabs are taken, and the empty value."""
    assert is_field_value(text)


@pytest.mark.parametrize(
    "text", ["a\r\nb: c", "a\n", "\r", "\0", "\x01", "\x0b", "\x1f", "\x7f", "\u0100", "€", "\ud800"]
)
def test_is_field_value_refuses_what_splits_a_response(text: str) -> None:
    """Line ends, also at the very end, NUL, other controls and non-latin-1 are refused."""
    assert not is_field_value(text)


def test_end_to_end_drops_each_hop_by_hop_field() -> None:
    """None of the ten fields is left, and end-to-end fields are."""
    headers = [(name, b"x") for name in sorted(HOP_BY_HOP)]
    assert len(headers) == 10
    assert end_to_end([(b"etag", b'"x"'), *headers, (b"vary", b"a")]) == [
        (b"etag", b'"x"'),
        (b"vary", b"a"),
    ]
    assert end_to_end([(b"upgrade", b"h2c"), (b"a", b"1")]) == [(b"a", b"1")]


def test_end_to_end_drops_what_connection_names() -> None:
    """Every line of Connection counts, in any case and with empty elements."""
    headers = [
        (b"connection", b"Close, , X-One"),
        (b"x-one", b"1"),
        (b"x-two", b"2"),
        (b"connection", b"x-TWO"),
        (b"x-three", b"3"),
        (b"te", b"trailers"),
    ]
    assert end_to_end(headers) == [(b"x-three", b"3")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("60", 60),
        ("0060", 60),
        ("0" * 20 + "7", 7),
        ("2147483647", 2**31 - 1),
        ("2147483648", 2**31),
        ("2147483649", 2**31),
        ("9999999999", 2**31),
        ("10000000000", 2**31),
        ("9" * 5000, 2**31),
        ("0" * 5000, 0),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        (" 1", None),
        ("1_0", None),
        ("\u0663", None),
        ("\u00b2", None),
        ("0x10", None),
    ],
)
def test_delta_seconds_are_digits_up_to_a_cap(text: str, expected: int | None) -> None:
    """Only ASCII digits are taken, and no length of them overflows (RFC 9111 §1.2.2)."""
    assert parse_delta_seconds(text) == expected


@pytest.mark.parametrize(
    "value",
    ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"],
)
def test_the_three_formats_of_the_rfc_are_one_time(value: str) -> None:
    """The examples of RFC 9110 §5.6.7 stand for the same second."""
    assert parse_http_date(value, MID_2026) == EXAMPLE_SECONDS


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Wed, 31 Dec 1969 23:59:59 GMT", -1.0),
        ("Mon, 01 Jan 0001 00:00:00 GMT", -62135596800.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 253402300799.0),
        ("Thu, 29 Feb 2024 00:00:00 GMT", 1709164800.0),
        ("Tue, 29 Feb 2000 00:00:00 GMT", 951782400.0),
        ("Mon, 06 Nov 1994 08:49:37 GMT", EXAMPLE_SECONDS),
        ("Mon Nov 06 08:49:37 1994", EXAMPLE_SECONDS),
        ("Wed Nov 16 08:49:37 1994", EXAMPLE_SECONDS + 10 * 86400),
        ("Sat, 31 Dec 2016 23:59:60 GMT", 1483228800.0),
    ],
)
def test_valid_dates_become_posix_seconds(value: str, expected: float) -> None:
    """The whole range of years, leap days, leap seconds and wrong names of the day are read."""
    assert parse_http_date(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "0",
        "-1",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37 gmt",
        "Sun, 06 Nov 1994 08:49:37 GMT ",
        "Sun, 06 Nov 1994 08:49:37 GMT\n",
        " Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun,  6 Nov 1994 08:49:37 GMT",
        "Sun, 06  Nov 1994 08:49:37 GMT",
        "Sun, 06 nov 1994 08:49:37 GMT",
        "sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 November 1994 08:49:37 GMT",
        "Xxx, 06 Nov 1994 08:49:37 GMT",
        "06 Nov 1994 08:49:37 GMT",
        "Sunday, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "Sunday, 06-Nov-1994 08:49:37 GMT",
        "Sunday, 6-Nov-94 08:49:37 GMT",
        "Sunday, 31-Feb-94 08:49:37 GMT",
        "Sun Nov 6 08:49:37 1994",
        "Sun Nov  6 08:49:37 1994 GMT",
        "Sun Nov  0 08:49:37 1994",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Tue, 29 Feb 1900 08:49:37 GMT",
        "Sun, 29 Feb 2026 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 06 Nov 1994 08:49 GMT",
        "Sun, \u0660\u0666 Nov 1994 08:49:37 GMT",
        "1994-11-06T08:49:37Z",
        "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        "So, 06 Nov 1994 08:49:37 GMT",
    ],
)
def test_all_other_texts_are_no_date(value: str) -> None:
    """Other zones, formats, spacing, cases and days that no calendar has give None."""
    assert parse_http_date(value, MID_2026) is None


@pytest.mark.parametrize(
    ("rest", "year"),
    [
        ("01-Jan-26 00:00:00", 2026),
        ("01-Jan-27 00:00:00", 2027),
        ("31-Dec-75 23:59:59", 2075),
        ("30-Jun-76 00:00:00", 2076),
        ("01-Jul-76 12:00:00", 2076),
        ("01-Jul-76 12:00:01", 1976),
        ("01-Aug-76 00:00:00", 1976),
        ("01-Jan-77 00:00:00", 1977),
        ("31-Dec-99 23:59:59", 1999),
        ("29-Feb-00 00:00:00", 2000),
    ],
)
def test_two_digits_are_a_year_at_most_fifty_years_ahead(rest: str, year: int) -> None:
    """Seen from July 2026, a time after July 2076 is one of the past century (RFC 9110 §5.6.7)."""
    seconds = parse_http_date(f"Monday, {rest} GMT", MID_2026)
    assert seconds is not None
    assert time.gmtime(seconds).tm_year == year


def test_two_digits_are_read_by_the_clock_by_default() -> None:
    """The year that the clock shows is this one, not that of another century."""
    year = time.gmtime().tm_year
    seconds = parse_http_date(f"Monday, 02-Jan-{year % 100:02} 00:00:00 GMT")
    assert seconds == timegm((year, 1, 2, 0, 0, 0))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (EXAMPLE_SECONDS, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (EXAMPLE_SECONDS + 0.999, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (-0.5, "Wed, 31 Dec 1969 23:59:59 GMT"),
        (-62135596800, "Mon, 01 Jan 0001 00:00:00 GMT"),
        (253402300799.0, "Fri, 31 Dec 9999 23:59:59 GMT"),
    ],
)
def test_a_date_is_written_as_imf_fixdate(seconds: float, expected: str) -> None:
    """Two digits for the day, four for the year, and fractions are cut."""
    assert format_http_date(seconds) == expected


@pytest.mark.parametrize("seconds", [-62135596801, 253402300800, 1e300, float("inf")])
def test_a_year_without_four_digits_can_not_be_written(seconds: float) -> None:
    """A year out of range is one kind of error, however far out."""
    with pytest.raises(OverflowError):
        format_http_date(seconds)


@settings(max_examples=200, deadline=None)
@given(st.integers(-62135596800, 253402300799))
def test_a_written_date_reads_back(seconds: int) -> None:
    """Every second comes back, and is written as the standard library writes it."""
    text = format_http_date(seconds)
    assert parse_http_date(text) == seconds
    # email.utils does not pad years below 1000.
    assert seconds < -30610224000 or text == formatdate(seconds, usegmt=True)


@settings(max_examples=200, deadline=None)
@given(st.text() | st.from_regex(r"\A[A-Z][a-z]+,? [0-9 A-Za-z:-]{5,24} GMT\Z", fullmatch=True), st.text())
def test_no_text_makes_a_parser_raise(value: str, other: str) -> None:
    """Texts of any kind are split, judged and refused without an error."""
    split_list(value)
    parse_http_date(value, MID_2026)
    parse_delta_seconds(value)
    assert not is_token(value) or is_field_value(value)
    assert split_list(f"{value},{other}") is not None
