"""``Host``: what RFC 9112 §3.2 and RFC 3986 §3.2 let it be."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_MOST_HOSTS: Final = 1_000

_NAME: Final = rb"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*"
_LITERAL: Final = rb"\[(?:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*|v[0-9A-Fa-f]+\.[A-Za-z0-9._~!$&'()*+,;=:-]+)\]"
_HOST: Final = re.compile(rb"(?:%b|%b)(?::[0-9]*)?" % (_NAME, _LITERAL))


@lru_cache(_MOST_HOSTS)
def is_host(value: bytes) -> bool:
    """Tells whether the value of ``Host`` is one: a name or an address, and perhaps a port.

    An empty one is: it stands for a target that has no authority.
    """
    return _HOST.fullmatch(value) is not None
