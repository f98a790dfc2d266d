"""One request on a cached route: the view's response is proposed, then committed or abandoned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from aeros.caching.entry import StoredResponse
from aeros.caching.flights import Flight, Landing
from aeros.caching.keys import refined_key, request_key, selecting_fields, variant_key
from aeros.caching.levels import Address, Sighting
from aeros.caching.marks import family_mark, path_marks, shared_mark, tag_marks, tag_names
from aeros.caching.policy import (
    ERROR_STATUSES,
    Verdict,
    forbidden_reason,
    is_authorized,
    judge,
    vary_names,
)
from aeros.caching.rules import CacheRules
from aeros.http.cache_status import CacheStatus
from aeros.http.etag import entity_tag_of
from aeros.http.fields import end_to_end, first_value, format_http_date, without
from aeros.http.freshness import initial_age
from aeros.types import RawHeaders

EVICTED: Final = "evicted"
"""The reason of a response that is out of date already: what it was made from was evicted."""

_TRANSIENT: Final = frozenset({EVICTED, "limit"})


class CacheRequest:
    """What the cache needs to know of a request.

    Args:
        scope: Its ASGI scope.
        rules: The options of its route.
        tags: Gives the tags of its response.
        extra: What the route makes part of the key besides the URL and the ``vary`` fields.

    Attributes:
        base: The key of its URL.
        key: Its primary key: the base, and whatever else the route makes part of it.
        headers: Its fields.
        authorized: Whether its credentials are its own, so that it may not be answered for others.
        method: GET or HEAD.
        rules: The options of its route.
    """

    __slots__ = (
        "_marks",
        "_scope",
        "_tags",
        "_template",
        "authorized",
        "base",
        "headers",
        "key",
        "method",
        "rules",
    )

    def __init__(
        self,
        scope: Mapping[str, object],
        rules: CacheRules,
        *,
        tags: Callable[[], object] | None = None,
        extra: Sequence[bytes] = (),
    ) -> None:
        self._scope = scope
        self._tags = tags
        self._marks: tuple[str, ...] | None = None
        self.headers: RawHeaders = cast(RawHeaders, scope["headers"])
        self.method: str = str(scope["method"])
        self.rules: CacheRules = rules
        self.authorized: bool = not rules.shares_authorized and is_authorized(self.headers)
        self._template: tuple[str, ...] = rules.key_template()
        self.base: bytes = request_key(
            scope,
            template=self._template,
            view=rules.view,
            query=rules.query,
            hash_method=rules.hash_method,
        )
        self.key: bytes = self.base
        if rules.vary or extra:
            self.key = refined_key(self.base, rules.vary, self.headers, extra)

    @property
    def may_lead(self) -> bool:
        """Whether its response says anything about those of others.

        HEAD may have another view's answer, and credentials another user's.
        """
        return self.method != "HEAD" and not self.authorized

    @property
    def tags(self) -> tuple[str, ...]:
        """The names of its tags."""
        return () if self._tags is None else tag_names(self._tags())

    @property
    def marks(self) -> tuple[str, ...]:
        """What its response can be evicted by: its path, and its tags."""
        if self._marks is None:
            marks = path_marks(self._scope)
            if len(self._template) == 1:
                marks += (shared_mark(self._template[0]),)
            if self._tags is not None:
                marks += tag_marks(self.tags)
            self._marks = marks
        return self._marks

    def variant(self, names: Sequence[bytes]) -> bytes:
        """Returns the key of the response that it selects by these fields."""
        return variant_key(self.key, names, self.headers)

    def address(self, key: bytes) -> Address:
        """Returns where one of its entries is kept: the response, a variant, or what selects them."""
        family = None if key == self.base else family_mark(self.base)
        return Address(key, self.rules.hash_method, lambda: self.marks, family)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a transaction needs of its cache.

    Attributes:
        clock: Seconds since the epoch.
        default_timeout: Lifetime in seconds where nothing states one; None: do not store.
        shows_status: Whether responses say in ``Cache-Status`` what the cache did.
        admit: Stores a response; returns why it did not, None where it did.
        note_bypass: Counts a response that is not stored, by reason.
        refuse: Takes note that what a key stands for can not be stored, and why.
        outdated: Forgets the stale response that another one, not to be stored, has replaced.
        fail: Takes note that a stale response could not be replaced; the next try waits.
        rescued: Counts a stale response that was used instead of an error.
        has_evicted: Tells whether what was seen for a request has been evicted since.
    """

    clock: Callable[[], float]
    default_timeout: float | None
    shows_status: bool
    admit: Callable[[CacheRequest, StoredResponse, Sighting], str | None]
    note_bypass: Callable[[str], None]
    refuse: Callable[[bytes, str], None]
    outdated: Callable[[CacheRequest, bytes], None]
    fail: Callable[[bytes], None]
    rescued: Callable[[], None]
    has_evicted: Callable[[CacheRequest, Sighting], bool]


@dataclass(frozen=True, slots=True)
class Refresh:
    """The right to replace a stale response, given to one request at a time.

    Attributes:
        key: The key of the stale response.
        flight: The flight of that key.
        note_failure: As ``Terms.fail``.
    """

    key: bytes
    flight: Flight[StoredResponse]
    note_failure: Callable[[bytes], None]

    def fail(self) -> None:
        """Takes note that the request did not get as far as to try; the next one waits."""
        self.note_failure(self.key)

    def give_up(self) -> None:
        """Lets another request try."""
        self.flight.land(Landing.NOTHING)


_UNSEEN: Final = Sighting(None, 0)


class Transaction:
    """One request on a cached route, from its lookup to the end of its response.

    Attributes:
        hit: The stored response to answer with; None: the view must run.
        status: What ``Cache-Status`` says, as far as it is known.
        refresh: Set where ``hit`` is stale and this request is to have it replaced.
    """

    __slots__ = (
        "_candidate",
        "_fallback",
        "_flight",
        "_is_refreshing",
        "_judged",
        "_key",
        "_request",
        "_sighting",
        "_terms",
        "hit",
        "refresh",
        "status",
    )

    def __init__(
        self,
        terms: Terms,
        *,
        status: CacheStatus,
        hit: StoredResponse | None = None,
        refresh: Refresh | None = None,
        request: CacheRequest | None = None,
        key: bytes = b"",
        flight: Flight[StoredResponse] | None = None,
        sighting: Sighting = _UNSEEN,
        fallback: StoredResponse | None = None,
        is_refreshing: bool = False,
    ) -> None:
        self.hit: StoredResponse | None = hit
        self.status: CacheStatus = status
        self.refresh: Refresh | None = refresh
        self._terms = terms
        self._request = request
        self._key = key
        self._flight = flight
        self._sighting = sighting
        self._fallback = fallback
        self._is_refreshing = is_refreshing
        self._candidate: StoredResponse | None = None
        self._judged: RawHeaders | None = None

    @property
    def shows_status(self) -> bool:
        """Whether the response says what the cache did."""
        return self._terms.shows_status

    @property
    def is_leading(self) -> bool:
        """Whether requests may be waiting for this one's view."""
        return self._flight is not None

    async def finish_leading(self) -> None:
        """Waits until nobody waits for this one's view any more, within the cache's deadline."""
        if self._flight is not None:
            await self._flight.wait()

    @property
    def age(self) -> int | None:
        """The age in whole seconds of what was stored before this request; None for anything new."""
        is_new = self.status.collapsed and self.status.fwd != "stale"
        return int(self.hit.age(self._terms.clock())) if self.hit is not None and not is_new else None

    @property
    def is_proposed(self) -> bool:
        """Whether there is something to be stored, once all hooks have run."""
        return self._candidate is not None

    @property
    def has_fallback(self) -> bool:
        """Whether there is a stale response to use instead of an error."""
        return self._fallback is not None

    @property
    def is_refreshing(self) -> bool:
        """Whether it is to replace a stale response in the background."""
        return self._is_refreshing

    def rescue(self, status: int) -> StoredResponse | None:
        """Returns the stale response to use instead of an error of this status (RFC 5861 §4)."""
        fallback, request = self._fallback, self._request
        if fallback is None or request is None or status not in ERROR_STATUSES:
            return None
        ttl = fallback.ttl(self._terms.clock())
        if -ttl > fallback.if_error or self._terms.has_evicted(request, self._sighting):
            return None  # the view took longer than that, or what it found must not be used any more
        self.status = CacheStatus(fwd="stale", fwd_status=status, ttl=int(ttl), detail="stale-if-error")
        self.hit = fallback
        self._candidate = self._request = None
        self._terms.fail(self._key)
        self._terms.rescued()
        self._land(fallback)
        return fallback

    def propose(
        self, *, status: int, headers: RawHeaders, body: bytes, accepted: bool = False
    ) -> StoredResponse | None:
        """Offers the view's response; returns it as it would be stored, or None if it may not be.

        Args:
            status: Its status code.
            headers: Its fields, names in lower case.
            body: Its complete body.
            accepted: Whether this status may be stored as 200 may.
        """
        request, now = self._request, self._terms.clock()
        if request is None:
            return None
        if request.method == "HEAD":
            self._end()
            return None
        if self._is_refreshing and status in ERROR_STATUSES:
            self.abandon()
            return None
        verdict = judge(
            status=status,
            headers=headers,
            authorized=request.authorized,
            rules=request.rules,
            default_timeout=self._terms.default_timeout,
            accepted=accepted,
            now=now,
        )
        reason = verdict.reason or _incomplete_reason(headers, body)
        if reason is not None:
            self.abandon(reason)
            return None
        candidate = _candidate(request, verdict, status, headers, body, now)
        if candidate.ttl(now) <= 0:
            self.abandon("lifetime-zero")
            return None
        self._candidate = candidate
        self._judged = headers
        return candidate

    def commit(self, *, status: int, headers: RawHeaders, personal: str | None) -> None:
        """Stores what was proposed, unless the finished response forbids it.

        Args:
            status: The status code when all hooks have run.
            headers: The fields when all hooks have run, names in lower case.
            personal: What was read that belongs to one user, e.g. ``"session"``; None: nothing.
        """
        candidate, request = self._candidate, self._request
        if candidate is None or request is None:
            return
        self._candidate = None
        if self._is_refreshing and status in ERROR_STATUSES:
            self.abandon()
            return
        names: tuple[bytes, ...] = ()
        reason = personal
        # What a hook has not touched was looked at when it was proposed.
        if personal is not None or headers != self._judged:
            names = vary_names(headers)
            if personal == "cookies" and b"cookie" in names:
                personal = None  # each client's cookies select a response of their own
            reason = personal or forbidden_reason(headers)
        if reason is None and status != candidate.status:
            reason = "status"
        if reason is None and candidate.ttl(self._terms.clock()) <= 0:
            reason = "lifetime-zero"  # the hooks took longer than that
        if reason is None:
            if names:
                _select_by(candidate, request, names)
            reason = self._terms.admit(request, candidate, self._sighting)
        if reason is not None:
            self.abandon(reason)
            return
        self.status = CacheStatus(fwd=self.status.fwd, stored=True)
        self._request = None
        self._land(candidate)

    def abandon(self, reason: str | None = None) -> None:
        """Ends it without storing; those who wait run the view themselves. Harmless when it has ended.

        Args:
            reason: Why, as a token for ``Cache-Status``.
        """
        request = self._request
        if request is None or reason is None:
            if request is not None and self._is_refreshing:
                self._terms.fail(self._key)
            self._end()
            return
        self._terms.note_bypass(reason)
        self.status = CacheStatus(fwd="bypass", detail=reason)
        if reason not in _TRANSIENT:
            if request.may_lead:
                self._terms.refuse(self._key, reason)
            if self._is_refreshing:
                self._terms.outdated(request, self._key)
        elif self._is_refreshing and reason != EVICTED:
            self._terms.fail(self._key)  # there was no room for it, and trying at once makes no more
        self._end(Landing.TURNED_BACK if reason == EVICTED else Landing.NOTHING)

    def _end(self, landing: Landing = Landing.NOTHING) -> None:
        self._candidate = self._request = None
        self._land(landing)

    def _land(self, brought: StoredResponse | Landing) -> None:
        flight, self._flight = self._flight, None
        if flight is not None:
            flight.land(brought)


def _incomplete_reason(headers: RawHeaders, body: bytes) -> str | None:
    """Returns why a body is not the one that its fields announce (RFC 9111 §3.3), None where it is."""
    length = first_value(headers, b"content-length")
    return None if length in (None, b"%d" % len(body)) else "incomplete"


def _select_by(candidate: StoredResponse, request: CacheRequest, names: tuple[bytes, ...]) -> None:
    """Makes the request's values of more fields select the response: a hook may have set ``Vary``."""
    selecting = sorted({*names, *(name for name, _ in candidate.vary)})
    if len(selecting) > len(candidate.vary):
        candidate.vary = selecting_fields(selecting, request.headers)
        candidate.key = request.variant(selecting)


def _candidate(
    request: CacheRequest, verdict: Verdict, status: int, headers: RawHeaders, body: bytes, now: float
) -> StoredResponse:
    kept = without(end_to_end(headers), {b"content-length", b"age"})
    if first_value(kept, b"date") is None:
        kept.append((b"date", format_http_date(now).encode("ascii")))
    vary = selecting_fields(verdict.vary, request.headers)
    return StoredResponse(
        key=request.variant(verdict.vary) if vary else request.key,
        status=status,
        headers=kept,
        body=body,
        etag=str(entity_tag_of(body)),
        stored_at=now,
        lifetime=verdict.lifetime,
        initial_age=initial_age(headers, now),
        vary=vary,
        is_public=verdict.is_public,
        while_revalidate=verdict.while_revalidate,
        if_error=verdict.if_error,
    )
