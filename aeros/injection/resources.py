"""The container's resources: opened when serving begins, closed when it ends, in each worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, cast

from dependency_injector import containers, providers

from aeros.errors import ResourceError
from aeros.injection.graph import overriding, related
from aeros.injection.request_scope import awaited, provided

if TYPE_CHECKING:
    from aeros.injection.graph import AnyProvider


class Resources:
    """Opens the ``providers.Resource`` of a container in the order in which they need each other.

    One that was opened by somebody else is left alone. In place of one that is overridden stands
    what overrides it.

    Args:
        container: The container.
    """

    __slots__ = ("_container", "_opened")

    def __init__(self, container: containers.Container) -> None:
        self._container = container
        self._opened: list[tuple[str, providers.BaseResource[Any]]] = []

    async def open(self) -> None:
        """Opens them all, or none.

        Raises:
            ResourceError: One did not open; those before it are closed again.
        """
        for name, provider in self._in_order():
            if provider.initialized:
                continue
            try:
                await provided(provider)
            except BaseException as error:
                await self.close()
                if isinstance(error, Exception):
                    raise ResourceError(name, repr(error)) from error
                raise
            self._opened.append((name, provider))

    async def close(self) -> None:
        """Closes what was opened here, the last first; what can not be closed is logged."""
        while self._opened:
            name, provider = self._opened.pop()
            try:
                left = cast(object, provider.shutdown())  # pyright: ignore[reportUnknownMemberType]  # its stub
                if isawaitable(left):
                    await left
            except Exception:
                logging.getLogger("aeros.injection").exception("The resource %r was not closed", name)

    async def check(self) -> dict[str, str | None]:
        """Asks each open resource that has a method ``ping()``; returns what is wrong, by name."""
        problems: dict[str, str | None] = {}
        for name, provider in self._named():
            # What stands in the place of one is asked as well; one that is not open is not opened.
            if not _is_open(provider):
                continue
            try:
                if await _ping(provider):
                    problems[name] = None
            except Exception as error:  # noqa: BLE001 - whatever it raises is what is wrong
                problems[name] = repr(error)
        return problems

    async def check_all(self, deadline_seconds: float) -> dict[str, str | None]:
        """Asks all resources at once; returns what is wrong, by name: one that is not open is.

        Args:
            deadline_seconds: How long they may take; one that can not be asked has no need to answer.
        """
        problems: dict[str, str | None] = {}
        asked: dict[str, asyncio.Task[bool]] = {}
        for name, provider in self._named():
            problems[name] = None if _is_open(provider) else "it is not open"
            if _is_open(provider):
                asked[name] = asyncio.ensure_future(_ping(provider))
                asked[name].add_done_callback(_heard)
        if not asked:
            return problems
        try:
            await asyncio.wait(asked.values(), timeout=deadline_seconds)
        finally:
            for task in asked.values():
                task.cancel()  # not awaited: what does not answer may not end in time either
        for name, task in asked.items():
            if not task.done():
                problems[name] = f"no answer within {deadline_seconds:g} seconds"
            elif task.cancelled() or task.exception() is not None:
                problems[name] = "cancelled" if task.cancelled() else repr(task.exception())
        return problems

    def _named(self) -> Iterator[tuple[str, providers.BaseResource[Any]]]:
        for name, provider in named_providers(self._container):
            if isinstance(provider, providers.BaseResource):
                yield name, provider

    def _in_order(self) -> Iterator[tuple[str, providers.BaseResource[Any]]]:
        named = list(named_providers(self._container))
        names = {id(provider): name for name, provider in named}
        seen: set[int] = set()
        for _, provider in named:
            for resource in _needed_first(provider, seen):
                yield names.get(id(resource), str(resource)), resource


def named_providers(container: containers.Container, prefix: str = "") -> Iterator[tuple[str, AnyProvider]]:
    """Yields the providers of a container and of those within it, with their dotted names."""
    found = cast("Mapping[str, AnyProvider]", container.providers)
    for name, provider in found.items():
        if isinstance(provider, providers.Container):
            yield from named_providers(cast(containers.Container, provider.container), f"{prefix}{name}.")
        else:
            yield prefix + name, provider


def _needed_first(provider: AnyProvider, seen: set[int]) -> Iterator[providers.BaseResource[Any]]:
    if id(provider) in seen:
        return
    seen.add(id(provider))
    instead = overriding(provider)
    if instead is not None:
        yield from _needed_first(instead, seen)
        return
    for other in related(provider):
        yield from _needed_first(other, seen)
    if isinstance(provider, providers.BaseResource):
        yield provider


def _is_open(provider: providers.BaseResource[Any]) -> bool:
    return provider.initialized or overriding(provider) is not None


async def _ping(provider: providers.BaseResource[Any]) -> bool:
    """Asks a resource whether it works, which raises where it does not; returns whether it can be asked."""
    value = await awaited(provider())
    ping = getattr(value, "ping", None)
    if not callable(ping):
        return False
    answer = ping()
    if isawaitable(answer):
        await answer
    return True


def _heard(task: asyncio.Task[bool]) -> None:
    """Takes note of what came too late, which asyncio would log."""
    if not task.cancelled():
        task.exception()
