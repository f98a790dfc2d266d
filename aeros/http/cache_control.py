"""The Cache-Control field of a response (RFC 9111 §5.2): read, written, and checked for contradictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aeros.http.fields import OWS, parse_delta_seconds, split_list

_STALENESS_NAMES = frozenset({"stale-while-revalidate", "stale-if-error"})
_DELTA_NAMES = _STALENESS_NAMES | {"max-age", "s-maxage"}

_RENDERED: Final = (
    "public",
    "private",
    "no_cache",
    "no_store",
    "must_understand",
    "max_age",
    "s_maxage",
    "immutable",
    "stale_while_revalidate",
    "stale_if_error",
    "must_revalidate",
    "proxy_revalidate",
    "no_transform",
)
"""The order of the directives in a value: who may store it, for how long, and what then."""


@dataclass(frozen=True, slots=True)
class ResponseDirectives:
    """What a response says about its storage; the numbers are seconds, None where not stated."""

    no_store: bool = False
    no_cache: bool = False
    private: bool = False
    public: bool = False
    must_revalidate: bool = False
    proxy_revalidate: bool = False
    no_transform: bool = False
    immutable: bool = False
    must_understand: bool = False
    max_age: int | None = None
    s_maxage: int | None = None
    stale_while_revalidate: int | None = None
    stale_if_error: int | None = None


def parse_response_directives(value: str | None) -> ResponseDirectives:
    """Returns the directives of a Cache-Control value; in doubt, those that store less.

    ``no-cache`` and ``private`` count as a whole where they name fields only. Of a number that is
    given twice the smallest counts. A ``max-age`` or ``s-maxage`` that is not a number counts as 0:
    stale (RFC 9111 §4.2.1). Such a ``stale-*`` (RFC 5861) is ignored, and so is every directive
    that is not known (RFC 9111 §5.2.3). None, the absent field, states nothing.
    """
    if not value:
        return ResponseDirectives()
    flags: set[str] = set()
    deltas: dict[str, int] = {}
    for directive in split_list(value):
        name, _, argument = directive.partition("=")
        # Whitespace around "=" is an error: a flag is known all the same, a number is not.
        key = name.rstrip(OWS).lower()
        if key in _DELTA_NAMES:
            seconds = _seconds(argument) if len(key) == len(name) else None
            if seconds is None and key in _STALENESS_NAMES:
                continue
            seconds = seconds or 0
            deltas[key] = min(seconds, deltas.get(key, seconds))
        else:
            flags.add(key)
    return _directives(flags, deltas)


def _seconds(argument: str) -> int | None:
    # A recipient takes both forms of an argument (RFC 9111 §5.2).
    if argument[:1] == argument[-1:] == '"':
        argument = argument[1:-1]
    return parse_delta_seconds(argument)


def _directives(flags: set[str], deltas: dict[str, int]) -> ResponseDirectives:
    return ResponseDirectives(
        no_store="no-store" in flags,
        no_cache="no-cache" in flags,
        private="private" in flags,
        public="public" in flags,
        must_revalidate="must-revalidate" in flags,
        proxy_revalidate="proxy-revalidate" in flags,
        no_transform="no-transform" in flags,
        immutable="immutable" in flags,
        must_understand="must-understand" in flags,
        max_age=deltas.get("max-age"),
        s_maxage=deltas.get("s-maxage"),
        stale_while_revalidate=deltas.get("stale-while-revalidate"),
        stale_if_error=deltas.get("stale-if-error"),
    )


def render_response_directives(directives: ResponseDirectives) -> str:
    """Returns the value that states these directives; the empty text where they state nothing.

    The order is always the same: who may store the response, for how long, and what then. The
    value is one of Cache-Control and of the fields that target some caches, e.g. CDN-Cache-Control:
    flags without an argument and numbers are written alike in both (RFC 9111 §5.2, RFC 9213 §2.1).
    """
    members: list[str] = []
    for name in _RENDERED:
        value: bool | int | None = getattr(directives, name)
        directive = name.replace("_", "-")
        if value is True:
            members.append(directive)
        elif value is not None and value is not False:
            members.append(f"{directive}={value}")
    return ", ".join(members)


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Directives that no sender can mean together.

    Attributes:
        directive: The one to change, by its name in ``ResponseDirectives``.
        cure: What to state in its place; names the other directive, the reason and the source.
    """

    directive: str
    cure: str


# Each of the first stands against the second, which is the one to leave out.
_CONTRADICTIONS: Final = (
    ("private", "public", "which is for one user (RFC 9111 §5.2.2.7)"),
    ("private", "s_maxage", "which keeps shared caches from storing it (RFC 9111 §5.2.2.7, §5.2.2.10)"),
    ("private", "proxy_revalidate", "which keeps shared caches from storing it (RFC 9111 §5.2.2.8)"),
    ("no_cache", "immutable", "which has each use validated (RFC 9111 §5.2.2.4, RFC 8246 §2)"),
    ("no_cache", "stale_while_revalidate", "which forbids to use it stale (RFC 9111 §4.2.4)"),
    ("no_cache", "stale_if_error", "which forbids to use it stale (RFC 9111 §4.2.4)"),
    ("must_revalidate", "stale_while_revalidate", "which forbids to use it stale (RFC 9111 §4.2.4)"),
    ("must_revalidate", "stale_if_error", "which forbids to use it stale (RFC 9111 §4.2.4)"),
)

# What is never stored is never fresh, stale or used again.
_POINTLESS_IF_NOT_STORED: Final = (
    "public",
    "max_age",
    "s_maxage",
    "immutable",
    "stale_while_revalidate",
    "stale_if_error",
    "must_revalidate",
    "proxy_revalidate",
)


def find_contradiction(directives: ResponseDirectives) -> Contradiction | None:
    """Returns the first contradiction among these directives; None where they can be meant.

    ``no-store`` beside ``must-understand`` contradicts nothing: caches that know the status code
    are to ignore it (RFC 9111 §5.2.2.3). ``max-age=0`` beside it is harmless, and widely sent.
    ``s-maxage`` forbids shared caches to use a response stale, but not private ones, so the
    ``stale-*`` directives may stand beside it (RFC 9111 §5.2.2.10).
    """
    for stated, other, reason in _CONTRADICTIONS:
        if _is_stated(directives, stated) and _is_stated(directives, other):
            return Contradiction(other, _left_out(directives, other, stated, reason))
    if directives.no_store and not directives.must_understand:
        for other in _POINTLESS_IF_NOT_STORED:
            if _is_stated(directives, other) and not (other == "max_age" and directives.max_age == 0):
                reason = "which keeps every cache from storing it (RFC 9111 §5.2.2.5)"
                return Contradiction(other, _left_out(directives, other, "no_store", reason))
    if directives.must_understand and not directives.no_store:
        cure = "False, or no_store beside it, for the caches that do not know it (RFC 9111 §5.2.2.3)"
        return Contradiction("must_understand", cure)
    if directives.immutable and not (directives.max_age or directives.s_maxage):
        cure = "False, or a max_age above 0 beside it: it counts while the response is fresh (RFC 8246 §2)"
        return Contradiction("immutable", cure)
    return None


def _is_stated(directives: ResponseDirectives, name: str) -> bool:
    value: bool | int | None = getattr(directives, name)
    return value is not None and value is not False


def _left_out(directives: ResponseDirectives, name: str, beside: str, reason: str) -> str:
    nothing = "False" if getattr(directives, name) is True else "None"
    return f"{nothing} beside {beside}, {reason}"
