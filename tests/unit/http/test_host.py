"""``Host``."""

from __future__ import annotations

import pytest

from aeros.http.host import is_host


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"a",
        b"shop.example",
        b"shop.example.",
        b"shop.example:8000",
        b"shop.example:",
        b"my_shop-1~.example",
        b"127.0.0.1",
        b"[::1]",
        b"[2001:db8::1]:443",
        b"[::ffff:127.0.0.1]",
        b"[v1.a:b]:80",
        b"h%C3%B6st",
        b"a!$&'()*+,;=b",
    ],
)
def test_hosts(value: bytes) -> None:
    """Names and addresses, with a port or without."""
    assert is_host(value)


@pytest.mark.parametrize(
    "value",
    [
        b" ",
        b"a b",
        b"a/b",
        b"a?b",
        b"a#b",
        b"a\\b",
        b"user@a",
        b"a:b",
        b"a:80:80",
        b"a:-1",
        b"[::1",
        b"::1",
        b"[]",
        b"[a.b]",
        b"[::1]a",
        b"h%C",
        b"h%zz",
        "höst".encode(),
        b"a\x00",
        b"a\tb",
        b"<a>",
        b'"a"',
        b"a|b",
    ],
)
def test_no_hosts(value: bytes) -> None:
    """What libraries would read in different ways, or could not."""
    assert not is_host(value)
