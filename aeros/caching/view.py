"""The cache decorator: a view that answers from the cache when it can (door 3).

The wrapper stands where the decorator stood. What is outside of it (other decorators, hooks,
middleware) runs for every request, hit or miss; what is inside runs only for a miss.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, wraps
from inspect import isawaitable
from typing import Any, Final, ParamSpec, Protocol, TypeVar, cast, overload

from quart import has_request_context, request
from quart.wrappers import Response
from quart.wrappers.response import DataBody
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as WerkzeugResponse

from aeros.caching.entry import StoredResponse
from aeros.caching.explain import Explanation
from aeros.caching.keys import join_parts
from aeros.caching.policy import ERROR_STATUSES
from aeros.caching.rules import CacheRules
from aeros.caching.server import Cache
from aeros.caching.transaction import Refresh, Transaction
from aeros.errors import InvalidSettingError
from aeros.exchange import Exchange, exchange_of, owns_date
from aeros.types import RawHeaders
from aeros.views import hooks_of_this_request, make_late_changes

P = ParamSpec("P")
T = TypeVar("T")

AnyResponse = Response | WerkzeugResponse

_MOST_FIELDS: Final = 2_000
_LONGEST_VALUE: Final = 100

_CACHED_MARK: Final = "__aeros_cached__"
_SELF_MARK: Final = "__aeros_cached_self__"


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

    def admit_at_once(self, exchange: Exchange) -> bool:
        """Gets a slot for the request if there is one; returns whether it has one."""
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

    async def make_error_response(self, error: Exception) -> AnyResponse | None:
        """Returns the response that the application has for an error; None where it has none."""
        ...

    async def note_error(self, error: Exception) -> None:
        """Logs an error that nobody handles, and tells those who asked to be told."""
        ...

    def refresh_later(self, scope: Mapping[str, object], refresh: Refresh) -> None:
        """Makes a request like this one in the background, to replace a stale response."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a route asks of each request; the callables may be async.

    Attributes:
        unless: True keeps the request out of the cache: no lookup and no store.
        forced_update: True runs the view even if a fresh response is stored.
        response_filter: False keeps the response from being stored.
        key: Text that is a part of the key.
        cookies: Names of cookies whose values are a part of the key.
    """

    unless: Callable[[], bool | Awaitable[bool]] | None = None
    forced_update: Callable[[], bool | Awaitable[bool]] | None = None
    response_filter: Callable[[Response], bool | Awaitable[bool]] | None = None
    key: Callable[[], str | Awaitable[str]] | None = None
    cookies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("unless", "forced_update", "response_filter"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise InvalidSettingError(name, value, "a callable that returns True or False, or None")
        if self.key is not None and not callable(self.key):
            raise InvalidSettingError("key", self.key, "a callable that returns text, or None")

    async def key_parts(self) -> tuple[bytes, ...]:
        """Returns what the current request adds to the key."""
        parts: list[bytes] = []
        if self.key is not None:
            text = self.key()
            text = await text if isawaitable(text) else text
            if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # it comes from users
                raise InvalidSettingError("key", text, "a callable that returns text")
            parts.append(b"key:" + text.encode("utf-8", "surrogatepass"))
        for name in self.cookies:
            values = request.cookies.getlist(name)
            texts = [value.encode("utf-8", "surrogatepass") for value in values]
            parts.append(b"cookie:" + join_parts([name.encode(), *texts]))
        return tuple(parts)


@dataclass(frozen=True, slots=True)
class CachedRoute:
    """What ``WebServer.cache()`` was told for one view."""

    rules: CacheRules
    conditions: Conditions

    @property
    def is_plain(self) -> bool:
        """Whether nothing of a request decides about a hit but its URL."""
        asked = self.conditions
        return (
            self.rules.is_plain
            and not asked.cookies
            and asked.unless is None
            and asked.forced_update is None
            and asked.key is None
        )

    @property
    def asks_nobody(self) -> bool:
        """Whether nothing that users have written is asked at each request, nor any of its cookies."""
        asked = self.conditions
        return (
            isinstance(self.rules.key_prefix, str)
            and not callable(self.rules.tags)
            and not asked.cookies
            and asked.unless is None
            and asked.forced_update is None
            and asked.key is None
        )

    async def rules_now(self) -> CacheRules:
        """Returns the rules with the key prefix of the current request, where it is a callable.

        Raises:
            InvalidSettingError: It returns no text.
        """
        asked = self.rules.key_prefix
        if isinstance(asked, str):
            return self.rules
        text = asked()
        text = await text if isawaitable(text) else text
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # it comes from users
            raise InvalidSettingError("key_prefix", text, "text, or a callable that returns it")
        return replace(self.rules, key_prefix=lambda: text)

    def is_route_of(self, view: object) -> bool:
        """Tells whether ``view`` is the cached view itself, with nothing around it."""
        # A decorator that uses wraps() takes the marks over, but not who they are of.
        return getattr(view, _SELF_MARK, None) is view

    @property
    def notices_cookies(self) -> bool:
        """Whether reading ``request.cookies`` keeps a response from being stored."""
        return not self.conditions.cookies and b"cookie" not in self.rules.vary

    @property
    def selecting_fields(self) -> tuple[str, ...]:
        """The request fields that a response must name in ``Vary``, because the key has them."""
        names = [name.decode("ascii").title() for name in self.rules.vary]
        if self.conditions.cookies and "Cookie" not in names:
            names.append("Cookie")
        return tuple(names)


def cached_route(view: object) -> CachedRoute | None:
    """Returns what the cache was told for a view; None for one that is not cached."""
    found = getattr(view, _CACHED_MARK, None)
    return found if isinstance(found, CachedRoute) else None


def cached_view(
    app: Application, rules: CacheRules, conditions: Conditions, run: Callable[P, Awaitable[T]]
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Returns ``run`` with the cache before it.

    Within a request the result is a response. Outside of one, e.g. in a unit test that calls the
    view, the view just runs.
    """
    route = CachedRoute(rules.of_view(f"{run.__module__}.{run.__qualname__}"), conditions)
    asks_nobody, selecting_fields = route.asks_nobody, route.selecting_fields

    @wraps(run)
    async def view(*args: P.args, **kwargs: P.kwargs) -> T:
        scope = request.scope if has_request_context() else None
        exchange = None if scope is None else exchange_of(scope)
        # A cached view that calls another one answers for both: there is one response. A task
        # that goes on after its request has none at all.
        if exchange is None or scope is None or exchange.is_claimed:
            return await run(*args, **kwargs)
        exchange.is_claimed = True
        exchange.selecting_fields = selecting_fields
        visit = _Visit(app, route, exchange, scope, tags_of(rules, args, kwargs), asks_nobody=asks_nobody)
        # What Quart is given is a response; the view's own type stays what callers are told.
        return cast(T, await visit.answer(lambda: run(*args, **kwargs)))

    setattr(view, _CACHED_MARK, route)
    setattr(view, _SELF_MARK, view)
    return view


def tags_of(
    rules: CacheRules, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> Callable[[], object] | None:
    """Returns what gives the tags of a call of a view; None where it has none."""
    tags = rules.tags
    if callable(tags):
        return lambda: tags(*args, **kwargs)
    return (lambda: tags) if tags else None


async def explained(
    cache: Cache, route: CachedRoute, scope: Mapping[str, object], arguments: Mapping[str, object]
) -> Explanation:
    """Returns what would become of the current request to a route.

    Args:
        cache: The cache.
        route: The route.
        scope: The request's ASGI scope.
        arguments: What the view would be called with.
    """
    if await _asked(route.conditions.unless):
        return Explanation(outcome="bypass", reason="unless")
    if await _asked(route.conditions.forced_update):
        return Explanation(outcome="miss", reason="forced-update")
    rules = await route.rules_now()
    extra = await route.conditions.key_parts()
    return await cache.explain(scope, rules, tags=tags_of(rules, (), arguments), extra=extra)


class _Visit:
    """One request to a cached view."""

    __slots__ = ("_app", "_asks_nobody", "_exchange", "_route", "_scope", "_tags")

    def __init__(
        self,
        app: Application,
        route: CachedRoute,
        exchange: Exchange,
        scope: Mapping[str, object],
        tags: Callable[[], object] | None,
        *,
        asks_nobody: bool,
    ) -> None:
        self._app = app
        self._route = route
        self._exchange = exchange
        self._scope = scope
        self._tags = tags
        self._asks_nobody = asks_nobody

    async def answer(self, run: Callable[[], Awaitable[object]]) -> AnyResponse:
        transaction = self._exchange.transaction = await self._open()
        if transaction.hit is not None:
            self._exchange.release_slot()
            if transaction.refresh is not None:
                self._app.refresh_later(self._scope, transaction.refresh)
            return self._replay(transaction, transaction.hit)
        registered = hooks_of_this_request()
        hooks = len(registered)
        try:
            if not self._app.admit_at_once(self._exchange):
                refusal = await self._app.admit(self._exchange)
                if refusal is not None:
                    transaction.abandon("limit")
                    return refusal
            result = await run()
            if len(registered) > hooks:
                # They were registered by the view, and would be missing from a hit.
                transaction.abandon("after-this-request")
            return await self._propose(transaction, result)
        except Exception as error:
            response = await self._after(error, transaction, hooks)
            if response is None:
                transaction.abandon()
                raise
            return response
        except BaseException:
            # What is no Exception: the cancellation of a request whose client has left, and the end of the
            # process. Others may wait for what this view brings; they are let go and run it themselves.
            transaction.abandon()
            raise

    async def _open(self) -> Transaction:
        cache, conditions = self._app.current_cache(), self._route.conditions
        refresh = cast("Refresh | None", self._exchange.refresh)
        if self._asks_nobody:
            self._exchange.release_slot()
            return await cache.open(self._scope, self._route.rules, tags=self._tags, refresh=refresh)
        with self._exchange.unnoticed():
            if await _asked(conditions.unless):
                return cache.bypass("unless")
            update = refresh is None and await _asked(conditions.forced_update)
            rules = await self._route.rules_now()
            extra = await conditions.key_parts()
            # Waiting for another request's view takes no slot from those who work.
            self._exchange.release_slot()
            return await cache.open(
                self._scope, rules, update=update, tags=self._tags, extra=extra, refresh=refresh
            )

    async def _after(self, error: Exception, transaction: Transaction, hooks: int) -> AnyResponse | None:
        """Returns the response to use where the view raised; None where the error is to go on.

        Errors are answered here only where the cache has a part in it: there is a stale response
        to use instead or to replace, or the route stores responses of that status.

        Args:
            error: What the view has raised.
            transaction: The request's transaction.
            hooks: How many hooks of this request there were before the view.
        """
        is_wanted = isinstance(error, HTTPException) and error.code in self._route.rules.statuses
        if not (is_wanted or transaction.has_fallback or transaction.is_refreshing):
            return None
        try:
            response = await self._app.make_error_response(error)
        except Exception as failure:  # noqa: BLE001 - a handler of the user's has failed as well
            error, response = failure, None
        stale = transaction.rescue(500 if response is None else response.status_code)
        if stale is not None:
            if response is None:
                await self._app.note_error(error)
            return self._replay(transaction, stale)
        if response is None:
            return None
        if is_wanted:
            if not await make_late_changes(response, hooks):
                # The view or the error handler has registered others, which a hit would lack.
                transaction.abandon("after-this-request")
                return response
            return await self._propose(transaction, response)
        failed = transaction.is_refreshing and response.status_code in ERROR_STATUSES
        transaction.abandon(None if failed else "status")
        return response

    async def _propose(self, transaction: Transaction, result: object) -> AnyResponse:
        if result is None:
            response: AnyResponse = self._app.build_response(b"", 204)
            for name in ("Content-Type", "Content-Length"):  # there is no content to tell of
                response.headers.pop(name, None)
            if not self._route.rules.cache_none:
                transaction.abandon("none")
                return response
        else:
            response = await self._app.make_view_response(result)
        stale = transaction.rescue(response.status_code)
        if stale is not None:
            return self._replay(transaction, stale)
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
        keep = self._route.conditions.response_filter
        if keep is None:
            return None
        with self._exchange.unnoticed():
            verdict = keep(cast(Response, response))
            if isawaitable(verdict):
                verdict = await verdict
        return None if verdict else "response-filter"

    def _replay(self, transaction: Transaction, stored: StoredResponse) -> Response:
        response = self._app.build_response(stored.body, stored.status)
        length = response.headers.get("Content-Length")
        # The server adds a Date of its own if aeros does not write it, and two would contradict each other.
        left_out = () if owns_date(self._scope) else ("Date",)
        lines = [_text(*field) for field in stored.headers]
        lines = [line for line in lines if line[0] not in left_out]
        if length is not None and stored.status != 204:
            lines.append(("Content-Length", length))
        age = transaction.age
        if age is not None:
            lines.append(("Age", str(age)))
        headers = Headers.__new__(Headers)
        headers.__dict__ = {"_list": lines}  # they were checked when they were stored
        response.headers = headers
        self._exchange.representation = stored
        stored.note_hit(self._app.current_cache().now())
        return response


def _text(name: bytes, value: bytes) -> tuple[str, str]:
    if len(value) > _LONGEST_VALUE:
        return name.decode("ascii").title(), value.decode()
    return _remembered_text(name, value)


@lru_cache(_MOST_FIELDS)
def _remembered_text(name: bytes, value: bytes) -> tuple[str, str]:
    return name.decode("ascii").title(), value.decode()


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
