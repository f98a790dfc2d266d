"""What a response says of the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Fields(Protocol):
    """A response's fields, whose names are looked for in any case."""

    def get(self, key: str, /) -> str | None:
        """Returns a field's value; None where it is missing."""
        ...


class HasHeaders(Protocol):
    """A response of any client: Quart's test client, httpx, requests."""

    @property
    def headers(self) -> Fields:
        """Its fields."""
        ...


@dataclass(frozen=True, slots=True)
class CacheOutcome:
    """What ``Cache-Status`` says.

    Attributes:
        is_hit: Whether the response came from the cache, fresh or stale, or from a view that ran
            for another request.
        is_stored: Whether it was stored for the next request.
        reason: Why the request went on, or what the cache adds (``detail``); None where it says neither.
        text: The field itself.
    """

    is_hit: bool
    is_stored: bool
    reason: str | None
    text: str


def cache_outcome(response: HasHeaders) -> CacheOutcome | None:
    """Returns what the cache did for a response; None where the field is missing.

    It is missing on routes without ``@app.cache()``, and with ``Cache(show_status=False)``.
    """
    text = response.headers.get("Cache-Status")
    if text is None:
        return None
    named: dict[str, str] = {}
    for parameter in text.split(";")[1:]:
        name, _, value = parameter.strip().partition("=")
        named[name] = value
    detail = named.get("detail")
    return CacheOutcome(
        is_hit="hit" in named or "collapsed" in named,
        is_stored="stored" in named,
        reason=named.get("fwd") if detail is None else detail.strip('"'),
        text=text,
    )


def assert_cached(response: HasHeaders) -> None:
    """Fails unless the response came from the cache.

    Raises:
        AssertionError: It did not; the message says what the cache did instead.
    """
    outcome = _outcome(response)
    if not outcome.is_hit:
        raise AssertionError(f"the response did not come from the cache: {outcome.text}")


def assert_not_cached(response: HasHeaders, *, reason: str | None = None) -> None:
    """Fails if the response came from the cache, or was stored there.

    Args:
        response: The response.
        reason: Why it must not have been, as ``Cache-Status`` says it: ``"set-cookie"``,
            ``"session"``, ``"private"``, ``"authorization"``, ...; None: whatever the reason.

    Raises:
        AssertionError: It was, or for another reason; the message says what the cache did.
    """
    outcome = _outcome(response)
    if outcome.is_hit or outcome.is_stored:
        done = "came from" if outcome.is_hit else "was stored in"
        raise AssertionError(f"the response {done} the cache: {outcome.text}")
    if reason is not None and outcome.reason != reason:
        raise AssertionError(f"the response was not cached because of {outcome.reason!r}, not {reason!r}")


def _outcome(response: HasHeaders) -> CacheOutcome:
    outcome = cache_outcome(response)
    if outcome is None:
        raise AssertionError(
            "the response says nothing of the cache: its route has no @app.cache(), or its cache has"
            " show_status=False"
        )
    return outcome
