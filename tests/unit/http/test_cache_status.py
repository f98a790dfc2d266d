"""The Cache-Status field (RFC 9211)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aeros.http.cache_status import CacheStatus
from aeros.http.fields import is_field_value


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (CacheStatus(hit=True), "aeros; hit"),
        (CacheStatus(hit=True, ttl=58), "aeros; hit; ttl=58"),
        (CacheStatus(hit=True, ttl=0), "aeros; hit; ttl=0"),
        (CacheStatus(hit=True, ttl=-412), "aeros; hit; ttl=-412"),
        (CacheStatus(hit=True, ttl=10**15), "aeros; hit; ttl=999999999999999"),
        (CacheStatus(hit=True, ttl=-(10**15)), "aeros; hit; ttl=-999999999999999"),
        (CacheStatus(fwd="miss", stored=True), "aeros; fwd=miss; stored"),
        (CacheStatus(fwd="uri-miss", collapsed=True), "aeros; fwd=uri-miss; collapsed"),
        (
            CacheStatus(fwd="stale", stored=True, collapsed=True, ttl=60, detail="late"),
            "aeros; fwd=stale; stored; collapsed; ttl=60; detail=late",
        ),
        (
            CacheStatus(fwd="stale", fwd_status=503, ttl=-7, detail="stale-if-error"),
            "aeros; fwd=stale; fwd-status=503; ttl=-7; detail=stale-if-error",
        ),
        (CacheStatus(fwd="miss", fwd_status=200, stored=True), "aeros; fwd=miss; fwd-status=200; stored"),
        (CacheStatus(fwd="bypass", detail="set-cookie"), "aeros; fwd=bypass; detail=set-cookie"),
    ],
)
def test_a_status_is_a_structured_field(status: CacheStatus, expected: str) -> None:
    """Each parameter has the name and type of RFC 9211 §2, and false ones are left out."""
    assert status.render() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no-store", "no-store"),
        ("*a:/b!#$%&'+.^_`|~9", "*a:/b!#$%&'+.^_`|~9"),
        ("", '""'),
        ("two words", '"two words"'),
        ("9lives", '"9lives"'),
        ("-a", '"-a"'),
        ("a;b=c,d", '"a;b=c,d"'),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("café", '"caf?"'),
        ("a\r\nb", '"a??b"'),
        ("a\n", '"a?"'),
        ("\x7f\x00", '"??"'),
    ],
)
def test_a_text_is_a_token_or_an_escaped_string(text: str, expected: str) -> None:
    """Detail and the cache's name are tokens where they can be, strings else (RFC 9651 §3.3.3)."""
    assert CacheStatus(fwd="bypass", detail=text).render() == f"aeros; fwd=bypass; detail={expected}"
    assert CacheStatus(hit=True).render(text) == f"{expected}; hit"


def test_a_hit_is_not_forwarded() -> None:
    """A status with both, or with neither, says nothing a client can use (RFC 9211 §2.1)."""
    with pytest.raises(ValueError, match="hit=True with fwd='miss'"):
        CacheStatus(hit=True, fwd="miss")
    with pytest.raises(ValueError, match="hit=False with fwd=None"):
        CacheStatus(stored=True)


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_no_detail_breaks_the_field(detail: str) -> None:
    """Whatever the text, the value is ASCII without controls, and ends where the text ends."""
    value = CacheStatus(fwd="bypass", detail=detail).render()
    assert value.isascii()
    assert is_field_value(value)
    quoted = value.removeprefix("aeros; fwd=bypass; detail=")
    if quoted.startswith('"'):
        inner = quoted[1:-1].replace("\\\\", "").replace('\\"', "")
        assert '"' not in inner
        assert "\\" not in inner
