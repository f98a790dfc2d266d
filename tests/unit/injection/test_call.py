"""``Call``: what a provider needs is found once, and anew when something in its way is overridden."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

import pytest
from dependency_injector import containers, providers

from aeros.containers import overridden
from aeros.errors import RequestScopeError
from aeros.injection import RequestScoped, request_scope
from aeros.injection.request_scope import Call, RequestScope, leave, set_current


class Box:
    """Holds what it is given."""

    def __init__(self, content: object) -> None:
        self.content = content


async def promised(value: object) -> object:
    """What an async provider gives."""
    return value


class Inner(containers.DeclarativeContainer):
    value = providers.Callable(str, "inner")


class Outer(containers.DeclarativeContainer):
    inner: Any = providers.Container(Inner)
    box = providers.Factory(Box, inner.value)
    outermost = providers.Factory(Box, box)


async def content(call: Call) -> object:
    """What is in the innermost box."""
    found = await call.value()
    while isinstance(found, Box):
        found = found.content
    return found


async def test_the_graph_is_walked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And once more for each change of an override, wherever in it."""
    walks: list[object] = []
    needs: Any = request_scope._Needs  # pyright: ignore[reportPrivateUsage]  # it is what is counted

    def counting(provider: object) -> object:
        walks.append(provider)
        return needs(provider)

    monkeypatch.setattr(request_scope, "_Needs", counting)
    container = Outer()
    call = Call(container.outermost)
    assert [await content(call) for _ in range(3)] == ["inner"] * 3
    assert len(walks) == 1
    with overridden(container.inner.value, providers.Object("fake")):
        assert [await content(call) for _ in range(3)] == ["fake"] * 3
    assert len(walks) == 2
    assert [await content(call) for _ in range(3)] == ["inner"] * 3
    assert len(walks) == 3


async def test_overrides_of_overrides_are_seen() -> None:
    """What stands in for a provider may be made of others, which are overridden in turn."""
    container = Outer()
    call = Call(container.outermost)
    part = providers.Object("part")
    with overridden(container.box, providers.Factory(Box, part)):
        assert await content(call) == "part"
        with overridden(part, providers.Object("other part")):
            assert await content(call) == "other part"
        assert await content(call) == "part"
    assert await content(call) == "inner"


async def test_a_container_that_is_overridden_as_a_whole_is_seen() -> None:
    """By another one, and by providers of its own by name."""
    container = Outer()
    call = Call(container.outermost)
    assert await content(call) == "inner"

    class Other(containers.DeclarativeContainer):
        value = providers.Object("other")

    with container.inner.override(Other()):
        assert await content(call) == "other"
    with container.override_providers(box=providers.Factory(Box, "mine")):
        assert await content(call) == "mine"
    assert await content(call) == "inner"


async def test_what_an_override_has_noted_is_forgotten() -> None:
    """Async providers are awaited as arguments, though a fake without promises has answered meanwhile."""
    value: providers.Provider[Any] = providers.Coroutine(promised, "promised")
    box = providers.Factory(Box, value)
    outermost = providers.Singleton(Box, box)
    call = Call(outermost)
    with overridden(value, providers.Object("fake")):
        assert await content(call) == "fake"
        outermost.reset()
    for _ in range(2):
        assert await content(call) == "promised"
        outermost.reset()


async def test_a_function_may_give_a_promise_at_one_call_and_a_value_at_another() -> None:
    """One that keeps what it has found does that; whoever is made of it gets the value."""
    answers: list[Callable[[], object]] = [
        lambda: "kept",
        lambda: promised("found"),
        lambda: "kept again",
        lambda: promised("found again"),
    ]

    def ask() -> object:
        return answers.pop(0)()

    call = Call(providers.Factory(Box, providers.Factory(Box, providers.Callable(ask))))
    assert [await content(call) for _ in range(4)] == ["kept", "found", "kept again", "found again"]


async def test_what_a_selector_chooses_may_change() -> None:
    """It is looked at each time; only the chosen branch is opened."""
    opened: list[str] = []

    async def open_session(name: str) -> AsyncGenerator[str]:
        opened.append(name)
        yield name

    chosen = "one"
    session = providers.Selector(
        providers.Callable(lambda: chosen),
        one=RequestScoped(open_session, "one"),
        two=RequestScoped(open_session, "two"),
    )
    call = Call(providers.Factory(Box, session))
    scope = RequestScope()
    token = set_current(scope)
    assert await content(call) == "one"
    chosen = "two"
    assert await content(call) == "two"
    await scope.close()
    leave(token)
    assert opened == ["one", "two"]


async def test_an_override_while_a_session_is_opened_is_seen() -> None:
    """What it needs is opened as well: a provider that is called afterwards cannot wait."""
    may_open = asyncio.Event()
    is_waiting = asyncio.Event()

    async def open_slowly() -> AsyncGenerator[str]:
        is_waiting.set()
        await may_open.wait()
        yield "slow"

    async def open_other() -> AsyncGenerator[str]:
        yield "other"

    later = providers.Factory(Box, "first")
    pair = providers.List(RequestScoped(open_slowly), later)
    scope = RequestScope()
    token = set_current(scope)
    waiting = asyncio.ensure_future(Call(pair).value())
    await is_waiting.wait()
    with overridden(later, providers.Factory(Box, RequestScoped(open_other))):
        may_open.set()
        slow, box = cast("tuple[str, Box]", await waiting)
    await scope.close()
    leave(token)
    assert (slow, box.content) == ("slow", "other")


async def test_one_of_many_who_wait_tries_again_when_opening_fails() -> None:
    """Those who came while it was opened do not get the error of the first; one of them opens it."""
    attempts: list[int] = []

    async def open_session() -> AsyncGenerator[str]:
        attempts.append(1)
        await asyncio.sleep(0)
        if len(attempts) == 1:
            raise OSError("refused")
        yield "session"

    call = Call(RequestScoped(open_session))
    scope = RequestScope()
    token = set_current(scope)
    results = await asyncio.gather(*(call.value() for _ in range(5)), return_exceptions=True)
    await scope.close()
    leave(token)
    assert isinstance(results[0], OSError)
    assert results[1:] == ["session"] * 4
    assert len(attempts) == 2


async def test_outside_of_a_request_the_error_names_what_is_scoped() -> None:
    """Each time, also once what is needed was found."""

    async def open_session() -> AsyncGenerator[str]:
        yield "session"

    call = Call(providers.Factory(Box, RequestScoped(open_session)))
    for _ in range(2):
        with pytest.raises(RequestScopeError, match=r"open_session.*outside of a request"):
            await call.value()
