"""What of a request's fields decides about how a stored response answers it."""

from __future__ import annotations

from typing import Final, NamedTuple

from aeros.types import RawHeaders

_HOST, _ACCEPT, _CONDITION, _COOKIE, _FORWARDED, _CLOSING = range(6)
# What of a request's fields counts. All others that a stored response depends on close the short ways.
_NOTED: Final = {
    b"host": _HOST,
    b"accept-encoding": _ACCEPT,
    b"if-none-match": _CONDITION,
    b"cookie": _COOKIE,
    b"authorization": _CLOSING,
    b"content-length": _CLOSING,
    b"expect": _CLOSING,
    b"if-match": _CLOSING,
    b"if-modified-since": _CLOSING,
    b"if-range": _CLOSING,
    b"if-unmodified-since": _CLOSING,
    b"range": _CLOSING,
    b"transfer-encoding": _CLOSING,
    b"upgrade": _CLOSING,
    b"x-forwarded-host": _FORWARDED,
}


class Asked(NamedTuple):
    """What of a request's fields decides about an answer.

    Attributes:
        host: The request's ``Host``, and on a second line the one that a proxy says it was, if any.
        accept: What content codings it takes.
        condition: Its ``If-None-Match``.
        has_cookie: Whether it has one.
    """

    host: bytes
    accept: bytes | None
    condition: bytes | None
    has_cookie: bool


def asked_of(headers: RawHeaders) -> Asked | None:
    """Returns what of a request's fields decides about an answer; None where more does than is known here."""
    host: bytes | None = None
    accept: bytes | None = None
    condition: bytes | None = None
    forwarded: bytes | None = None
    has_cookie = False
    for name, value in headers:
        kind = _NOTED.get(name)
        if kind is None:
            continue
        if kind == _HOST and host is None:
            host = value
        elif kind == _ACCEPT and accept is None:
            accept = value
        elif kind == _CONDITION and condition is None:
            condition = value
        elif kind == _COOKIE:
            has_cookie = True
        elif kind == _FORWARDED and forwarded is None:
            forwarded = value
        else:
            return None
    if host is None:
        return None
    return Asked(host if forwarded is None else b"%b\n%b" % (host, forwarded), accept, condition, has_cookie)
