"""Explanations for people: complete, readable, and true to what is stored."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import aeros
from aeros.caching.entry import StoredResponse
from aeros.caching.explain import Explanation, explain_response
from aeros.caching.rules import CacheRules
from aeros.caching.server import Cache
from aeros.caching.transaction import EVICTED
from tests.unit.caching.visits import RULES, Clock, key_of, language, offer, opened, scope_of, stored

SOURCES = Path(aeros.__file__).parent / "caching"


def response(**changes: object) -> StoredResponse:
    """Returns a stored response of a minute."""
    found = StoredResponse(
        key=b"1:1,", status=200, headers=[], body=b"x", etag="", stored_at=1000.0, lifetime=60.0
    )
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def test_nothing_stored_is_a_miss() -> None:
    """With the key that was looked up, the tags that it would have, and why it was refused lately."""
    found = explain_response(None, key=b"k", tags=("a",), reason="session", now=1.0)
    assert found == Explanation(outcome="miss", reason="session", key="k", tags=("a",))
    assert explain_response(None, key=b"k", tags=(), reason=None, now=1.0).cure is None


@pytest.mark.parametrize(
    ("now", "outcome"), [(1012.5, "hit"), (1059.9, "hit"), (1060.0, "stale"), (1075.0, "stale")]
)
def test_what_is_stored_is_described(now: float, outcome: str) -> None:
    """Under the key that it has, which may be that of a variant."""
    entry = response(
        key=b"2:variant,",
        status=404,
        vary=((b"accept", b"text/html"), (b"x", None)),
        variants={"gzip": b"1", "br": b"2"},
    )
    found = explain_response(entry, key=b"k", tags=("a",), reason="session", now=now)
    assert (found.outcome, found.reason, found.key, found.status) == (outcome, None, "2:variant,", 404)
    assert (found.age, found.ttl) == (now - 1000, 1060 - now)
    assert (found.vary, found.codings, found.tags) == (("accept", "x"), ("br", "gzip"), ("a",))


@pytest.mark.parametrize(
    ("explanation", "text"),
    [
        (Explanation(outcome="miss"), "miss"),
        (Explanation(outcome="miss", key="k", tags=("a", "b")), "miss; tags a, b; key k"),
        (
            Explanation(outcome="bypass", reason="method"),
            "bypass; method: only GET and HEAD are answered from the cache",
        ),
        (Explanation(outcome="bypass", reason="of-a-subclass"), "bypass; of-a-subclass"),
        (
            Explanation(
                outcome="hit",
                status=200,
                age=12.4,
                ttl=47.6,
                vary=("accept",),
                codings=("br",),
                key="k",
            ),
            "hit; stored 12 s ago with status 200, fresh for 48 s; selected by accept; ready in br; key k",
        ),
        (
            Explanation(outcome="stale", status=200, age=70.0, ttl=-10.0),
            "stale; stored 70 s ago with status 200, fresh for -10 s",
        ),
    ],
)
def test_an_explanation_is_a_paragraph(explanation: Explanation, text: str) -> None:
    """Only of what is known."""
    assert str(explanation) == text


def test_a_key_of_any_bytes_can_be_read() -> None:
    """What is no text is shown as it would be written."""
    found = explain_response(None, key=b"/caf\xc3\xa9\xff", tags=(), reason=None, now=0.0)
    assert found.key == "/café\\xff"


def test_every_reason_that_the_cache_gives_is_explained() -> None:
    """A token that only its author understands is no reason."""
    literal = re.compile(r'(?:reason = |reason=|abandon\(|bypass\(|bypassed\()"([a-z-]+)"')
    given = {reason for source in SOURCES.glob("*.py") for reason in literal.findall(source.read_text())}
    given.add(EVICTED)
    given.update(re.findall(r'return "([a-z-]+)"', (SOURCES / "policy.py").read_text()))
    assert {"unless", "stream", "none", "status", "no-lifetime", "authorization", "method"} <= given
    explanations = [Explanation(outcome="bypass", reason=reason) for reason in given]
    assert [found.reason for found in explanations if found.cure == found.reason] == []


# What the cache says of a request


async def test_explaining_leaves_no_trace() -> None:
    """Neither counters nor flights: the next request is as if nobody had asked."""
    cache = Cache(clock=Clock())
    await cache.explain(scope_of(), RULES)
    leader = await opened(cache)
    assert leader.is_leading
    found = await cache.explain(scope_of(), RULES)
    assert (found.outcome, found.reason, found.key) == ("miss", None, key_of().decode())
    offer(leader)
    before = cache.stats()
    hit = await cache.explain(scope_of(), RULES, tags=lambda: ("a", "b"))
    assert (hit.outcome, hit.age, hit.ttl, hit.tags) == ("hit", 0.0, 300.0, ("a", "b"))
    assert cache.stats() == before


async def test_a_stale_response_is_explained_as_such() -> None:
    """As long as it may be of use."""
    clock = Clock()
    cache = Cache(clock=clock)
    rules = CacheRules(timeout=10, stale_if_error=5)
    await stored(cache, rules=rules)
    clock.now += 12
    assert (await cache.explain(scope_of(), rules)).outcome == "stale"
    clock.now += 5
    assert (await cache.explain(scope_of(), rules)).outcome == "miss"


async def test_the_variant_that_a_request_selects_is_explained() -> None:
    """Not another one."""
    cache = Cache()
    await stored(cache, b"de", language(b"de"), headers=[(b"vary", b"accept-language")])
    found = await cache.explain(language(b"de"), RULES)
    assert (found.outcome, found.vary) == ("hit", ("accept-language",))
    assert (await cache.explain(language(b"fr"), RULES)).outcome == "miss"


@pytest.mark.parametrize(
    ("scope", "reason"),
    [
        (scope_of(method="POST"), "method"),
        (scope_of("/a", (b"content-length", b"3")), "request-body"),
    ],
)
async def test_requests_that_are_not_looked_up_are_bypasses(scope: dict[str, object], reason: str) -> None:
    """With the token that Cache-Status would show, where it shows one."""
    found = await Cache().explain(scope, RULES)
    assert (found.outcome, found.reason) == ("bypass", reason)


async def test_why_the_last_response_was_refused_is_told() -> None:
    """Until one is stored."""
    cache = Cache()
    offer(await opened(cache), headers=[(b"set-cookie", b"a=1")])
    assert (await cache.explain(scope_of(), RULES)).reason == "set-cookie"
    assert (await cache.explain(scope_of("/b"), RULES)).reason is None
    offer(await opened(cache))
    assert (await cache.explain(scope_of(), RULES)).reason is None
    await cache.evict(None)
    assert (await cache.explain(scope_of(), RULES)).reason is None


async def test_credentials_are_named_as_a_reason() -> None:
    """They miss what others hit, and a route that shares it says so."""
    cache = Cache()
    await stored(cache)
    secret = scope_of("/a", (b"authorization", b"Basic eA=="))
    found = await cache.explain(secret, RULES)
    assert (found.outcome, found.reason) == ("miss", "authorization")
    rules = CacheRules(authorized=True)
    await stored(cache, scope=scope_of("/b"), rules=rules)
    shared = scope_of("/b", (b"authorization", b"Basic eA=="))
    found = await cache.explain(shared, rules)
    assert (found.outcome, found.reason) == ("hit", None)
