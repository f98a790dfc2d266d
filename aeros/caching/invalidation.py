"""Eviction by what was written: a decorator for views that write, and what every unsafe request does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar, cast
from urllib.parse import urljoin, urlsplit

from quart import has_request_context

from aeros.caching.marks import path_mark, tag_marks
from aeros.caching.rules import OfArguments, Tags, checked_names, checked_tags
from aeros.caching.server import Cache
from aeros.caching.view import AnyResponse
from aeros.errors import InvalidSettingError

P = ParamSpec("P")
T = TypeVar("T")

Paths: TypeAlias = str | Iterable[str] | OfArguments[str | Iterable[str]]
"""A path, several, or a function of the view's arguments that gives them."""

_FAILED: int = 400


class Application(Protocol):
    """What the decorator needs of the application."""

    def current_cache(self) -> Cache:
        """Returns the cache to use now."""
        ...

    async def make_view_response(self, result: object) -> AnyResponse:
        """Returns the response that a view's result stands for."""
        ...


def invalidating_view(
    app: Application, tags: Tags, paths: Paths, run: Callable[P, Awaitable[T]]
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Returns ``run`` with an eviction after it, if it has succeeded.

    Within a request it has succeeded where its response has a status below 400; outside of one,
    where it has not raised.

    Raises:
        InvalidSettingError: An option does not fit.
    """
    named, where = checked_tags(tags), _checked_paths(paths)
    if named == () and where == ():
        raise InvalidSettingError("tags", (), "a tag, or paths=: what the view's success evicts")

    @wraps(run)
    async def view(*args: P.args, **kwargs: P.kwargs) -> T:
        result: object = await run(*args, **kwargs)
        if result is not None and has_request_context():
            result = await app.make_view_response(result)
            if result.status_code >= _FAILED:
                return cast(T, result)
        marks = tag_marks(named(*args, **kwargs) if callable(named) else named)
        written = checked_names("paths", where(*args, **kwargs) if callable(where) else where)
        await app.current_cache().evict([*marks, *map(path_mark, written)])
        return cast(T, result)

    return view


def _checked_paths(paths: Paths) -> tuple[str, ...] | Callable[..., str | Iterable[str]]:
    if callable(paths):
        return cast("Callable[..., str | Iterable[str]]", paths)
    names = checked_names("paths", paths, "paths")
    for name in names:
        path_mark(name)
    return names


def named_paths(url: str, response: AnyResponse) -> list[str]:
    """Returns the paths that a successful unsafe request makes obsolete besides its own (RFC 9111 §4.4).

    These are the targets of ``Location`` and ``Content-Location``, if they are on the same host.

    Args:
        url: The request's URL.
        response: The response, which is no error.
    """
    own = urlsplit(url)
    paths: list[str] = []
    for name in ("Location", "Content-Location"):
        named = response.headers.get(name)
        if named is None:
            continue
        try:
            target = urlsplit(urljoin(url, named))
        except ValueError:
            continue
        if (target.scheme, target.netloc) == (own.scheme, own.netloc):
            paths.append(target.path or "/")
    return paths
