"""Decorators that change what a view answers, on any Quart application.

A view may return a response, what Quart makes one of, or raise what an error handler makes one of:
a change reaches the response in each of these cases.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from inspect import isawaitable, iscoroutinefunction
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast, overload

from quart import after_this_request, current_app, has_app_context, has_request_context
from quart.globals import request_ctx
from quart.typing import ResponseTypes
from quart.utils import run_sync
from quart.wrappers import Response

from aeros.errors import InvalidSettingError

P = ParamSpec("P")
T = TypeVar("T")

Change: TypeAlias = Callable[[ResponseTypes], Awaitable[None] | None]
"""Changes a response in place; may be async. One that is made twice changes nothing more."""

Hook: TypeAlias = Callable[[ResponseTypes], Awaitable[ResponseTypes]]
"""What ``after_this_request`` registers."""


class ResponseDecorator:
    """The decorator that ``changing_response()`` returns. It keeps the view's parameters and result.

    A sync view becomes one that is awaited, as Quart itself makes of it.

    Args:
        change: Changes the response.
        name: What the user calls the decorator.
    """

    def __init__(self, change: Change, name: str) -> None:
        self._change = change
        self._name = name

    @overload
    def __call__(self, view: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __call__(self, view: Callable[P, Awaitable[T] | T]) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __call__(self, view: Callable[..., Any]) -> Callable[..., Any]:
        """Returns ``view`` with its response changed.

        Raises:
            InvalidSettingError: It is no function.
        """
        return changed_view(view, self._change, name=self._name)


def changing_response(change: Change, *, name: str) -> ResponseDecorator:
    """Returns a decorator for views that makes ``change`` on each of their responses.

    It works on ``async def`` and ``def`` views of any Quart application, and in the ``decorators``
    of a class-based view. Where the view raises, the change is made on what the error handlers
    answer. A websocket, and a call without a request such as in a unit test, is left as it is.

    Args:
        change: Changes the response in place.
        name: What the user calls the decorator, for its errors.
    """
    return ResponseDecorator(change, name)


def changed_view(
    view: Callable[P, Any], change: Change, *, name: str
) -> Callable[P, Coroutine[Any, Any, Any]]:
    """Returns ``view`` with ``change`` made on its response; within a request the result is that response.

    Attributes of ``view`` are taken over: what stands above finds a cached view by one of them.

    Raises:
        InvalidSettingError: It is no function: a class, or nothing that can be called.
    """
    if not _is_function(view):
        raise InvalidSettingError(name, view, "a view function; for a class-based view, put it in decorators")

    @wraps(view)
    async def changed(*args: P.args, **kwargs: P.kwargs) -> Any:
        if not has_request_context():
            return await _run(view, *args, **kwargs)
        try:
            result = await _run(view, *args, **kwargs)
            if result is None:
                return None  # the cache takes it for an empty response, Quart for a mistake
            response = result if isinstance(result, Response) else await current_app.make_response(result)
        except Exception:
            after_this_request(_LateChange(change).make)
            raise
        await _make(change, response)
        return response

    return changed


def hooks_of_this_request() -> list[Hook]:
    """Returns the functions that ``after_this_request`` has registered; the list itself, not a copy."""
    return cast("list[Hook]", cast(Any, request_ctx)._after_request_functions)


async def make_late_changes(response: ResponseTypes, since: int) -> bool:
    """Makes the changes on ``response`` that decorators have left to the end of the request.

    A cache asks for it before it stores what an error handler has answered: what the decorators
    below it do is a part of that response.

    Args:
        response: The response to the error.
        since: How many hooks there were before the view.

    Returns:
        False where other functions were registered since then, and nothing was done: they are run
        at the end of this request only.
    """
    hooks = hooks_of_this_request()
    late = hooks[since:]
    if not all(isinstance(getattr(hook, "__self__", None), _LateChange) for hook in late):
        return False
    del hooks[since:]
    for hook in late:
        await hook(response)
    return True


def _is_function(view: object) -> bool:
    return callable(view) and not isinstance(view, type)


class _LateChange:
    """A change for the response that is made of what a view has raised."""

    def __init__(self, change: Change) -> None:
        self._change = change

    async def make(self, response: ResponseTypes) -> ResponseTypes:
        await _make(self._change, response)
        return response


async def _make(change: Change, response: ResponseTypes) -> None:
    pending = change(response)
    if pending is not None:
        await pending


async def _run(view: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if iscoroutinefunction(view):
        return await view(*args, **kwargs)
    # The application may have a way of its own to run sync views; without one it is Quart's.
    run = current_app.ensure_async(view) if has_app_context() else run_sync(view)
    result = await run(*args, **kwargs)
    return await result if isawaitable(result) else result
