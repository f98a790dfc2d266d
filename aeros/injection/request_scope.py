"""Values that live as long as one request: opened at first use, closed after the response.

>>> async def open_session(factory: SessionFactory) -> AsyncGenerator[Session]:
...     async with factory() as session:
...         yield session
>>> class AppContainer(Container):
...     session = RequestScoped(open_session, factory)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from contextvars import ContextVar, Token
from inspect import isasyncgenfunction, isawaitable, iscoroutine, iscoroutinefunction, isgeneratorfunction
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast, overload

from dependency_injector import providers

from aeros.errors import InvalidSettingError, RequestScopeError
from aeros.injection.graph import KEEPING, as_provider, overriding, related

T = TypeVar("T")

if TYPE_CHECKING:
    from aeros.injection.graph import AnyProvider

Leave: TypeAlias = Callable[
    [type[BaseException] | None, BaseException | None, TracebackType | None], Awaitable[object] | object
]

_Calls: TypeAlias = tuple[list[object], dict[str, object]]

# A request-scoped provider opens what it needs itself; a delegate is not called; a configuration
# needs nothing, and has all of its keys for relatives.
_ENDS: Final = (providers.Delegate, providers.Configuration, providers.ConfigurationOption)

_current: Final[ContextVar[RequestScope | None]] = ContextVar("aeros.request_scope", default=None)


class RequestScoped(providers.Provider[T]):
    """A provider whose value is opened once per request, and closed when the request is over.

    Whoever asks for it in one request gets the same value: the view, hooks, other providers. It is
    closed after the response (after the last chunk of a stream), the last one opened first, and told
    of the error if there was one.

    Args:
        factory: An async or sync generator function with one ``yield``, or what returns an async or
            sync context manager; it may be an async function.
        args: Its positional arguments; providers among them are called for their values.
        kwargs: Its keyword arguments, likewise.

    Raises:
        InvalidSettingError: ``factory`` can not be called.
    """

    # Context managers come first: an open file is one, and iterates over its lines as well.
    @overload
    def __init__(
        self, factory: Callable[..., AbstractAsyncContextManager[T, Any]], *args: object, **kwargs: object
    ) -> None: ...
    @overload
    def __init__(
        self, factory: Callable[..., AbstractContextManager[T, Any]], *args: object, **kwargs: object
    ) -> None: ...
    @overload
    def __init__(
        self,
        factory: Callable[..., Coroutine[Any, Any, AbstractAsyncContextManager[T, Any]]],
        *args: object,
        **kwargs: object,
    ) -> None: ...
    @overload
    def __init__(
        self,
        factory: Callable[..., Coroutine[Any, Any, AbstractContextManager[T, Any]]],
        *args: object,
        **kwargs: object,
    ) -> None: ...
    @overload
    def __init__(self, factory: Callable[..., AsyncIterator[T]], *args: object, **kwargs: object) -> None: ...
    @overload
    def __init__(self, factory: Callable[..., Iterator[T]], *args: object, **kwargs: object) -> None: ...
    def __init__(self, factory: Callable[..., Any], *args: object, **kwargs: object) -> None:
        super().__init__()
        if not callable(factory):
            raise InvalidSettingError("RequestScoped()", factory, "a generator function or a context manager")
        self.factory: Callable[..., object] = factory
        self.args: tuple[object, ...] = args
        self.kwargs: Mapping[str, object] = kwargs
        self._made_by = _making(factory)
        self._calls: _Calls | None = None
        # dependency-injector turns every later answer of a provider that once gave an awaitable
        # into one; a session that is open already is to be had without.
        self.disable_async_mode()

    def __deepcopy__(self, memo: dict[Any, Any] | None) -> RequestScoped[T]:
        memo = {} if memo is None else memo
        known = cast("RequestScoped[T] | None", memo.get(id(self)))
        if known is not None:
            return known
        args = cast("tuple[object, ...]", providers.deepcopy(self.args, memo))
        kwargs = cast("dict[str, object]", providers.deepcopy(dict(self.kwargs), memo))
        copied = cast("RequestScoped[T]", type(self)(cast(Any, self.factory), *args, **kwargs))
        memo[id(self)] = copied
        self._copy_overridings(copied, memo)  # pyright: ignore[reportUnknownMemberType]  # its stub
        return copied

    @property
    def dependencies(self) -> list[AnyProvider]:
        """The providers among its arguments."""
        return [
            value for value in (*self.args, *self.kwargs.values()) if isinstance(value, providers.Provider)
        ]

    @property
    def related(self) -> Iterator[AnyProvider]:
        """All providers that it refers to, as dependency-injector walks them."""
        yield from self.dependencies
        yield from super().related  # pyright: ignore[reportUnknownMemberType]  # its stub

    def _provide(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> T:
        if args or kwargs:
            raise TypeError("a RequestScoped provider takes its arguments in the container")
        scope = current_request_scope()
        if scope is None:
            raise RequestScopeError(self.name, "asked for outside of a request")
        return scope.value_of(self)

    def manager(self, args: list[object], kwargs: Mapping[str, object]) -> object:
        """Returns what is entered: a context manager, or what has to be awaited for one."""
        return self._made_by(*args, **kwargs)

    async def arguments(self) -> tuple[list[object], dict[str, object]]:
        """Returns the values of its arguments, whatever has to be opened or awaited for them."""
        calls = self._calls
        if calls is None:
            positional = [_call_or_value(value) for value in self.args]
            named = {name: _call_or_value(value) for name, value in self.kwargs.items()}
            calls = self._calls = positional, named
        args = [await value.value() if isinstance(value, Call) else value for value in calls[0]]
        if not calls[1]:
            return args, {}
        kwargs = {
            name: await value.value() if isinstance(value, Call) else value
            for name, value in calls[1].items()
        }
        return args, kwargs

    @property
    def name(self) -> str:
        """What errors call it."""
        return getattr(self.factory, "__qualname__", None) or repr(self.factory)

    def __str__(self) -> str:
        return f"<aeros.containers.RequestScoped({self.name})>"


class RequestScope:
    """What is open in one request."""

    __slots__ = ("_is_closed", "_leaving", "_opening", "_values", "error")

    def __init__(self) -> None:
        self._values: dict[AnyProvider, object] = {}
        # What is being opened, with what those wait for who want it as well; None as long as nobody does.
        self._opening: dict[AnyProvider, asyncio.Future[None] | None] = {}
        self._leaving: list[tuple[RequestScoped[Any], Leave]] = []
        self._is_closed = False
        self.error: BaseException | None = None

    def value_of(self, provider: RequestScoped[T]) -> T:
        """Returns the value of a provider; one whose context manager is not async is opened if need be.

        Raises:
            RequestScopeError: It has to be opened with ``await`` first, or the request is over.
        """
        if provider in self._values:
            return cast(T, self._values[provider])
        self._check_open(provider.name)
        if isasyncgenfunction(provider.factory) or iscoroutinefunction(provider.factory):
            raise _is_async(provider)
        args = [_called(value, provider) for value in provider.args]
        kwargs = {name: _called(value, provider) for name, value in provider.kwargs.items()}
        manager = provider.manager(args, kwargs)
        if not isinstance(manager, AbstractContextManager) or isinstance(
            manager, AbstractAsyncContextManager
        ):
            if iscoroutine(manager):
                manager.close()  # nobody will await it
            raise _is_async(provider)
        return self._enter_sync(provider, cast("AbstractContextManager[T, Any]", manager))

    async def open(self, provider: RequestScoped[T]) -> T:
        """Returns the value of a provider, opened if this is its first use in this request."""
        while provider not in self._values:
            if provider in self._opening:
                # Another task of this request opens it. If that fails, this one tries.
                opening = self._opening[provider]
                if opening is None:
                    opening = self._opening[provider] = asyncio.get_running_loop().create_future()
                await asyncio.shield(opening)
                continue
            if self._is_closed:
                self._check_open(provider.name)
            self._opening[provider] = None
            try:
                await self._open(provider)
            finally:
                opening = self._opening.pop(provider)
                if opening is not None:
                    opening.set_result(None)
        return cast(T, self._values[provider])

    def has(self, provider: AnyProvider) -> bool:
        """Tells whether the value of a provider is open."""
        return provider in self._values

    def end(self) -> bool:
        """Lets nothing more be opened; returns whether something is open, which ``close()`` closes."""
        self._is_closed = True
        if self._leaving:
            return True
        self.error = None  # as in close()
        return False

    async def close(self) -> None:
        """Closes all that is open, the last first, and tells each of the request's error.

        What can not be closed is logged: the response is out, and the others are closed all the same.
        """
        self._is_closed = True
        error, ending = self.error, None
        while self._leaving:
            provider, leave = self._leaving.pop()
            try:
                left = leave(type(error) if error else None, error, error.__traceback__ if error else None)
                if isawaitable(left):
                    await left
            except Exception as failure:
                if failure is not error:
                    logging.getLogger("aeros.injection").exception("%s could not be closed", provider.name)
            except BaseException as stop:  # noqa: BLE001 - it is raised below
                # A cancellation, or the end of the process, goes on once the others are closed.
                if stop is not error:
                    ending = stop
        self._values.clear()
        # Its traceback has the frames of the request, this scope among them: a circle that would keep
        # all of it, until the collector comes.
        self.error = None
        if ending is not None:
            raise ending

    def _check_open(self, name: str) -> None:
        if self._is_closed:
            raise RequestScopeError(name, "asked for after its request was over")

    async def _open(self, provider: RequestScoped[T]) -> None:
        args, kwargs = await provider.arguments()
        if provider in self._values:
            return  # somebody asked for it meanwhile, without waiting
        if self._is_closed:
            self._check_open(provider.name)
        manager = provider.manager(args, kwargs)
        # Libraries have context managers that can be awaited instead: each in its own way.
        if (
            not isinstance(manager, AbstractAsyncContextManager)
            and not isinstance(manager, AbstractContextManager)
            and isawaitable(manager)
        ):
            manager = await manager
        if isinstance(manager, AbstractAsyncContextManager):
            entered = cast("AbstractAsyncContextManager[T, Any]", manager)
            value = await entered.__aenter__()
            self._leaving.append((provider, entered.__aexit__))
            self._values[provider] = value
        elif isinstance(manager, AbstractContextManager):
            self._enter_sync(provider, cast("AbstractContextManager[T, Any]", manager))
        else:
            raise InvalidSettingError(
                f"RequestScoped({provider.name})",
                manager,
                "a factory that is a generator function or returns a context manager",
            )
        if self._is_closed:
            # The request has ended meanwhile, so nobody else will close it.
            await self.close()
            self._check_open(provider.name)

    def _enter_sync(self, provider: RequestScoped[T], manager: AbstractContextManager[T, Any]) -> T:
        value = manager.__enter__()
        self._values[provider] = value
        self._leaving.append((provider, manager.__exit__))
        return value


def current_request_scope() -> RequestScope | None:
    """Returns what is open in the current request; None outside of one."""
    return _current.get()


def set_current(scope: RequestScope) -> Token[RequestScope | None]:
    """Makes ``scope`` the current one, until ``leave()`` is called with what is returned."""
    return _current.set(scope)


def leave(token: Token[RequestScope | None]) -> None:
    """Makes the scope before the current one."""
    _current.reset(token)


class Call:
    """A call of one provider, with whatever has to be opened or awaited for it.

    What the call needs is found once, and anew when a provider in its way was overridden since, or is no
    more. What is request-scoped in its way is opened first, so that the provider itself can be called
    without waiting.

    Args:
        provider: The provider.
    """

    __slots__ = ("_needs", "provider")

    def __init__(self, provider: AnyProvider) -> None:
        self.provider: Final = provider
        self._needs: _Needs | None = None

    async def value(self) -> object:
        """Returns what the provider gives now, awaited."""
        provider = self.provider
        needs = self._needs
        if needs is None or not needs.hold():
            needs = self._needs = _Needs(provider)
        while needs.scoped:
            scope = current_request_scope()
            is_new = False
            for scoped in needs.scoped:
                if scope is None:
                    raise RequestScopeError(scoped.name, "asked for outside of a request")
                if not scope.has(scoped):
                    await scope.open(scoped)
                    is_new = True
            # While it was opened, somebody may have overridden what comes after it.
            if not is_new or needs.hold():
                if scope is not None and needs.scoped[0] is provider:
                    return await scope.open(needs.scoped[0])
                break
            needs = self._needs = _Needs(provider)
        for item in needs.noting:
            if item.is_async_mode_disabled():
                item.reset_async_mode()
        needs.noting = needs.wavering
        result: object = provider()
        return await result if iscoroutine(result) or asyncio.isfuture(result) else result


class _Needs:
    """What a call of a provider needs, as its providers were overridden when it was looked for.

    A provider notes at its first call whether it gives promises. An override may have answered that call;
    then the promises of an async provider would be passed on in place of its values. So all note anew at
    the first call after this was found; later only those that may answer otherwise each time.
    """

    __slots__ = ("_is_lasting", "_seen", "noting", "scoped", "wavering")

    def __init__(self, provider: AnyProvider) -> None:
        walked = [*_walked(provider)]
        # Seen are also request-scoped ones in whose place another stands now, which are not needed.
        self._seen = tuple((item, overriding(item)) for item in walked)
        # What a selector chooses may be another one each time.
        self._is_lasting = not any(isinstance(item, providers.Selector) for item in walked)
        self.scoped: tuple[RequestScoped[Any], ...] = tuple(
            item for item in walked if isinstance(item, RequestScoped) and overriding(item) is None
        )
        self.noting = tuple(item for item in walked if not isinstance(item, RequestScoped))
        self.wavering = tuple(item for item in self.noting if any(map(_is_wavering, _not_kept(item))))

    def hold(self) -> bool:
        """Tells whether this is what the call needs still."""
        for item, instead in self._seen:
            if item.last_overriding is not instead:  # pyright: ignore[reportUnknownMemberType]  # its stub
                return False
        return self._is_lasting


async def provided(value: object) -> object:
    """Returns what a provider gives, whatever has to be opened or awaited; other values as they are."""
    provider = as_provider(value)
    return value if provider is None else await Call(provider).value()


async def awaited(result: object) -> object:
    """Returns what dependency-injector promises where it has to wait; any other value as it is.

    It waits for futures and coroutines wherever it passes them on.
    """
    return await result if asyncio.isfuture(result) or iscoroutine(result) else result


# Those give a value of one kind at each call, or pass on what others give.
_STEADY: Final = (
    RequestScoped,
    *KEEPING,
    *_ENDS,
    providers.Object,
    providers.List,
    providers.Dict,
    providers.Dependency,
)


def may_be_needed_by(provider: AnyProvider) -> Iterator[AnyProvider]:
    """Yields a provider and what its call may call, as overridden now. Nothing is called to find out.

    A request-scoped one is an end of it: it opens what it needs itself.
    """
    for item in _walked(provider, chooses=False):
        if not isinstance(item, RequestScoped) or overriding(item) is None:
            yield item


def _walked(
    provider: AnyProvider, ends: tuple[type[AnyProvider], ...] = (), *, chooses: bool = True
) -> Iterator[AnyProvider]:
    """Yields them all, those included that another one stands in for; the branch that a selector chooses."""
    seen: set[int] = set()
    waiting = [provider]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        instead = overriding(item)
        if instead is not None:
            waiting.append(instead)
        elif chooses and isinstance(item, providers.Selector):
            # Only the chosen branch is called.
            chosen = None if item.selector is None else cast(object, item.selector())
            branch = item.providers.get(str(chosen))
            if branch is not None:
                waiting.append(branch)
        elif not isinstance(item, (RequestScoped, *_ENDS, *ends)):
            waiting += [*related(item)][::-1]


def _not_kept(provider: AnyProvider) -> Iterator[AnyProvider]:
    """Yields what is called at each call of a provider; what made the value of a singleton is not."""
    return _walked(provider, KEEPING)


def _is_wavering(provider: AnyProvider) -> bool:
    """Tells whether a provider may give a promise at one call and a value at another: a function may."""
    if overriding(provider) is not None or isinstance(provider, _STEADY):
        return False
    return not isinstance(getattr(provider, "provides", None), type)


def _call_or_value(value: object) -> object:
    provider = as_provider(value)
    return value if provider is None else Call(provider)


def _making(factory: Callable[..., object]) -> Callable[..., object]:
    """Returns what makes a context manager of a generator function; any other function as it is."""
    if isasyncgenfunction(factory):
        return asynccontextmanager(factory)
    if isgeneratorfunction(factory):
        return contextmanager(factory)
    return factory


def _called(value: object, wanted: RequestScoped[Any]) -> object:
    provider = as_provider(value)
    result: object = value if provider is None else provider()
    if iscoroutine(result):
        result.close()  # nobody will await it
        raise _is_async(wanted)
    if asyncio.isfuture(result):
        if not result.done():
            raise _is_async(wanted)
        return cast(object, result.result())
    return result


def _is_async(provider: RequestScoped[Any]) -> RequestScopeError:
    return RequestScopeError(provider.name, "opened with await, and asked for without")
