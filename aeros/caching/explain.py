"""Why a request would be answered from the cache, or not: for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from aeros.caching.entry import StoredResponse

Outcome: TypeAlias = Literal["hit", "stale", "miss", "bypass", "not-cached"]

_CURES: Final = {
    "not-cached": "the view has no @app.cache()",
    "not-found": "no view is registered for this path and method",
    "method": "only GET and HEAD are answered from the cache",
    "request-body": "a request with a body is not answered from the cache",
    "unless": "the route's unless= said so",
    "authorization": "the request has credentials: give authorized=True if all users may share the"
    " response, vary='Authorization' to keep one for each",
    "session": "the session was read or written while the response was made",
    "cookies": "request.cookies was read: name the cookies that count in cookies=",
    "set-cookie": "the response sets a cookie",
    "private": "the response says Cache-Control: private",
    "no-store": "the response says Cache-Control: no-store",
    "no-cache": "the response says Cache-Control: no-cache",
    "vary": "the response says Vary: *",
    "status": "responses of its status are not stored: name it in statuses=",
    "no-lifetime": "nothing states a lifetime: give timeout=, or a default_timeout to the Cache",
    "lifetime-zero": "its lifetime is over at once",
    "stream": "the response is a stream or a file",
    "incomplete": "the response's Content-Length is not the length of its body",
    "none": "the view returned None: give cache_none=True",
    "response-filter": "the route's response_filter= said so",
    "after-this-request": "the view registered a function with after_this_request()",
    "too-large": "it is larger than the cache's max_bytes",
    "evicted": "something that it was made from was evicted while its view ran",
    "limit": "the request was refused: hard_limit= requests were being handled or waited",
    "forced-update": "the route's forced_update= said so: the view runs for every such request",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What would become of a request, and why. ``str()`` of it is a paragraph for people.

    Attributes:
        outcome: ``"hit"``, ``"stale"`` (usable at once or if there is an error), ``"miss"`` (the view
            would run), ``"bypass"`` (the cache would not be asked) or ``"not-cached"``.
        reason: Why, as the token that ``Cache-Status`` shows as ``detail``; for a miss, why the
            last response was not stored, if it was refused lately.
        key: The cache key, readable.
        tags: The tags that the response has or would have.
        status: The status code of the stored response.
        age: Its age in seconds.
        ttl: For how many seconds more it is fresh; negative when stale.
        vary: The request fields that select it.
        codings: The content codings that it is ready in.
    """

    outcome: Outcome
    reason: str | None = None
    key: str | None = None
    tags: tuple[str, ...] = ()
    status: int | None = None
    age: float | None = None
    ttl: float | None = None
    vary: tuple[str, ...] = ()
    codings: tuple[str, ...] = ()

    @property
    def cure(self) -> str | None:
        """What the reason means and what to do about it."""
        return None if self.reason is None else _CURES.get(self.reason, self.reason)

    def __str__(self) -> str:
        parts: list[str] = [self.outcome]
        if self.reason is not None:
            parts.append(f"{self.reason}: {self.cure}" if self.cure != self.reason else self.reason)
        if self.ttl is not None and self.age is not None:
            parts.append(f"stored {self.age:.0f} s ago with status {self.status}, fresh for {self.ttl:.0f} s")
        if self.vary:
            parts.append(f"selected by {', '.join(self.vary)}")
        if self.codings:
            parts.append(f"ready in {', '.join(self.codings)}")
        if self.tags:
            parts.append(f"tags {', '.join(self.tags)}")
        if self.key is not None:
            parts.append(f"key {self.key}")
        return "; ".join(parts)


def explain_response(
    found: StoredResponse | None, *, key: bytes, tags: tuple[str, ...], reason: str | None, now: float
) -> Explanation:
    """Returns what would become of a request for which ``found`` is stored.

    Args:
        found: The stored response, fresh or stale, that the request selects.
        key: The request's own key.
        tags: The tags that its response would have.
        reason: Why a response for it would not be stored, as far as that is known.
        now: Seconds since the epoch.
    """
    if found is None:
        return Explanation(outcome="miss", reason=reason, key=_readable(key), tags=tags)
    ttl = found.ttl(now)
    return Explanation(
        outcome="hit" if ttl > 0 else "stale",
        key=_readable(found.key),
        tags=tags,
        status=found.status,
        age=found.age(now),
        ttl=ttl,
        vary=tuple(name.decode("latin-1") for name, _ in found.vary),
        codings=tuple(sorted(found.variants)),
    )


def _readable(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace")
