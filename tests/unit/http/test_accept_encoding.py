"""The choice of a content coding (RFC 9110 §12.5.3)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aeros.http.accept_encoding import negotiate, parse_accept_encoding

OFFERED = ("zstd", "br", "gzip")
"""What the server prefers, best first."""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # Absent, empty, and the examples of RFC 9110 §12.5.3.
        (None, None),
        ("", None),
        ("compress, gzip", "gzip"),
        ("*", "zstd"),
        ("compress;q=0.5, gzip;q=1.0", "gzip"),
        ("gzip;q=1.0, identity; q=0.5, *;q=0", "gzip"),
        # What clients send.
        ("gzip, deflate", "gzip"),
        ("gzip, deflate, br", "br"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("deflate", None),
        ("identity", None),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", "br"),
        ("gzip,deflate,br", "br"),
        # The highest weight wins, the server's order decides among equals.
        ("gzip;q=0.9, br;q=0.8, zstd;q=0.7", "gzip"),
        ("gzip;q=0.8, br;q=0.9, zstd;q=0.7", "br"),
        ("br;q=0.5, gzip;q=0.5", "br"),
        ("gzip;q=0.5, br;q=0.5, zstd;q=0.499", "br"),
        ("gzip;q=0.001", "gzip"),
        ("br;q=0.999, gzip", "gzip"),
        ("br;q=1.000, gzip;q=1.", "br"),
        # Refusals.
        ("gzip;q=0", None),
        ("gzip;q=0.0", None),
        ("gzip;q=0.", None),
        ("gzip;q=0.000, br", "br"),
        ("gzip;q=0, *", "zstd"),
        ("*, zstd;q=0, br;q=0", "gzip"),
        ("*, zstd;q=0, br;q=0, gzip;q=0", None),
        ("*;q=1, gzip;q=0, br;q=0, zstd;q=0", None),
        # The star stands for what is not listed, nothing else.
        ("*;q=0", None),
        ("*;q=0, gzip;q=0.1", "gzip"),
        ("*;q=0.5, gzip;q=0.4", "zstd"),
        ("*;q=0.5, gzip;q=0.6", "gzip"),
        ("*;q=0.5, gzip;q=0.5", "zstd"),
        ("gzip, *;q=0.1", "gzip"),
        ("*;q=0.5, *;q=0", None),
        # Identity: listed it competes, unlisted it is the last resort.
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.6, gzip;q=0.5, br;q=0.5", None),
        ("identity;q=0.5, gzip;q=0.5", "gzip"),
        ("identity;q=0.4, gzip;q=0.5", "gzip"),
        ("identity;q=1, gzip;q=1", "gzip"),
        ("identity;q=0.5, *;q=0.8", "zstd"),
        ("identity;q=0.8, *;q=0.5", None),
        ("IDENTITY;q=0.8, gzip;q=0.5", None),
        ("identity;q=0", None),
        ("identity;q=0, gzip;q=0.1", "gzip"),
        ("identity;q=0, *;q=0", None),
        ("identity;q=0, gzip;q=0", None),
        # Names: case, aliases, duplicates.
        ("GZip", "gzip"),
        ("x-gzip", "gzip"),
        ("X-GZIP;q=0.5", "gzip"),
        ("x-gzip;q=0, gzip", None),
        ("x-gzip;q=0, *;q=0.5", "zstd"),
        ("x-br", None),
        ("gzip;q=0, gzip;q=1", None),
        ("gzip;q=1, gzip;q=0", None),
        ("br;q=0.2, br, gzip;q=0.5", "gzip"),
        # Whitespace and empty elements.
        ("gzip ; q=0", None),
        ("gzip\t;\tq=0.5", "gzip"),
        ("gzip;q=0\t", None),
        (" gzip ", "gzip"),
        (",, gzip,,", "gzip"),
        (",", None),
        ("  ", None),
        ("gzip;Q=0", None),
        ("gzip;Q=0.5, br;q=0.4", "gzip"),
        # Malformed elements count as not sent.
        ("gzip;q=2", None),
        ("gzip;q=-1", None),
        ("gzip;q=+1", None),
        ("gzip;q=1.1", None),
        ("gzip;q=1.001", None),
        ("gzip;q=0.1234", None),
        ("gzip;q=1.0000", None),
        ("gzip;q=.5", None),
        ("gzip;q=00.5", None),
        ("gzip;q=01", None),
        ("gzip;q=", None),
        ("gzip;q", None),
        ("gzip;", None),
        ("gzip;=1", None),
        ("gzip;;q=1", None),
        ("gzip;q=1;", None),
        ("gzip;q=1;q=0", None),
        ("gzip;q = 1", None),
        ("gzip;q= 1", None),
        ('gzip;q="1"', None),
        ("gzip;q=nan", None),
        ("gzip;q=inf", None),
        ("gzip;q=1e0", None),
        ("gzip;q=0,5", None),
        ("gzip;q=0_1", None),
        ("gzip;q=\u0661", None),
        ("gzip;q=1\n", None),
        ("gzip;level=9", None),
        ("gzip;level=9;q=1", None),
        ("gzip;x=1", None),
        ("gzip;qq=1", None),
        ("gzip br", None),
        ("gzip/1", None),
        ("gzip=1", None),
        ('"gzip"', None),
        ('"br, gzip, zstd"', None),
        ("gzip\x00", None),
        ("\uff47zip", None),
        ("\u212agzip", None),
        (";q=1", None),
        (";", None),
        ("q=1", None),
        ("**", None),
        ("*;q=2", None),
        ("gzip;q=2, br;q=0.1", "br"),
        ("gzip;q=bad, *;q=0.3", "zstd"),
        ("identity;q=bad, gzip;q=0.1", "gzip"),
        ("gzip;q=0.5, gzip;q=bad", "gzip"),
        ('x="y, gzip', "gzip"),
    ],
)
def test_negotiate(value: str | None, expected: str | None) -> None:
    """Each row gives the coding that RFC 9110 §12.5.3 lets the server prefer."""
    assert negotiate(value, OFFERED) == expected


@pytest.mark.parametrize(
    ("offered", "expected"),
    [
        (("gzip", "br"), "gzip"),
        (("br", "gzip"), "br"),
        (("BR", "gzip"), "BR"),
        (("x-gzip",), "x-gzip"),
        (("deflate",), None),
        ((), None),
        (("identity", "gzip"), "gzip"),
        (("identity",), None),
    ],
)
def test_the_answer_is_a_member_of_offered_as_it_is_spelt(
    offered: tuple[str, ...], expected: str | None
) -> None:
    """The order of the offer decides among equals; identity is never named, but None."""
    assert negotiate("gzip, br, identity", offered) == expected


def test_compress_has_its_alias() -> None:
    """``x-compress`` is ``compress``, whichever side says it (RFC 9110 §8.4.1.1)."""
    assert negotiate("x-compress", ["compress"]) == "compress"
    assert negotiate("compress;q=0, *", ["x-compress"]) is None


def test_weights_have_canonical_names() -> None:
    """The parsed field names each coding once, in lower case, with the lowest of its weights."""
    assert parse_accept_encoding("X-GZIP;q=0.5, gzip, Br ;q=0.25, *;q=0, identity, bad;q=7") == {
        "gzip": 0.5,
        "br": 0.25,
        "*": 0.0,
        "identity": 1.0,
    }


FRAGMENTS = ["gzip", "br", "zstd", "identity", "*", ",", ";", "q=", "0", "1", ".", "5", " ", "\t", '"', "\\"]


@settings(max_examples=200, deadline=None)
@given(st.text() | st.lists(st.sampled_from(FRAGMENTS)).map("".join))
def test_no_text_makes_it_raise(value: str) -> None:
    """Any text gives weights from 0 to 1, and None or something that was offered and not refused."""
    weights = parse_accept_encoding(value)
    assert all(0 <= weight <= 1 for weight in weights.values())
    chosen = negotiate(value, OFFERED)
    assert chosen is None or (chosen in OFFERED and weights.get(chosen, weights.get("*", 0.0)) > 0)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["gzip", "br", "*;q=0.5", "identity;q=0.1", "zstd;q=0.9"])))
def test_a_refused_coding_is_never_chosen(members: list[str]) -> None:
    """Whatever else is sent and wherever, ``gzip;q=0`` keeps gzip away."""
    for place in range(len(members) + 1):
        value = ", ".join([*members[:place], "gzip;q=0", *members[place:]])
        assert negotiate(value, ["gzip"]) is None
