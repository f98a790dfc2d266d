"""The cache decorator: a view that answers from the cache when it can (door 3).

The wrapper stands where the decorator stood. What is outside of it (other decorators, hooks,
middleware) runs for every request, hit or miss; what is inside runs only for a miss.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import wraps
from inspect import isawaitable
from typing import Any, Final, ParamSpec, Protocol, TypeVar, cast, overload

from quart import has_request_context, request
from quart.globals import request_ctx
from quart.wrappers import Response
from quart.wrappers.response import DataBody
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response as WerkzeugResponse

from aeros.caching.entry import StoredResponse
from aeros.caching.rules import CacheRules
from aeros.caching.server import Cache
from aeros.caching.transaction import Transaction
from aeros.errors import InvalidSettingError
from aeros.exchange import Exchange, exchange_of, owns_date
from aeros.types import RawHeaders

P = ParamSpec("P")
T = TypeVar("T")

AnyResponse = Response | WerkzeugResponse

CACHED_MARK: Final = "__aeros_cached__"
"""Attribute of a view that asks for its own admission slot, because hits need none."""


class CachedDecorator:
    """The decorator that ``WebServer.cache()`` returns. It keeps the view's parameters and result.

    A sync view becomes one that is awaited, as Quart itself makes of it.
    """

    def __init__(self, decorate: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self._decorate = decorate

    @overload
    def __call__(self, view: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __call__(self, view: Callable[P, Awaitable[T] | T]) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __call__(self, view: Callable[..., Any]) -> Callable[..., Any]:
        """Returns ``view`` with the cache before it.

        Raises:
            InvalidSettingError: It is no function: the decorator was used without its parentheses.
        """
        return self._decorate(view)


class Application(Protocol):
    """What the decorator needs of the application."""

    def current_cache(self) -> Cache:
        """Returns the cache to use for this request."""
        ...

    async def admit(self, exchange: Exchange) -> AnyResponse | None:
        """Gets a slot for the request; returns the refusal where there is none."""
        ...

    async def make_view_response(self, result: object) -> AnyResponse:
        """Returns the response that a view's result stands for."""
        ...

    def build_response(self, body: bytes, status: int) -> Response:
        """Returns a new response of the application's class."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The callables of a route that decide for each request; each may be async.

    Attributes:
        unless: True keeps the request out of the cache: no lookup and no store.
        forced_update: True runs the view even if a fresh response is stored.
        response_filter: False keeps the response from being stored.
    """

    unless: Callable[[], bool | Awaitable[bool]] | None = None
    forced_update: Callable[[], bool | Awaitable[bool]] | None = None
    response_filter: Callable[[Response], bool | Awaitable[bool]] | None = None

    def __post_init__(self) -> None:
        for name in ("unless", "forced_update", "response_filter"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise InvalidSettingError(name, value, "a callable that returns True or False, or None")


def cached_view(
    app: Application, rules: CacheRules, conditions: Conditions, run: Callable[P, Awaitable[T]]
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Returns ``run`` with the cache before it.

    Within a request the result is a response. Outside of one, e.g. in a unit test that calls the
    view, the view just runs.
    """
    rules = rules.of_view(f"{run.__module__}.{run.__qualname__}")

    @wraps(run)
    async def view(*args: P.args, **kwargs: P.kwargs) -> T:
        exchange = exchange_of(request.scope) if has_request_context() else None
        # A cached view that calls another one answers for both: there is one response. A task
        # that goes on after its request has none at all.
        if exchange is None or exchange.is_claimed:
            return await run(*args, **kwargs)
        exchange.is_claimed = True
        visit = _Visit(app, rules, conditions, exchange)
        # What Quart is given is a response; the view's own type stays what callers are told.
        return cast(T, await visit.answer(lambda: run(*args, **kwargs)))

    setattr(view, CACHED_MARK, True)
    return view


class _Visit:
    """One request to a cached view."""

    __slots__ = ("_app", "_conditions", "_exchange", "_rules")

    def __init__(
        self, app: Application, rules: CacheRules, conditions: Conditions, exchange: Exchange
    ) -> None:
        self._app = app
        self._rules = rules
        self._conditions = conditions
        self._exchange = exchange

    async def answer(self, run: Callable[[], Awaitable[object]]) -> AnyResponse:
        transaction = self._exchange.transaction = await self._open()
        if transaction.hit is not None:
            self._exchange.release_slot()
            return self._replay(transaction, transaction.hit)
        try:
            refusal = await self._app.admit(self._exchange) if self._exchange.slot is None else None
            if refusal is not None:
                transaction.abandon("limit")
                return refusal
            hooks = _hooks_of_this_request()
            result = await run()
            if _hooks_of_this_request() > hooks:
                # They were registered by the view, and would be missing from a hit.
                transaction.abandon("after-this-request")
            return await self._propose(transaction, result)
        except BaseException:
            # Not only errors: a cancelled leader must let those who wait go, too.
            transaction.abandon()
            raise

    async def _open(self) -> Transaction:
        cache = self._app.current_cache()
        if await _asked(self._conditions.unless):
            return cache.bypass("unless")
        refresh = await _asked(self._conditions.forced_update)
        # Waiting for another request's view takes no slot from those who work.
        self._exchange.release_slot()
        return await cache.open(request.scope, self._rules, refresh=refresh)

    async def _propose(self, transaction: Transaction, result: object) -> AnyResponse:
        if result is None:
            response: AnyResponse = self._app.build_response(b"", 204)
            for name in ("Content-Type", "Content-Length"):  # there is no content to tell of
                response.headers.pop(name, None)
            if not self._rules.cache_none:
                transaction.abandon("none")
                return response
        else:
            response = await self._app.make_view_response(result)
        body = whole_body(response)
        reason = "stream" if body is None else await self._filtered(response)
        if body is None or reason is not None:
            transaction.abandon(reason)
            return response
        self._exchange.representation = transaction.propose(
            status=response.status_code, headers=raw_headers(response), body=body, accepted=result is None
        )
        return response

    async def _filtered(self, response: AnyResponse) -> str | None:
        keep = self._conditions.response_filter
        if keep is None:
            return None
        verdict = keep(cast(Response, response))
        if isawaitable(verdict):
            verdict = await verdict
        return None if verdict else "response-filter"

    def _replay(self, transaction: Transaction, stored: StoredResponse) -> Response:
        response = self._app.build_response(stored.body, stored.status)
        length = response.headers.get("Content-Length")
        response.headers = Headers(
            [(name.decode("ascii").title(), value.decode()) for name, value in stored.headers]
        )
        if length is not None and stored.status != 204:
            response.headers["Content-Length"] = length
        if not owns_date(request.scope):
            # The server adds a Date of its own, and two would contradict each other.
            response.headers.pop("Date", None)
        if transaction.status.hit:
            response.headers["Age"] = str(transaction.age)
        self._exchange.representation = stored
        return response


def _hooks_of_this_request() -> int:
    """Returns how many functions ``after_this_request`` has registered."""
    return len(cast(Any, request_ctx)._after_request_functions)


async def _asked(condition: Callable[[], bool | Awaitable[bool]] | None) -> bool:
    if condition is None:
        return False
    verdict = condition()
    return bool(await verdict if isawaitable(verdict) else verdict)


def whole_body(response: AnyResponse) -> bytes | None:
    """Returns the body of a response that has all of it at hand; None for a stream or a file."""
    if isinstance(response, Response):
        body = response.response
        if type(body) is DataBody and (body.begin, body.end) == (0, len(body.data)):
            return bytes(body.data)
        return None
    return response.get_data() if response.is_sequence else None


def raw_headers(response: AnyResponse) -> RawHeaders:
    """Returns the response's fields as ASGI carries them."""
    return [(name.lower().encode("ascii"), value.encode()) for name, value in response.headers.items()]
