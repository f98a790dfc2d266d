"""A container's instance, which can show itself and knows what a misspelt name may have meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from dependency_injector import containers, providers

from aeros.errors import misspelt_name
from aeros.injection.graph import overriding
from aeros.injection.request_scope import RequestScoped
from aeros.injection.resources import named_providers

if TYPE_CHECKING:
    from aeros.injection.graph import AnyProvider


class ContainerInstance(containers.DynamicContainer):
    """What a ``Container`` class makes: ``print()`` shows its providers as a table."""

    def __getattr__(self, name: str) -> Any:
        # Only names that do not exist come here, those of overrides among them.
        found = cast("Mapping[str, AnyProvider]", self.__dict__.get("providers", {}))
        if name.startswith("_") or not found:
            raise AttributeError(name)
        nearest = misspelt_name(name, found)
        hint = f"did you mean {nearest!r}?" if nearest else f"it has {', '.join(sorted(found))}"
        raise AttributeError(f"the container has no provider {name!r}; {hint}", name=name, obj=self)

    def __str__(self) -> str:
        rows = [("provider", "kind", "gives", "overridden by")]
        for name, provider in named_providers(self):
            instead = overriding(provider)
            rows.append((name, _kind(provider), _gives(provider), "" if instead is None else _gives(instead)))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
        return "\n".join(lines)


def _kind(provider: AnyProvider) -> str:
    return type(provider).__name__


def _gives(provider: AnyProvider) -> str:
    if isinstance(provider, RequestScoped):
        return provider.name
    given = cast(object, getattr(provider, "provides", None))
    if isinstance(provider, providers.Object):
        # Not the value itself, which may be a secret.
        return type(given).__name__
    return getattr(given, "__qualname__", None) or ("" if given is None else type(given).__name__)
