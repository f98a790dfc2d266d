"""One request on a cached route: the view's response is proposed, then committed or abandoned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from aeros.caching.entry import StoredResponse
from aeros.caching.keys import selecting_fields, variant_key
from aeros.caching.policy import Verdict, forbidden_reason, judge, vary_names
from aeros.caching.rules import CacheRules
from aeros.http.cache_status import CacheStatus
from aeros.http.etag import entity_tag_of
from aeros.http.fields import end_to_end, first_value, format_http_date, without
from aeros.http.freshness import initial_age
from aeros.types import RawHeaders


@dataclass(frozen=True, slots=True)
class CacheRequest:
    """What the cache needs to know of a request.

    Attributes:
        key: Its primary key.
        headers: Its fields.
        authorized: Whether it carries ``Authorization``.
        method: GET or HEAD.
        rules: The options of its route.
    """

    key: bytes
    headers: RawHeaders
    authorized: bool
    method: str
    rules: CacheRules


@dataclass(frozen=True, slots=True)
class Marks:
    """How the cache stood when a view began; what was cleared since must not come back.

    Attributes:
        clearings: How often this process had cleared it.
        generation: The shared store's generation.
    """

    clearings: int = 0
    generation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a transaction needs of its cache.

    Attributes:
        clock: Seconds since the epoch.
        default_timeout: Lifetime in seconds where nothing states one; None: do not store.
        deadline_seconds: How long a view may go on after its own client has left.
        admit: Stores a response; returns why it did not, None where it did.
        note_bypass: Counts a response that is not stored, by reason.
    """

    clock: Callable[[], float]
    default_timeout: float | None
    deadline_seconds: float
    admit: Callable[[CacheRequest, StoredResponse, Marks], str | None]
    note_bypass: Callable[[str], None]


_UNMARKED = Marks()


class Flight:
    """A view that runs for several requests: one leads, the others wait for what it brings."""

    __slots__ = ("_landed", "_remove")

    def __init__(self, remove: Callable[[], object]) -> None:
        self._landed: asyncio.Future[StoredResponse | None] = asyncio.get_running_loop().create_future()
        self._remove = remove

    async def wait(self, timeout_seconds: float) -> StoredResponse | None:
        """Returns what the leader stored; None where it stored nothing or took too long."""
        done, _ = await asyncio.wait([self._landed], timeout=max(0.0, timeout_seconds))
        return self._landed.result() if done else None

    def land(self, stored: StoredResponse | None) -> None:
        """Gives those who wait what was stored."""
        self._remove()
        if not self._landed.done():
            self._landed.set_result(stored)


class Transaction:
    """One request on a cached route, from its lookup to the end of its response.

    Attributes:
        hit: The stored response to answer with; None: the view must run.
        status: What ``Cache-Status`` says, as far as it is known.
    """

    __slots__ = ("_candidate", "_flight", "_marks", "_request", "_terms", "hit", "status")

    def __init__(
        self,
        terms: Terms,
        *,
        status: CacheStatus,
        hit: StoredResponse | None = None,
        request: CacheRequest | None = None,
        flight: Flight | None = None,
        marks: Marks = _UNMARKED,
    ) -> None:
        self.hit: StoredResponse | None = hit
        self.status: CacheStatus = status
        self._terms = terms
        self._request = request
        self._flight = flight
        self._marks = marks
        self._candidate: StoredResponse | None = None

    @property
    def is_leading(self) -> bool:
        """Whether requests may be waiting for this one's view."""
        return self._flight is not None

    async def finish_leading(self) -> None:
        """Waits until nobody waits for this one's view any more, within the cache's deadline."""
        if self._flight is not None:
            await self._flight.wait(self._terms.deadline_seconds)

    @property
    def age(self) -> int:
        """The age of the hit in whole seconds, for the ``Age`` field."""
        return 0 if self.hit is None else int(self.hit.age(self._terms.clock()))

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
            self.abandon()
            return None
        verdict = judge(
            status=status,
            headers=headers,
            authorized=request.authorized,
            timeout=request.rules.timeout,
            default_timeout=self._terms.default_timeout,
            accepted=accepted,
            now=now,
        )
        if verdict.reason is not None:
            self.abandon(verdict.reason)
            return None
        candidate = _candidate(request, verdict, status, headers, body, now)
        if candidate.ttl(now) <= 0:
            self.abandon("lifetime-zero")
            return None
        self._candidate = candidate
        return candidate

    def commit(self, *, status: int, headers: RawHeaders, session_used: bool) -> None:
        """Stores what was proposed, unless the finished response forbids it.

        Args:
            status: The status code when all hooks have run.
            headers: The fields when all hooks have run, names in lower case.
            session_used: Whether anything read or wrote the session.
        """
        candidate, request = self._candidate, self._request
        if candidate is None or request is None:
            return
        self._candidate = None
        reason = "session" if session_used else forbidden_reason(headers)
        if reason is None and status != candidate.status:
            reason = "status"
        if reason is None:
            _select_by(candidate, request, vary_names(headers))
            reason = self._terms.admit(request, candidate, self._marks)
        if reason is not None:
            self.abandon(reason)
            return
        self.status = CacheStatus(fwd="miss", stored=True)
        self._land(candidate)

    def abandon(self, reason: str | None = None) -> None:
        """Ends it without storing; those who wait run the view themselves. Harmless when it has ended.

        Args:
            reason: Why, as a token for ``Cache-Status``.
        """
        if reason is not None:
            self._terms.note_bypass(reason)
            self.status = CacheStatus(fwd="bypass", detail=reason)
        self._candidate = None
        self._request = None
        self._land(None)

    def _land(self, stored: StoredResponse | None) -> None:
        flight, self._flight = self._flight, None
        if flight is not None:
            flight.land(stored)


def _select_by(candidate: StoredResponse, request: CacheRequest, names: tuple[bytes, ...]) -> None:
    """Makes the request's values of more fields select the response: a hook may have set ``Vary``."""
    selecting = sorted({*names, *(name for name, _ in candidate.vary)})
    if len(selecting) > len(candidate.vary):
        candidate.vary = selecting_fields(selecting, request.headers)
        candidate.key = variant_key(request.key, selecting, request.headers)


def _candidate(
    request: CacheRequest, verdict: Verdict, status: int, headers: RawHeaders, body: bytes, now: float
) -> StoredResponse:
    kept = without(end_to_end(headers), {b"content-length", b"age"})
    if first_value(kept, b"date") is None:
        kept.append((b"date", format_http_date(now).encode("ascii")))
    vary = selecting_fields(verdict.vary, request.headers)
    return StoredResponse(
        key=variant_key(request.key, verdict.vary, request.headers) if vary else request.key,
        status=status,
        headers=kept,
        body=body,
        etag=str(entity_tag_of(body)),
        stored_at=now,
        lifetime=verdict.lifetime,
        initial_age=initial_age(headers, now),
        vary=vary,
        is_public=verdict.is_public,
    )
