"""Doors 1 and 2: a hit that is answered before the application is called, or before a view is looked for.

Door 3, in the decorated view, is always right. Where nothing stood on the way to it when it stored a
response, or answered with one, the doors before it know that response by the request's URL. They take
the same steps from what is stored to what is sent; for those that are often asked for, what was sent is
recorded, and said again. This stands while the entry stands in memory, is fresh, and the way is clear.
Where anything is in doubt they are closed, and door 3 answers.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias, cast
from urllib.parse import unquote

from aeros.caching.response import fields_of_hit
from aeros.caching.shortcut import Recording, RecordingKey, Shortcut
from aeros.compression.response import OPTED_OUT
from aeros.exchange import Exchange, attach_exchange, exchange_of, note_rule, owns_date, was_asked
from aeros.http.asked import asked_of
from aeros.http.cache_status import CacheStatus
from aeros.http.conditional import is_content_field, is_match, without_content
from aeros.http.fields import first_value, is_sendable, steers_connection
from aeros.outgoing import Outgoing
from aeros.request_id import FIELD_NAME
from aeros.types import Message, RawHeaders, Scope

if TYPE_CHECKING:
    from aeros.caching.entry import StoredResponse
    from aeros.caching.server import Cache
    from aeros.caching.transaction import Transaction
    from aeros.compression import Base
    from aeros.compression.response import ResponseCoder
    from aeros.dispatch.way import Way
    from aeros.settings import ServerSettings

_INNER: Final = "inner"
_ANSWERED: Final = ("GET", "HEAD")
_GREATEST_STATUS: Final = 599
_GET: Final = ("GET",)  # one for all entries
# Of so many responses it is recorded how they were sent: those that are asked for most, whatever has room.
# The recordings are objects that live long, and each of these makes the garbage collector's pauses longer.
_MOST_RECORDED: Final = 1_000
_LONGEST_RECORDED: Final = 4_096  # bytes of a key, which outlives its response among them
_LONGEST_NAME: Final = 4_096  # bytes of a host and a target


Name: TypeAlias = tuple[object, str, bytes, bytes, bytes]
"""What the doors find a response by: themselves, the scheme, the host, the path as it came, and the query.

A tuple of what has no references, which a garbage collector need not visit again and again.
"""


class Question(NamedTuple):
    """What of a request decides about its answer.

    Attributes:
        name: What the entry that may answer it would be called.
        key: What decides between the answers of that entry.
        method: Its method.
        has_cookie: Whether it has one.
        headers: Its fields, where some of them are a condition.
    """

    name: Name
    key: RecordingKey
    method: str
    has_cookie: bool
    headers: RawHeaders | None


class Answer(NamedTuple):
    """A response without a view.

    Attributes:
        status: Its status code.
        headers: Its fields, complete.
        content: Its body.
        recording: What it was made of, for whoever remembers more of it; None: of nothing that stays.
        is_lasting: Whether it is worth remembering what was asked.
    """

    status: int
    headers: RawHeaders
    content: bytes
    recording: Recording | None
    is_lasting: bool = True


class Entrance(Protocol):
    """What the doors need of the application."""

    secret_key: Any

    def is_clear(self, way: Any) -> bool:
        """Tells whether nothing has been put on a way to a view since it was found."""
        ...

    def current_cache(self) -> Cache:
        """Returns the cache to use now."""
        ...

    def current_settings(self) -> ServerSettings:
        """Returns the settings in force now."""
        ...

    def current_compressor(self) -> Base | None:
        """Returns the compressor to use now."""
        ...


class Doors:
    """The doors of one application.

    Args:
        app: The application.
        coder: Applies content codings, for the application.

    Attributes:
        is_used: Whether any response is known: without it nobody need ask.
        has_inner: Whether any is that is to be answered behind a middleware.
        tally: How many requests door 1 has answered, by method, rule and status; None: nobody counts.
    """

    __slots__ = ("_answered", "_app", "_coder", "_mark", "_recorded", "has_inner", "is_used", "tally")

    def __init__(self, app: Entrance, coder: ResponseCoder) -> None:
        self._app = app
        self._coder = coder
        # Names these doors where several have one cache; unlike them nothing that a garbage collector visits.
        self._mark = object()
        self._recorded: OrderedDict[bytes, None] = OrderedDict()
        self._answered = Exchange()
        self._answered.transaction = cast("Any", _Answered())
        self._answered.is_answered = True
        self.is_used: bool = False
        self.has_inner: bool = False
        self.tally: Counter[tuple[str, str, int]] | None = None

    # Learning what door 3 answers

    def listen(
        self,
        scope: Scope,
        exchange: Exchange,
        entry: StoredResponse,
        way: Any,
        inner: Callable[[], RawHeaders],
    ) -> None:
        """Takes note of a response that door 3 gives, if the next one like it may be given without a view.

        Args:
            scope: The request's ASGI scope.
            exchange: Its exchange, with its transaction.
            entry: What is stored of the response.
            way: The clear way to the view.
            inner: Gives the fields of the response as the application sends it.
        """
        transaction = cast("Transaction", exchange.transaction)
        asked = asked_of(scope["headers"])
        settings = self._app.current_settings()
        if (
            asked is None
            or not isinstance(scope.get("raw_path"), bytes)
            or scope["method"] not in _ANSWERED
            or entry.vary
            or exchange.personal is not None
            or exchange.opted_out
            or OPTED_OUT in entry.headers  # which a compressor further out is told by the view's answer only
            or exchange.settings is not settings
            or (entry.shortcut is None and not _is_sendable(entry))
        ):
            return
        shortcut = self._know(scope, asked.host, entry, way)
        if (
            shortcut is None
            or way.is_bare  # where the doors find out themselves what is to be sent
            or not entry.is_in_demand
            or transaction.hit is not entry
            or transaction.refresh is not None
            or transaction.age is None
            or transaction.status.ttl is None
            or transaction.status.detail is not None
            or asked.condition is not None
            or not _may_repeat(self._app.current_compressor(), settings)
        ):
            return
        self.has_inner = True
        recording = Recording(inner(), entry.body, ())
        if recording.begins_at(entry, self._app.current_cache().now(), None):
            self._add(entry, shortcut, (_INNER, scope["method"], owns_date(scope)), recording)

    def _know(self, scope: Scope, host: bytes, entry: StoredResponse, way: Any) -> Shortcut | None:
        """Has an entry found by the URL of its request; None where that is too long to be kept."""
        path, root_path, method, raw_path = (
            scope["path"],
            scope.get("root_path", ""),
            scope["method"],
            scope["raw_path"],
        )
        name = self._mark, scope["scheme"], host, raw_path, scope["query_string"]
        size = len(host) + len(raw_path) + len(scope["query_string"])
        if size > _LONGEST_NAME:
            return None
        shortcut = entry.shortcut
        if shortcut is None or (shortcut.way, shortcut.path, shortcut.root_path) != (
            way,
            path,
            root_path,
        ):
            methods = _GET if method == "GET" else (method,)
            shortcut = entry.shortcut = Shortcut(way, path, root_path, methods)
            settings = self._app.current_settings()
            if settings.metrics is not None and self.tally is None:
                self.tally = Counter()
            self.is_used = True
        elif method not in shortcut.methods:
            shortcut.methods += (method,)
        shortcut.is_direct = _is_direct(path, root_path, raw_path)
        # Also one that was known: it came by another URL, or was looked for in a shared store meanwhile.
        self._app.current_cache().name(entry, name, size)
        return shortcut

    def _add(
        self, entry: StoredResponse, shortcut: Shortcut, key: RecordingKey, recording: Recording
    ) -> None:
        """Keeps a recording; where there are too many, those of the response recorded first leave."""
        if len(entry.key) > _LONGEST_RECORDED:
            return
        cache, recorded = self._app.current_cache(), self._recorded
        shortcut.add(key, recording)
        cache.recount(entry)
        recorded[entry.key] = None
        recorded.move_to_end(entry.key)
        while len(recorded) > _MOST_RECORDED:
            first, _ = recorded.popitem(last=False)
            forgotten = cache.kept(first)
            if forgotten is not None and forgotten.shortcut is not None:
                forgotten.shortcut.recordings.clear()
                cache.recount(forgotten)

    # Answering

    def question(
        self, method: str, scheme: str, raw_path: bytes, query: bytes, headers: RawHeaders, *, is_dated: bool
    ) -> Question | None:
        """Returns what of a request decides about its answer; None where door 3 has to give it.

        Args:
            method: Its method.
            scheme: ``http`` or ``https``.
            raw_path: Its path as the client sent it.
            query: Its query, without the question mark.
            headers: Its fields.
            is_dated: Whether aeros writes ``Date``.
        """
        asked = asked_of(headers)
        if asked is None:
            return None
        return Question(
            name=(self._mark, scheme, asked.host, raw_path, query),
            key=(method, asked.accept, is_dated),
            method=method,
            has_cookie=asked.has_cookie,
            headers=None if asked.condition is None else headers,
        )

    def find(
        self, question: Question, scope: Scope | None = None, /, *, is_observed: bool = True
    ) -> Answer | None:
        """Returns the answer to a request; None where door 3 has to give it.

        Args:
            question: What of the request decides about it.
            scope: Its ASGI scope, at door 2; None at door 1, where there is none yet.
            is_observed: Whether what the settings have observed of a request is.
        """
        app = self._app
        cache = app.current_cache()
        now = cache.now()
        entry = cache.find_named(question.name, now)
        if entry is None:
            return None
        shortcut = entry.shortcut
        if shortcut is None or not self._is_open(shortcut, question.has_cookie):
            return None
        if not (shortcut.is_direct if scope is None else self._leads_to(shortcut, scope)):
            return None
        compressor, settings = app.current_compressor(), app.current_settings()
        if not is_observed and settings.is_observed:
            return None
        recording = shortcut.recordings.get(question.key)
        if recording is None or recording.terms[0] is not compressor or recording.terms[1] is not settings:
            made = self._made(entry, shortcut, question, now, compressor, settings)
            if made is None:
                return None
            answer = made
        else:
            if not recording.is_current(entry, now):
                return None
            kept = recording.answer
            if kept is None:
                kept = recording.answer = Answer(
                    entry.status, recording.headers, recording.content, recording
                )
            answer = cast(Answer, kept)
        headers = question.headers
        if headers is not None and is_match(question.method, headers, entry.status, answer.headers):
            answer = Answer(304, without_content(answer.headers), b"", None, answer.is_lasting)
        cache.note_hit(1 if scope is None else 2)
        if self.tally is not None:
            rule: str = cast(Any, shortcut.way).rule
            if scope is None:
                self.tally[question.method, rule, answer.status] += 1
            else:
                note_rule(scope, rule)
        return answer

    def answer(self, scope: Scope, *, is_observed: bool = True) -> Answer | None:
        """Returns the answer of door 2 to a request that no middleware of the application's sees.

        Args:
            scope: Its ASGI scope.
            is_observed: Whether what the settings have observed of a request is; else there is no answer yet.
        """
        raw_path = scope.get("raw_path")
        if not isinstance(raw_path, bytes) or was_asked(scope, self):
            return None
        question = self.question(
            scope["method"],
            scope["scheme"],
            raw_path,
            scope["query_string"],
            scope["headers"],
            is_dated=owns_date(scope),
        )
        found = None if question is None else self.find(question, scope, is_observed=is_observed)
        if found is not None:
            attach_exchange(scope, self._answered)
        return found

    def inner_answer(self, scope: Scope) -> Answer | None:
        """Returns the answer of door 2 behind a middleware: what the application would send to it."""
        exchange, asked, raw_path = exchange_of(scope), asked_of(scope["headers"]), scope.get("raw_path")
        if exchange is None or asked is None or not isinstance(raw_path, bytes):
            return None
        if scope["method"] not in _ANSWERED:
            return None
        cache = self._app.current_cache()
        now = cache.now()
        name = self._mark, scope["scheme"], asked.host, raw_path, scope["query_string"]
        entry = cache.find_named(name, now)
        if entry is None:
            return None
        shortcut = entry.shortcut
        if (
            shortcut is None
            or not self._leads_to(shortcut, scope)
            or not self._is_open(shortcut, asked.has_cookie)
        ):
            return None
        recording = shortcut.recordings.get((_INNER, scope["method"], owns_date(scope)))
        if recording is None or not recording.is_current(entry, now):
            return None
        cache.note_hit(2)
        exchange.begin()
        exchange.rule = cast(Any, shortcut.way).rule
        exchange.transaction = cache.replay(entry, now)
        exchange.representation = entry
        exchange.end()
        return Answer(entry.status, recording.headers, entry.body, None)

    def _made(
        self,
        entry: StoredResponse,
        shortcut: Shortcut,
        question: Question,
        now: float,
        compressor: Base | None,
        settings: ServerSettings,
    ) -> Answer | None:
        """Returns an answer of which nothing is recorded, by the steps that door 3 takes after the view's."""
        method, accept, is_dated = question.key
        if (
            method not in shortcut.methods
            or not cast("Way", shortcut.way).is_bare
            or now < entry.stored_at  # the clock was set back
            or entry.ttl(now) <= 0
            or entry.status == 204  # which goes out in parts, because it has no length
            or not _may_repeat(compressor, settings)
        ):
            return None
        headers: RawHeaders = [] if accept is None else [(b"accept-encoding", cast(bytes, accept))]
        exchange = Exchange(settings=settings)
        transaction = exchange.transaction = self._app.current_cache().replay(entry, now)
        exchange.representation = entry
        outgoing = Outgoing(
            _to_nobody,
            {"method": method, "headers": headers},
            exchange,
            self._coder,
            compressor,
            settings.raw_global_headers,
            settings.etag,
        )
        fields = fields_of_hit(entry, age=int(entry.age(now)), is_dated=bool(is_dated))
        made = outgoing.made_at_once(entry.status, fields, entry.body)
        if made is None or made[0] != entry.status or not _may_record(entry, made[1], made[2], settings):
            return None
        entry.note_hit(now)
        if not entry.is_in_demand:
            return Answer(*made, None, is_lasting=False)
        recording = Recording(made[1], made[2], (compressor, settings))
        status = transaction.status if transaction.shows_status else None
        if not recording.begins_at(entry, now, status):
            return Answer(*made, None, is_lasting=False)
        self._add(entry, shortcut, question.key, recording)
        return Answer(*made, recording)

    def _is_open(self, shortcut: Shortcut, has_cookie: bool) -> bool:
        # With a key there may be a session in the cookie, which Quart renews at each response.
        return self._app.is_clear(shortcut.way) and not (has_cookie and self._app.secret_key)

    def _leads_to(self, shortcut: Shortcut, scope: Scope) -> bool:
        there = scope["path"], scope.get("root_path", "")
        return there == (shortcut.path, shortcut.root_path)


class _Answered:
    """What stands for the transaction of a request that a door has answered, for the access log."""

    __slots__ = ()
    status = CacheStatus(hit=True)


def _is_sendable(entry: StoredResponse) -> bool:
    """Tells whether a server sends such a response; of one that it does not, the view's door tells."""
    return entry.status <= _GREATEST_STATUS and is_sendable(entry.headers)


def _may_repeat(compressor: Base | None, settings: ServerSettings) -> bool:
    """Tells whether what a hit is sent as depends on nothing that changes from one to the next."""
    is_counted = compressor is not None and compressor.hot_after is not None
    return not is_counted and not any(is_content_field(name) for name, _ in settings.raw_global_headers)


def _may_record(entry: StoredResponse, headers: RawHeaders, content: bytes, settings: ServerSettings) -> bool:
    """Tells whether an answer to a hit may be given to others."""
    if not entry.has(content) or steers_connection(headers):
        return False
    # The id that the view has given is not the one that the next request has.
    return not settings.request_ids or first_value(headers, FIELD_NAME) is None


async def _to_nobody(_message: Message) -> None:
    """Takes what is not to be sent from here."""


def _is_direct(path: str, root_path: str, raw_path: bytes) -> bool:
    """Tells whether the path is what a server makes of the raw one."""
    text = raw_path.decode("latin-1")
    return not root_path and path == (unquote(text) if "%" in text else text)
