"""The options of one cached route: good ones are kept, each bad one is an error that names it."""

from __future__ import annotations

import hashlib
import math
from datetime import timedelta
from http import HTTPStatus
from typing import Any, cast

import pytest

from aeros import WebServer
from aeros.caching.keys import QuerySelection
from aeros.caching.rules import (
    CacheRules,
    check_hash_method,
    checked_names,
    checked_query,
    checked_seconds,
    checked_statuses,
    checked_tags,
    checked_vary,
)
from aeros.errors import InvalidSettingError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (0, 0.0),
        (5, 5.0),
        (0.5, 0.5),
        (timedelta(minutes=2), 120.0),
        (timedelta(0), 0.0),
        (timedelta(microseconds=1), 1e-6),
    ],
)
def test_a_lifetime_is_seconds_or_a_timedelta(value: object, expected: float | None) -> None:
    """None states nothing, and 0 is a lifetime."""
    found = checked_seconds("timeout", value)
    assert found == expected
    assert found is None or type(found) is float


@pytest.mark.parametrize(
    "value", [-1, -0.001, math.nan, math.inf, -math.inf, True, False, "60", b"1", [], timedelta(seconds=-1)]
)
def test_what_is_no_lifetime_is_refused(value: Any) -> None:
    """The error names the option, whether it is asked for here or at the decorator."""
    with pytest.raises(InvalidSettingError, match=r"^default_timeout: ") as caught:
        checked_seconds("default_timeout", value)
    assert caught.value.setting == "default_timeout"
    with pytest.raises(InvalidSettingError, match=r"^timeout: "):
        WebServer(__name__).cache(timeout=value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("key_prefix", 5),
        ("key_prefix", None),
        ("key_prefix", b"view/%s"),
        ("hash_method", "md5"),
        ("hash_method", None),
        ("hash_method", len),
        ("hash_method", hashlib.md5()),
        ("hash_method", hashlib.new),
        ("hash_method", hashlib.shake_128),
        ("query_string", 1),
        ("query_string", "yes"),
        ("query_string", None),
        ("cache_none", 0),
        ("cache_none", None),
        ("unless", True),
        ("forced_update", "x"),
        ("response_filter", 1),
        ("key", "text"),
        ("vary", 5),
        ("vary", None),
        ("vary", b"accept"),
        ("vary", ("accept", 5)),
        ("vary", ("",)),
        ("vary", ""),
        ("cookies", 5),
        ("cookies", None),
        ("cookies", b"theme"),
        ("cookies", [""]),
        ("query_include", 5),
        ("query_include", [None]),
        ("query_exclude", b"utm"),
        ("query_exclude", [""]),
        ("tags", 5),
        ("tags", None),
        ("tags", ["a", 5]),
        ("tags", ""),
        ("statuses", 404),
        ("statuses", [404]),
        ("statuses", {404}),
        ("stale_while_revalidate", -1),
        ("stale_while_revalidate", True),
        ("stale_if_error", "60"),
        ("stale_if_error", math.inf),
        ("authorized", 1),
        ("authorized", None),
    ],
)
def test_a_bad_option_is_an_error_that_names_it(option: str, value: object) -> None:
    """When the view is decorated, not when it is asked for."""
    bad: Any = {option: value}
    with pytest.raises(InvalidSettingError) as caught:
        WebServer(__name__).cache(**bad)
    assert caught.value.setting == option
    assert caught.value.value is value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("view/%s", ("view/", "")),
        ("%s", ("", "")),
        ("a%sb", ("a", "b")),
        ("a%sb%sc", ("a", "b%sc")),
        ("all", ("all",)),
        ("", ("",)),
        ("100%", ("100%",)),
        ("%%s", ("%", "")),
    ],
)
def test_the_placeholder_stands_for_the_path(value: str, expected: tuple[str, ...]) -> None:
    """The first one; without one there is one key for all paths."""
    assert CacheRules(key_prefix=value).key_template() == expected


def test_a_callable_prefix_is_asked_each_time_and_taken_as_it_is() -> None:
    """Its text is the whole key, a placeholder in it stands for itself."""
    texts = iter(["user/1", "user/%s"])
    rules = CacheRules(key_prefix=lambda: next(texts))
    assert rules.key_template() == ("user/1",)
    assert rules.key_template() == ("user/%s",)


@pytest.mark.parametrize("value", [hashlib.md5, hashlib.sha1, hashlib.sha256, hashlib.blake2b])
def test_the_constructors_of_hashlib_are_hash_methods(value: Any) -> None:
    """Whatever their digests look like."""
    check_hash_method(value)
    assert CacheRules(hash_method=value).hash_method is value


def test_the_rules_of_a_route_are_the_references() -> None:
    """Without options a route is cached by path, for what the response or the cache says."""
    rules = CacheRules()
    assert (rules.vary, rules.tags, rules.authorized, dict(rules.statuses)) == ((), (), False, {})
    assert (rules.stale_while_revalidate, rules.stale_if_error) == (None, None)
    assert (rules.timeout, rules.key_template(), rules.query) == (None, ("view/", ""), None)
    assert (rules.hash_method, rules.cache_none) == (hashlib.md5, False)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((), ()),
        ("Accept-Language", (b"accept-language",)),
        (["X-B", "X-A", "x-b"], (b"x-a", b"x-b")),
        ((name for name in ("B", "a")), (b"a", b"b")),
        ("Authorization", (b"authorization",)),
    ],
)
def test_fields_are_kept_in_lower_case_each_once_and_sorted(
    value: object, expected: tuple[bytes, ...]
) -> None:
    """One name is one name, not its letters; the order in which they are given says nothing."""
    assert checked_vary(value) == expected


@pytest.mark.parametrize("name", ["*", "a b", "a,b", "a:", "é", "a\n", "a\r\nb"])
def test_what_no_field_is_called_is_refused(name: str) -> None:
    """Not even a star: a route that varies by everything is not cached."""
    with pytest.raises(InvalidSettingError, match=r"^vary: ") as caught:
        checked_vary(["accept", name])
    assert caught.value.value == name


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, {}),
        ({}, {}),
        ({404: 10}, {404: 10.0}),
        ({404: timedelta(minutes=1), 500: 0, 204: 0.5}, {404: 60.0, 500: 0.0, 204: 0.5}),
        ({HTTPStatus.GONE: 5, 200: 1, 599: 1}, {410: 5.0, 200: 1.0, 599: 1.0}),
    ],
)
def test_each_status_has_a_lifetime(value: object, expected: dict[int, float]) -> None:
    """In seconds; what is given may change later, the rules do not."""
    found = checked_statuses(value)
    assert dict(found) == expected
    assert all(type(status) is int for status in found)
    with pytest.raises(TypeError):
        cast(Any, found)[404] = 1.0


@pytest.mark.parametrize("status", [206, 304, 199, 100, 600, 0, -404, "404", None, 404.0, True])
def test_a_status_that_can_not_be_stored_is_refused(status: object) -> None:
    """A part or a confirmation is no answer to another request (RFC 9111 §3.3)."""
    with pytest.raises(InvalidSettingError, match=r"^statuses: ") as caught:
        checked_statuses({200: 10, status: 10})
    assert caught.value.value is status


@pytest.mark.parametrize("timeout", [None, -1, "10", math.nan, True])
def test_a_status_without_a_lifetime_is_refused(timeout: object) -> None:
    """The error says which one."""
    with pytest.raises(InvalidSettingError, match=r"^statuses\[404\]: "):
        checked_statuses({200: 1, 404: timeout})


@pytest.mark.parametrize(
    ("query_string", "include", "exclude", "expected"),
    [
        (False, None, None, None),
        (True, None, None, QuerySelection()),
        (False, "page", None, QuerySelection(include=("page",))),
        (True, ["page", "f*"], None, QuerySelection(include=("page", "f*"))),
        (False, (), None, QuerySelection(include=())),
        (False, None, "utm_*", QuerySelection(exclude=("utm_*",))),
        (True, None, {"ref"}, QuerySelection(exclude=("ref",))),
        (False, None, [], QuerySelection()),
    ],
)
def test_the_parameters_that_count_are_named_or_all(
    query_string: object, include: object, exclude: object, expected: QuerySelection | None
) -> None:
    """To name some is to want the query in the key."""
    assert checked_query(query_string, include, exclude) == expected


def test_parameters_are_named_in_one_way() -> None:
    """Those that count, or those that do not; both together contradict each other."""
    with pytest.raises(InvalidSettingError, match=r"^query_exclude: "):
        checked_query(False, "page", "utm")
    with pytest.raises(InvalidSettingError, match=r"^query_exclude: "):
        WebServer(__name__).cache(query_include="page", query_exclude=())


def test_names_are_one_or_several() -> None:
    """One text is not a list of letters."""
    assert checked_names("cookies", "theme") == ("theme",)
    assert checked_names("cookies", ["theme", "lang"]) == ("theme", "lang")
    assert checked_names("cookies", ()) == ()


def test_tags_are_names_or_a_function_that_gives_them() -> None:
    """Each name once, in the order given."""
    assert checked_tags("a") == ("a",)
    assert checked_tags(["b", "a", "b"]) == ("b", "a")
    assert checked_tags(()) == ()

    def tags(number: int) -> str:
        return f"item-{number}"

    assert checked_tags(tags) is tags


def test_the_rules_of_a_view_have_its_name_and_all_the_rest() -> None:
    """So that the key of one view is not that of another."""
    rules = CacheRules(timeout=5, tags=("a",), vary=(b"x",))
    named = rules.of_view("shop.report")
    assert (named.view, rules.view) == ("shop.report", "")
    assert (named.timeout, named.tags, named.vary) == (5, ("a",), (b"x",))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (CacheRules(), False),
        (CacheRules(authorized=True), True),
        (CacheRules(vary=(b"authorization",)), True),
        (CacheRules(vary=(b"cookie",)), False),
    ],
)
def test_credentials_keep_responses_apart_unless_the_route_says_otherwise(
    rules: CacheRules, expected: bool
) -> None:
    """By sharing them, or by a response for each."""
    assert rules.shares_authorized is expected
