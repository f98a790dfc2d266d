"""``inject()``: a provider as the default of a parameter, resolved when the function is called.

>>> @app.route("/users/<int:number>")
... async def user(number: int, users: Users = inject(AppContainer.users)) -> dict[str, str]: ...

The value comes from the container of the application that calls the function, and from its
provider as it is overridden then.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias, TypeVar, cast
from weakref import WeakKeyDictionary

from dependency_injector import containers, providers

from aeros.errors import InvalidSettingError, NotInjectedError, UnknownProviderError
from aeros.injection.graph import option_of, root_of, traversed
from aeros.injection.lifetimes import captives_of
from aeros.injection.request_scope import Call

T = TypeVar("T")

if TYPE_CHECKING:
    from aeros.injection.graph import AnyProvider

_INJECTED_MARK: Final = "__aeros_injected__"


def inject(provider: providers.Provider[T]) -> T:
    """Returns the default of a parameter that gets what ``provider`` gives.

    Works in views (sync, async, class-based, websockets), hooks, error handlers, functions around
    serving, background tasks, and the callables that ``app.cache()`` takes.

    Args:
        provider: A provider of the container's class, e.g. ``AppContainer.users``, or of a container
            within it.

    Raises:
        InvalidSettingError: It is no provider.
    """
    if not isinstance(provider, providers.Provider):  # pyright: ignore[reportUnnecessaryIsInstance]  # it comes from users
        raise InvalidSettingError("inject()", provider, "a provider, e.g. inject(AppContainer.users)")
    return cast(T, Injected(provider))


class Injected:
    """What stands for a value until a function is called by an application."""

    __slots__ = ("_provider",)

    def __init__(self, provider: AnyProvider) -> None:
        self._provider = provider

    def __getattr__(self, name: str) -> NoReturn:
        raise NotInjectedError(str(self._provider), name)

    def __call__(self, *_args: object, **_kwargs: object) -> NoReturn:  # noqa: D102 - as the others
        raise NotInjectedError(str(self._provider), "()")

    def __getitem__(self, key: object) -> NoReturn:
        raise NotInjectedError(str(self._provider), f"[{key!r}]")

    def __iter__(self) -> NoReturn:
        raise NotInjectedError(str(self._provider), "iteration")

    def __await__(self) -> NoReturn:
        raise NotInjectedError(str(self._provider), "await")

    def __bool__(self) -> NoReturn:
        # It would be true, whatever is meant to be asked.
        raise NotInjectedError(str(self._provider), "the truth")

    def __repr__(self) -> str:
        return f"inject({self._provider})"


class Injector:
    """Resolves what functions have injected, from one application's container.

    Args:
        container: The container.
    """

    __slots__ = ("_container", "_known", "_plans")

    def __init__(self, container: containers.Container) -> None:
        self._container = container
        self._known: dict[int, tuple[AnyProvider, AnyProvider]] = {}
        self._plans: WeakKeyDictionary[Callable[..., Any], _Plan | None] = WeakKeyDictionary()

    def check(self, function: object) -> None:
        """Reads the signature of a function that is being registered.

        Raises:
            UnknownProviderError: A provider in it is not of this container.
        """
        if isinstance(function, type) or not callable(function):
            return
        self._plan(cast("Callable[..., Any]", function))
        view_class = getattr(function, "view_class", None)
        if isinstance(view_class, type):
            for name in dir(view_class):
                self.check(inspect.getattr_static(view_class, name))

    def injecting(
        self, function: Callable[..., Any], run: Callable[..., Awaitable[T]]
    ) -> Callable[..., Awaitable[T]]:
        """Returns ``run``, which runs ``function``, with what is injected added to its arguments."""
        plan = self._plan(function)
        if plan is None:
            return run

        @wraps(function)
        async def injected(*args: Any, **kwargs: Any) -> T:
            for name, position, call in plan:
                if name not in kwargs and position >= len(args):
                    kwargs[name] = await call.value()
            return await run(*args, **kwargs)

        # What stands above must not inject a second time.
        setattr(injected, _INJECTED_MARK, True)
        return injected

    def names(self, function: object) -> tuple[str, ...]:
        """Returns the parameters of ``function`` that are injected."""
        plan = self._plan(cast("Callable[..., Any]", function)) if callable(function) else None
        return tuple(name for name, _, _ in plan or ())

    async def values(self, function: Callable[..., Any]) -> dict[str, object]:
        """Returns what ``function`` has injected, by parameter."""
        plan = self._plan(function) or []
        return {name: await call.value() for name, _, call in plan}

    def _plan(self, function: Callable[..., Any]) -> _Plan | None:
        # Each call of each function comes here, and most have nothing to inject: that is
        # remembered as well, and is found faster than it is seen anew.
        function = getattr(function, "__func__", function)
        try:
            return self._plans[function]
        except KeyError:
            may_remember = True
        except TypeError:  # what is written in C, or has no hash
            may_remember = False
        plan = self._made_plan(function)
        if may_remember:
            self._plans[function] = plan
        return plan

    def _made_plan(self, function: Callable[..., Any]) -> _Plan | None:
        return [
            (name, position, Call(self._own(provider, function, name)))
            for name, position, provider in _injected_parameters(function)
        ] or None

    def _own(self, provider: AnyProvider, function: Callable[..., Any], parameter: str) -> AnyProvider:
        """Returns this container's own provider for one that a function names."""
        where = f"{getattr(function, '__qualname__', function)}({parameter}=)"
        known = self._known
        if id(provider) not in known:
            # Also once more: a container's instance may get providers of its own at any time.
            known = self._known = {}
            for named, own in _pairs(self._container):
                known.setdefault(id(named), (named, own))
        found = known.get(id(provider))
        if found is not None:
            own = found[1]
        elif any(id(item) in known for item in traversed(provider)):
            # One made of the container's providers, such as ``AppContainer.config.database.url``.
            memo = {key: own for key, (_, own) in known.items()}
            for item in (provider, *traversed(provider)):
                if isinstance(item, providers.ConfigurationOption) and id(root_of(item)) in memo:
                    memo[id(item)] = option_of(cast(providers.Configuration, memo[id(root_of(item))]), item)
            own = cast("AnyProvider", providers.deepcopy(provider, memo))
        else:
            raise UnknownProviderError(where, str(provider))
        _check_lifetimes(own, where)
        return own


_Plan: TypeAlias = "list[tuple[str, int, Call]]"


def _injected_parameters(function: Callable[..., Any]) -> list[tuple[str, int, AnyProvider]]:
    """Returns name, position and provider of each parameter that is injected."""
    innermost: Any = function
    while True:
        if getattr(innermost, _INJECTED_MARK, False):
            return []
        inner = getattr(innermost, "__wrapped__", None)
        if inner is None:
            break
        innermost = inner
    # A partial, and an object that can be called, have their parameters from a function.
    signed: Any = innermost
    while isinstance(signed, partial):
        signed = cast(Any, signed).func
    if not hasattr(signed, "__defaults__"):
        signed = getattr(signed, "__func__", None) or type(signed).__call__
    defaults: list[object] = [*(getattr(signed, "__defaults__", None) or ())]
    defaults += (getattr(signed, "__kwdefaults__", None) or {}).values()
    # Reading a signature takes long; it is done once for each function that has something.
    if not any(isinstance(default, Injected) for default in defaults):
        return []
    return [
        (parameter.name, index, object.__getattribute__(parameter.default, "_provider"))
        if parameter.kind is not parameter.KEYWORD_ONLY
        else (parameter.name, _NEVER_POSITIONAL, object.__getattribute__(parameter.default, "_provider"))
        for index, parameter in enumerate(inspect.signature(innermost).parameters.values())
        if isinstance(parameter.default, Injected)
    ]


_NEVER_POSITIONAL: Final = 2**31


def _pairs(container: containers.Container) -> Iterator[tuple[AnyProvider, AnyProvider]]:
    """Yields each provider that may be named, with the one that this container has in its place.

    What the container itself has comes before what is in containers within it: of two that are
    made of one class the outer one is meant.
    """
    declared = cast("type[object] | None", getattr(container, "declarative_parent", None))
    bases = () if declared is None else declared.__mro__
    named: list[tuple[AnyProvider, AnyProvider]] = []
    for name, own in cast("Mapping[str, AnyProvider]", container.providers).items():
        yield own, own
        declarations = [cast("Mapping[str, AnyProvider]", getattr(base, "providers", {})) for base in bases]
        named += [(declaration[name], own) for declaration in declarations if name in declaration]
    yield from named
    for declaration, own in named:
        if isinstance(own, providers.Container) and isinstance(declaration, providers.Container):
            # The class itself holds a container, of which its providers can be named, too.
            yield from _by_name(declaration, own)
            yield from _pairs(cast(containers.Container, own.container))


def _by_name(
    named: providers.Container[Any], own: providers.Container[Any]
) -> Generator[tuple[AnyProvider, AnyProvider]]:
    theirs = cast("Mapping[str, AnyProvider]", named.container.providers)
    mine = cast("Mapping[str, AnyProvider]", own.container.providers)
    for name, provider in theirs.items():
        if name in mine:
            yield provider, mine[name]
            inner = mine[name]
            if isinstance(provider, providers.Container) and isinstance(inner, providers.Container):
                yield from _by_name(provider, inner)


def _check_lifetimes(provider: AnyProvider, where: str) -> None:
    """Refuses what would outlive what it is made of."""
    for captive in captives_of(provider):
        raise InvalidSettingError(
            where,
            captive.keeping,
            f"a provider that does not keep {captive.kept.name}, which is closed after each request:"
            " make it a Factory",
        )
