"""A Quart application with a response cache: what ``WebServer`` is to this room."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from contextvars import Context
from string import punctuation
from typing import Any, Final, ParamSpec, TypeVar, cast, overload
from urllib.parse import quote

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from quart import Quart
from quart.ctx import RequestContext
from quart.signals import got_request_exception
from quart.wrappers import Request, Response
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import RoutingException

from aeros.caching.explain import Explanation
from aeros.caching.invalidation import Paths, invalidating_view, named_paths
from aeros.caching.keys import HashMethod
from aeros.caching.marks import path_mark, path_marks, shared_mark, tag_marks
from aeros.caching.memoize import Memoized, MemoizingDecorator, TypedMemoizingDecorator
from aeros.caching.policy import SAFE_METHODS
from aeros.caching.refresh import Silence, discard, refreshing_scope
from aeros.caching.rules import (
    CacheRules,
    OfArguments,
    Tags,
    Timeout,
    check_flag,
    checked_names,
    checked_query,
    checked_seconds,
    checked_statuses,
    checked_tags,
    checked_vary,
)
from aeros.caching.serializers import Serializer
from aeros.caching.server import Cache
from aeros.caching.stats import CacheStats
from aeros.caching.transaction import Refresh
from aeros.caching.values import ValueRules
from aeros.caching.view import (
    AnyResponse,
    CachedDecorator,
    Conditions,
    cached_route,
    cached_view,
    explained,
)
from aeros.errors import InvalidSettingError
from aeros.exchange import Exchange, attach_exchange
from aeros.per_loop import PerLoop

P = ParamSpec("P")
T = TypeVar("T")

_STOP_SECONDS: Final = 2.0
"""How long a refresh that is cancelled may take to end."""


class CachingApplication(Quart):
    """Quart with the cache's decorators and calls.

    A subclass says which cache is in use and who is admitted, and commits what views propose when
    all hooks have run.
    """

    _caches = False
    """Whether anything was decorated: an application without it never makes a cache."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._refreshes: PerLoop[set[asyncio.Task[None]]] = PerLoop(set)
        super().__init__(*args, **kwargs)

    def current_cache(self) -> Cache:
        """Returns the cache to use now."""
        raise NotImplementedError

    def admit_at_once(self, exchange: Exchange) -> bool:
        """Gets a slot for a request if there is one; returns whether it has one."""
        raise NotImplementedError

    async def admit(self, exchange: Exchange) -> AnyResponse | None:
        """Gets a slot for a request; returns the refusal where there is none."""
        raise NotImplementedError

    @property
    def caches(self) -> bool:
        """Whether anything is cached here, or memoized."""
        return self._caches

    # What users call

    def cache(
        self,
        timeout: Timeout | None = None,
        key_prefix: str | Callable[[], str | Awaitable[str]] = "view/%s",
        unless: Callable[[], bool | Awaitable[bool]] | None = None,
        forced_update: Callable[[], bool | Awaitable[bool]] | None = None,
        response_filter: Callable[[Response], bool | Awaitable[bool]] | None = None,
        query_string: bool = False,
        hash_method: HashMethod = hashlib.md5,
        cache_none: bool = False,
        *,
        vary: str | Iterable[str] = (),
        cookies: str | Iterable[str] = (),
        key: Callable[[], str | Awaitable[str]] | None = None,
        query_include: str | Iterable[str] | None = None,
        query_exclude: str | Iterable[str] | None = None,
        tags: Tags = (),
        statuses: Mapping[int, Timeout] | None = None,
        stale_while_revalidate: Timeout | None = None,
        stale_if_error: Timeout | None = None,
        authorized: bool = False,
        early: bool = True,
    ) -> CachedDecorator:
        """Decorates a view so that it is answered from the cache while its response is fresh.

        Put it below ``@app.route``; what stands between them runs for every request.

        Args:
            timeout: Lifetime: seconds or a ``timedelta``. None: what the response states, else
                the cache's default. 0: stale at once, so not stored.
            key_prefix: ``%s`` stands for the path. Without it all paths share one response; a
                callable is asked at each request, and its text is used as it is.
            unless: True keeps a request out of the cache.
            forced_update: True runs the view even if a fresh response is stored.
            response_filter: False keeps a response from being stored.
            query_string: Whether the query is part of the key, its parameters sorted by name.
            hash_method: A constructor of ``hashlib``, for the key's short form. Collisions are
                harmless: the full key is compared.
            cache_none: Whether a view's ``None``, which is answered as 204, is stored.
            vary: Request fields whose values are part of the key; the response names them in
                ``Vary``. With ``"Authorization"`` each credential has a response of its own.
            cookies: Cookies whose values are part of the key. Without it, a response for which
                ``request.cookies`` was read is not stored.
            key: Text that is part of the key, asked at each request.
            query_include: Only these parameters are part of the key; ``"utm_*"`` stands for all
                that begin so.
            query_exclude: All parameters but these are part of the key.
            tags: Names that responses can be evicted by, or a function of the view's arguments
                that gives them.
            statuses: Responses of these status codes are stored, each for its own time, such as
                ``{404: 10}``; also where the view aborts with one of them.
            stale_while_revalidate: How long after its lifetime a response is still used while the
                view makes a new one in the background (RFC 5861). None: what the response states.
            stale_if_error: How long after its lifetime a response is used where the view raises or
                returns 500, 502, 503 or 504. None: what the response states.
            authorized: True: requests with ``Authorization`` are stored and answered like others.
                All users get the same response; let a hook or a decorator above check them.
            early: Whether hits may be answered before hooks and views are looked for, which is done
                only where there are none that could have changed the answer. False: never.

        Raises:
            InvalidSettingError: An option does not fit.
        """
        rules = CacheRules(
            timeout=checked_seconds("timeout", timeout),
            key_prefix=self._option(key_prefix) if callable(key_prefix) else key_prefix,
            query=checked_query(query_string, query_include, query_exclude),
            hash_method=hash_method,
            cache_none=cache_none,
            vary=checked_vary(vary),
            statuses=checked_statuses(statuses),
            stale_while_revalidate=checked_seconds("stale_while_revalidate", stale_while_revalidate),
            stale_if_error=checked_seconds("stale_if_error", stale_if_error),
            authorized=authorized,
            early=early,
            tags=checked_tags(tags),
        )
        self._refuse_injected("tags", tags)
        conditions = Conditions(
            unless=self._option(unless),
            forced_update=self._option(forced_update),
            response_filter=self._option(response_filter),
            key=self._option(key),
            cookies=checked_names("cookies", cookies, "names of cookies"),
        )
        self._caches = True
        return CachedDecorator(lambda view: cached_view(self, rules, conditions, self._runner_of(view)))

    def invalidates(self, *, tags: Tags = (), paths: Paths = ()) -> CachedDecorator:
        """Decorates a view that writes: its success evicts what it makes obsolete.

        The eviction is done before the response is sent, so its client reads what it wrote.

        Args:
            tags: Tags to evict, or a function of the view's arguments that gives them.
            paths: Paths to evict, or such a function.

        Raises:
            InvalidSettingError: An option does not fit, or neither is given.
        """
        self._refuse_injected("tags", tags)
        self._refuse_injected("paths", paths)
        return CachedDecorator(lambda view: invalidating_view(self, tags, paths, self._runner_of(view)))

    @overload
    def memoize(
        self,
        timeout: Timeout | None = None,
        *,
        key: OfArguments[str] | None = None,
        ignored: Collection[str] = (),
        tags: Tags = (),
        stale_while_revalidate: Timeout | None = None,
        stale_if_error: Timeout | None = None,
        serializer: None = None,
    ) -> MemoizingDecorator: ...
    @overload
    def memoize(
        self,
        timeout: Timeout | None = None,
        *,
        key: OfArguments[str] | None = None,
        ignored: Collection[str] = (),
        tags: Tags = (),
        stale_while_revalidate: Timeout | None = None,
        stale_if_error: Timeout | None = None,
        serializer: Serializer[T],
    ) -> TypedMemoizingDecorator[T]: ...
    def memoize(
        self,
        timeout: Timeout | None = None,
        *,
        key: OfArguments[str] | None = None,
        ignored: Collection[str] = (),
        tags: Tags = (),
        stale_while_revalidate: Timeout | None = None,
        stale_if_error: Timeout | None = None,
        serializer: Serializer[Any] | None = None,
    ) -> MemoizingDecorator | TypedMemoizingDecorator[Any]:
        """Decorates an async function so that its values are cached by its arguments.

        They share the cache's stores, single flight, tags and counters with responses.

        Args:
            timeout: Lifetime: seconds or a ``timedelta``. None: the cache's default.
            key: Gives the key from the arguments, for arguments that have no key of their own.
            ignored: Names of parameters that are no part of the key.
            tags: Names that values can be evicted by, or a function of the arguments.
            stale_while_revalidate: How long after its lifetime a value is still used while a new
                one is computed in the background.
            stale_if_error: How long after its lifetime a value is used where the function raises.
            serializer: Turns values into bytes and back; None: as JSON.

        Raises:
            InvalidSettingError: An option does not fit, or the function is not async.
        """
        rules = ValueRules(
            timeout=checked_seconds("timeout", timeout),
            stale_while_revalidate=checked_seconds("stale_while_revalidate", stale_while_revalidate) or 0.0,
            stale_if_error=checked_seconds("stale_if_error", stale_if_error) or 0.0,
        )
        self._caches = True
        self._refuse_injected("key", key)
        self._refuse_injected("tags", tags)

        def build(function: Callable[..., Awaitable[Any]]) -> Memoized[..., Any]:
            # What is injected is the application's own, and says nothing of the value.
            injected = self.injected_names(function)
            memoized = Memoized(
                self,
                function,
                rules=rules,
                key=key,
                ignored=(*ignored, *injected) if injected else ignored,
                tags=tags,
                serializer=serializer,
            )
            if injected:
                memoized.run_by(self.ensure_async(function))
            return memoized

        return MemoizingDecorator(build)

    async def evict(
        self, *, tags: str | Iterable[str] = (), path: str | None = None, everything: bool = False
    ) -> int | None:
        """Makes responses and values leave the cache, in every process that shares its store.

        In this process they are gone on return, and what views bring that began before is not
        stored. Other processes follow as ``Cache(local_seconds=)`` says. A store that is away is
        told when it is back.

        Args:
            tags: All that have one of these tags.
            path: All responses for this path, such as ``url_for()`` gives, whatever their query.
            everything: All of this application.

        Returns:
            How many entries left; None where a store is involved, which does not tell.

        Raises:
            InvalidSettingError: Nothing to evict is named, or not rightly.
        """
        return await self.current_cache().evict(_named_marks(tags, path, everything=everything))

    def clear_cache(self, *, tags: str | Iterable[str] | None = None, path: str | None = None) -> int | None:
        """Does what ``evict`` does, from any thread, with or without a running event loop.

        On a running event loop a store is told in the background. Without arguments everything of
        this application goes.

        Args:
            tags: As for ``evict``.
            path: As for ``evict``.

        Returns:
            How many entries left; None where a store is involved, which does not tell.
        """
        everything = path is None and tags is None
        return self.current_cache().evict_soon(_named_marks(tags or (), path, everything=everything))

    def cache_stats(self) -> CacheStats:
        """Returns the cache's counters in this process, as they are now."""
        return self.current_cache().stats()

    async def cache_explain(
        self, method: str, path: str, headers: Mapping[str, str] | None = None
    ) -> Explanation:
        """Returns what the cache would do with a request, and why. No view and no hook runs.

        >>> print(await app.cache_explain("GET", "/report/2026"))
        hit; stored 12 s ago with status 200, fresh for 48 s; ...

        Args:
            method: Its method.
            path: Its path as a client sends it, with a query if it has one.
            headers: Its fields. Without ``Host`` it is for ``SERVER_NAME``, else for ``localhost``.
        """
        target = quote(path, safe=punctuation)
        as_sent = {"raw_path": target.partition("?")[0].encode("ascii")}
        asking = cast(Any, self).test_request_context  # partly typed
        made = asking(target, method=method, headers=dict(headers or {}), scope_base=as_sent)
        async with self.request_scope(), made as context:
            asked = cast(Request, context.request)
            if asked.routing_exception is not None or asked.endpoint is None:
                return Explanation(outcome="not-cached", reason="not-found")
            route = cached_route(self.view_functions.get(asked.endpoint))
            if route is None:
                return Explanation(outcome="not-cached", reason="not-cached")
            return await explained(self.current_cache(), route, asked.scope, asked.view_args or {})

    # What Quart calls

    async def shutdown(self) -> None:
        """Ends what serves in this event loop: last, what the cache has open."""
        try:
            await super().shutdown()
        finally:
            refreshes = self._refreshes.get()
            for task in refreshes:
                task.cancel()
            if refreshes:
                await asyncio.wait(refreshes, timeout=_STOP_SECONDS)
            if self._caches:
                await self.current_cache().close()

    # What the decorators ask for

    async def make_view_response(self, result: object) -> AnyResponse:
        """Returns the response that a view's result stands for."""
        return await self.make_response(cast(Any, result))

    async def make_error_response(self, error: Exception) -> AnyResponse | None:
        """Returns the response that the application's handlers have for an error; None: none of them."""
        try:
            return await self.make_view_response(await self.handle_user_exception(error))
        except Exception as unhandled:
            if unhandled is error:
                return None
            raise

    async def note_error(self, error: Exception) -> None:
        """Logs an error that no handler takes, and sends Quart's signal for it."""
        await got_request_exception.send_async(
            self, _sync_wrapper=cast(Any, self.ensure_async), exception=error
        )
        self.log_exception(cast(Any, (type(error), error, error.__traceback__)))

    def refresh_later(self, scope: Mapping[str, object], refresh: Refresh) -> None:
        """Makes a request like this one in the background, to replace a stale response."""
        tasks = self._refreshes.get()
        # In a context of its own: nothing of the request that found the stale response is its.
        task = asyncio.get_running_loop().create_task(
            self._refresh(refreshing_scope(scope), refresh), context=Context()
        )
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def build_response(self, body: bytes, status: int) -> Response:
        """Returns a new response of the application's class."""
        # Quart's own class, of which a type checker may see Flask's.
        made: Any = self.response_class
        return cast(Response, made(body) if status == 200 else made(body, status))

    async def evict_written(self, context: RequestContext, response: AnyResponse) -> None:
        """Evicts what a request has made obsolete: if it was unsafe, and has succeeded (RFC 9111 §4.4)."""
        if not self._caches or context.request.method in SAFE_METHODS or response.status_code >= 400:
            return
        request = context.request
        marks = [path_mark(path) for path in named_paths(request.url, response)]
        endpoint = _endpoint_of_get(context)
        if endpoint is not None:
            marks += path_marks(cast("Mapping[str, object]", request.scope))
            route = cached_route(self.view_functions.get(endpoint))
            shared = () if route is None else (await route.rules_now()).key_template()
            marks += [shared_mark(text) for text in shared if len(shared) == 1]
        if marks:
            await self.current_cache().evict(marks)

    async def _refresh(self, scope: dict[str, Any], refresh: Refresh) -> None:
        exchange = Exchange(refresh=refresh)
        attach_exchange(scope, exchange)
        connection = self.asgi_http_class(self, cast(HTTPScope, scope))
        try:
            deadline = asyncio.timeout(self.current_cache().flight_deadline_seconds)
            async with deadline, self.request_scope():
                await connection(cast(ASGIReceiveCallable, Silence()), cast(ASGISendCallable, discard))
        except Exception as error:
            # It has no client who could be told.
            self.logger.warning("A stale response could not be replaced: %r", error, exc_info=True)
        finally:
            exchange.release_slot()
            if exchange.transaction is None:
                refresh.fail()  # what stands before the view has failed, or answered itself
            refresh.give_up()

    def injected_names(self, _function: object, /) -> tuple[str, ...]:
        """Returns the parameters of a function that are injected, where this application injects."""
        return ()

    def with_injected(self, function: Callable[P, T | Awaitable[T]]) -> Callable[P, T | Awaitable[T]]:
        """Returns a function with what it has injected, where this application injects."""
        return function

    def request_scope(self) -> AbstractAsyncContextManager[None]:
        """Opens what a request has for itself, around one that no server brings."""
        return nullcontext()

    def _refuse_injected(self, option: str, function: object) -> None:
        if self.injected_names(function):
            raise InvalidSettingError(option, function, "a function of the arguments, without inject()")

    @overload
    def _option(self, function: None) -> None: ...
    @overload
    def _option(self, function: Callable[P, T | Awaitable[T]]) -> Callable[P, T | Awaitable[T]]: ...
    @overload
    def _option(
        self, function: Callable[P, T | Awaitable[T]] | None
    ) -> Callable[P, T | Awaitable[T]] | None: ...
    def _option(self, function: Callable[P, T | Awaitable[T]] | None) -> Callable[P, T | Awaitable[T]] | None:
        # What is no function is told of by those who check it.
        return self.with_injected(function) if callable(function) else function

    def _runner_of(self, view: Callable[P, Any]) -> Callable[P, Awaitable[Any]]:
        return self.ensure_async(view)


def _endpoint_of_get(context: RequestContext) -> str | None:
    """Returns what answers GET at the path of an unsafe request; None where nothing could be stored."""
    adapter = context.url_adapter
    if adapter is None:
        return ""
    try:
        endpoint, _ = adapter.match(method="GET")
    except (NotFound, MethodNotAllowed):
        return None
    except RoutingException:
        return ""
    return str(endpoint)


def _named_marks(tags: str | Iterable[str], path: str | None, *, everything: bool) -> list[str] | None:
    check_flag("everything", everything)
    marks = [*tag_marks(tags), *([] if path is None else [path_mark(path)])]
    if everything:
        return None
    if not marks:
        raise InvalidSettingError("tags", tags, "a tag, path= or everything=True: what to evict")
    return marks
