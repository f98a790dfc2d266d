"""A Quart application that asks only those who are there: what ``WebServer`` is to this room."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, cast

from quart import Quart
from quart.ctx import AppContext as QuartAppContext
from quart.ctx import RequestContext as QuartRequestContext
from quart.json.provider import DefaultJSONProvider
from quart.routing import QuartMap
from quart.sessions import SecureCookieSessionInterface
from quart.signals import (
    appcontext_popped,
    appcontext_pushed,
    appcontext_tearing_down,
    request_finished,
    request_started,
    request_tearing_down,
)
from quart.typing import ResponseTypes
from quart.wrappers import Request as QuartRequest
from quart.wrappers import Response as QuartResponse
from werkzeug.exceptions import GatewayTimeout

from aeros.dispatch.connection import HTTPConnection
from aeros.dispatch.context import AppContext, RequestContext
from aeros.dispatch.request import Request
from aeros.dispatch.response import JSONProvider, Response
from aeros.dispatch.routing import RouteMap
from aeros.dispatch.way import Way
from aeros.exchange import Exchange, exchange_of

Runner: TypeAlias = Callable[..., Awaitable[Any]]

_MOST_RUNNERS: Final = 10_000

# The steps from a request to its response. Where a subclass, or somebody else, has another way for one
# of them, all are taken one by one, as Quart takes them.
_STEPS: Final = (
    "app_context",
    "dispatch_request",
    "do_teardown_appcontext",
    "do_teardown_request",
    "finalize_request",
    "full_dispatch_request",
    "make_response",
    "preprocess_request",
    "process_response",
    "request_context",
)
_READING: Final = ("GET", "HEAD", "OPTIONS", "TRACE")
_OURS: Final = ("aeros", "quart", "flask")


class DispatchingApplication(Quart):
    """Quart's dispatching in one go: the same steps in the same order, for what is there.

    Hooks that do not exist are not looked for one by one, and how a function is run is found out once.
    A request for which somebody listens to Quart's signals takes Quart's own steps.
    """

    _changes: int = 0

    request_class: type[QuartRequest] = Request
    response_class: type[QuartResponse] = Response
    json_provider_class: type[DefaultJSONProvider] = JSONProvider  # pyright: ignore[reportIncompatibleVariableOverride]  # Quart names its own default
    url_map_class: type[QuartMap] = RouteMap

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._runners: dict[Callable[..., Any], Runner] = {}
        self._ways: dict[str, Way] = {}
        self._goes_at_once: bool | None = None
        self._plain_urls: bool | None = None
        super().__init__(*args, **kwargs)

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        # Whatever it is: what was found out about the application may be true no more.
        mine = self.__dict__
        mine["_changes"] = mine.get("_changes", 0) + 1
        mine["_goes_at_once"] = mine["_plain_urls"] = None
        if name in ("ensure_async", "sync_to_async"):
            self._runners.clear()

    # What the rooms above add

    def is_admitted(self, request: QuartRequest, exchange: Exchange) -> bool:
        """Tells whether a request may be handled now; else ``refusal()`` is asked."""
        raise NotImplementedError

    async def refusal(self, exchange: Exchange) -> ResponseTypes | None:
        """Returns the response of a request that is not handled; None where it is, after all."""
        raise NotImplementedError

    async def conclude(self, context: QuartRequestContext, response: ResponseTypes) -> None:
        """Does what follows from a response once all hooks have run."""
        raise NotImplementedError

    # Quart's ways

    def app_context(self) -> QuartAppContext:
        """Returns a new application context."""
        return AppContext(self)

    def request_context(self, request: QuartRequest) -> QuartRequestContext:
        """Returns a context for the request that notices whether the session is used."""
        return RequestContext(self, request)

    async def handle_request(self, request: QuartRequest) -> ResponseTypes:
        """Returns the response to a request."""
        exchange = exchange_of(request.scope)
        if exchange is None:
            return await super().handle_request(request)
        if type(request) is not Request and "cookies" in vars(request):
            exchange.cookies_used = True  # the user's own class has read them while it was made
        if _has_listeners() or not self._may_go_at_once():
            try:
                return await super().handle_request(request)
            finally:
                exchange.end()
        context = RequestContext(self, request)
        opens_late = context.enter()
        try:
            if not opens_late:
                await context.open_session()
            context.match_request()
        except BaseException:
            # A Host that no URL can have, a session that does not open, or a cancellation while it does:
            # nothing else ends the context, because its end is awaited only once it has begun.
            context.leave()
            exchange.end()
            raise
        context.begin()
        raised: BaseException | None = None
        try:
            try:
                if exchange.handler_seconds is None:
                    return await self._respond(context, request, exchange)
                responding = self._respond(context, request, exchange)
                return await self._in_time(responding, context, exchange.handler_seconds)
            except Exception as error:  # noqa: BLE001 - whatever is raised, Quart answers it
                return await self.handle_exception(error)
        except BaseException as error:
            # Functions that run at the end of a request are told of what ended it, which may be its
            # client's leaving (a cancellation) or the end of the process, and not only an error.
            raised = error
            raise
        finally:
            try:
                is_to_be_kept = _is_to_be_kept(request)
                if is_to_be_kept:
                    self._preserved_context = context.copy()
                if raised is not None or is_to_be_kept or self._has_teardown(request):
                    await context.auto_pop(raised)
                else:
                    context.leave()
            finally:
                exchange.end()

    async def full_dispatch_request(
        self, request_context: QuartRequestContext | None = None
    ) -> ResponseTypes:
        """Returns the response to the request of a context, within the time that hooks and view have."""
        responding = super().full_dispatch_request(request_context)
        exchange = None if request_context is None else exchange_of(request_context.request.scope)
        if request_context is None or exchange is None or exchange.handler_seconds is None:
            return await responding
        return await self._in_time(responding, request_context, exchange.handler_seconds)

    async def _in_time(
        self, responding: Awaitable[ResponseTypes], context: QuartRequestContext, seconds: float
    ) -> ResponseTypes:
        """Returns the response; where it takes too long, it is cancelled, and that of ``504`` returned."""
        bound = asyncio.timeout(seconds)
        try:
            async with bound:
                return await responding
        except TimeoutError:
            if not bound.expired():
                raise
        late = GatewayTimeout()
        try:
            async with asyncio.timeout(seconds):
                return await self.finalize_request(await self.handle_user_exception(late), context)
        except TimeoutError:
            return await self.make_response(late)  # the hooks take too long as well

    async def _respond(
        self, context: RequestContext, request: QuartRequest, exchange: Exchange
    ) -> ResponseTypes:
        result: Any = None
        if not self.is_admitted(request, exchange):
            result = await self.refusal(exchange)
            if result is not None:
                return cast(ResponseTypes, result)
        try:
            if self.before_request_funcs or self.url_value_preprocessors:
                result = await self._preprocess(request)
            if result is None:
                if request.routing_exception is not None:
                    self.raise_routing_exception(request)
                rule: Any = request.url_rule
                if request.method == "OPTIONS" and rule.provide_automatic_options:
                    result = await self.make_default_options_response()
                else:
                    arguments: Any = request.view_args
                    result = await self._runner(self.view_functions[rule.endpoint])(**arguments)
        except Exception as error:  # noqa: BLE001 - whatever a view raises is handled
            result = await self.handle_user_exception(error)
        kind = type(result)  # pyright: ignore[reportUnknownVariableType]  # a view may return anything
        if kind is dict or kind is list:
            made: Any = self.json.response(result)
            response: ResponseTypes = made
        elif kind is Response:
            response = result
        else:
            response = await self.make_response(result)
        if self.after_request_funcs or context.after_request_functions:
            response = await self._postprocess(context, request, response)
        if context.has_session:
            await self._save_session(context, response)
        if exchange.transaction is not None or request.method not in _READING:
            await self.conclude(context, response)
        return response

    async def _preprocess(self, request: QuartRequest) -> Any:
        names = (None, *reversed(request.blueprints))
        for name in names:
            for processor in self.url_value_preprocessors.get(name, ()):
                processor(request.endpoint, request.view_args)
        for name in names:
            for function in self.before_request_funcs.get(name, ()):
                result = await self._runner(function)()
                if result is not None:
                    return result
        return None

    async def _postprocess(
        self, context: RequestContext, request: QuartRequest, response: ResponseTypes
    ) -> ResponseTypes:
        for hook in context.after_request_functions:
            response = await self.ensure_async(hook)(response)
        for name in (*request.blueprints, None):
            for function in reversed(self.after_request_funcs.get(name, ())):
                response = await self._runner(function)(response)
        return response

    async def _save_session(self, context: RequestContext, response: ResponseTypes) -> None:
        session, interface = cast(Any, context.without_tracking().session), self.session_interface
        if not interface.is_null_session(session):
            await self.ensure_async(interface.save_session)(self, session, response)

    def _has_teardown(self, request: QuartRequest) -> bool:
        return bool(
            any(self.teardown_request_funcs.values())
            or self.teardown_appcontext_funcs
            or not isinstance(request, Request)
            or request.has_files
        )

    @property
    def has_plain_urls(self) -> bool:
        """Whether a request's path alone leads to its rule, as far as the application can say."""
        plain = self._plain_urls
        if plain is None:
            plain = vars(self)["_plain_urls"] = (
                type(self.url_map) is RouteMap
                and not self.subdomain_matching
                and type(self).create_url_adapter is Quart.create_url_adapter
                and "create_url_adapter" not in vars(self)
            )
        return plain

    def _may_go_at_once(self) -> bool:
        """Tells whether each step is taken as we know it."""
        at_once = self._goes_at_once
        if at_once is None:
            mine = vars(self)
            at_once = mine["_goes_at_once"] = all(self._is_ours(name) for name in _STEPS)
        return at_once

    def _is_ours(self, name: str) -> bool:
        """Tells whether a method is the one that this package, or Quart, has."""
        return name not in vars(self) and getattr(type(self), name).__module__.partition(".")[0] in _OURS

    # The way past all that

    def clear_way(self, context: QuartRequestContext) -> Way | None:
        """Returns the way of a request that is being answered; None where something stands on it.

        Something that could see the request, or could have changed its answer: a hook, a decorator, a
        signal's receiver, a session, a subclass's own step.
        """
        request = context.request
        rule = request.url_rule
        if (
            rule is None
            or type(context) is not RequestContext
            or context.after_request_functions
            or context.has_session
            or request.trusted_hosts is not None
        ):
            return None
        last = self._ways.get(rule.endpoint)
        if last is not None and last.rule == rule.rule and self.is_clear(last):
            return last  # so that many responses of one view have one way
        if (
            not self._may_go_at_once()
            or not (self._is_ours("create_url_adapter") and self._is_ours("ensure_async"))
            or self.request_class is not Request
            or self.response_class not in (Response, QuartResponse)
            or self.asgi_http_class is not HTTPConnection
            or type(self.url_map) is not RouteMap
            or type(self.session_interface) is not SecureCookieSessionInterface
            or self.subdomain_matching
            or self.url_map.host_matching
            or self.url_map.default_subdomain
        ):
            return None
        view = self.view_functions.get(rule.endpoint)
        if view is None or self._runner(view) is not view:
            return None
        way = Way(
            endpoint=rule.endpoint,
            view=view,
            rule=rule.rule,
            names=(None, *request.blueprints),
            changes=self._changes,
            rules=self.url_map.changes,
            is_bare=self._is_ours("asgi_app") and self._is_ours("__call__"),
        )
        if not self.is_clear(way):
            return None
        self._ways[way.endpoint] = way
        return way

    def is_clear(self, way: Way) -> bool:
        """Tells whether nothing has been put on a way since it was found."""
        if (
            way.changes != self._changes
            or self.view_functions.get(way.endpoint) is not way.view
            or cast(RouteMap, self.url_map).changes != way.rules
            or _has_listeners()
            or self.teardown_appcontext_funcs
            or self.config["SERVER_NAME"] is not None
        ):
            return False
        before, after = self.before_request_funcs, self.after_request_funcs
        teardown, processors = self.teardown_request_funcs, self.url_value_preprocessors
        for name in way.names:
            if before.get(name) or after.get(name) or teardown.get(name) or processors.get(name):
                return False
        return True

    def _runner(self, function: Callable[..., Any]) -> Runner:
        """Returns what runs a registered function: itself, or in a thread, with what it has injected."""
        try:
            return self._runners[function]
        except KeyError:
            may_remember = len(self._runners) < _MOST_RUNNERS
        except TypeError:  # an object that can be called, and has no hash
            may_remember = False
        runner = self.ensure_async(function)
        if may_remember:
            self._runners[function] = runner
        return runner


def _is_to_be_kept(request: QuartRequest) -> bool:
    """Tells whether a test client has asked for the context to be there when the request is over."""
    scope: Any = request.scope
    return bool(scope.get("_quart._preserve_context", False))


def _has_listeners() -> bool:
    return bool(
        request_started.receivers
        or request_finished.receivers
        or request_tearing_down.receivers
        or appcontext_pushed.receivers
        or appcontext_popped.receivers
        or appcontext_tearing_down.receivers
    )
