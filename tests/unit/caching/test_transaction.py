"""One request on a cached route: what is proposed, what is committed, and under which key and marks."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable

import pytest

from aeros.caching.entry import StoredResponse
from aeros.caching.keys import store_key
from aeros.caching.levels import Sighting
from aeros.caching.marks import family_mark, path_mark, shared_mark, tag_marks
from aeros.caching.rules import CacheRules
from aeros.caching.server import Cache
from aeros.caching.transaction import CacheRequest, Terms, Transaction
from aeros.errors import InvalidSettingError
from aeros.http.cache_status import CacheStatus
from aeros.http.etag import entity_tag_of
from aeros.http.fields import format_http_date
from aeros.types import RawHeaders
from tests.unit.caching.visits import (
    RULES,
    Clock,
    boarding,
    body_of,
    language,
    offer,
    opened,
    scope_of,
    turns,
)

AUTHORIZATION = (b"authorization", b"Basic eA==")


def request_of(
    scope: dict[str, object] | None = None,
    rules: CacheRules = RULES,
    *,
    tags: Iterable[str] | None = None,
    extra: tuple[bytes, ...] = (),
) -> CacheRequest:
    """Returns what the cache knows of a request."""
    return CacheRequest(scope or scope_of(), rules, tags=None if tags is None else lambda: tags, extra=extra)


# A request


def test_a_request_has_the_key_of_its_url() -> None:
    """And that of its variants, by the fields that select them."""
    request = request_of(language(b"de"))
    assert request.key == request.base == request_of(language(b"fr")).key
    assert request.variant([b"accept-language"]) != request_of(language(b"fr")).variant([b"accept-language"])
    assert request.variant([b"x"]) == request_of(language(b"fr")).variant([b"x"])


@pytest.mark.parametrize("part", ["vary", "extra", "view", "prefix"])
def test_what_the_route_adds_is_part_of_the_key(part: str) -> None:
    """Only the URL decides about the base."""
    rules = CacheRules(vary=(b"accept-language",)) if part == "vary" else RULES
    if part == "view":
        one, other = (request_of(rules=CacheRules(view=name)) for name in ("a", "b"))
    elif part == "prefix":
        one, other = (request_of(rules=CacheRules(key_prefix=name)) for name in ("a%s", "b%s"))
    elif part == "extra":
        one, other = (request_of(extra=(name,)) for name in (b"a", b"b"))
    else:
        one, other = (request_of(language(name), rules) for name in (b"de", b"fr"))
    assert one.key != other.key
    assert (one.base == other.base) is (part in ("vary", "extra"))
    assert (one.key == one.base) is (part in ("view", "prefix"))


@pytest.mark.parametrize(
    ("scope", "rules", "authorized", "may_lead"),
    [
        (scope_of(), RULES, False, True),
        (scope_of(method="HEAD"), RULES, False, False),
        (scope_of("/a", AUTHORIZATION), RULES, True, False),
        (scope_of("/a", AUTHORIZATION), CacheRules(authorized=True), False, True),
        (scope_of("/a", AUTHORIZATION), CacheRules(vary=(b"authorization",)), False, True),
        (scope_of("/a", AUTHORIZATION, method="HEAD"), CacheRules(authorized=True), False, False),
    ],
)
def test_some_requests_may_not_speak_for_others(
    scope: dict[str, object], rules: CacheRules, authorized: bool, may_lead: bool
) -> None:
    """HEAD may have another view, and credentials are of one user, unless the route says otherwise."""
    request = request_of(scope, rules)
    assert (request.authorized, request.may_lead) == (authorized, may_lead)


def test_a_response_can_be_evicted_by_its_path_and_its_tags() -> None:
    """The query and the fields are no part of that."""
    request = request_of({**scope_of(), "query_string": b"b=1"}, tags=["a", "b", "a"])
    assert request.tags == ("a", "b")
    assert request.marks == (path_mark("/a"), *tag_marks(["a", "b"]))
    assert request_of().marks == (path_mark("/a"),)


def test_a_response_that_all_paths_share_can_be_evicted_by_its_text() -> None:
    """By whichever path it was made, another one evicts it as well."""
    rules = CacheRules(key_prefix="all")
    one, other = request_of(scope_of("/a"), rules), request_of(scope_of("/b"), rules)
    assert one.key == other.key
    assert one.marks == (path_mark("/a"), shared_mark("all"))
    assert set(one.marks) & set(other.marks) == {shared_mark("all")}


def test_a_text_that_is_asked_for_at_each_request_is_asked_for_once() -> None:
    """Or else the key and the mark of one request would differ."""
    texts = iter(["first", "second"])
    request = request_of(rules=CacheRules(key_prefix=lambda: next(texts)))
    assert request.marks[1:] == (shared_mark("first"),)
    assert next(texts) == "second"


def test_tags_are_asked_for_only_where_they_are_needed() -> None:
    """They may cost something; and what is no tag is an error of the route."""
    asked: list[None] = []

    def tags() -> object:
        asked.append(None)
        return ["a", 5]

    request = CacheRequest(scope_of(), RULES, tags=tags)
    address = request.address(request.key)
    assert asked == []
    with pytest.raises(InvalidSettingError, match=r"^tags: "):
        address.marks()


def test_tags_are_asked_for_once() -> None:
    """However often the entry is looked at and stored."""
    asked: list[None] = []

    def tags() -> object:
        asked.append(None)
        return "a"

    request = CacheRequest(scope_of(), RULES, tags=tags)
    found = [request.address(key).marks() for key in (request.key, request.variant([b"x"]))]
    assert found == [request.marks] * 2
    assert len(asked) == 1


def test_variants_of_one_url_are_of_one_family() -> None:
    """The response to the URL itself, of which there is one, is of none."""
    request = request_of(language(b"de"))
    assert request.address(request.key).family is None
    variant = request.address(request.variant([b"accept-language"]))
    refined = request_of(extra=(b"1",))
    assert variant.family == refined.address(refined.key).family == family_mark(request.base)
    assert variant.name == store_key(variant.key, hashlib.md5)


# What is stored


async def test_a_proposed_response_is_complete() -> None:
    """With a tag, a date, and all that later requests are judged by."""
    clock = Clock()
    rules = CacheRules(timeout=60, stale_while_revalidate=5, stale_if_error=7)
    transaction = await opened(Cache(clock=clock), language(b"de"), rules)
    headers: RawHeaders = [(b"vary", b"Accept-Language"), (b"age", b"3"), (b"content-length", b"1")]
    proposed = transaction.propose(status=200, headers=headers, body=b"x")
    assert proposed is not None
    assert proposed.headers == [
        (b"vary", b"Accept-Language"),
        (b"date", format_http_date(clock.now).encode()),
    ]
    assert (proposed.etag, proposed.stored_at) == (str(entity_tag_of(b"x")), clock.now)
    assert (proposed.lifetime, proposed.initial_age) == (60, 3)
    assert (proposed.while_revalidate, proposed.if_error) == (5, 7)
    assert proposed.vary == ((b"accept-language", b"de"),)
    assert proposed.key == request_of(language(b"de"), rules).variant([b"accept-language"])


async def test_a_body_that_is_not_what_its_fields_announce_is_not_stored() -> None:
    """It was cut off (RFC 9111 §3.3)."""
    cache = Cache()
    transaction = await opened(cache)
    assert offer(transaction, b"xy", headers=[(b"content-length", b"3")]) is None
    assert transaction.status == CacheStatus(fwd="bypass", detail="incomplete")
    assert await body_of(cache) is None


async def test_a_hook_may_make_the_response_vary() -> None:
    """The field that it names selects from then on, together with those of the view."""
    cache = Cache()
    transaction = await opened(cache, scope_of("/a", (b"x", b"1"), (b"y", b"2")))
    proposed = transaction.propose(status=200, headers=[(b"vary", b"x")], body=b"x1 y2")
    transaction.commit(status=200, headers=[(b"vary", b"x, y")], personal=None)
    assert proposed is not None
    assert proposed.vary == ((b"x", b"1"), (b"y", b"2"))
    assert await body_of(cache, scope_of("/a", (b"x", b"1"), (b"y", b"2"))) == b"x1 y2"
    for other in ([(b"x", b"1")], [(b"y", b"2")], [(b"x", b"1"), (b"y", b"3")], []):
        assert await body_of(cache, scope_of("/a", *other)) is None


async def test_a_hook_that_leaves_vary_out_does_not_mix_responses_up() -> None:
    """The view has said what its response depends on."""
    cache = Cache()
    transaction = await opened(cache, language(b"de"))
    transaction.propose(status=200, headers=[(b"vary", b"accept-language")], body=b"de")
    transaction.commit(status=200, headers=[], personal=None)
    assert transaction.status.stored
    assert await body_of(cache, language(b"de")) == b"de"
    assert await body_of(cache, language(b"fr")) is None


@pytest.mark.parametrize(
    ("headers", "reason"),
    [([], "cookies"), ([(b"vary", b"accept")], "cookies"), ([(b"vary", b"accept, Cookie")], None)],
)
async def test_what_was_read_of_cookies_counts_unless_they_select_the_response(
    headers: RawHeaders, reason: str | None
) -> None:
    """Each client's cookies have a response of their own then."""
    cache = Cache()
    transaction = await opened(cache, scope_of("/a", (b"cookie", b"a=1")))
    transaction.propose(status=200, headers=headers, body=b"a1")
    transaction.commit(status=200, headers=headers, personal="cookies")
    assert (transaction.status.detail, transaction.status.stored) == (reason, reason is None)
    assert await body_of(cache, scope_of("/a", (b"cookie", b"a=2"))) is None
    assert await body_of(cache, scope_of("/a", (b"cookie", b"a=1"))) == (None if reason else b"a1")


async def test_the_reason_is_what_belongs_to_a_user_before_all_else() -> None:
    """It is what somebody who looks for the reason can change."""
    transaction = await opened(Cache())
    transaction.propose(status=200, headers=[], body=b"x")
    transaction.commit(status=500, headers=[(b"set-cookie", b"a=1")], personal="session")
    assert transaction.status == CacheStatus(fwd="bypass", detail="session")


async def test_a_response_whose_hooks_took_longer_than_its_lifetime_is_not_stored() -> None:
    """It would be stale at once."""
    clock = Clock()
    cache = Cache(clock=clock)
    transaction = await opened(cache, rules=CacheRules(timeout=5))
    assert transaction.propose(status=200, headers=[], body=b"x") is not None
    clock.now += 6
    transaction.commit(status=200, headers=[], personal=None)
    assert transaction.status == CacheStatus(fwd="bypass", detail="lifetime-zero")
    assert cache.stats().stores == 0


async def test_nothing_is_stored_that_was_not_proposed() -> None:
    """A response that a hook made in the place of a view's was never judged."""
    cache = Cache()
    transaction = await opened(cache)
    transaction.commit(status=200, headers=[], personal=None)
    assert transaction.is_leading
    transaction.abandon()
    assert (cache.stats().stores, transaction.status) == (0, CacheStatus(fwd="miss"))


async def test_only_the_last_proposal_counts() -> None:
    """A view that was refused has ended the transaction."""
    cache = Cache()
    transaction = await opened(cache)
    assert transaction.propose(status=500, headers=[], body=b"") is None
    assert transaction.propose(status=200, headers=[], body=b"x") is None
    transaction.commit(status=200, headers=[], personal=None)
    assert cache.stats().stores == 0


# How it ends


async def test_those_who_wait_are_told_before_the_response_is_sent() -> None:
    """By the commit, which comes before the last of the leader's own answer."""
    cache = Cache()
    leader = await opened(cache)
    follower = boarding(cache)
    await turns()
    finishing = asyncio.create_task(leader.finish_leading())
    await turns()
    assert not finishing.done()
    offer(leader)
    await asyncio.wait_for(finishing, 10)
    assert (await follower).status.collapsed
    await leader.finish_leading()


async def test_a_transaction_that_leads_nothing_has_nothing_to_finish() -> None:
    """A hit, a bypass, a request that came past the bound."""
    cache = Cache()
    offer(await opened(cache))
    for transaction in (await opened(cache), cache.bypass("unless")):
        assert not transaction.is_leading
        await asyncio.wait_for(transaction.finish_leading(), 10)


@pytest.mark.parametrize("reason", [None, "stream", "limit"])
async def test_an_abandoned_transaction_lets_those_who_wait_go(reason: str | None) -> None:
    """Once; the reason is shown and counted, if there is one."""
    cache = Cache()
    leader = await opened(cache)
    follower = boarding(cache)
    await turns()
    leader.abandon(reason)
    leader.abandon("again")
    assert leader.status == (
        CacheStatus(fwd="miss") if reason is None else CacheStatus(fwd="bypass", detail=reason)
    )
    assert dict(cache.stats().bypasses) == ({} if reason is None else {reason: 1})
    assert (await follower).hit is None
    assert not leader.is_leading


async def test_a_hit_can_not_be_changed_by_what_follows() -> None:
    """Whatever the rest of the application does with it."""
    cache = Cache()
    offer(await opened(cache), b"x")
    found = await opened(cache)
    assert found.propose(status=200, headers=[], body=b"y") is None
    found.commit(status=200, headers=[], personal=None)
    found.abandon("stream")
    assert found.rescue(500) is None
    assert found.status == CacheStatus(hit=True, ttl=found.status.ttl)
    assert await body_of(cache) == b"x"
    assert dict(cache.stats().bypasses) == {}


async def test_only_what_was_stored_before_has_an_age() -> None:
    """A response that was waited for is as new as the leader's own."""
    clock = Clock()
    cache = Cache(clock=clock)
    leader = await opened(cache)
    follower = boarding(cache)
    await turns()
    assert leader.age is None
    offer(leader, headers=[(b"age", b"7")])
    assert (await follower).age is None
    clock.now += 2
    assert (await opened(cache)).age == 9
    assert cache.bypass("unless").age is None


async def test_a_stale_response_that_was_evicted_meanwhile_rescues_nobody() -> None:
    """Whoever evicted it wants it never to be seen again."""
    clock = Clock()
    cache = Cache(clock=clock)
    rules = CacheRules(timeout=10, stale_if_error=100)
    offer(await opened(cache, rules=rules), b"old")
    clock.now += 11
    leader = await opened(cache, rules=rules)
    assert leader.has_fallback
    await cache.evict([path_mark("/a")])
    assert leader.rescue(500) is None


@pytest.mark.parametrize("shows_status", [True, False])
async def test_the_cache_says_whether_responses_show_what_it_did(shows_status: bool) -> None:
    """For all transactions alike."""
    cache = Cache(show_status=shows_status)
    assert (await opened(cache)).shows_status is shows_status
    assert cache.bypass("unless").shows_status is shows_status


async def test_a_transaction_does_not_need_a_cache() -> None:
    """It speaks to its terms alone, in an order that can be relied on."""
    told: list[object] = []

    def admit(request: CacheRequest, candidate: StoredResponse, sighting: Sighting) -> str | None:
        told.append(("admit", candidate.body, sighting.stamp))
        return "too-large"

    terms = Terms(
        clock=Clock(),
        default_timeout=60,
        shows_status=True,
        admit=admit,
        has_evicted=lambda request, sighting: False,
        note_bypass=lambda reason: told.append(("bypass", reason)),
        refuse=lambda key, reason: told.append(("refuse", key, reason)),
        outdated=lambda request, key: told.append(("outdated", key)),
        fail=lambda key: told.append(("fail", key)),
        rescued=lambda: told.append("rescued"),
    )
    transaction = Transaction(
        terms,
        status=CacheStatus(fwd="stale"),
        request=request_of(),
        key=b"key",
        sighting=Sighting(None, 3, "stamp"),
        is_refreshing=True,
    )
    assert transaction.is_refreshing
    offer(transaction, b"x")
    assert told == [
        ("admit", b"x", "stamp"),
        ("bypass", "too-large"),
        ("refuse", b"key", "too-large"),
        ("outdated", b"key"),
    ]
    assert transaction.status == CacheStatus(fwd="bypass", detail="too-large")
