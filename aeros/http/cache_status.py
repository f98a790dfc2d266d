"""The Cache-Status field, in which a cache says what it did (RFC 9211)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

ForwardReason: TypeAlias = Literal[
    "bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"
]
"""Why a request went on to the application (RFC 9211 §2.2)."""

_GREATEST_INTEGER = 999_999_999_999_999  # RFC 9651 §3.3.1

_TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+\-.^_`|~:/]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStatus:
    """How one cache handled one request: from storage (``hit``) or forwarded (``fwd``).

    ``fwd_status`` is the status code that forwarding brought. ``ttl`` is the remaining freshness in
    seconds, negative where the response is stale. ``detail`` is free text for people.

    Raises:
        ValueError: ``hit`` and ``fwd`` are both set, or neither (RFC 9211 §2.1, §2.2).
    """

    hit: bool = False
    fwd: ForwardReason | None = None
    fwd_status: int | None = None
    stored: bool = False
    collapsed: bool = False
    ttl: int | None = None
    detail: str | None = None

    def __post_init__(self) -> None:
        if self.hit == (self.fwd is not None):
            msg = f"a cache either has a hit or forwards, not hit={self.hit!r} with fwd={self.fwd!r}"
            raise ValueError(msg)

    @property
    def outcome(self) -> str:
        """What the cache did, in one word: ``hit``, ``collapsed``, ``stored``, or why it forwarded."""
        if self.fwd is None:
            return "hit"
        return "collapsed" if self.collapsed else "stored" if self.stored else self.fwd

    def render(self, cache_name: str = "aeros") -> str:
        """Returns the field's value, a structured field (RFC 9651), e.g. ``aeros; hit; ttl=58``."""
        parts = [_item(cache_name), "hit" if self.fwd is None else f"fwd={self.fwd}"]
        if self.fwd_status is not None:
            parts.append(f"fwd-status={self.fwd_status}")
        if self.stored:
            parts.append("stored")
        if self.collapsed:
            parts.append("collapsed")
        if self.ttl is not None:
            parts.append(f"ttl={max(-_GREATEST_INTEGER, min(self.ttl, _GREATEST_INTEGER))}")
        if self.detail is not None:
            parts.append(f"detail={_item(self.detail)}")
        return "; ".join(parts)


def _item(text: str) -> str:
    if _TOKEN.fullmatch(text):
        return text
    # A structured string has printable ASCII only (RFC 9651 §3.3.3).
    printable = "".join(char if " " <= char <= "~" else "?" for char in text)
    escaped = printable.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
