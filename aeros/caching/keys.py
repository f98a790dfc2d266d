"""Cache keys: which requests may share a stored response (RFC 9111 §2).

A key is a sequence of byte strings, each written with its length, so two different sequences
never give the same key: ``/a%3Fb=1`` and ``/a?b=1`` stay apart, and so do ``("ab", "c")`` and
``("a", "bc")``. Raw fields go in, as the client sent them; nothing is decoded first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol, TypeAlias, cast
from urllib.parse import quote

from aeros.http.fields import combined_value, first_value
from aeros.types import RawHeaders

KEY_VERSION: Final = b"1"


class Digest(Protocol):
    """What ``hashlib`` constructors return."""

    def hexdigest(self) -> str:
        """Returns the digest as hexadecimal text."""
        ...


HashMethod: TypeAlias = Callable[[bytes], Digest]


def join_parts(parts: Iterable[bytes]) -> bytes:
    """Returns one byte string that only this sequence of parts gives."""
    return b"".join(b"%d:%b," % (len(part), part) for part in parts)


def request_key(
    scope: Mapping[str, object],
    *,
    template: Sequence[str],
    view: str = "",
    query_string: bool,
    hash_method: HashMethod,
) -> bytes:
    """Returns the primary key of a request. HEAD has the key of GET.

    Args:
        scope: The request's ASGI scope.
        template: Two texts, before and after the path: one key for each path. One text: one key
            for all paths of this host.
        view: The name of the view, so that two of them on one path share nothing; it counts only
            where the path does.
        query_string: Whether the query belongs to the key; its parameters are sorted by name.
        hash_method: Shortens the query, as ``hashlib.sha256`` does.
    """
    headers = cast(RawHeaders, scope["headers"])
    parts = [
        KEY_VERSION,
        str(scope.get("scheme", "http")).encode("latin-1"),
        (first_value(headers, b"host") or b"").lower(),
        b"GET",
        b"%d" % len(template),
        *(text.encode() for text in template),
    ]
    if len(template) > 1:
        # As the client sent it, and as the router sees it: middleware may have rewritten one.
        routed = str(scope["path"]), str(scope.get("root_path", "")), view
        parts += [raw_path(scope), *(text.encode("utf-8", "surrogateescape") for text in routed)]
    if query_string:
        query = sorted_query(cast(bytes, scope.get("query_string", b"")))
        parts.append(hash_method(query).hexdigest().encode("ascii"))
        parts.append(query)
    return join_parts(parts)


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


def sorted_query(query: bytes) -> bytes:
    """Returns the query with its parameters sorted by name; those of one name keep their order."""
    parameters = sorted(query.split(b"&"), key=_parameter_name)
    return b"&".join(parameters)


def _parameter_name(pair: bytes) -> bytes:
    return pair.partition(b"=")[0]


def raw_path(scope: Mapping[str, object]) -> bytes:
    """Returns the path as the client sent it; servers that do not tell get it quoted again."""
    path = scope.get("raw_path")
    if isinstance(path, bytes):
        return path.partition(b"?")[0]
    return quote(str(scope["path"]), safe="/:@!$&'()*+,;=~-._").encode("ascii")


def store_key(key: bytes, hash_method: HashMethod) -> str:
    """Returns the short name of ``key`` in a shared store; the entry itself has the full key."""
    return f"aeros:{KEY_VERSION.decode()}:{hash_method(key).hexdigest()}"
