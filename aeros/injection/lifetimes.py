"""Lifetimes: what the application keeps must not be made of what is closed after each request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from dependency_injector import containers

from aeros.injection.graph import KEEPING, traversed
from aeros.injection.request_scope import RequestScoped, may_be_needed_by
from aeros.injection.resources import named_providers

if TYPE_CHECKING:
    from aeros.injection.graph import AnyProvider


class Captive(NamedTuple):
    """A provider that keeps its value, and the request-scoped one that the value is made of."""

    keeping: AnyProvider
    kept: RequestScoped[Any]


def captives_of(provider: AnyProvider) -> Iterator[Captive]:
    """Yields what a provider, or one that it is made of, would keep beyond its request. Nothing is called."""
    for item in (provider, *traversed(provider)):
        if isinstance(item, KEEPING):
            for needed in may_be_needed_by(item):
                if isinstance(needed, RequestScoped):
                    yield Captive(item, needed)


def captives_in(container: containers.Container) -> Iterator[tuple[str, Captive]]:
    """Yields those of all providers of a container and of the containers within it.

    Each comes with the name of the provider that keeps, or of the one that is made of it.
    """
    named = [*named_providers(container)]
    names = {id(provider): name for name, provider in named}
    for name, provider in named:
        for captive in captives_of(provider):
            yield names.get(id(captive.keeping), name), captive


def name_in(container: containers.Container, provider: AnyProvider, otherwise: str) -> str:
    """Returns the dotted name of a provider in a container; ``otherwise`` where it has none there."""
    return next((name for name, own in named_providers(container) if own is provider), otherwise)
