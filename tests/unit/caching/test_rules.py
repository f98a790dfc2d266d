"""The options of one cached route: good ones are kept, each bad one is an error that names it."""

from __future__ import annotations

import hashlib
import math
from datetime import timedelta
from typing import Any

import pytest

from aeros import WebServer
from aeros.caching.rules import CacheRules, check_hash_method, checked_seconds
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
    assert (rules.timeout, rules.key_template(), rules.query_string) == (None, ("view/", ""), False)
    assert (rules.hash_method, rules.cache_none) == (hashlib.md5, False)
