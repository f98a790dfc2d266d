"""The request context that notices whether the session is used.

Reading Quart's session sets no ``Vary: Cookie``, so a cache could not tell a page for one user
from a page for all. Every way to the session, whatever is then done with it, goes through the
context's attribute: noticing that attribute being read is sure, whatever the session's class.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from quart import ctx, g, has_app_context, has_request_context, request, session
from quart.sessions import SessionMixin
from quart.wrappers import Request

from aeros.exchange import exchange_of


class RequestContext(ctx.RequestContext):
    """Quart's request context; using its session is noted on the request's exchange."""

    _session: SessionMixin | None
    _is_open = False

    @property
    def session(self) -> SessionMixin | None:
        """The session of this request. Reading it counts as using it."""
        self._note_use()
        return self._session

    @session.setter
    def session(self, value: SessionMixin | None) -> None:
        self._note_use()
        self._session = value

    async def push(self) -> None:
        """Opens the session, which does not count as using it."""
        await super().push()
        self._is_open = True

    def copy(self) -> RequestContext:
        """Returns a context for the same request and session, e.g. for a background task."""
        return type(self)(self.app, self.request, self._session)

    def without_tracking(self) -> ctx.RequestContext:
        """Returns what Quart reads of a context when it finishes a response, untracked.

        Saving the session is no use of it by the application.
        """
        view = SimpleNamespace(
            request=self.request,
            session=self._session,
            _after_request_functions=self._after_request_functions,
        )
        return cast(ctx.RequestContext, view)

    def _note_use(self) -> None:
        exchange = exchange_of(self.request_websocket.scope) if self._is_open else None
        if exchange is not None:
            exchange.session_used = True


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
