"""``inject()`` and ``Injector``: from a parameter's default to the provider of one container."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial, wraps
from typing import Any, cast

import pytest
from dependency_injector import containers, errors, providers

from aeros.errors import InvalidSettingError, NotInjectedError, UnknownProviderError
from aeros.injection import RequestScoped, inject
from aeros.injection.injector import Injector


class Users:
    """A collaborator."""

    def __init__(self, name: str = "ada") -> None:
        self.name = name


async def open_session() -> AsyncGenerator[str]:
    """Stands for what lives as long as a request."""
    yield "session"


class Inner(containers.DeclarativeContainer):
    users = providers.Factory(Users, "inner")


class Middle(containers.DeclarativeContainer):
    inner = providers.Container(Inner)


class Base(containers.DeclarativeContainer):
    config = providers.Configuration()
    users: providers.Provider[Users] = providers.Factory(Users)
    limit = providers.Object(3)
    middle = providers.Container(Middle)
    session = RequestScoped(open_session)


LIMITS = cast("providers.Provider[list[int]]", providers.List(Base.limit, Base.limit))


class Derived(Base):
    users = providers.Factory(Users, "derived")


def replace(provider: providers.Provider[Any], value: object) -> None:
    """Makes a provider of a container that no other test sees give something else."""
    provider.override(value)  # pyright: ignore[reportUnknownMemberType]  # its stub


def injector(container: type[containers.DeclarativeContainer] = Base) -> Injector:
    """An injector of a new container."""
    return Injector(cast(containers.Container, container()))


async def call(function: Callable[..., Any], *args: object, using: Injector | None = None) -> object:
    """Calls a function as an application does."""

    async def run(*args: Any, **kwargs: Any) -> object:
        result = function(*args, **kwargs)
        return await cast("Awaitable[object]", result) if inspect.isawaitable(result) else result

    return await (using or injector()).injecting(function, run)(*args)


# inject()


@pytest.mark.parametrize("value", [Users, 3, None, "users", Base], ids=repr)
def test_injecting_what_is_no_provider_is_an_error(value: object) -> None:
    """The class itself in place of its provider is the likeliest slip."""
    with pytest.raises(InvalidSettingError, match=r"inject\(AppContainer.users\)"):
        inject(cast(Any, value))


USES: list[Callable[[Any], object]] = [
    lambda users: users.name,
    lambda users: users(),
    lambda users: users["ada"],
    list,
    bool,
    lambda users: not users,
    lambda users: users.__await__(),
]


@pytest.mark.parametrize("use", USES)
def test_what_nobody_has_injected_says_so(use: Callable[[Any], object]) -> None:
    """A function that is called by hand, without its values, is not mistaken for a broken provider."""
    with pytest.raises(NotInjectedError, match="pass the argument") as caught:
        use(inject(Base.users))
    assert "Users" in caught.value.provider


def test_an_error_of_one_that_is_not_injected_is_an_attribute_error_too() -> None:
    """So ``hasattr()`` and the like take it for what they know."""
    assert not hasattr(inject(Base.users), "name")


def test_what_is_injected_shows_its_provider() -> None:
    """That is what a traceback and the documentation show of a default."""
    assert repr(inject(Base.limit)).startswith("inject(<dependency_injector.providers.Object(3)")


# Which provider is meant


async def test_a_provider_of_the_class_means_the_instances_own() -> None:
    """Each container made of a class has providers of its own."""
    container = Base()
    replace(container.users, Users("fake"))

    def view(users: Users = inject(Base.users)) -> str:
        return users.name

    assert await call(view, using=Injector(cast(containers.Container, container))) == "fake"
    assert await call(view) == "ada"


async def test_a_subclass_that_replaces_a_provider_has_it_injected() -> None:
    """A function knows the base, the application what it is made of."""

    def view(users: Users = inject(Base.users), limit: int = inject(Base.limit)) -> str:
        return f"{users.name} {limit}"

    assert await call(view, using=injector(Derived)) == "derived 3"


async def test_the_instances_own_provider_can_be_named() -> None:
    """``inject(app.container.users)`` is what one writes where there is one application only."""
    container = Base()

    def view(users: Users = inject(container.users)) -> str:
        return users.name

    assert await call(view, using=Injector(cast(containers.Container, container))) == "ada"


async def test_a_provider_that_the_instance_got_later_can_be_named() -> None:
    """Also if something else was registered before."""
    container = Base()
    own = Injector(cast(containers.Container, container))

    def first(users: Users = inject(Base.users)) -> None: ...

    own.check(first)
    container.extra = providers.Object("extra")

    def view(extra: str = inject(cast("providers.Provider[str]", container.extra))) -> str:
        return extra

    assert await call(view, using=own) == "extra"


@pytest.mark.parametrize(
    "named", [Inner.users, cast(Any, Middle).inner.users, cast(Any, Base).middle.inner.users]
)
async def test_a_provider_of_a_container_within_can_be_named(named: providers.Provider[Users]) -> None:
    """By its own class, or on the way from the outermost one."""
    container = Base()
    replace(cast(Any, container).middle.inner.users, Users("fake"))

    def view(users: Users = inject(named)) -> str:
        return users.name

    assert await call(view, using=Injector(cast(containers.Container, container))) == "fake"


async def test_what_is_made_of_the_containers_providers_can_be_injected() -> None:
    """A key of the configuration, an attribute, a factory of one's own."""
    container = Base()
    container.config.from_dict({"database": {"url": "sqlite://", "port": "5432"}})
    replace(container.limit, 4)

    def view(
        url: str = inject(Base.config.database.url),
        port: int = inject(Base.config.database.port.as_int()),
        item: str = inject(Base.config.database["url"]),
        name: str = inject(cast("providers.Provider[str]", Base.users.provided.name)),
        limits: list[int] = inject(LIMITS),
    ) -> object:
        return url, port, item, name, limits

    answer = await call(view, using=Injector(cast(containers.Container, container)))
    assert answer == ("sqlite://", 5432, "sqlite://", "ada", [4, 4])


async def test_a_configuration_that_changes_is_read_again() -> None:
    """What is read once is the signature, not the value."""
    container = Base()

    def view(url: str | None = inject(Base.config.url)) -> str | None:
        return url

    own = Injector(cast(containers.Container, container))
    assert await call(view, using=own) is None
    container.config.from_dict({"url": "sqlite://"})
    assert await call(view, using=own) == "sqlite://"
    replace(container.config.url, "postgres://")
    assert await call(view, using=own) == "postgres://"


async def test_a_required_key_that_is_missing_is_an_error() -> None:
    """The container says so at the call, as it does without ``inject()``."""

    def view(url: str = inject(Base.config.url.required())) -> str:
        return url

    container = Base()
    with pytest.raises(errors.Error, match="Undefined configuration option"):
        await call(view, using=Injector(cast(containers.Container, container)))
    container.config.from_dict({"url": "sqlite://"})
    assert await call(view, using=Injector(cast(containers.Container, container))) == "sqlite://"


class Foreign(containers.DeclarativeContainer):
    users = providers.Factory(Users, "foreign")


@pytest.mark.parametrize(
    "provider", [Foreign.users, Foreign().users, providers.Factory(Users), Foreign.users.provided.name]
)
def test_a_provider_of_another_container_is_an_error(provider: providers.Provider[Users]) -> None:
    """The error names the function, its parameter and the provider, when the function is read."""

    def view(users: Users = inject(provider)) -> None: ...

    with pytest.raises(UnknownProviderError, match="does not have") as caught:
        injector().check(view)
    assert caught.value.setting.endswith("view(users=)")
    assert caught.value.provider == str(provider)


def test_a_provider_of_a_subclass_is_unknown_to_its_base() -> None:
    """What a subclass replaces has another value than what its base has."""

    def view(users: Users = inject(Derived.users)) -> None: ...

    with pytest.raises(UnknownProviderError):
        injector(Base).check(view)


@pytest.mark.parametrize("kind", [providers.Singleton, providers.ThreadSafeSingleton, providers.Resource])
def test_what_keeps_a_value_of_a_request_is_an_error(kind: Callable[..., providers.Provider[Users]]) -> None:
    """It would be used after it was closed, by other requests."""

    class Keeping(Base):
        kept = kind(Users, Base.session)
        above = providers.Factory(Users, kept)

    def direct(kept: Users = inject(Keeping.kept)) -> None: ...

    def indirect(above: Users = inject(Keeping.above)) -> None: ...

    for function in (direct, indirect):
        with pytest.raises(InvalidSettingError, match="open_session, which is closed after each request"):
            injector(Keeping).check(function)


def test_what_is_made_anew_may_hold_a_value_of_a_request() -> None:
    """A factory is called again for each who asks."""

    class Making(Base):
        repository = providers.Factory(Users, Base.session)

    def view(repository: Users = inject(Making.repository)) -> None: ...

    injector(Making).check(view)


# Which functions


async def test_arguments_that_are_given_are_kept() -> None:
    """By position or by name: the caller knows better."""

    def view(
        number: int, users: Users = inject(Base.users), *, limit: int = inject(Base.limit)
    ) -> tuple[int, str, int]:
        return number, users.name, limit

    async def run(*args: Any, **kwargs: Any) -> object:
        return view(*args, **kwargs)

    injecting = injector().injecting(view, run)
    assert await injecting(1) == (1, "ada", 3)
    assert await injecting(1, Users("fake")) == (1, "fake", 3)
    assert await injecting(1, users=Users("fake"), limit=9) == (1, "fake", 9)


def traced(view: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator as they are written everywhere."""

    @wraps(view)
    def call(*args: Any, **kwargs: Any) -> Any:
        return view(*args, **kwargs)

    return call


class Shop:
    """An object whose methods are registered, or which is registered itself."""

    def name(self, users: Users = inject(Base.users)) -> str:
        """Is a view of an object."""
        return users.name

    @classmethod
    def class_name(cls, users: Users = inject(Base.users)) -> str:
        """Is a view of a class."""
        return users.name

    @staticmethod
    def static_name(users: Users = inject(Base.users)) -> str:
        """Is a view that only stands in a class."""
        return users.name

    def __call__(self, users: Users = inject(Base.users)) -> str:  # noqa: D102 - the class says it
        return users.name


def name_of(prefix: str, users: Users = inject(Base.users)) -> str:
    """A function that is registered with some of its arguments."""
    return users.name


FUNCTIONS: dict[str, Callable[..., str]] = {
    "method": Shop().name,
    "class method": Shop.class_name,
    "static method": Shop.static_name,
    "object": Shop(),
    "partial": partial(name_of, "Dr."),
    "partial of a method": partial(Shop().name),
    "decorated": traced(traced(Shop().name)),
    "decorated partial": traced(partial(name_of, "Dr.")),
}


@pytest.mark.parametrize("name", FUNCTIONS)
async def test_anything_that_can_be_called_is_injected(name: str) -> None:
    """Not only plain functions are registered."""
    assert await call(FUNCTIONS[name]) == "ada"


async def test_a_partial_with_the_value_keeps_it() -> None:
    """It was given, if early."""
    assert await call(partial(name_of, "Dr.", users=Users("fake"))) == "fake"
    assert await call(partial(name_of, "Dr.", Users("fake"))) == "fake"


async def test_what_cannot_be_remembered_is_injected_all_the_same() -> None:
    """A callable without a hash has its signature read each time."""

    class Unhashable:  # noqa: PLW1641 - that is the matter
        def __eq__(self, other: object) -> bool:
            return other is self

        def __call__(self, users: Users = inject(Base.users)) -> str:
            return users.name

    assert await call(Unhashable()) == "ada"


async def test_nothing_to_inject_leaves_the_function_alone() -> None:
    """It costs nothing where it is not used."""

    async def view() -> str:
        return "plain"

    assert injector().injecting(view, view) is view
    assert injector().injecting(len, view) is view


async def test_a_second_injecting_adds_nothing() -> None:
    """The cache's decorator injects below itself, and the application is asked to inject above it."""

    async def view(users: Users = inject(Base.users)) -> str:
        return users.name

    own = injector()
    once = own.injecting(view, view)
    assert own.injecting(once, once) is once
    above = traced(once)
    assert own.injecting(above, above) is above


async def test_a_signature_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the function is registered; not when it is called."""
    read: list[object] = []
    signature = inspect.signature

    def counted(function: Callable[..., Any], **options: Any) -> inspect.Signature:
        read.append(function)
        return signature(function, **options)

    def view(users: Users = inject(Base.users)) -> str:
        return users.name

    monkeypatch.setattr(inspect, "signature", counted)
    own = injector()
    own.check(view)
    assert read == [view]
    assert [await call(view, using=own) for _ in range(3)] == ["ada"] * 3
    assert read == [view]


async def test_functions_are_forgotten_with_their_last_reference() -> None:
    """Applications make functions for each request, and none of them stays."""
    own = injector()

    def made() -> Callable[..., str]:
        def view(users: Users = inject(Base.users)) -> str:
            return users.name

        return view

    for _ in range(10):
        assert await call(made(), using=own) == "ada"
    plans = cast("dict[object, object]", cast(Any, own)._plans)
    assert len(plans) <= 1


def test_each_method_of_a_class_based_view_is_read() -> None:
    """What runs is one of its methods, whatever the class is registered as."""

    class Pages:
        def get(self, users: Users = inject(Foreign.users)) -> None: ...

    def view() -> None: ...

    cast(Any, view).view_class = Pages
    with pytest.raises(UnknownProviderError, match=r"Pages\.get\(users=\)"):
        injector().check(view)


@pytest.mark.parametrize("value", [None, 5, "view", Users], ids=repr)
def test_what_is_no_function_is_not_read(value: object) -> None:
    """Those who register it say what is wrong with it."""
    injector().check(value)
