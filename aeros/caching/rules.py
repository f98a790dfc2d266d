"""The options of one cached route, validated once when the view is decorated."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final, TypeAlias, TypeVar, cast

from aeros.caching.keys import HashMethod, QuerySelection
from aeros.caching.marks import tag_names
from aeros.errors import InvalidSettingError
from aeros.http.fields import is_token

T = TypeVar("T")

Timeout: TypeAlias = float | timedelta
"""A lifetime: seconds, or a ``timedelta``."""

# By number of parameters, so that a checker knows those of a lambda: ``...`` would hide them.
OfArguments: TypeAlias = (
    Callable[[], T]
    | Callable[[Any], T]
    | Callable[[Any, Any], T]
    | Callable[[Any, Any, Any], T]
    | Callable[[Any, Any, Any, Any], T]
)
"""A function of a view's arguments."""

Tags: TypeAlias = str | Iterable[str] | OfArguments[str | Iterable[str]]
"""A tag, several, or a function of the view's arguments that gives them."""

_NO_STATUSES: Final[Mapping[int, float]] = MappingProxyType({})
_NEVER_STORED: Final = (206, 304)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRules:
    """What a route says about storing its responses.

    Attributes:
        timeout: Lifetime in seconds; None: the response's own, else the cache's default.
        key_prefix: Text with ``%s`` for the path, text for one key, or a callable giving it.
        query: The parameters that are part of the key; None: the query is not.
        hash_method: A constructor of ``hashlib``.
        cache_none: Whether a view's ``None``, which is answered as 204, is stored.
        vary: Request fields, in lower case, whose values are part of the key.
        statuses: Lifetime in seconds of responses with these status codes.
        stale_while_revalidate: Seconds; None: what the response states.
        stale_if_error: Seconds; None: what the response states.
        authorized: Whether requests with ``Authorization`` are answered with what others got.
        early: Whether hits may be answered before the application looks for the view.
        tags: What its responses can be evicted by.
        view: The full name of the view, e.g. ``"shop.views.report"``.
    """

    timeout: float | None = None
    key_prefix: str | Callable[[], str | Awaitable[str]] = "view/%s"
    query: QuerySelection | None = None
    hash_method: HashMethod = hashlib.md5
    cache_none: bool = False
    vary: tuple[bytes, ...] = ()
    statuses: Mapping[int, float] = field(default_factory=lambda: _NO_STATUSES)
    stale_while_revalidate: float | None = None
    stale_if_error: float | None = None
    authorized: bool = False
    early: bool = True
    tags: tuple[str, ...] | Callable[..., str | Iterable[str]] = ()
    view: str = ""

    def of_view(self, name: str) -> CacheRules:
        """Returns these rules for the view of that name."""
        return replace(self, view=name)

    def __post_init__(self) -> None:
        if not isinstance(self.key_prefix, str) and not callable(self.key_prefix):
            raise InvalidSettingError("key_prefix", self.key_prefix, "text, or a callable that returns it")
        check_hash_method(self.hash_method)
        for name in ("cache_none", "authorized", "early"):
            check_flag(name, getattr(self, name))

    @property
    def shares_authorized(self) -> bool:
        """Whether credentials do not keep responses apart, or are a part of the key."""
        return self.authorized or b"authorization" in self.vary

    @property
    def is_plain(self) -> bool:
        """Whether nothing of a request decides but its URL, so that a hit may be answered early."""
        return self.early and isinstance(self.key_prefix, str) and not self.vary

    def key_template(self) -> tuple[str, ...]:
        """Returns the text before and after the path, or one text where the path has no part in it.

        A callable is asked at each request, and its text is the whole key: a ``%s`` in it stands
        for itself.
        """
        if not isinstance(self.key_prefix, str):
            # One that has to be awaited for has been, by the route.
            return (cast(str, self.key_prefix()),)
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


def check_flag(setting: str, value: object) -> None:
    """Raises ``InvalidSettingError`` where ``value`` is neither True nor False."""
    if not isinstance(value, bool):
        raise InvalidSettingError(setting, value, "True or False")


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


def checked_statuses(value: object) -> Mapping[int, float]:
    """Returns lifetimes in seconds by status code.

    Raises:
        InvalidSettingError: A code can not be stored, or a lifetime is none.
    """
    if value is None:
        return _NO_STATUSES
    if not isinstance(value, Mapping):
        raise InvalidSettingError("statuses", value, "lifetimes by status code, such as {404: 10}")
    lifetimes: dict[int, float] = {}
    for status, timeout in cast("Mapping[object, object]", value).items():
        if not isinstance(status, int) or not 200 <= status <= 599 or status in _NEVER_STORED:
            raise InvalidSettingError("statuses", status, "codes from 200 to 599 without 206 and 304")
        seconds = checked_seconds(f"statuses[{int(status)}]", timeout)
        if seconds is None:
            raise InvalidSettingError(f"statuses[{int(status)}]", timeout, "seconds, or a timedelta")
        lifetimes[int(status)] = seconds
    return MappingProxyType(lifetimes)


def checked_vary(value: object) -> tuple[bytes, ...]:
    """Returns the names of request fields in lower case, each once, sorted.

    Raises:
        InvalidSettingError: A name is none of a field, or ``*``, which no key has.
    """
    names = checked_names("vary", value, "names of request fields, such as 'Accept-Language'")
    for name in names:
        if name == "*" or not is_token(name):
            raise InvalidSettingError("vary", name, "names of request fields, such as 'Accept-Language'")
    return tuple(sorted({name.lower().encode("ascii") for name in names}))


def checked_names(setting: str, value: object, expected: str = "a name, or several") -> tuple[str, ...]:
    """Returns one name or several as a tuple.

    Raises:
        InvalidSettingError: They are not text.
    """
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, Iterable) or isinstance(names, bytes):
        raise InvalidSettingError(setting, value, expected)
    listed = tuple(cast("Iterable[object]", names))
    if not all(isinstance(name, str) and name for name in listed):
        raise InvalidSettingError(setting, value, expected)
    return cast("tuple[str, ...]", listed)


def checked_query(query_string: object, include: object, exclude: object) -> QuerySelection | None:
    """Returns which parameters are part of the key; None where the query is not.

    Raises:
        InvalidSettingError: The options are wrong, or contradict each other.
    """
    check_flag("query_string", query_string)
    if include is not None and exclude is not None:
        raise InvalidSettingError(
            "query_exclude", exclude, "None beside query_include, which leaves out all others already"
        )
    if include is not None:
        return QuerySelection(include=checked_names("query_include", include, "names of parameters"))
    if exclude is not None:
        return QuerySelection(exclude=checked_names("query_exclude", exclude, "names of parameters"))
    return QuerySelection() if query_string else None


def checked_tags(value: object) -> tuple[str, ...] | Callable[..., str | Iterable[str]]:
    """Returns the names of tags, or the function that gives them.

    Raises:
        InvalidSettingError: They are not text.
    """
    if callable(value):
        return cast("Callable[..., str | Iterable[str]]", value)
    return tag_names(value)
