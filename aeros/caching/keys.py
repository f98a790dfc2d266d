"""Cache keys: which requests may share a stored response (RFC 9111 §2).

A key is a sequence of byte strings, each written with its length, so two different sequences
never give the same key: ``/a%3Fb=1`` and ``/a?b=1`` stay apart, and so do ``("ab", "c")`` and
``("a", "bc")``. Raw fields go in, as the client sent them; nothing is decoded first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol, TypeAlias, cast
from urllib.parse import quote, unquote_to_bytes

from aeros.http.fields import combined_value, first_value
from aeros.types import RawHeaders

KEY_VERSION: Final = b"1"

_MOST_REMEMBERED: Final = 1_000
_LONGEST_REMEMBERED: Final = 300

_NOT_DECODED: Final = re.compile("[\udc80-\udcff]")


class Digest(Protocol):
    """What ``hashlib`` constructors return."""

    def hexdigest(self) -> str:
        """Returns the digest as hexadecimal text."""
        ...


HashMethod: TypeAlias = Callable[[bytes], Digest]


def join_parts(parts: Iterable[bytes]) -> bytes:
    """Returns one byte string that only this sequence of parts gives."""
    lengths: list[int | bytes] = []
    for part in parts:
        lengths += (len(part), part)
    return b"%d:%b," * (len(lengths) // 2) % tuple(lengths)


def request_key(
    scope: Mapping[str, object],
    *,
    template: Sequence[str],
    view: str = "",
    query: QuerySelection | None,
    hash_method: HashMethod,
) -> bytes:
    """Returns the primary key of a request. HEAD has the key of GET.

    Args:
        scope: The request's ASGI scope.
        template: Two texts, before and after the path: one key for each path. One text: one key
            for all paths of this host.
        view: The name of the view, so that two of them on one path share nothing; it counts only
            where the path does.
        query: Which parameters of the query belong to the key, sorted by name; None: no query.
        hash_method: Shortens the query, as ``hashlib.sha256`` does.
    """
    headers = cast(RawHeaders, scope["headers"])
    host = (first_value(headers, b"host") or b"").lower()
    # Behind a proxy an application may take this for its host, and no Vary would say so.
    forwarded = (combined_value(headers, b"x-forwarded-host") or "").lower().encode("latin-1")
    origin = str(scope.get("scheme", "http")), host, forwarded
    place: tuple[bytes, str, str, str] | None = None
    if len(template) > 1:
        # As the client sent it, and as the router sees it: middleware may have rewritten one.
        place = raw_path(scope), str(scope["path"]), str(scope.get("root_path", "")), view
    is_short = len(host) + len(forwarded) + (0 if place is None else len(place[0])) < _LONGEST_REMEMBERED
    located = (_remembered_key if is_short else _located_key)(origin, tuple(template), place)
    if query is None:
        return located
    selected = query.of(cast(bytes, scope.get("query_string", b"")))
    return located + join_parts([hash_method(selected).hexdigest().encode("ascii"), selected])


def _located_key(
    origin: tuple[str, bytes, bytes], template: tuple[str, ...], place: tuple[bytes, str, str, str] | None
) -> bytes:
    """Returns the part of a key that all queries have in common."""
    scheme, host, forwarded = origin
    parts = [KEY_VERSION, scheme.encode("latin-1"), host, forwarded, b"GET", b"%d" % len(template)]
    parts += [text.encode() for text in template]
    if place is not None:
        raw, *routed = place
        parts += [raw, *(text.encode("utf-8", "surrogateescape") for text in routed)]
    return join_parts(parts)


_remembered_key = lru_cache(_MOST_REMEMBERED)(_located_key)


def refined_key(base: bytes, names: Sequence[bytes], headers: RawHeaders, extra: Sequence[bytes]) -> bytes:
    """Returns the key of a route that has more than the URL decide.

    Args:
        base: The key of the URL.
        names: The request fields that the route names, in lower case.
        headers: The request's fields.
        extra: What else the route makes part of the key.
    """
    return join_parts([variant_key(base, names, headers), *extra])


def variant_key(primary: bytes, names: Sequence[bytes], headers: RawHeaders) -> bytes:
    """Returns the key of the response that a request selects by its ``Vary`` fields (§4.1)."""
    parts = [primary]
    for name, value in selecting_fields(names, headers):
        # A field that is absent is not one that is empty.
        parts += [name, b"-" if value is None else b"+" + value]
    return join_parts(parts)


def selecting_fields(names: Sequence[bytes], headers: RawHeaders) -> tuple[tuple[bytes, bytes | None], ...]:
    """Returns the request's values of the named fields, several lines of one joined."""
    fields: list[tuple[bytes, bytes | None]] = []
    for name in names:
        value = combined_value(headers, name)
        fields.append((name, None if value is None else value.encode("latin-1")))
    return tuple(fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuerySelection:
    """Which parameters of a query belong to the key.

    A name that ends with ``*`` stands for all that begin so. Names are compared as the view sees
    them, decoded: ``p%61ge=2`` is a ``page``, however it is written.

    Attributes:
        include: Only these; None: all.
        exclude: All but these.
    """

    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()

    def of(self, query: bytes) -> bytes:
        """Returns the parameters that belong to the key, sorted by name."""
        if self.include is None and not self.exclude:
            return sorted_query(query)
        return sorted_query(b"&".join(pair for pair in query.split(b"&") if pair and self._takes(pair)))

    def _takes(self, pair: bytes) -> bool:
        name = _decoded(_parameter_name(pair))
        if self.include is not None:
            return _is_named(name, self.include)
        return not _is_named(name, self.exclude)


def _is_named(name: str, patterns: tuple[str, ...]) -> bool:
    return any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in patterns
    )


def sorted_query(query: bytes) -> bytes:
    """Returns the query with its parameters sorted by name; those of one name keep their order.

    A query that writes one name in several ways is left as it is: the view sees the parameters of
    ``p%61ge=2&page=1`` in their order.
    """
    parameters = query.split(b"&")
    if b"%" in query or b"+" in query:
        names = {_parameter_name(pair) for pair in parameters}
        if len({_decoded(name) for name in names}) < len(names):
            return query
    parameters.sort(key=_parameter_name)
    return b"&".join(parameters)


def _parameter_name(pair: bytes) -> bytes:
    return pair.partition(b"=")[0]


def _decoded(name: bytes) -> str:
    """Returns a parameter's name as the view sees it; bytes that are no UTF-8 stay encoded there."""
    text = unquote_to_bytes(name.replace(b"+", b" ")).decode("utf-8", "surrogateescape")
    return _NOT_DECODED.sub(lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", text)


def raw_path(scope: Mapping[str, object]) -> bytes:
    """Returns the path as the client sent it; servers that do not tell get it quoted again."""
    path = scope.get("raw_path")
    if isinstance(path, bytes):
        return path.partition(b"?")[0]
    return quote(str(scope["path"]), safe="/:@!$&'()*+,;=~-._").encode("ascii")


def store_key(key: bytes, hash_method: HashMethod) -> str:
    """Returns the short name of ``key`` in a shared store; the entry itself has the full key."""
    return f"aeros:{KEY_VERSION.decode()}:{hash_method(key).hexdigest()}"
