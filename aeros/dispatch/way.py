"""The way of a request to its view: whether anything stands on it that could see or change the answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Way:
    """A way to a view on which nothing stood when it was looked at.

    Attributes:
        endpoint: Where it leads.
        view: What stands there.
        rule: The rule of the route that led there.
        names: Under which names hooks would be found.
        changes: How often the application's attributes had been set.
        rules: How often its rules had changed.
        is_bare: Whether no middleware is around the application.
    """

    endpoint: str
    view: object
    rule: str
    names: tuple[str | None, ...]
    changes: int
    rules: int
    is_bare: bool
