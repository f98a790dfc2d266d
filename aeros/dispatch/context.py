"""The contexts of a request: they open what is asked for, and notice whether the session is used.

Reading Quart's session sets no ``Vary: Cookie``, so a cache could not tell a page for one user
from a page for all. Every way to the session, whatever is then done with it, goes through the
context's attribute: noticing that attribute being read is sure, whatever the session's class.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import Token
from types import SimpleNamespace
from typing import Any, Final, cast

from quart import Quart, ctx, g, has_app_context, has_request_context, request, session
from quart.globals import _cv_app, _cv_request  # pyright: ignore[reportPrivateUsage]  # there is no public way
from quart.sessions import SecureCookieSessionInterface, SessionMixin
from quart.signals import appcontext_popped, appcontext_pushed
from quart.wrappers import Request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import MapAdapter

from aeros.dispatch.request import first_field
from aeros.dispatch.routing import RouteMap
from aeros.exchange import exchange_of

_UNMADE: Final = cast(Any, object())
_RAISED: Final = object()


class AppContext(ctx.AppContext):
    """Quart's application context; its ``g`` and its adapter are made when they are asked for."""

    _cv_tokens: list[Token[Any]]
    _g: Any = _UNMADE
    _adapter: Any = _UNMADE

    def __init__(self, app: Quart) -> None:
        self.app = app
        self._cv_tokens = []

    @property
    def g(self) -> Any:
        """What a view keeps for this context."""
        if self._g is _UNMADE:
            self._g = self.app.app_ctx_globals_class()
        return self._g

    @g.setter
    def g(self, value: Any) -> None:
        self._g = value

    @property
    def url_adapter(self) -> MapAdapter | None:
        """Builds URLs outside of requests."""
        if self._adapter is _UNMADE:
            self._adapter = self.app.create_url_adapter(None)
        return cast("MapAdapter | None", self._adapter)

    @url_adapter.setter
    def url_adapter(self, value: MapAdapter | None) -> None:
        self._adapter = value

    def enter(self) -> None:
        """Makes it the current one, without a signal."""
        self._cv_tokens.append(_cv_app.set(self))

    def leave(self) -> None:
        """Makes the one before it the current one, where nothing is to be run at its end."""
        _cv_app.reset(self._cv_tokens.pop())

    async def push(self) -> None:
        """Makes it the current one."""
        self.enter()
        if appcontext_pushed.receivers:
            await appcontext_pushed.send_async(self.app, _sync_wrapper=cast(Any, self.app.ensure_async))

    async def pop(self, exc: Any = _RAISED) -> None:
        """Ends it."""
        tokens = self._cv_tokens
        try:
            if len(tokens) == 1:
                await self.app.do_teardown_appcontext(sys.exc_info()[1] if exc is _RAISED else exc)
        finally:
            current = _cv_app.get()
            _cv_app.reset(tokens.pop())
            if current is not self:
                raise AssertionError(f"Popped wrong app context. ({current!r} instead of {self!r})")
        if appcontext_popped.receivers:
            await appcontext_popped.send_async(self.app, _sync_wrapper=cast(Any, self.app.ensure_async))


class RequestContext(ctx.RequestContext):
    """Quart's request context; its session and its adapter are opened when they are asked for.

    Using the session is noted on the request's exchange.
    """

    _cv_tokens: list[tuple[Token[Any], ctx.AppContext | None]]
    _session: SessionMixin | None
    _is_open = False
    _opens_late = False
    _adapter: Any = _UNMADE
    preserved = False
    flashes = None

    def __init__(self, app: Quart, request: Request, session: SessionMixin | None = None) -> None:
        self.app = app
        self.request_websocket = request
        request.routing_exception = None
        request.json_module = app.json
        self._session = session
        self._cv_tokens = []
        self._after_request_functions = []

    @property
    def session(self) -> SessionMixin | None:
        """The session of this request. Reading it counts as using it."""
        self._note_use()
        return self._session_now()

    @session.setter
    def session(self, value: SessionMixin | None) -> None:
        self._note_use()
        self._session = value

    @property
    def url_adapter(self) -> MapAdapter | None:
        """Matches and builds URLs for this request."""
        if self._adapter is _UNMADE:
            self._adapter = self.app.create_url_adapter(self.request_websocket)
        return cast("MapAdapter | None", self._adapter)

    @url_adapter.setter
    def url_adapter(self, value: MapAdapter | None) -> None:
        self._adapter = value

    def match_request(self) -> None:
        """Finds the rule that the request is for."""
        app, asked = self.app, self.request
        if self._adapter is _UNMADE and getattr(app, "has_plain_urls", False):
            found = cast(RouteMap, app.url_map).find(asked, cast("str | None", app.config["SERVER_NAME"]))
            if found is not None:
                asked.url_rule, asked.view_args = found
                return
        adapter = self.url_adapter
        if adapter is not None:
            try:
                rule, arguments = adapter.match(return_rule=True)
            except HTTPException as error:
                asked.routing_exception = error
            else:
                asked.url_rule, asked.view_args = cast(Any, rule), cast("dict[str, Any]", arguments)

    async def push(self) -> None:
        """Makes it the current one, and opens the session, which does not count as using it."""
        app = self.app
        current = _cv_app.get(None)
        token = _cv_request.set(self)
        below: ctx.AppContext | None = None
        if current is None or current.app is not app:
            below = app.app_context()
            await below.push()
        self._cv_tokens.append((token, below))
        if self._session is None and not self._may_open_late():
            await self.open_session()
        self.match_request()
        self.begin()

    def enter(self) -> bool:
        """Makes it the current one; returns whether its session need not be opened first."""
        app = self.app
        current = _cv_app.get(None)
        token = _cv_request.set(self)
        below: AppContext | None = None
        if current is None or current.app is not app:
            below = AppContext(app)
            below.enter()
        self._cv_tokens.append((token, below))
        return self._may_open_late()

    def begin(self) -> None:
        """From now on using the session is noted."""
        self._is_open = True

    def leave(self) -> None:
        """Makes the contexts before it the current ones, where nothing is to be run at its end."""
        token, below = self._cv_tokens.pop()
        _cv_request.reset(token)
        if isinstance(below, AppContext):
            below.leave()

    async def open_session(self) -> None:
        """Opens the session."""
        interface = self.app.session_interface
        opened = await self.app.ensure_async(interface.open_session)(self.app, self.request_websocket)
        self._session = opened if opened is not None else await interface.make_null_session(self.app)

    @property
    def after_request_functions(self) -> list[Any]:
        """What ``after_this_request`` has registered."""
        return self._after_request_functions

    async def pop(self, exc: Any = _RAISED) -> None:
        """Ends it."""
        tokens, asked = self._cv_tokens, self.request_websocket
        raised = exc
        try:
            if len(tokens) == 1:
                if exc is _RAISED:
                    raised = sys.exc_info()[1]
                await self.app.do_teardown_request(raised, self)
                close = getattr(asked, "close", None)
                if close is not None:
                    await close()
        finally:
            current = _cv_request.get()
            token, below = tokens.pop()
            _cv_request.reset(token)
            if below is not None:
                await below.pop(raised)
            if current is not self:
                raise AssertionError(f"Popped wrong request context. ({current!r} instead of {self!r})")

    def copy(self) -> RequestContext:
        """Returns a context for the same request and session, e.g. for a background task."""
        return type(self)(self.app, self.request, self._session_now() if self._is_open else self._session)

    @property
    def has_session(self) -> bool:
        """Whether a session was opened, so that it may have to be saved."""
        return self._session is not None

    def without_tracking(self) -> ctx.RequestContext:
        """Returns what Quart reads of a context when it finishes a response, untracked.

        Saving the session is no use of it by the application.
        """
        view = SimpleNamespace(
            request=self.request,
            session=self._session_now(),
            _after_request_functions=self._after_request_functions,
        )
        return cast(ctx.RequestContext, view)

    def _note_use(self) -> None:
        exchange = exchange_of(self.request_websocket.scope) if self._is_open else None
        if exchange is not None:
            exchange.session_used = True

    def _may_open_late(self) -> bool:
        """Tells whether Quart would open an empty session that nobody had to wait for."""
        app = self.app
        self._opens_late = type(app.session_interface) is SecureCookieSessionInterface and (
            not app.secret_key or first_field(self.request, b"cookie") is None
        )
        return self._opens_late

    def _session_now(self) -> SessionMixin | None:
        if self._session is None and self._opens_late:
            interface = self.app.session_interface
            made = interface.session_class if self.app.secret_key else interface.null_session_class
            self._session = made()
        return self._session


async def template_context() -> dict[str, object]:
    """Returns ``g``, ``request`` and ``session`` for templates, as Quart's own processor does.

    The session is its proxy, so that a template which does not read it does not use it.
    """
    context: dict[str, object] = {}
    if has_app_context():
        context["g"] = g
    if has_request_context():
        context["request"] = request
        context["session"] = session
    return context


def notice_cookies(request: Request, classes: dict[type[Request], type[Request]]) -> None:
    """Makes reading ``request.cookies`` from now on be noted on the request's exchange.

    The request's class becomes one that differs in this attribute only.

    Args:
        request: The request; its session has been opened already.
        classes: The classes made so far, by the application's own.
    """
    made_from = type(request)
    noticing = classes.get(made_from)
    if noticing is None:
        noticing = classes[made_from] = _noticing(made_from)
    request.__class__ = noticing


def _noticing(base: type[Request]) -> type[Request]:
    read: Callable[[Request], object] = cast(Any, base.cookies).__get__

    def cookies(self: Request) -> object:
        exchange = exchange_of(self.scope)
        if exchange is not None:
            exchange.cookies_used = True
        return read(self)

    namespace = {
        "cookies": property(cookies),
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
    }
    return type(base.__name__, (base,), namespace)
