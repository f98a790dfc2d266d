"""What a Cache-Control value says about a response (RFC 9111 §5.2), read and written."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, cast

import http_sf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aeros.http.cache_control import (
    ResponseDirectives,
    find_contradiction,
    parse_response_directives,
    render_response_directives,
)

NOTHING = ResponseDirectives()

SECONDS = st.none() | st.integers(0, 2**31)
NUMBERS = ("max_age", "s_maxage", "stale_while_revalidate", "stale_if_error")
ANY_DIRECTIVES: st.SearchStrategy[ResponseDirectives] = st.fixed_dictionaries(
    {field.name: SECONDS if field.name in NUMBERS else st.booleans() for field in fields(ResponseDirectives)}
).map(lambda stated: cast(Any, ResponseDirectives)(**stated))


@pytest.mark.parametrize("value", [None, "", " , ", "max-stale=5", 'ext="no-store, private"', "xno-store"])
def test_nothing_is_stated_by_absent_or_unknown_directives(value: str | None) -> None:
    """Unknown names, and known ones inside the quotes of another, state nothing (RFC 9111 §5.2.3)."""
    assert parse_response_directives(value) == NOTHING


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("no-store", ResponseDirectives(no_store=True)),
        ("no-cache", ResponseDirectives(no_cache=True)),
        ("private", ResponseDirectives(private=True)),
        ("public", ResponseDirectives(public=True)),
        ("must-revalidate", ResponseDirectives(must_revalidate=True)),
        ("proxy-revalidate", ResponseDirectives(proxy_revalidate=True)),
        ("no-transform", ResponseDirectives(no_transform=True)),
        ("immutable", ResponseDirectives(immutable=True)),
        ("must-understand", ResponseDirectives(must_understand=True)),
        ("max-age=60", ResponseDirectives(max_age=60)),
        ("s-maxage=60", ResponseDirectives(s_maxage=60)),
        ("stale-while-revalidate=60", ResponseDirectives(stale_while_revalidate=60)),
        ("stale-if-error=60", ResponseDirectives(stale_if_error=60)),
        ("NO-STORE, Max-Age=1", ResponseDirectives(no_store=True, max_age=1)),
        (
            "public,max-age=604800 ,\timmutable",
            ResponseDirectives(public=True, max_age=604800, immutable=True),
        ),
        (
            "max-age=600, stale-while-revalidate=30, stale-if-error=1200",
            ResponseDirectives(max_age=600, stale_while_revalidate=30, stale_if_error=1200),
        ),
        ("max-age=0, must-revalidate", ResponseDirectives(max_age=0, must_revalidate=True)),
        ('ext="a, no-store", max-age=5', ResponseDirectives(max_age=5)),
    ],
)
def test_each_directive_is_read(value: str, expected: ResponseDirectives) -> None:
    """Each name sets its own field and no other, in any case and spacing."""
    assert parse_response_directives(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('no-cache="set-cookie, x-a"', ResponseDirectives(no_cache=True)),
        ('private="x-a", max-age=60', ResponseDirectives(private=True, max_age=60)),
        ("private=x-a", ResponseDirectives(private=True)),
        ('no-cache=""', ResponseDirectives(no_cache=True)),
        ('private = "x-a"', ResponseDirectives(private=True)),
        ("no-store=1", ResponseDirectives(no_store=True)),
        ('private="x-a, no-store', ResponseDirectives(private=True, no_store=True)),
        ('ext="x, no-store', ResponseDirectives(no_store=True)),
    ],
)
def test_arguments_do_not_weaken_a_flag(value: str, expected: ResponseDirectives) -> None:
    """A qualified, malformed or badly quoted restriction restricts the whole response."""
    assert parse_response_directives(value) == expected


@pytest.mark.parametrize(
    ("argument", "seconds"),
    [
        ("=60", 60),
        ('="60"', 60),
        ("=0", 0),
        ("=2147483648", 2**31),
        ("=99999999999999999999", 2**31),
        ('="99999999999999999999"', 2**31),
        ("=" + "9" * 5000, 2**31),
    ],
)
@pytest.mark.parametrize("name", ["max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"])
def test_a_number_is_read_bare_or_quoted_and_capped(name: str, argument: str, seconds: int) -> None:
    """Both forms of an argument are the same number, at most 2**31 (RFC 9111 §1.2.2)."""
    directives = parse_response_directives(name + argument)
    assert getattr(directives, name.replace("-", "_")) == seconds


@pytest.mark.parametrize(
    "argument",
    [
        "",
        "=",
        "=-1",
        "=+1",
        "=1.5",
        "=abc",
        "=60s",
        "='60'",
        '="60',
        '=60"',
        '="',
        '=""',
        '="-1"',
        '=" 60"',
        "= 60",
        " =60",
        "=\u0666\u0660",
        "=60;x",
        "=0x1",
    ],
)
def test_an_invalid_number_is_stale_or_not_stated(argument: str) -> None:
    """A lifetime that can not be read is 0 (RFC 9111 §4.2.1), leave to serve stale is not given."""
    assert parse_response_directives(f"max-age{argument}") == ResponseDirectives(max_age=0)
    assert parse_response_directives(f"s-maxage{argument}") == ResponseDirectives(s_maxage=0)
    assert parse_response_directives(f"stale-while-revalidate{argument}") == NOTHING
    assert parse_response_directives(f"stale-if-error{argument}") == NOTHING


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("max-age=60, max-age=30", ResponseDirectives(max_age=30)),
        ("max-age=30, MAX-AGE=60", ResponseDirectives(max_age=30)),
        ("max-age=60, max-age=x", ResponseDirectives(max_age=0)),
        ("s-maxage=9, s-maxage=8, max-age=10", ResponseDirectives(s_maxage=8, max_age=10)),
        ("stale-if-error=5, stale-if-error=4", ResponseDirectives(stale_if_error=4)),
        ("stale-if-error=5, stale-if-error=x", ResponseDirectives(stale_if_error=5)),
    ],
)
def test_of_duplicates_the_smallest_counts(value: str, expected: ResponseDirectives) -> None:
    """Whatever the order, the response is not kept longer than its strictest statement."""
    assert parse_response_directives(value) == expected


@settings(max_examples=200, deadline=None)
@given(
    st.text()
    | st.lists(
        st.sampled_from(["max-age", "s-maxage", "stale-if-error", "=", '"', ",", "\\", " ", "-1", "7"])
    ).map("".join)
)
def test_no_text_makes_it_raise(value: str) -> None:
    """Any text gives directives, and no number is ever below 0 or above the cap."""
    directives = parse_response_directives(value)
    for seconds in (directives.max_age, directives.s_maxage, directives.stale_if_error):
        assert seconds is None or 0 <= seconds <= 2**31


# Writing


@pytest.mark.parametrize(
    ("directives", "expected"),
    [
        (NOTHING, ""),
        (ResponseDirectives(max_age=60, public=True), "public, max-age=60"),
        (ResponseDirectives(max_age=0), "max-age=0"),
        (ResponseDirectives(max_age=2**31), "max-age=2147483648"),
        (ResponseDirectives(no_store=True), "no-store"),
        (
            ResponseDirectives(no_transform=True, s_maxage=1, max_age=0, no_cache=True, private=True),
            "private, no-cache, max-age=0, s-maxage=1, no-transform",
        ),
        (
            ResponseDirectives(must_understand=True, no_store=True, proxy_revalidate=True),
            "no-store, must-understand, proxy-revalidate",
        ),
        (
            ResponseDirectives(stale_if_error=2, immutable=True, stale_while_revalidate=1, max_age=3),
            "max-age=3, immutable, stale-while-revalidate=1, stale-if-error=2",
        ),
        (ResponseDirectives(must_revalidate=True, max_age=5), "max-age=5, must-revalidate"),
    ],
)
def test_what_is_stated_is_written_in_one_order(directives: ResponseDirectives, expected: str) -> None:
    """Who may store it, for how long, and what then; a 0 is stated, a False is not."""
    assert render_response_directives(directives) == expected


@given(ANY_DIRECTIVES)
def test_what_is_written_is_read_back(directives: ResponseDirectives) -> None:
    """Every directive survives, and none comes to it."""
    assert parse_response_directives(render_response_directives(directives)) == directives


@given(ANY_DIRECTIVES.filter(lambda directives: directives != NOTHING))
def test_what_is_written_is_a_structured_dictionary(directives: ResponseDirectives) -> None:
    """A CDN's strict parser sees True for each flag and an integer for each number (RFC 9213 §2.1)."""
    parsed = http_sf.parse(render_response_directives(directives).encode(), tltype="dictionary")
    found = {
        name: repr(value) for name, (value, _) in cast("dict[str, tuple[object, object]]", parsed).items()
    }
    values = {field.name: repr(getattr(directives, field.name)) for field in fields(directives)}
    stated = {
        name.replace("_", "-"): value for name, value in values.items() if value not in ("None", "False")
    }
    assert found == stated


# Contradictions


@pytest.mark.parametrize(
    ("directives", "wrong", "named"),
    [
        (ResponseDirectives(private=True, public=True), "public", "private"),
        (ResponseDirectives(private=True, s_maxage=0), "s_maxage", "private"),
        (ResponseDirectives(private=True, proxy_revalidate=True), "proxy_revalidate", "private"),
        (ResponseDirectives(no_cache=True, immutable=True, max_age=1), "immutable", "no_cache"),
        (
            ResponseDirectives(no_cache=True, stale_while_revalidate=0),
            "stale_while_revalidate",
            "no_cache",
        ),
        (ResponseDirectives(no_cache=True, stale_if_error=1), "stale_if_error", "no_cache"),
        (
            ResponseDirectives(must_revalidate=True, stale_while_revalidate=1),
            "stale_while_revalidate",
            "must_revalidate",
        ),
        (ResponseDirectives(must_revalidate=True, stale_if_error=1), "stale_if_error", "must_revalidate"),
        (ResponseDirectives(no_store=True, public=True), "public", "no_store"),
        (ResponseDirectives(no_store=True, max_age=1), "max_age", "no_store"),
        (ResponseDirectives(no_store=True, s_maxage=0), "s_maxage", "no_store"),
        (ResponseDirectives(no_store=True, immutable=True), "immutable", "no_store"),
        (
            ResponseDirectives(no_store=True, stale_while_revalidate=1),
            "stale_while_revalidate",
            "no_store",
        ),
        (ResponseDirectives(no_store=True, stale_if_error=1), "stale_if_error", "no_store"),
        (ResponseDirectives(no_store=True, must_revalidate=True), "must_revalidate", "no_store"),
        (ResponseDirectives(no_store=True, proxy_revalidate=True), "proxy_revalidate", "no_store"),
        (ResponseDirectives(must_understand=True, max_age=1), "must_understand", "no_store"),
        (ResponseDirectives(immutable=True), "immutable", "max_age"),
        (ResponseDirectives(immutable=True, max_age=0), "immutable", "max_age"),
        (ResponseDirectives(immutable=True, s_maxage=0), "immutable", "max_age"),
    ],
)
def test_a_contradiction_names_both_directives_and_its_source(
    directives: ResponseDirectives, wrong: str, named: str
) -> None:
    """What to change, what it can not stand beside or lacks, and where that is written."""
    found = find_contradiction(directives)
    assert found is not None
    assert found.directive == wrong
    assert named in found.cure
    assert "(RFC " in found.cure


@pytest.mark.parametrize(
    "directives",
    [
        NOTHING,
        ResponseDirectives(no_store=True),
        ResponseDirectives(no_store=True, max_age=0),
        ResponseDirectives(no_store=True, no_cache=True, private=True, no_transform=True),
        ResponseDirectives(no_store=True, must_understand=True),
        ResponseDirectives(no_store=True, must_understand=True, max_age=60, public=True, stale_if_error=1),
        ResponseDirectives(no_cache=True, max_age=60),
        ResponseDirectives(no_cache=True, private=True),
        ResponseDirectives(private=True, max_age=60, must_revalidate=True),
        ResponseDirectives(private=True, max_age=60, immutable=True),
        ResponseDirectives(public=True, s_maxage=60, immutable=True),
        ResponseDirectives(s_maxage=60, stale_while_revalidate=60, stale_if_error=60),
        ResponseDirectives(proxy_revalidate=True, stale_while_revalidate=60),
        ResponseDirectives(public=True, proxy_revalidate=True, max_age=0),
        ResponseDirectives(must_revalidate=True, proxy_revalidate=True),
    ],
)
def test_what_can_be_meant_is_no_contradiction(directives: ResponseDirectives) -> None:
    """Redundant is not contradictory, and some caches may obey what others must not."""
    assert find_contradiction(directives) is None
