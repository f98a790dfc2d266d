"""May it be stored, and for how long: the rules of RFC 9111, one row each."""

from __future__ import annotations

import pytest

from aeros.caching.policy import (
    SAFE_METHODS,
    Verdict,
    bypass_reason,
    forbidden_reason,
    is_authorized,
    judge,
    selects,
    vary_names,
)
from aeros.caching.rules import CacheRules
from aeros.http.fields import format_http_date
from aeros.types import RawHeaders

NOW = 1_700_000_000.0


def control(value: str) -> RawHeaders:
    """Returns the fields of a response with a Cache-Control."""
    return [(b"cache-control", value.encode())]


def verdict_of(
    headers: RawHeaders,
    *,
    status: int = 200,
    authorized: bool = False,
    rules: CacheRules | None = None,
    default_timeout: float | None = 300.0,
    accepted: bool = False,
) -> Verdict:
    """Returns what becomes of a response."""
    return judge(
        status=status,
        headers=headers,
        authorized=authorized,
        rules=rules or CacheRules(),
        default_timeout=default_timeout,
        accepted=accepted,
        now=NOW,
    )


def reason_of(
    headers: RawHeaders,
    *,
    status: int = 200,
    authorized: bool = False,
    timeout: float | None = None,
    default_timeout: float | None = 300.0,
    accepted: bool = False,
) -> str | None:
    """Returns why a response may not be stored."""
    return verdict_of(
        headers,
        status=status,
        authorized=authorized,
        rules=CacheRules(timeout=timeout),
        default_timeout=default_timeout,
        accepted=accepted,
    ).reason


def lifetime_of(headers: RawHeaders, *, timeout: float | None = None, default: float | None = 300.0) -> float:
    """Returns for how long a response is fresh that may be stored."""
    verdict = verdict_of(headers, rules=CacheRules(timeout=timeout), default_timeout=default)
    assert verdict.reason is None
    return verdict.lifetime


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([], None),
        (control("max-age=60"), None),
        (control("public, max-age=60"), None),
        (control("no-transform"), None),
        (control("must-revalidate"), None),
        (control("no-store"), "no-store"),
        (control("NO-STORE"), "no-store"),
        (control("max-age=60, no-store"), "no-store"),
        ([(b"cache-control", b"max-age=60"), (b"cache-control", b"no-store")], "no-store"),
        (control("private"), "private"),
        (control('private="x-user"'), "private"),
        (control("no-cache"), "no-cache"),
        (control('no-cache="set-cookie"'), "no-cache"),
        (control("public, private"), "private"),
        ([(b"set-cookie", b"a=1")], "set-cookie"),
        ([(b"set-cookie", b"")], "set-cookie"),
        ([*control("public, max-age=60"), (b"set-cookie", b"a=1")], "set-cookie"),
        ([(b"vary", b"*")], "vary"),
        ([(b"vary", b"accept, *")], "vary"),
        ([(b"vary", b"accept"), (b"vary", b"*")], "vary"),
        ([(b"vary", b"accept")], None),
    ],
)
def test_a_response_says_whether_it_may_be_stored(headers: RawHeaders, reason: str | None) -> None:
    """The reason is the word that ``Cache-Status`` shows, whatever lifetime the route gives."""
    assert reason_of(headers) == reason
    assert reason_of(headers, timeout=60) == reason
    assert forbidden_reason(headers) == reason


@pytest.mark.parametrize("value", ["", "max-age=60", "proxy-revalidate", "immutable"])
def test_credentials_keep_a_response_out(value: str) -> None:
    """What one user gets is not shown to another, whatever lifetime the route gives (RFC 9111 §3.5)."""
    assert reason_of(control(value), authorized=True) == "authorization"
    assert reason_of(control(value), authorized=True, timeout=60) == "authorization"
    assert reason_of(control(value), authorized=False) is None


@pytest.mark.parametrize("value", ["public", "public, max-age=60", "s-maxage=60", "must-revalidate"])
def test_a_response_may_say_that_credentials_do_not_matter(value: str) -> None:
    """The three directives of RFC 9111 §3.5; the verdict tells that others may get it, too."""
    verdict = verdict_of(control(value), authorized=True)
    assert (verdict.reason, verdict.is_public) == (None, True)


def test_a_response_that_says_nothing_is_not_for_requests_with_credentials() -> None:
    """It is stored for others, but is not public."""
    verdict = verdict_of([], rules=CacheRules(timeout=5), default_timeout=None)
    assert (verdict.reason, verdict.is_public) == (None, False)


EXPIRES = [(b"date", format_http_date(NOW).encode()), (b"expires", format_http_date(NOW + 90).encode())]


@pytest.mark.parametrize(
    ("headers", "timeout", "default", "expected"),
    [
        ([], None, 300.0, 300.0),
        ([], 10.0, 300.0, 10.0),
        ([], 10.0, None, 10.0),
        (control("max-age=60"), None, 300.0, 60.0),
        (control("max-age=60"), None, None, 60.0),
        (control("max-age=60"), 10.0, 300.0, 10.0),
        (control("max-age=0"), 10.0, 300.0, 10.0),
        (control("s-maxage=20, max-age=60"), None, 300.0, 20.0),
        (control("s-maxage=20, max-age=0"), None, 300.0, 20.0),
        (EXPIRES, None, 300.0, 90.0),
        ([*EXPIRES, *control("max-age=60")], None, 300.0, 60.0),
        (EXPIRES, 10.0, 300.0, 10.0),
        ([(b"expires", format_http_date(NOW + 30).encode())], None, None, 30.0),
    ],
)
def test_the_route_beats_the_response_and_the_response_the_default(
    headers: RawHeaders, timeout: float | None, default: float | None, expected: float
) -> None:
    """Timeout, then s-maxage, max-age and Expires, then the cache's default."""
    assert lifetime_of(headers, timeout=timeout, default=default) == expected


@pytest.mark.parametrize(
    ("headers", "timeout", "default", "reason"),
    [
        ([], None, None, "no-lifetime"),
        (control("public"), None, None, "no-lifetime"),
        ([], 0.0, 300.0, "lifetime-zero"),
        (control("max-age=60"), 0.0, 300.0, "lifetime-zero"),
        ([], None, 0.0, "lifetime-zero"),
        (control("max-age=0"), None, 300.0, "lifetime-zero"),
        (control("s-maxage=0, max-age=60"), None, 300.0, "lifetime-zero"),
        (control("max-age=soon"), None, 300.0, "lifetime-zero"),
        ([(b"expires", b"0")], None, 300.0, "lifetime-zero"),
        ([(b"expires", format_http_date(NOW - 1).encode())], None, 300.0, "lifetime-zero"),
        (control("no-store, max-age=0"), None, None, "no-store"),
    ],
)
def test_without_a_lifetime_nothing_is_stored(
    headers: RawHeaders, timeout: float | None, default: float | None, reason: str
) -> None:
    """A default of None stores only what states its freshness; 0 is stale at once."""
    assert reason_of(headers, timeout=timeout, default_timeout=default) == reason


@pytest.mark.parametrize(
    ("status", "headers", "accepted", "reason"),
    [
        (200, [], False, None),
        (404, [], False, "status"),
        (301, [], False, "status"),
        (500, [], False, "status"),
        (204, [], False, "status"),
        (204, [], True, None),
        (404, [], True, None),
        (404, control("max-age=60"), False, None),
        (301, control("s-maxage=60"), False, None),
        (410, EXPIRES, False, None),
        (503, control("max-age=0"), False, "lifetime-zero"),
        (206, [], True, "status"),
        (206, control("max-age=60"), True, "status"),
        (304, [], True, "status"),
        (304, control("max-age=60"), True, "status"),
        (101, control("max-age=60"), True, "status"),
        (199, control("max-age=60"), True, "status"),
    ],
)
def test_statuses_that_may_be_stored(
    status: int, headers: RawHeaders, accepted: bool, reason: str | None
) -> None:
    """200, what the route accepts, and what states its freshness; never 206, 304 or 1xx."""
    assert reason_of(headers, status=status, accepted=accepted) == reason


def test_a_timeout_of_the_route_does_not_make_errors_cacheable() -> None:
    """The lifetime of good answers is none for a failure."""
    assert reason_of([], status=500, timeout=60) == "status"


@pytest.mark.parametrize(
    ("status", "headers", "timeout", "lifetime", "reason"),
    [
        (404, [], None, 10.0, None),
        (404, [], 600.0, 10.0, None),
        (404, control("max-age=60"), None, 10.0, None),
        (500, [], None, 5.0, None),
        (410, [], None, 0.0, "lifetime-zero"),
        (200, [], 600.0, 600.0, None),
        (403, [], 600.0, 600.0, "status"),
        (404, control("no-store"), None, 10.0, "no-store"),
        (404, [(b"set-cookie", b"a=1")], None, 10.0, "set-cookie"),
    ],
)
def test_the_lifetime_of_a_status_beats_all_others(
    status: int, headers: RawHeaders, timeout: float | None, lifetime: float, reason: str | None
) -> None:
    """A status that is named may be stored, if the response does not forbid it."""
    rules = CacheRules(timeout=timeout, statuses={404: 10.0, 500: 5.0, 410: 0.0})
    verdict = verdict_of(headers, status=status, rules=rules)
    assert (verdict.reason, verdict.lifetime) == (reason, lifetime)


@pytest.mark.parametrize(
    ("rules", "is_public"),
    [
        (CacheRules(authorized=True), True),
        (CacheRules(vary=(b"authorization",)), True),
        (CacheRules(vary=(b"accept", b"authorization")), True),
        (CacheRules(vary=(b"accept",)), False),
        (CacheRules(), False),
    ],
)
def test_a_route_may_say_that_credentials_do_not_matter(rules: CacheRules, is_public: bool) -> None:
    """Because all users get the same, or because each credential has a response of its own."""
    verdict = verdict_of([], authorized=True, rules=rules)
    assert (verdict.reason, verdict.is_public) == (None if is_public else "authorization", is_public)
    assert verdict_of([], authorized=False, rules=rules).is_public is is_public
    assert verdict_of(control("private"), authorized=True, rules=rules).reason == "private"


STALE = "stale-while-revalidate=30, stale-if-error=60"


@pytest.mark.parametrize(
    ("status", "value", "rules", "expected"),
    [
        (200, "max-age=9", CacheRules(), (0.0, 0.0)),
        (200, f"max-age=9, {STALE}", CacheRules(), (30.0, 60.0)),
        (200, "max-age=9", CacheRules(stale_while_revalidate=5, stale_if_error=7), (5.0, 7.0)),
        (200, f"max-age=9, {STALE}", CacheRules(stale_while_revalidate=5), (5.0, 60.0)),
        (200, f"max-age=9, {STALE}", CacheRules(stale_if_error=0.0), (30.0, 0.0)),
        (200, f"max-age=9, {STALE}", CacheRules(stale_while_revalidate=0.0), (0.0, 60.0)),
        (200, "max-age=9, stale-if-error=soon", CacheRules(), (0.0, 0.0)),
        (200, f"max-age=9, must-revalidate, {STALE}", CacheRules(), (0.0, 0.0)),
        (200, f"max-age=9, proxy-revalidate, {STALE}", CacheRules(), (0.0, 0.0)),
        (200, f"s-maxage=9, {STALE}", CacheRules(), (0.0, 0.0)),
        (200, "must-revalidate", CacheRules(stale_while_revalidate=5, stale_if_error=7), (0.0, 0.0)),
        (200, "proxy-revalidate", CacheRules(stale_while_revalidate=5, stale_if_error=7), (0.0, 0.0)),
        (200, "s-maxage=9", CacheRules(stale_while_revalidate=5, stale_if_error=7), (0.0, 0.0)),
        (404, f"max-age=9, {STALE}", CacheRules(), (30.0, 60.0)),
        *((status, f"max-age=9, {STALE}", CacheRules(), (0.0, 0.0)) for status in (500, 502, 503, 504)),
        (501, f"max-age=9, {STALE}", CacheRules(), (30.0, 60.0)),
    ],
)
def test_how_long_a_response_may_be_used_stale(
    status: int, value: str, rules: CacheRules, expected: tuple[float, float]
) -> None:
    """What the route says, else what the response says (RFC 5861).

    Neither says anything against RFC 9111 §4.2.4, and an error never stands in for an error.
    """
    verdict = verdict_of(control(value), status=status, rules=rules)
    assert verdict.reason is None
    assert (verdict.while_revalidate, verdict.if_error) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], ()),
        ([(b"vary", b"")], ()),
        ([(b"vary", b"Accept")], (b"accept",)),
        ([(b"vary", b"b, A"), (b"vary", b"c,a")], (b"a", b"b", b"c")),
        ([(b"vary", b"Accept-Encoding")], ()),
        ([(b"vary", b"Accept-Encoding, Cookie")], (b"cookie",)),
        ([(b"vary", b"Accept-Encoding"), (b"content-encoding", b"gzip")], (b"accept-encoding",)),
        ([(b"vary", b"Cookie"), (b"content-encoding", b"br")], (b"cookie",)),
    ],
)
def test_vary_names_the_fields_that_select(headers: RawHeaders, expected: tuple[bytes, ...]) -> None:
    """In lower case and sorted; codings select only what the view has coded itself."""
    assert vary_names(headers) == expected
    assert verdict_of(headers, rules=CacheRules(timeout=5), default_timeout=None).vary == expected


@pytest.mark.parametrize(
    ("vary", "headers", "expected"),
    [
        ((), [], True),
        ((), [(b"x", b"1")], True),
        (((b"x", b"1"),), [(b"x", b"1"), (b"y", b"2")], True),
        (((b"x", b"1"),), [(b"x", b"2")], False),
        (((b"x", b"1"),), [], False),
        (((b"x", None),), [], True),
        (((b"x", None),), [(b"x", b"")], False),
        (((b"x", b""),), [(b"x", b"")], True),
        (((b"x", b"1, 2"),), [(b"x", b"1"), (b"x", b"2")], True),
        (((b"x", b"1"), (b"y", None)), [(b"x", b"1"), (b"y", b"")], False),
    ],
)
def test_a_stored_response_answers_those_with_its_values(
    vary: tuple[tuple[bytes, bytes | None], ...], headers: RawHeaders, expected: bool
) -> None:
    """All of its fields must be alike; an absent field is like an absent one only (RFC 9111 §4.1)."""
    assert selects(vary, headers) is expected


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        ("GET", [], None),
        ("HEAD", [], None),
        ("GET", [(b"content-length", b"0")], None),
        ("GET", [(b"content-length", b"1")], "request-body"),
        ("HEAD", [(b"content-length", b"5")], "request-body"),
        ("GET", [(b"content-length", b"")], "request-body"),
        ("GET", [(b"transfer-encoding", b"chunked")], "request-body"),
        ("GET", [(b"cookie", b"a=1"), (b"authorization", b"x")], None),
        ("POST", [], "method"),
        ("PUT", [], "method"),
        ("DELETE", [], "method"),
        ("OPTIONS", [], "method"),
        ("QUERY", [], "method"),
        ("get", [], "method"),
        ("POST", [(b"content-length", b"5")], "method"),
    ],
)
def test_some_requests_are_not_looked_up(method: str, headers: RawHeaders, expected: str | None) -> None:
    """Methods are case-sensitive; a body could select the answer, and no key has it."""
    assert bypass_reason({"method": method, "headers": headers}) == expected


def test_credentials_are_those_in_authorization() -> None:
    """Even an empty field; a cookie is none."""
    assert is_authorized([(b"authorization", b"")])
    assert is_authorized([(b"x", b"1"), (b"authorization", b"Basic eA==")])
    assert not is_authorized([(b"cookie", b"a=1"), (b"proxy-authorization", b"x")])


def test_only_safe_methods_change_nothing() -> None:
    """Methods that nobody knows may change anything (RFC 9110 §9.2.1)."""
    assert {"GET", "HEAD", "OPTIONS", "TRACE"} == SAFE_METHODS
