"""What of a request's fields decides about how a stored response answers it."""

from __future__ import annotations

from typing import Final, NamedTuple

from aeros.types import RawHeaders

_HOST, _ACCEPT, _CONDITION, _COOKIE, _CLOSING = range(5)
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
    b"x-forwarded-host": _CLOSING,
}


class Asked(NamedTuple):
    """What of a request's fields decides about an answer."""

    host: bytes
    accept: bytes | None
    condition: bytes | None
    has_cookie: bool


def asked_of(headers: RawHeaders) -> Asked | None:
    """Returns what of a request's fields decides about an answer; None where more does than is known here."""
    host: bytes | None = None
    accept: bytes | None = None
    condition: bytes | None = None
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
        else:
            return None
    return None if host is None else Asked(host, accept, condition, has_cookie)
