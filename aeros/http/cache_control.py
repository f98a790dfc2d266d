"""The Cache-Control field of a response (RFC 9111 §5.2)."""

from __future__ import annotations

from dataclasses import dataclass

from aeros.http.fields import OWS, parse_delta_seconds, split_list

_STALENESS_NAMES = frozenset({"stale-while-revalidate", "stale-if-error"})
_DELTA_NAMES = _STALENESS_NAMES | {"max-age", "s-maxage"}


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
