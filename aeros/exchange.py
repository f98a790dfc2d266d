"""What the parts of aeros tell each other about one request and its response.

The cache, the compressor, admission and the access log stand on one floor and never import each
other. Each writes here what the others may need; the exchange travels in the ASGI scope.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from aeros.http.cache_status import CacheStatus
from aeros.types import Message, RawHeaders, Scope

if TYPE_CHECKING:
    import asyncio

_SCOPE_KEY: Final = "aeros.exchange"
_DATE_KEY: Final = "aeros.date"
_ASKED_KEY: Final = "aeros.asked"
_RULE_KEY: Final = "aeros.rule"


class Representation(Protocol):
    """A body that is kept, with its ready variants, one for each content coding."""

    @property
    def body(self) -> bytes:
        """The identity body."""
        ...

    @property
    def etag(self) -> str:
        """The entity tag of the identity body, as it goes into the field."""
        ...

    def variant(self, coding: str) -> bytes | None:
        """Returns the body in ``coding``, if it was made already."""
        ...

    def add_variant(self, coding: str, content: bytes, *, instead_of: str | None = None) -> None:
        """Keeps ``content`` as the body in ``coding``, for the next response, instead of another."""
        ...

    def note_use(self, coding: str) -> int:
        """Counts one response with the body in ``coding``; returns how many there were."""
        ...


class HeadMemory(Protocol):
    """Where a server may keep what it makes of the fields of a response that it will send again.

    Attributes:
        head: What the head was made of, its lines, and whether they lack a date.
    """

    head: tuple[object, object, bytes, bool] | None


class WholeSend:
    """A ``send`` that also takes a response whole, so that nobody has to put it together again."""

    __slots__ = ()

    async def __call__(self, message: Message) -> None:
        """Sends one message."""
        raise NotImplementedError

    @property
    def is_clear(self) -> bool:
        """Whether what is sent now goes out without waiting for the client."""
        raise NotImplementedError

    def at_once(
        self, status: int, headers: RawHeaders, body: bytes, memory: HeadMemory | None = None
    ) -> bool:
        """Sends a response that is complete, if nobody has to wait for anything; returns whether it did.

        Args:
            status: Its status code.
            headers: Its fields.
            body: Its body.
            memory: Goes with just these fields, where they will be sent again.
        """
        raise NotImplementedError

    def part_at_once(self, body: bytes) -> bool:
        """Sends a further part of a stream, if nobody has to wait for anything; returns whether it did."""
        raise NotImplementedError

    async def whole(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Sends a response that is complete; does what its two messages would do."""
        raise NotImplementedError


class Arrival:
    """A request as it comes in: the owner of a ``receive`` that need not be asked again and again."""

    __slots__ = ()

    def take_all(self) -> bytes | None:
        """Returns the body of a request that has come completely; nothing of it is left to be received then.

        None: more of it may come, and nothing was taken.
        """
        raise NotImplementedError

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """The task in which the request is handled."""
        raise NotImplementedError

    def on_leaving(self, call: Callable[[], None] | None) -> None:
        """Has a function called once if the client leaves before the response has ended; None: none."""
        raise NotImplementedError


class Releasable(Protocol):
    """Something held for the length of one request."""

    def release(self) -> None:
        """Gives it back; a second call does nothing."""
        ...


class Transaction(Protocol):
    """One request on a cached route, from its lookup to the end of its response."""

    @property
    def status(self) -> CacheStatus:
        """What the cache did, as far as it is known."""
        ...

    @property
    def is_leading(self) -> bool:
        """Whether other requests may be waiting for this one's view."""
        ...

    async def finish_leading(self) -> None:
        """Waits until no other request waits for this one's view any more."""
        ...

    @property
    def shows_status(self) -> bool:
        """Whether the response says what the cache did."""
        ...

    @property
    def is_proposed(self) -> bool:
        """Whether there is something to be stored, once all hooks have run."""
        ...

    def commit(self, *, status: int, headers: RawHeaders, personal: str | None) -> None:
        """Stores what the view made, unless the finished response forbids it."""
        ...

    def abandon(self) -> None:
        """Lets those who wait go; does nothing once it was committed."""
        ...


class Exchange:
    """One request and its response, seen from all parts.

    Attributes:
        transaction: The request's transaction with the cache; None on routes that are not cached.
        representation: The kept body that the response was built from, if any.
        is_claimed: Whether a cached view answers, or has answered, this request.
        session_used: Whether anything read or wrote the session.
        cookies_used: Whether anything read the cookies, on a route where that is noticed.
        opted_out: Whether the response has said that it is not to be compressed.
        selecting_fields: Request fields that the response must name in ``Vary``.
        refresh: The right to replace a stale response, for a request made for that; the cache's own.
        slot: The admission slot that this request holds, if any.
        settings: The settings that are in force for this request; the application's own.
        is_answered: Whether the application has sent its response to the end.
        handler_seconds: How long hooks and view may take; None: no bound.
        rule: The rule of the route that the request was found to be for, e.g. ``"/books/<int:number>"``.

    Args:
        settings: As above.
        refresh: As above.
    """

    # What most requests leave as it is costs none of them anything.
    transaction: Transaction | None = None
    representation: Representation | None = None
    is_claimed: bool = False
    session_used: bool = False
    cookies_used: bool = False
    opted_out: bool = False
    selecting_fields: tuple[str, ...] = ()
    refresh: object = None
    slot: Releasable | None = None
    settings: object = None
    is_answered: bool = False
    handler_seconds: float | None = None
    rule: str | None = None

    def __init__(self, *, settings: object = None, refresh: object = None) -> None:
        self.settings = settings
        self.refresh = refresh

    def __deepcopy__(self, memo: object) -> Exchange:
        """Returns itself: middleware that copies the scope handles the same request."""
        return self

    @property
    def cache_status(self) -> CacheStatus | None:
        """What the cache did; None on routes that are not cached."""
        return None if self.transaction is None else self.transaction.status

    @property
    def personal(self) -> str | None:
        """What was read that belongs to one user, as a token for ``Cache-Status``."""
        if self.session_used:
            return "session"
        return "cookies" if self.cookies_used else None

    @contextmanager
    def unnoticed(self) -> Generator[None]:
        """What is read while the context lasts decides about the cache, not about the response."""
        noticed = self.session_used, self.cookies_used
        try:
            yield
        finally:
            self.session_used, self.cookies_used = noticed

    def begin(self) -> None:
        """Begins to handle the request; a middleware may have it handled more than once."""
        if self.transaction is not None:
            self.transaction.abandon()
        self.transaction = None
        self.representation = None
        self.is_claimed = False

    def end(self) -> None:
        """Ends the handling: who waits for its view is let go, and no view is looked up any more."""
        if self.transaction is not None:
            self.transaction.abandon()
        self.is_claimed = True

    def release_slot(self) -> None:
        """Gives the admission slot back, if this request holds one."""
        slot, self.slot = self.slot, None
        if slot is not None:
            slot.release()


def attach_exchange(scope: Scope, exchange: Exchange) -> None:
    """Puts the exchange where ``exchange_of`` finds it."""
    scope[_SCOPE_KEY] = exchange


def exchange_of(scope: Mapping[str, object]) -> Exchange | None:
    """Returns the exchange of an ASGI scope; None where the request did not come through aeros."""
    found = scope.get(_SCOPE_KEY)
    return found if isinstance(found, Exchange) else None


def own_date(scope: Scope) -> None:
    """Notes that aeros writes the ``Date`` field, because the server was told to leave it out."""
    scope[_DATE_KEY] = True


def owns_date(scope: Mapping[str, object]) -> bool:
    """Tells whether aeros writes ``Date``; servers that it does not run add their own."""
    return scope.get(_DATE_KEY) is True


def note_rule(scope: Scope, rule: str) -> None:
    """Notes the rule of a request that is answered by an exchange which is not its own."""
    scope[_RULE_KEY] = rule


def rule_of(scope: Mapping[str, object]) -> str | None:
    """Returns the rule of a request's route; None where no route was found, or looked for."""
    noted = scope.get(_RULE_KEY)
    if isinstance(noted, str):
        return noted
    exchange = exchange_of(scope)
    return None if exchange is None else exchange.rule


def note_asked(scope: Scope, answers: object) -> None:
    """Takes note that a server has asked in vain for an answer that needs no view, and whom it has asked."""
    scope[_ASKED_KEY] = id(answers)  # a number, because some middleware copies a scope deeply


def was_asked(scope: Mapping[str, object], answers: object) -> bool:
    """Tells whether a server has asked those who are here already, so that nobody need ask them again."""
    return scope.get(_ASKED_KEY) == id(answers)
