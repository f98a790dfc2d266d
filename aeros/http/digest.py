"""Digest fields of a response whose body is sent in another form (RFC 9530, RFC 3230, RFC 1864)."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from typing import Final

from aeros.http.fields import OWS, combined_value, replaced, split_list, without
from aeros.types import RawHeaders

# The algorithms that RFC 9530 §5 calls active; what else was stated is left out.
_ALGORITHMS: Final = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}
_DIGEST_FIELDS: Final = (b"content-digest", b"repr-digest", b"digest")
_ALL_FIELDS: Final = frozenset({*_DIGEST_FIELDS, b"content-md5"})


def with_digests(headers: RawHeaders, content: bytes | None, *, whole: bool = True) -> RawHeaders:
    """Returns ``headers`` with the digests that they state made anew for what is sent.

    A digest by an algorithm that is not known here is left out, so is ``Content-MD5``: a field that
    is wrong is worse than one that is missing.

    Args:
        headers: The response's fields.
        content: The bytes to be sent; None for a stream, whose digests nobody knows yet.
        whole: Whether they are the whole representation rather than a part of it (a 206), of which
            only ``Content-Digest`` tells.
    """
    if not any(name in _ALL_FIELDS for name, _ in headers):
        return headers
    kept = headers
    if whole or content is None:
        stated = {name: combined_value(headers, name) for name in _DIGEST_FIELDS}
        kept = without(headers, _ALL_FIELDS)
    else:
        stated = {b"content-digest": combined_value(headers, b"content-digest")}
        kept = without(headers, frozenset({b"content-digest", b"content-md5"}))
    for name, value in stated.items():
        digests = None if content is None or value is None else _digests(name, value, content)
        if digests:
            kept = replaced(kept, name, digests.encode("ascii"))
    return kept


def _digests(name: bytes, stated: str, content: bytes) -> str:
    members: list[str] = []
    for member in split_list(stated):
        algorithm = member.partition("=")[0].strip(OWS)
        hashed = _ALGORITHMS.get(algorithm.lower())
        if hashed is not None:
            encoded = b64encode(hashed(content).digest()).decode("ascii")
            # RFC 3230 has the bare base64, RFC 9530 a byte sequence between colons.
            members.append(f"{algorithm}={encoded}" if name == b"digest" else f"{algorithm}=:{encoded}:")
    return ", ".join(members)
