"""Memoized functions: the cache for what a function returns, by its arguments."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection, Coroutine
from functools import update_wrapper
from inspect import iscoroutinefunction
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast

from aeros.caching.arguments import ArgumentKey
from aeros.caching.keys import KEY_VERSION, join_parts
from aeros.caching.levels import Address
from aeros.caching.marks import call_mark, function_mark, tag_marks
from aeros.caching.rules import OfArguments, Tags, checked_tags
from aeros.caching.serializers import JsonSerializer, Serializer
from aeros.caching.server import Cache
from aeros.caching.values import ValueRules
from aeros.errors import InvalidSettingError

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")


class Application(Protocol):
    """What a memoized function needs of the application."""

    def current_cache(self) -> Cache:
        """Returns the cache to use now."""
        ...


class Memoized(Generic[P, T]):
    """An async function whose values are cached by its arguments.

    Calling it is calling the function. Every caller gets a value of its own: what is kept are the
    bytes that the serializer made of it.
    """

    def __init__(
        self,
        app: Application,
        function: Callable[P, Awaitable[T]],
        *,
        rules: ValueRules,
        key: OfArguments[str] | None = None,
        ignored: Collection[str] = (),
        tags: Tags = (),
        serializer: Serializer[T] | None = None,
    ) -> None:
        if not iscoroutinefunction(function):
            raise InvalidSettingError("memoize", function, "an async function")
        if key is not None and not callable(key):
            raise InvalidSettingError("key", key, "a callable on the arguments that returns text, or None")
        if serializer is not None and not _is_serializer(serializer):
            expected = "an object with a name, dumps() and loads(), such as TypedSerializer(...), or None"
            raise InvalidSettingError("serializer", serializer, expected)
        self._app = app
        self._function: Callable[P, Awaitable[T]] = function
        self._rules = rules
        self._key = key
        self._arguments = ArgumentKey(function, ignored=ignored)
        self._tags = checked_tags(tags)
        self._serializer: Serializer[Any] = JsonSerializer() if serializer is None else serializer
        self._name = f"{function.__module__}.{function.__qualname__}"
        update_wrapper(self, function)

    def run_by(self, run: Callable[P, Awaitable[T]]) -> None:
        """Makes ``run`` the way in which the function is run, e.g. with what it has injected."""
        self._function = run

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Returns the function's value for these arguments, from the cache while it is fresh."""

        async def compute() -> bytes:
            return self._serializer.dumps(await self._function(*args, **kwargs))

        values = self._app.current_cache().values
        return await values.get(self._address(args, kwargs), self._rules, compute, self._loaded)

    async def evict(self, *args: P.args, **kwargs: P.kwargs) -> int | None:
        """Makes the value for these arguments leave; the result is as for ``WebServer.evict``."""
        return await self._app.current_cache().evict([call_mark(self._key_of(args, kwargs))])

    async def evict_all(self) -> int | None:
        """Makes all values of this function leave; the result is as for ``WebServer.evict``."""
        return await self._app.current_cache().evict([function_mark(self._name)])

    def _loaded(self, data: bytes) -> T:
        return cast(T, self._serializer.loads(data))

    def _address(self, args: tuple[object, ...], kwargs: dict[str, object]) -> Address:
        key = self._key_of(args, kwargs)
        return Address(key, hashlib.md5, lambda: self._marks(key, args, kwargs))

    def _key_of(self, args: tuple[object, ...], kwargs: dict[str, object]) -> bytes:
        if self._key is None:
            part = b"arguments:" + self._arguments.of(args, kwargs)
        else:
            part = b"key:" + str(self._key(*args, **kwargs)).encode("utf-8", "surrogatepass")
        return join_parts([KEY_VERSION, b"call", self._name.encode(), self._serializer.name.encode(), part])

    def _marks(self, key: bytes, args: tuple[object, ...], kwargs: dict[str, object]) -> tuple[str, ...]:
        tags = self._tags(*args, **kwargs) if callable(self._tags) else self._tags
        return (function_mark(self._name), call_mark(key), *tag_marks(tags))


def _is_serializer(value: object) -> bool:
    has_methods = all(callable(getattr(value, method, None)) for method in ("dumps", "loads"))
    return has_methods and not isinstance(value, type) and isinstance(getattr(value, "name", None), str)


class MemoizingDecorator:
    """The decorator that ``WebServer.memoize()`` returns. It keeps parameters and result.

    Args:
        build: Makes the memoized function.
    """

    def __init__(self, build: Callable[[Callable[..., Awaitable[Any]]], Memoized[..., Any]]) -> None:
        self._build = build

    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]]) -> Memoized[P, T]:
        """Returns ``function`` with the cache before it."""
        return cast("Memoized[P, T]", self._build(function))


class TypedMemoizingDecorator(Generic[U]):
    """The decorator for functions whose values the given serializer takes."""

    def __init__(self, build: Callable[[Callable[..., Awaitable[Any]]], Memoized[..., Any]]) -> None:
        self._build = build

    def __call__(self, function: Callable[P, Coroutine[Any, Any, U]]) -> Memoized[P, U]:
        """Returns ``function`` with the cache before it."""
        return cast("Memoized[P, U]", self._build(function))
