"""The Server-Timing field, in which a server says how long a response took it (W3C Server Timing)."""

from __future__ import annotations

from dataclasses import dataclass

FIELD_NAME = b"server-timing"


@dataclass(frozen=True, slots=True)
class ServerTiming:
    """How long one response took, and what the cache did.

    Attributes:
        total: Seconds from the request to the response's head.
        app: Seconds of those until the application began to answer; None: it was not asked.
        cache: What the cache did, in a word, e.g. ``"hit"``; None for a route that is not cached.
    """

    total: float
    app: float | None = None
    cache: str | None = None

    def render(self) -> bytes:
        """Returns the field's value, with durations in milliseconds: ``total;dur=1.2, cache;desc=hit``."""
        metrics = [f"total;dur={self.total * 1000:.3f}"]
        if self.app is not None:
            metrics.append(f"app;dur={self.app * 1000:.3f}")
        if self.cache is not None:
            metrics.append(f"cache;desc={self.cache}")
        return ", ".join(metrics).encode("ascii")
