"""A machine drives the cache at random and compares all that it answers with a small model of RFC 9111.

The model knows nothing of keys, levels, stamps and flights. It remembers each response that it would
have stored, and tells of each hit whether that response may be used for that request now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any, ClassVar, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aeros.caching.entry import StoredResponse
from aeros.caching.marks import path_mark, tag_marks
from aeros.caching.rules import CacheRules
from aeros.caching.server import Cache
from aeros.caching.transaction import Refresh, Transaction
from aeros.types import RawHeaders

T = TypeVar("T")

DEFAULT_SECONDS = 300
LOCAL_SECONDS = 1
HOUR = 3600


# What is asked and answered


@dataclass(frozen=True, kw_only=True)
class Route:
    """What the application says of a view."""

    vary: tuple[str, ...] = ()
    seconds: int | None = None
    statuses: Mapping[int, int] = field(default_factory=dict[int, int])
    while_revalidate: int | None = None
    if_error: int | None = None
    is_shared: bool = False

    def rules(self, name: str) -> CacheRules:
        """Returns the same for the cache."""
        return CacheRules(
            view=name,
            vary=tuple(name.encode() for name in self.vary),
            timeout=self.seconds,
            statuses=self.statuses,
            stale_while_revalidate=self.while_revalidate,
            stale_if_error=self.if_error,
            authorized=self.is_shared,
        )


ROUTES = {
    "plain": Route(),
    "varying": Route(vary=("x-kind",)),
    "timed": Route(seconds=60, statuses={404: 10, 503: 5}),
    "stale": Route(while_revalidate=30, if_error=600),
    "shared": Route(is_shared=True, if_error=60),
}


@dataclass(frozen=True)
class Asked:
    """A request."""

    route: str
    path: str
    method: str
    fields: tuple[tuple[str, str], ...]
    has_body: bool

    def value(self, name: str) -> str | None:
        """Returns what the request says in a field, of several lines all; None where it is absent."""
        lines = [value for line, value in self.fields if line == name]
        return ", ".join(lines) if lines else None

    def values(self, names: Sequence[str]) -> tuple[str | None, ...]:
        """Returns what it says in several fields."""
        return tuple(map(self.value, names))

    @property
    def target(self) -> tuple[object, ...]:
        """What a response must have been asked for to be a candidate at all."""
        return self.route, self.path, self.values(ROUTES[self.route].vary)

    @property
    def tags(self) -> tuple[str, ...]:
        """What its response is evicted by, besides its path."""
        return f"route {self.route}", f"both {self.route} {self.path}"

    def scope(self) -> dict[str, object]:
        """Returns it as ASGI has it."""
        body = [(b"content-length", b"5")] if self.has_body else []
        return {
            "type": "http",
            "method": self.method,
            "scheme": "http",
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": b"",
            "headers": [
                (b"host", b"localhost"),
                *((name.encode(), value.encode()) for name, value in self.fields),
                *body,
            ],
        }


@dataclass(frozen=True)
class Answer:
    """What a view answers; dates are counted from the moment when it does."""

    status: int
    directives: tuple[tuple[str, str | None], ...]
    vary: tuple[str, ...]
    age: str | None
    date: int | None
    expires: int | str | None
    sets_cookie: bool
    is_coded: bool

    def headers(self, now: float) -> RawHeaders:
        """Returns its fields at a moment."""
        lines: list[tuple[str, str]] = []
        for name, argument in self.directives:
            # Some of them on one line, some on lines of their own, names in any case.
            lines.append(("cache-control", name if argument is None else f"{name.title()}={argument}"))
        lines += [("vary", name) for name in self.vary]
        if self.age is not None:
            lines.append(("age", self.age))
        if self.date is not None:
            lines.append(("date", formatdate(now + self.date, usegmt=True)))
        if self.expires is not None:
            date = self.expires
            lines.append(("expires", date if isinstance(date, str) else formatdate(now + date, usegmt=True)))
        if self.sets_cookie:
            lines.append(("set-cookie", "user=1"))
        if self.is_coded:
            lines.append(("content-encoding", "gzip"))
        return [(name.encode(), value.encode()) for name, value in lines]


# The model: what RFC 9111 and RFC 5861 say of a request, a response and a clock


def seconds_of(answer: Answer, name: str) -> int | None:
    """Returns the least number that a directive gives; what is none counts as 0."""
    arguments = [argument for directive, argument in answer.directives if directive == name]
    numbers = [int(text.strip('"')) if text and text.strip('"').isdigit() else 0 for text in arguments]
    return min(numbers, default=None)


def stale_seconds_of(answer: Answer, name: str) -> int:
    """Returns the same for RFC 5861, where what is no number says nothing."""
    arguments = [argument for directive, argument in answer.directives if directive == name]
    return min((int(text) for text in arguments if text and text.isdigit()), default=0)


def says(answer: Answer, *names: str) -> bool:
    """Tells whether one of the directives is there."""
    return any(name in names for name, _ in answer.directives)


def stated_seconds(answer: Answer) -> int | None:
    """Returns the lifetime that the response itself states (§4.2.1)."""
    for name in ("s-maxage", "max-age"):
        seconds = seconds_of(answer, name)
        if seconds is not None:
            return seconds
    if answer.expires is None:
        return None
    return max(0, answer.expires - (answer.date or 0)) if isinstance(answer.expires, int) else 0


def lifetime_of(answer: Answer, route: Route) -> int:
    """Returns the lifetime: the route's, else the response's, else the cache's."""
    if answer.status in route.statuses:
        return route.statuses[answer.status]
    stated = stated_seconds(answer)
    return next(value for value in (route.seconds, stated, DEFAULT_SECONDS) if value is not None)


def first_age_of(answer: Answer) -> int:
    """Returns how old the response was when it came (§4.2.3)."""
    age = int(answer.age) if answer.age is not None and answer.age.isdigit() else 0
    return max(0, age, -(answer.date or 0))


def is_public(answer: Answer, route: Route) -> bool:
    """Tells whether credentials do not matter (§3.5)."""
    return route.is_shared or says(answer, "public", "must-revalidate", "s-maxage")


def may_be_stored(answer: Answer, asked: Asked) -> bool:
    """Tells whether a shared cache may store the response (§3), and has a use for it."""
    route = ROUTES[asked.route]
    is_listed = answer.status in route.statuses
    return (
        asked.method == "GET"
        and not asked.has_body
        and (answer.status == 200 or is_listed or stated_seconds(answer) is not None)
        and answer.status not in (206, 304)
        and not says(answer, "no-store", "private", "no-cache")
        and not answer.sets_cookie
        and "*" not in answer.vary
        and (asked.value("authorization") is None or is_public(answer, route))
        and lifetime_of(answer, route) > first_age_of(answer)
    )


def selecting(answer: Answer, added: Sequence[str]) -> tuple[str, ...]:
    """Returns the request fields that select the response (§4.1); of codings only where it has one."""
    names = {name.lower() for name in (*answer.vary, *added)}
    return tuple(sorted(names if answer.is_coded else names - {"accept-encoding"}))


def stale_windows(answer: Answer, route: Route) -> tuple[int, int]:
    """Returns how long it may be used stale: while a new one is made, and if none can be (§4.2.4)."""
    if says(answer, "must-revalidate", "proxy-revalidate", "s-maxage") or answer.status in (
        500,
        502,
        503,
        504,
    ):
        return 0, 0
    stated = [stale_seconds_of(answer, name) for name in ("stale-while-revalidate", "stale-if-error")]
    given = (route.while_revalidate, route.if_error)
    while_revalidate, if_error = (
        other if own is None else own for own, other in zip(given, stated, strict=True)
    )
    return while_revalidate, if_error


@dataclass(eq=False)
class Stored:
    """A response that the model would store.

    Attributes:
        answer: The response.
        asked: The request that it answers.
        at: Which of the caches has stored it.
        since: How many evictions there had been when its view began.
        stored_at: When its view had ended.
        names: The request fields that select it.
        seen: When each cache has answered with it, where there is no store.
        known: When each cache knew that no other one had evicted it.
        earliest: The earliest time that the clock has shown since.
    """

    answer: Answer
    asked: Asked
    at: int
    since: int
    stored_at: float
    names: tuple[str, ...]
    earliest: float
    seen: dict[int, list[float]] = field(default_factory=dict[int, list[float]])
    known: dict[int, list[float]] = field(default_factory=dict[int, list[float]])

    @property
    def route(self) -> Route:
        """The route's options."""
        return ROUTES[self.asked.route]

    def ages(self, at: int, now: float) -> tuple[float, float]:
        """Returns how old it may be for one of the caches, from and to.

        A clock that is set back makes nothing younger than it came. A cache that answers meanwhile
        counts on from there; one that does not can not know, nor what the store says it was stored at.
        """
        first = first_age_of(self.answer)
        noticed = min([self.stored_at, *self.seen.get(at, ())])
        return first + max(0.0, now - noticed), first + max(0.0, now - self.earliest)

    def ttls(self, at: int, now: float) -> tuple[float, float]:
        """Returns for how long it may be fresh still, from and to."""
        youngest, oldest = self.ages(at, now)
        lifetime = lifetime_of(self.answer, self.route)
        return lifetime - oldest, lifetime - youngest

    def answers(self, asked: Asked) -> bool:
        """Tells whether it is selected by a request (§4, §4.1), and may be shown to its sender (§3.5)."""
        return (
            asked.method in ("GET", "HEAD")
            and not asked.has_body
            and self.asked.target == asked.target
            and self.asked.values(self.names) == asked.values(self.names)
            and (asked.value("authorization") is None or is_public(self.answer, self.route))
        )


@dataclass(frozen=True)
class Eviction:
    """What was evicted, and by which of the caches; neither path nor tag: everything."""

    at: int
    path: str | None = None
    tag: str | None = None

    def concerns(self, asked: Asked) -> bool:
        """Tells whether responses to this request had to leave."""
        if self.path is None and self.tag is None:
            return True
        return self.path == asked.path or self.tag in asked.tags


@dataclass(eq=False)
class Open:
    """A request whose view runs.

    Attributes:
        asked_since: How many evictions there had been when it came; it may have waited since.
        since: How many there had been when its view began.
        is_certain: Whether what it brings will be found again: the store has lost nothing since.
    """

    transaction: Transaction
    asked: Asked
    at: int
    asked_since: int
    since: int
    is_refresh: bool = False
    is_certain: bool = True
    proposed: tuple[int, Answer, float] | None = None


@dataclass(eq=False)
class Waiting:
    """A request that waits for another one's view."""

    task: asyncio.Task[Transaction]
    asked: Asked
    at: int
    since: int


@dataclass(eq=False)
class Due:
    """The right to replace a stale response."""

    refresh: Refresh
    asked: Asked
    at: int


# What may happen


def mostly(usual: object, *others: object) -> st.SearchStrategy[Any]:
    """Returns a choice in which one value comes four times as often as all others together."""
    return st.integers(0, 4).flatmap(lambda one: st.sampled_from(others) if one == 4 else st.just(usual))


def asked(
    route: str,
    path: str,
    method: str,
    language: Sequence[tuple[str, str]],
    others: Sequence[tuple[str, str]],
    has_body: bool,
) -> Asked:
    """Returns a request with its fields in one order."""
    return Asked(route, path, method, tuple(sorted([*language, *others])), has_body)


LINES = [
    ("x-kind", "big"),
    ("cookie", "user=1"),
    ("accept-encoding", "gzip"),
    ("authorization", "Basic eA=="),
]
ASKED = st.builds(
    asked,
    st.sampled_from([*sorted(ROUTES), "stale", "stale"]),
    st.sampled_from(["/a", "/b"]),
    mostly("GET", "GET", "HEAD", "POST"),
    st.sampled_from(
        [
            (),
            (("accept-language", ""),),
            (("accept-language", "de"),),
            (("accept-language", "de, fr"),),
            (("accept-language", "de"), ("accept-language", "fr")),
        ]
    ),
    st.sets(st.sampled_from(LINES), max_size=1),
    mostly(False, False, False, True),
)

SECONDS = st.sampled_from(["0", "5", "60", '"60"', "600"])
DIRECTIVES = st.one_of(
    st.tuples(st.sampled_from(["max-age", "s-maxage"]), SECONDS),
    st.tuples(st.sampled_from(["stale-while-revalidate", "stale-if-error"]), SECONDS.filter(str.isdigit)),
    st.tuples(st.sampled_from(["public", "must-revalidate", "proxy-revalidate"]), st.none()),
    st.tuples(
        st.sampled_from(["max-age", "s-maxage", "stale-if-error"]), st.sampled_from(["soon", "", "-1", "1.5"])
    ),
    st.tuples(st.sampled_from(["no-store", "private", "no-cache"]), st.none()),
)


ANSWERS = st.builds(
    Answer,
    status=mostly(200, 204, 206, 301, 404, 500, 503),
    directives=st.just(()) | st.lists(DIRECTIVES, min_size=1, max_size=2).map(tuple),
    vary=st.just(())
    | st.sampled_from(
        [
            ("Accept-Language",),
            ("accept-language",),
            ("Accept-Encoding",),
            ("X-Kind", "Cookie"),
            ("Accept-Language", "*"),
        ]
    ),
    age=mostly(None, "0", "10", "100", "old"),
    date=mostly(None, -10, -400, 0, 500),
    expires=mostly(None, 20, 1000, -5, "0", "never"),
    sets_cookie=mostly(False, False, True),
    is_coded=mostly(False, True),
)
# What hooks and middleware make of a response, and what they read.
HOOKS = mostly("none", "cookie", "private", "status", "vary", "session", "cookies")
CHOICES = st.integers(min_value=0, max_value=2**16)
SECONDS_LEFT = st.sampled_from([None, None, 1, 0, -1, -29, -31, -300])
SECONDS_GONE = st.sampled_from([0, 1, 2, 5, 29, 31, 55, 61, 299, 301, 650])
EVICTIONS = st.one_of(
    st.builds(Eviction, at=st.just(0), path=st.sampled_from(["/a", "/b", "/c"])),
    st.builds(Eviction, at=st.just(0), tag=st.sampled_from(sorted(ROUTES)).map("route {}".format)),
    st.builds(Eviction, at=st.just(0), tag=st.sampled_from(sorted(ROUTES)).map("both {} /a".format)),
    st.just(Eviction(0)),
)


class SlowMemory:
    """A store that several processes share. It keeps for ever: what is over is for the cache to see."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """Returns the values, a moment after they were read."""
        found = [self.values.get(name) for name in names]
        await asyncio.sleep(0)
        return found

    async def set(self, name: str, value: bytes, ttl_seconds: float) -> None:
        """Keeps a value, a moment later."""
        await asyncio.sleep(0)
        self.values[name] = value


class CacheMachine(RuleBasedStateMachine):
    """One cache in memory, or two of them before a shared store, and the model beside them."""

    caches_over_a_store: ClassVar[int] = 0
    max_bytes: ClassVar[int] = 2**24

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.now = 1_700_000_000.0
        self.store = SlowMemory() if self.caches_over_a_store else None
        self.caches = [
            Cache(
                self.store,
                default_timeout=DEFAULT_SECONDS,
                max_bytes=self.max_bytes,
                local_seconds=LOCAL_SECONDS,
                store_deadline_seconds=60,
                flight_deadline_seconds=600,
                clock=lambda: self.now,
            )
            for _ in range(self.caches_over_a_store or 1)
        ]
        self.bodies = 0
        self.stored: dict[bytes, Stored] = {}
        self.evictions: list[Eviction] = []
        self.open: list[Open] = []
        self.waiting: list[Waiting] = []
        self.due: list[Due] = []
        self.failed: set[tuple[object, ...]] = set()
        # The last one that each cache has stored for a target: nothing may have displaced it.
        self.latest: dict[tuple[int, tuple[object, ...]], Stored] = {}

    def teardown(self) -> None:
        """Ends all that was begun: nobody may be left waiting."""
        try:
            for due in self.due:
                self.within(due.refresh.give_up)
            while self.open or self.waiting:
                left = len(self.waiting)
                for begun in self.open:
                    self.within(begun.transaction.abandon)
                self.open.clear()
                self.settle()
                assert not self.waiting or len(self.waiting) < left, "somebody is left waiting"
            for cache in self.caches:
                self.loop.run_until_complete(cache.close())
        finally:
            for one in self.waiting:
                one.task.cancel()
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()

    def settle(self) -> None:
        """Lets all that is ready run, and looks at what those have got who waited."""
        self.loop.run_until_complete(self._turns())
        for one in self.waiting:
            self.looked_up(one.asked, one.at)
        done = [one for one in self.waiting if one.task.done()]
        self.waiting = [one for one in self.waiting if not one.task.done()]
        for one in done:
            # While it waited a response may have come for which it was too late.
            self.opened(one.task.result(), one.asked, one.at, since=one.since, must_look=False)

    def within(self, call: Callable[[], T]) -> T:
        """Calls something as the application does: while the event loop runs."""

        async def called() -> T:
            return call()

        return self.loop.run_until_complete(called())

    async def _turns(self) -> None:
        for _ in range(40):
            await asyncio.sleep(0)

    # What requests do

    @rule(visits=st.lists(st.tuples(ASKED, CHOICES, ANSWERS, HOOKS), min_size=1, max_size=4))
    def visit(self, visits: list[tuple[Asked, int, Answer, str]]) -> None:
        """Requests come in a row, and views that run return at once."""
        for asked, at, answer, hook in visits:
            self.serve(asked, at % len(self.caches), answer, hook)

    @rule(asked=ASKED, at=CHOICES, update=mostly(False, True))
    def request(self, asked: Asked, at: int, update: bool) -> None:
        """A request comes; the cache has an answer, its view runs, or it waits for another one's."""
        self.ask(asked, at % len(self.caches), update=update)

    @precondition(lambda self: self.stored)
    @rule(
        choices=st.lists(CHOICES, min_size=1, max_size=4),
        at=CHOICES,
        left=SECONDS_LEFT,
        added=st.just(()) | st.sampled_from(LINES).map(lambda line: (line,)),
        answer=ANSWERS,
    )
    def repeat(
        self,
        choices: list[int],
        at: int,
        left: int | None,
        added: tuple[tuple[str, str], ...],
        answer: Answer,
    ) -> None:
        """Requests come again whose answers were stored, some of them when a lifetime is just over."""
        for choice in choices:
            record = list(self.stored.values())[-1 - choice % len(self.stored)]
            if left is not None and choice % 4 == 0:
                self.advance_clock(max(0, int(record.ttls(record.at, self.now)[0]) - left))
            fields = tuple(sorted({*record.asked.fields, *added}))
            asked = replace(record.asked, method="HEAD" if choice % 7 == 0 else "GET", fields=fields)
            self.serve(asked, at % len(self.caches), answer, "none")

    @rule(
        asked=ASKED,
        others=st.lists(ASKED, min_size=1, max_size=4),
        at=CHOICES,
        eviction=st.none() | EVICTIONS,
        end=st.tuples(ANSWERS, HOOKS) | st.sampled_from([500, 503]),
    )
    def crowd(
        self,
        asked: Asked,
        others: list[Asked],
        at: int,
        eviction: Eviction | None,
        end: tuple[Answer, str] | int,
    ) -> None:
        """Requests for the same thing come together; something may be evicted before the view ends."""
        before = len(self.open)
        self.ask(asked, at % len(self.caches))
        if len(self.open) == before:
            return
        leader = self.open[-1]
        for number, other in enumerate(others):
            if number == 1 and eviction is not None:
                self.evict_at(eviction, at % len(self.caches))
            fields = other.fields if number % 2 else asked.fields
            other = replace(other, route=asked.route, path=asked.path, fields=fields)  # noqa: PLW2901
            self.ask(other, at % len(self.caches))
        if isinstance(end, int):
            self.end_with_error(leader, end)
        else:
            self.propose(leader, end[0])
            self.commit(leader, end[1])

    @precondition(lambda self: self.stored)
    @rule(choice=CHOICES, at=CHOICES, seconds=st.sampled_from([0, 2, 31]), answer=ANSWERS)
    def evict_stored(self, choice: int, at: int, seconds: int, answer: Answer) -> None:
        """What was stored is evicted in one of the caches, and asked for in all of them."""
        record = list(self.stored.values())[-1 - choice % len(self.stored)]
        self.evict_at(Eviction(0, tag=record.asked.tags[choice % 2]), at % len(self.caches))
        self.advance_clock(seconds)
        for cache in range(len(self.caches)):
            self.serve(record.asked, cache, answer, "none")

    def serve(self, asked: Asked, at: int, answer: Answer, hook: str) -> None:
        """Handles a request from its begin to its end, unless it must wait."""
        before = len(self.open)
        self.ask(asked, at)
        if len(self.open) > before:
            one = self.open[-1]
            self.propose(one, answer)
            self.commit(one, hook)

    def ask(self, asked: Asked, at: int, *, update: bool = False, refresh: Refresh | None = None) -> None:
        """Opens a transaction."""
        opening = self.caches[at].open(
            asked.scope(),
            ROUTES[asked.route].rules(asked.route),
            update=update,
            tags=lambda: asked.tags,
            refresh=refresh,
        )
        self.looked_up(asked, at)
        task = self.loop.create_task(opening)
        self.loop.run_until_complete(self._turns())
        if not task.done():
            assert refresh is None
            assert not update
            self.waiting.append(Waiting(task, asked, at, len(self.evictions)))
            return
        transaction = task.result()
        assert not (update and transaction.hit)
        self.opened(
            transaction,
            asked,
            at,
            is_refresh=refresh is not None,
            must_look=not update and refresh is None,
        )

    def opened(
        self,
        transaction: Transaction,
        asked: Asked,
        at: int,
        *,
        is_refresh: bool = False,
        must_look: bool = True,
        since: int | None = None,
    ) -> None:
        """Compares what the cache has said with what it had to."""
        latest = self.latest.get((at, asked.target))
        must_hit = (
            must_look and latest is not None and latest.answers(asked) and latest.ttls(at, self.now)[0] > 0
        )
        if transaction.hit is None:
            assert not must_hit
            now = len(self.evictions)
            asked_since = now if since is None else since
            self.open.append(
                Open(transaction, asked, at, asked_since, now, is_refresh, is_certain=since is None)
            )
            return
        is_rescued = transaction.status.collapsed and transaction.status.detail == "stale-if-error"
        found = self.check(transaction.hit, asked, at, is_rescued=is_rescued)
        assert not must_hit or found is latest
        self.compare_times(transaction, found, at)
        if self.store is None:
            found.seen.setdefault(at, []).append(self.now)
        if transaction.refresh is not None:
            self.due.append(Due(transaction.refresh, asked, at))

    def looked_up(self, asked: Asked, at: int) -> None:
        """Takes note of what one of the caches knows from now on not to be evicted by another one."""
        for record in self.stored.values():
            if record.asked.target == asked.target and not self.evicted(record.asked, record.since):
                record.known.setdefault(at, []).append(self.now)

    def compare_times(self, transaction: Transaction, found: Stored, at: int) -> None:
        """Compares ``Age`` and what ``Cache-Status`` says with the model."""
        youngest, oldest = found.ages(at, self.now)
        shortest, longest = found.ttls(at, self.now)
        if transaction.status.collapsed and shortest > 0:
            assert transaction.age is None
        else:
            assert transaction.age is not None
            assert int(youngest) <= transaction.age <= int(oldest)
        if transaction.status.ttl is not None:
            assert int(shortest) <= transaction.status.ttl <= int(longest)
        assert transaction.refresh is None or shortest <= 0

    def check(self, hit: StoredResponse, asked: Asked, at: int, *, is_rescued: bool = False) -> Stored:
        """Compares a response that is used with the model, and returns the model's.

        What is used instead of an error was found before the view ran: another process may have
        evicted it since.
        """
        assert hit.body in self.stored, "a personal response, or one that may not be stored"
        found = self.stored[hit.body]
        assert hit.status == found.answer.status
        assert found.answers(asked), "it is for another request"
        while_revalidate, if_error = stale_windows(found.answer, found.route)
        ttl = found.ttls(at, self.now)[1]
        is_usable = (
            ttl > 0 or -ttl <= while_revalidate or (-ttl <= if_error and (at, asked.target) in self.failed)
        )
        assert is_usable, "it is stale"
        assert not self.evicted(found.asked, found.since, at), "it was evicted"
        if self.evicted(found.asked, found.since) and not is_rescued:
            trusted = [0 <= self.now - moment <= LOCAL_SECONDS for moment in found.known.get(at, ())]
            assert any(trusted), "it was evicted by another process"
        return found

    # What views do

    @precondition(lambda self: self.open)
    @rule(choice=CHOICES, answer=ANSWERS, hook=HOOKS)
    def respond(self, choice: int, answer: Answer, hook: str) -> None:
        """A view returns, and the hooks run."""
        one = self.open[choice % len(self.open)]
        if one.proposed is None:
            self.propose(one, answer)
        self.commit(one, hook)

    @precondition(lambda self: self.open)
    @rule(choice=CHOICES, answer=ANSWERS)
    def begin_to_respond(self, choice: int, answer: Answer) -> None:
        """A view returns, and the hooks take their time."""
        one = self.open[choice % len(self.open)]
        if one.proposed is None:
            self.propose(one, answer)

    def propose(self, one: Open, answer: Answer) -> None:
        """Offers a response; the cache wants exactly those that may be stored."""
        self.bodies += 1
        proposed = self.within(
            lambda: one.transaction.propose(
                status=answer.status, headers=answer.headers(self.now), body=b"%d" % self.bodies
            )
        )
        assert (proposed is not None) == may_be_stored(answer, one.asked)
        one.proposed = self.bodies, answer, self.now
        self.settle()
        if proposed is None:
            self.ended(one)
            self.note_failure(one)

    def evicted(self, asked: Asked, since: int, at: int | None = None) -> bool:
        """Tells whether responses to a request were evicted since, by one of the caches or by any."""
        return any(one.concerns(asked) and at in (None, one.at) for one in self.evictions[since:])

    def note_failure(self, one: Open) -> None:
        """Takes note that no better response could be made."""
        self.failed.add((one.at, one.asked.target))

    def commit(self, one: Open, hook: str) -> None:
        """Ends a response; it is stored unless what hooks did forbids it."""
        assert one.proposed is not None
        number, answer, stored_at = one.proposed
        headers = answer.headers(stored_at)
        added: tuple[str, ...] = ()
        if hook == "cookie":
            headers.append((b"set-cookie", b"user=1"))
        elif hook == "private":
            headers.append((b"cache-control", b"Private"))
        elif hook == "vary":
            added = ("X-Kind",)
            headers.append((b"vary", b"X-Kind"))
        names = selecting(answer, added)
        may_be = (
            one in self.open
            and may_be_stored(answer, one.asked)
            and hook not in ("cookie", "private", "status", "session")
            and (hook != "cookies" or "cookie" in names)
            and lifetime_of(answer, ROUTES[one.asked.route]) > first_age_of(answer) + self.now - stored_at
            and not self.evicted(one.asked, one.since, one.at)
        )
        self.within(
            lambda: one.transaction.commit(
                status=299 if hook == "status" else answer.status,
                headers=headers,
                personal=hook if hook in ("session", "cookies") else None,
            )
        )
        is_stored = one.transaction.status.stored
        assert may_be or not is_stored
        # It was not lost, but for an eviction while it waited.
        assert is_stored or not may_be or self.evicted(one.asked, one.asked_since, one.at)
        if one in self.open:
            self.ended(one)
        if is_stored:
            earliest = min(self.now, stored_at)
            record = Stored(answer, one.asked, one.at, one.since, stored_at, names, earliest)
            record.known[one.at] = [self.now]
            self.stored[b"%d" % number] = record
            self.latest.pop((one.at, one.asked.target), None)
            if self.max_bytes > 2**20 and one.is_certain and not self.evicted(one.asked, one.asked_since):
                self.latest[one.at, one.asked.target] = record
        elif one.is_refresh:
            self.note_failure(one)
        self.settle()

    @precondition(lambda self: self.open)
    @rule(choice=CHOICES)
    def fail(self, choice: int) -> None:
        """A view raises: nobody is told but its own client."""
        one = self.open[choice % len(self.open)]
        self.within(one.transaction.abandon)
        self.note_failure(one)
        self.ended(one)
        self.settle()

    @precondition(lambda self: any(one.transaction.has_fallback for one in self.open))
    @rule(choice=CHOICES, status=st.sampled_from([500, 502, 503, 504, 501, 404]))
    def rescue(self, choice: int, status: int) -> None:
        """A view fails, and there was a stale response to use instead."""
        able = [one for one in self.open if one.transaction.has_fallback]
        self.end_with_error(able[choice % len(able)], status)

    def end_with_error(self, one: Open, status: int) -> None:
        """Ends a request as the application does where its view has failed."""
        used = self.within(lambda: one.transaction.rescue(status))
        self.note_failure(one)
        if used is None:
            self.within(one.transaction.abandon)
        else:
            assert status in (500, 502, 503, 504)
            self.check(used, one.asked, one.at, is_rescued=True)
        self.ended(one)
        self.settle()

    @precondition(lambda self: self.due)
    @rule(choice=CHOICES, is_made=st.booleans())
    def refresh(self, choice: int, is_made: bool) -> None:
        """A stale response is replaced in the background, or nobody can."""
        one = self.due.pop(choice % len(self.due))
        if is_made:
            self.ask(replace(one.asked, method="GET"), one.at, refresh=one.refresh)
        else:
            self.within(one.refresh.give_up)
        self.settle()

    def ended(self, one: Open) -> None:
        """Takes note that a request has ended; a refresh that brought nothing may take the old one along."""
        if one in self.open:
            self.open.remove(one)
        if one.is_refresh:
            self.latest.pop((one.at, one.asked.target), None)

    # What the world does

    @rule(seconds=st.sampled_from([-HOUR, HOUR]) | SECONDS_GONE)
    def advance(self, seconds: int) -> None:
        """Time goes by, or somebody sets the clock."""
        self.advance_clock(seconds)

    def advance_clock(self, seconds: int) -> None:
        """Moves the clock; what was over once may be forgotten, even if it is set back."""
        self.now += seconds
        for record in self.stored.values():
            record.earliest = min(record.earliest, self.now)
        self.latest = {
            place: record for place, record in self.latest.items() if record.ttls(place[0], self.now)[0] > 0
        }

    @rule(eviction=EVICTIONS, at=CHOICES)
    def evict(self, eviction: Eviction, at: int) -> None:
        """A path is evicted in one of the caches, a tag, or everything."""
        self.evict_at(eviction, at % len(self.caches))

    def evict_at(self, eviction: Eviction, at: int) -> None:
        """Evicts, and takes note of it."""
        eviction = replace(eviction, at=at)
        marks: Sequence[str] | None = None
        if eviction.path is not None:
            marks = [path_mark(eviction.path)]
        elif eviction.tag is not None:
            marks = tag_marks(eviction.tag)
        self.evictions.append(eviction)
        self.latest = {
            place: record for place, record in self.latest.items() if not eviction.concerns(record.asked)
        }
        self.loop.run_until_complete(self.caches[eviction.at].evict(marks))
        self.settle()

    @precondition(lambda self: self.store is not None and self.store.values)
    @rule(choice=CHOICES, byte=CHOICES)
    def damage(self, choice: int, byte: int) -> None:
        """One bit of what the store has turns over, or the store loses it."""
        assert self.store is not None
        name = sorted(self.store.values)[choice % len(self.store.values)]
        value = bytearray(self.store.values[name])
        self.latest.clear()
        for one in self.open:
            one.is_certain = False
        if not value or byte % 3 == 0:
            del self.store.values[name]
        else:
            value[byte % len(value)] ^= 1 << byte % 8
            self.store.values[name] = bytes(value)

    @invariant()
    def is_bounded(self) -> None:
        """The memory is never more than the budget, and the counters agree with each other."""
        for cache in self.caches:
            stats = cache.stats()
            assert 0 <= stats.bytes <= self.max_bytes
            assert (stats.entries == 0) == (stats.bytes == 0)


class SmallMachine(CacheMachine):
    """A cache with room for a few responses only."""

    max_bytes = 4_000


class SharedMachine(CacheMachine):
    """Two processes before one store."""

    caches_over_a_store = 2


SETTINGS = settings(max_examples=50, stateful_step_count=40, deadline=None)
TestCacheInMemory = CacheMachine.TestCase
TestCacheInMemory.settings = SETTINGS
TestSmallCache = SmallMachine.TestCase
TestSmallCache.settings = SETTINGS
TestCachesOverAStore = SharedMachine.TestCase
TestCachesOverAStore.settings = SETTINGS


# What the machine has found, told in a few steps


def page(route: Route, fields: RawHeaders | None = None) -> tuple[dict[str, object], CacheRules]:
    """Returns a request to a route, and the route."""
    asked = Asked("", "/a", "GET", (), has_body=False)
    return {**asked.scope(), "headers": [(b"host", b"localhost"), *(fields or [])]}, route.rules("page")


async def store(cache: Cache, scope: dict[str, object], rules: CacheRules, body: bytes) -> None:
    """Stores a response."""
    transaction = await cache.open(scope, rules)
    transaction.propose(status=200, headers=[], body=body)
    transaction.commit(status=200, headers=[], personal=None)
    assert transaction.status.stored


async def test_what_was_evicted_while_a_view_ran_is_not_used_instead_of_its_error() -> None:
    """Neither for its own client nor for one that came after the eviction and waited."""
    now = 1_700_000_000.0
    cache = Cache(clock=lambda: now)
    scope, rules = page(Route(seconds=60, if_error=600))
    await store(cache, scope, rules, b"old")
    now += 61
    leader = await cache.open(scope, rules)
    assert leader.has_fallback
    await cache.evict([path_mark("/a")])
    follower = asyncio.create_task(cache.open(scope, rules))
    await asyncio.sleep(0)
    assert leader.rescue(500) is None
    leader.abandon()
    assert (await follower).hit is None


async def test_a_stale_response_is_not_used_when_its_window_has_closed_while_the_view_ran() -> None:
    """What counts is when there is an error, not when the request came (RFC 5861 §4)."""
    now = 1_700_000_000.0
    cache = Cache(clock=lambda: now)
    scope, rules = page(Route(seconds=60, if_error=600))
    await store(cache, scope, rules, b"old")
    now += 659
    slow, quick = await cache.open(scope, rules), await cache.open(scope, rules, update=True)
    assert slow.has_fallback
    used = quick.rescue(503)
    assert used is not None
    assert used.body == b"old"
    now += 2
    assert slow.rescue(503) is None


async def test_a_response_that_has_expired_before_its_hooks_are_done_is_not_stored() -> None:
    """Nor is it given to those who wait, as a stale response that nothing allows."""
    now = 1_700_000_000.0
    cache = Cache(clock=lambda: now)
    scope, rules = page(Route(seconds=5))
    leader = await cache.open(scope, rules)
    follower = asyncio.create_task(cache.open(scope, rules))
    await asyncio.sleep(0)
    assert leader.propose(status=200, headers=[], body=b"x") is not None
    now += 5
    leader.commit(status=200, headers=[], personal=None)
    assert leader.status.stored is False
    assert (await follower).hit is None
    assert cache.stats().entries == 0


async def test_a_request_that_asked_the_store_in_vain_finds_what_was_kept_meanwhile() -> None:
    """A view that has just ended is not run again for those whose answer from the store was late."""
    store_of_others = LateStore()
    cache = Cache(store_of_others)
    scope, rules = page(Route())
    first = await cache.open(scope, rules)
    first.abandon()
    store_of_others.is_late = True
    late = asyncio.create_task(cache.open(scope, rules))
    await asyncio.sleep(0)
    store_of_others.is_late = False
    await store(cache, scope, rules, b"new")
    store_of_others.answer.set()
    found = await late
    assert found.hit is not None
    assert found.hit.body == b"new"
    await cache.close()


class LateStore(SlowMemory):
    """A store that keeps some of its readers waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.is_late = False
        self.answer = asyncio.Event()

    async def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """Returns the values as they were when it was asked."""
        is_late, found = self.is_late, await super().get_many(names)
        if is_late:
            await self.answer.wait()
        return found
