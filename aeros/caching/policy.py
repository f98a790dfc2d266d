"""May it be stored, for how long, and is it fresh? Pure rules over status and fields.

Safe by default: what could show one user's response to another is not stored, and the reason is
given in the words that ``Cache-Status`` shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from aeros.caching.keys import selecting_fields
from aeros.caching.rules import CacheRules
from aeros.http.cache_control import ResponseDirectives, parse_response_directives
from aeros.http.fields import combined_value, first_value, split_list
from aeros.http.freshness import explicit_lifetime
from aeros.types import RawHeaders

NEVER_STORED_STATUSES: Final = frozenset({206, 304})

ERROR_STATUSES: Final = frozenset({500, 502, 503, 504})
"""What a stale response may be used instead of (RFC 5861 §4)."""

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""The methods that change nothing (RFC 9110 §9.2.1). All others may, known or not."""


# Without any of these, a response's fields say nothing that bears on storing it.
_TELLING: Final = frozenset({b"cache-control", b"content-encoding", b"expires", b"set-cookie", b"vary"})
_NO_DIRECTIVES: Final = parse_response_directives(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a response may be stored.

    Attributes:
        reason: Why not, as a token for ``Cache-Status``; None: it may.
        lifetime: For how many seconds it is fresh.
        is_public: Whether it may also answer requests with ``Authorization``.
        while_revalidate: For how many seconds more it may be used while a new one is made.
        if_error: For how many seconds more it may be used where none can be made.
        vary: The request fields, in lower case, that select it.
    """

    reason: str | None = None
    lifetime: float = 0.0
    is_public: bool = False
    while_revalidate: float = 0.0
    if_error: float = 0.0
    vary: tuple[bytes, ...] = ()


def bypass_reason(scope: Mapping[str, object]) -> str | None:
    """Returns why a request is not answered from the cache at all, None where it may be."""
    if scope["method"] not in ("GET", "HEAD"):
        return "method"
    headers = cast(RawHeaders, scope["headers"])
    # A body could select the answer, and no key has it.
    length = first_value(headers, b"content-length")
    if length not in (None, b"0") or first_value(headers, b"transfer-encoding") is not None:
        return "request-body"
    return None


def is_authorized(headers: RawHeaders) -> bool:
    """Tells whether the request carries credentials in ``Authorization``."""
    return first_value(headers, b"authorization") is not None


def judge(
    *,
    status: int,
    headers: RawHeaders,
    authorized: bool,
    rules: CacheRules,
    default_timeout: float | None,
    accepted: bool,
    now: float,
) -> Verdict:
    """Returns whether a complete response to GET may be stored (RFC 9111 §3) and how long it is fresh.

    Args:
        status: Its status code.
        headers: Its fields.
        authorized: Whether the request carried ``Authorization`` (§3.5).
        rules: The route's options; the lifetimes there beat what the response states.
        default_timeout: The lifetime where neither states one; None: then it is not stored.
        accepted: Whether the route takes this status as it takes 200.
        now: Seconds since the epoch.
    """
    directives, stated, forbidden = _NO_DIRECTIVES, None, None
    vary: tuple[bytes, ...] = ()
    if not _TELLING.isdisjoint([name for name, _ in headers]):
        directives = parse_response_directives(combined_value(headers, b"cache-control"))
        stated = explicit_lifetime(headers, directives, now)
        forbidden, vary = forbidden_reason(headers, directives), vary_names(headers)
    negative = rules.statuses.get(status)
    reason = forbidden or _status_reason(status, accepted or negative is not None, stated)
    is_public = rules.shares_authorized or _is_public(directives)
    if reason is None and authorized and not is_public:
        reason = "authorization"
    lifetimes = (negative, rules.timeout, stated, default_timeout)
    lifetime = next((value for value in lifetimes if value is not None), None)
    if reason is None and lifetime is None:
        reason = "no-lifetime"
    if reason is None and lifetime is not None and lifetime <= 0:
        reason = "lifetime-zero"
    while_revalidate, if_error = _stale_seconds(status, directives, rules)
    return Verdict(
        reason=reason,
        lifetime=lifetime or 0.0,
        is_public=is_public,
        while_revalidate=while_revalidate,
        if_error=if_error,
        vary=vary,
    )


def _stale_seconds(status: int, directives: ResponseDirectives, rules: CacheRules) -> tuple[float, float]:
    """Returns how long it may be used stale, while revalidating and if there is an error (RFC 5861)."""
    # RFC 9111 §4.2.4: these forbid it whatever anybody else says; s-maxage does for shared caches.
    if (
        directives.must_revalidate
        or directives.proxy_revalidate
        or directives.s_maxage is not None
        or status in ERROR_STATUSES
    ):
        return 0.0, 0.0
    while_revalidate, if_error = rules.stale_while_revalidate, rules.stale_if_error
    if while_revalidate is None:
        while_revalidate = float(directives.stale_while_revalidate or 0)
    if if_error is None:
        if_error = float(directives.stale_if_error or 0)
    return while_revalidate, if_error


def forbidden_reason(headers: RawHeaders, directives: ResponseDirectives | None = None) -> str | None:
    """Returns why these fields forbid storing whatever the lifetime, None where they do not."""
    if directives is None:
        directives = parse_response_directives(combined_value(headers, b"cache-control"))
    if first_value(headers, b"set-cookie") is not None:
        return "set-cookie"
    for name in ("no_store", "private", "no_cache"):
        if getattr(directives, name):
            return name.replace("_", "-")
    if "*" in split_list(combined_value(headers, b"vary") or ""):
        return "vary"
    return None


def vary_names(headers: RawHeaders) -> tuple[bytes, ...]:
    """Returns the fields of ``Vary`` that select a stored response, sorted, in lower case.

    ``Accept-Encoding`` selects nothing while the body is kept as identity and coded on the way
    out; it does once the view has coded the body itself.
    """
    names = {name.lower().encode("latin-1") for name in split_list(combined_value(headers, b"vary") or "")}
    if first_value(headers, b"content-encoding") is None:
        names.discard(b"accept-encoding")
    return tuple(sorted(names))


def selects(vary: tuple[tuple[bytes, bytes | None], ...], headers: RawHeaders) -> bool:
    """Tells whether a request has the field values that a stored response was selected by."""
    return not vary or selecting_fields([name for name, _ in vary], headers) == vary


def _is_public(directives: ResponseDirectives) -> bool:
    """Tells whether RFC 9111 §3.5 lets a shared cache use the response for requests with credentials."""
    return directives.public or directives.must_revalidate or directives.s_maxage is not None


def _status_reason(status: int, accepted: bool, stated: float | None) -> str | None:
    if status in NEVER_STORED_STATUSES or status < 200:
        return "status"
    if status == 200 or accepted or stated is not None:
        return None
    return "status"
