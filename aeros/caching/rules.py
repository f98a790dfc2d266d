"""The options of one cached route, validated once when the view is decorated."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeAlias

from aeros.caching.keys import HashMethod
from aeros.errors import InvalidSettingError

Timeout: TypeAlias = float | timedelta
"""A lifetime: seconds, or a ``timedelta``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRules:
    """What a route says about storing its responses.

    Attributes:
        timeout: Lifetime in seconds; None: the response's own, else the cache's default.
        key_prefix: Text with ``%s`` for the path, text for one key, or a callable giving it.
        query_string: Whether the query is part of the key.
        hash_method: A constructor of ``hashlib``.
        cache_none: Whether a view's ``None``, which is answered as 204, is stored.
        view: The full name of the view, e.g. ``"shop.views.report"``.
    """

    timeout: float | None = None
    key_prefix: str | Callable[[], str] = "view/%s"
    query_string: bool = False
    hash_method: HashMethod = hashlib.md5
    cache_none: bool = False
    view: str = ""

    def of_view(self, name: str) -> CacheRules:
        """Returns these rules for the view of that name."""
        return replace(self, view=name)

    def __post_init__(self) -> None:
        if not isinstance(self.key_prefix, str) and not callable(self.key_prefix):
            raise InvalidSettingError("key_prefix", self.key_prefix, "text, or a callable that returns it")
        check_hash_method(self.hash_method)
        for name in ("query_string", "cache_none"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidSettingError(name, getattr(self, name), "True or False")

    def key_template(self) -> tuple[str, ...]:
        """Returns the text before and after the path, or one text where the path has no part in it.

        A callable is asked at each request, and its text is the whole key: a ``%s`` in it stands
        for itself.
        """
        if not isinstance(self.key_prefix, str):
            return (self.key_prefix(),)
        before, placeholder, after = self.key_prefix.partition("%s")
        return (before, after) if placeholder else (before,)


def check_hash_method(value: Any) -> None:  # it comes from users, and may be anything
    """Raises ``InvalidSettingError`` where ``value`` is no constructor of ``hashlib``."""
    try:
        fits = isinstance(value(b"").hexdigest(), str)
    except (TypeError, ValueError, AttributeError):
        fits = False
    if not fits:
        raise InvalidSettingError("hash_method", value, "a constructor such as hashlib.sha256")


def checked_seconds(setting: str, value: object) -> float | None:
    """Returns a lifetime in seconds, None for None.

    Zero is allowed, and means what HTTP means: stale at once, so nothing is stored.

    Raises:
        InvalidSettingError: It is negative, not finite, or no number of seconds.
    """
    if value is None:
        return None
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    raise InvalidSettingError(setting, value, "seconds from 0 on, a timedelta, or None")
