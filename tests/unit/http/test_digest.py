"""Digest fields of a content that is sent in another form (RFC 9530, RFC 3230, RFC 1864)."""

from __future__ import annotations

import hashlib
from base64 import b64encode

import pytest
from http_sf import parse
from hypothesis import given, settings
from hypothesis import strategies as st

from aeros.http.digest import with_digests
from aeros.types import RawHeaders

CONTENT = b"what is sent"
SHA256 = b64encode(hashlib.sha256(CONTENT).digest())
SHA512 = b64encode(hashlib.sha512(CONTENT).digest())
OLD = b"AAAA"


@pytest.mark.parametrize(
    ("name", "stated", "expected"),
    [
        # RFC 9530: a dictionary of byte sequences.
        (b"content-digest", b"sha-256=:%s:" % OLD, b"sha-256=:%s:" % SHA256),
        (b"content-digest", b"sha-512=:%s:" % OLD, b"sha-512=:%s:" % SHA512),
        (b"repr-digest", b"sha-256=:%s:" % OLD, b"sha-256=:%s:" % SHA256),
        (
            b"repr-digest",
            b"sha-512=:%s:, sha-256=:%s:" % (OLD, OLD),
            b"sha-512=:%s:, sha-256=:%s:" % (SHA512, SHA256),
        ),
        (b"repr-digest", b"md5=:%s:,sha-256=:%s:,sha=:%s:" % (OLD, OLD, OLD), b"sha-256=:%s:" % SHA256),
        (b"repr-digest", b"sha-256=:%s:;p=1 , x" % OLD, b"sha-256=:%s:" % SHA256),
        (b"repr-digest", b'x="sha-256=:a:, sha-256=:b:", sha-512=:%s:' % OLD, b"sha-512=:%s:" % SHA512),
        (b"repr-digest", b"sha-256", b"sha-256=:%s:" % SHA256),
        (b"repr-digest", b"sha-256 = wrong", b"sha-256=:%s:" % SHA256),
        # RFC 3230: bare base64, names in any case.
        (b"digest", b"SHA-256=%s" % OLD, b"SHA-256=%s" % SHA256),
        (b"digest", b"sha-512=%s,Sha-256=%s" % (OLD, OLD), b"sha-512=%s, Sha-256=%s" % (SHA512, SHA256)),
        (b"digest", b"MD5=%s,SHA-256=%s,unixsum=1" % (OLD, OLD), b"SHA-256=%s" % SHA256),
        # What nobody here can make anew.
        (b"content-digest", b"md5=:%s:" % OLD, None),
        (b"repr-digest", b"sha-256x=:%s:, crc32c=:%s:" % (OLD, OLD), None),
        (b"digest", b"unixsum=30637", None),
        (b"digest", b"", None),
        (b"content-digest", b", ,", None),
        (b"content-digest", b"\xe9\xff=:%s:" % OLD, None),
        (b"content-md5", OLD, None),
    ],
)
def test_digest_is_made_anew_or_left_out(name: bytes, stated: bytes, expected: bytes | None) -> None:
    """Known algorithms in their order, each in the form of its field; the field goes where none is left."""
    headers = with_digests([(b"a", b"1"), (name, stated), (b"b", b"2")], CONTENT)
    others = [(b"a", b"1"), (b"b", b"2")]
    assert headers == others if expected is None else sorted(headers) == sorted([*others, (name, expected)])


def test_lines_of_one_field_become_one() -> None:
    """A list may stand on several lines (RFC 9110 §5.3)."""
    headers: RawHeaders = [
        (b"repr-digest", b"sha-256=:AAAA:"),
        (b"repr-digest", b"md5=:AAAA:"),
        (b"repr-digest", b"sha-512=:AAAA:"),
    ]
    assert with_digests(headers, CONTENT) == [
        (b"repr-digest", b"sha-256=:%s:, sha-512=:%s:" % (SHA256, SHA512))
    ]


ALL: RawHeaders = [
    (b"content-type", b"text/plain"),
    (b"content-digest", b"sha-256=:AAAA:"),
    (b"repr-digest", b"sha-256=:AAAA:"),
    (b"digest", b"SHA-256=AAAA"),
    (b"content-md5", b"AAAA"),
]


def test_stream_has_no_digest() -> None:
    """What is still being made has no digest that anybody knows."""
    for whole in (True, False):
        assert with_digests(ALL, None, whole=whole) == ALL[:1]


def test_part_has_a_content_digest_of_its_own() -> None:
    """The others tell of the whole representation, which stays the same (RFC 9530 §3)."""
    headers = with_digests(ALL, CONTENT, whole=False)
    assert sorted(headers) == sorted([ALL[0], (b"content-digest", b"sha-256=:%s:" % SHA256), ALL[2], ALL[3]])


def test_part_without_a_content_digest_gets_none() -> None:
    """Nothing is stated that was not stated before."""
    assert with_digests(ALL[2:4], CONTENT, whole=False) == ALL[2:4]
    assert with_digests(ALL[2:], CONTENT, whole=False) == ALL[2:4]


def test_fields_without_a_digest_are_left_as_they_are() -> None:
    """The very list: most responses have none, and pay nothing."""
    headers: RawHeaders = [(b"content-type", b"text/plain"), (b"x-digest", b"sha-256=1")]
    assert with_digests(headers, CONTENT) is headers
    assert with_digests(headers, None) is headers


def test_the_list_that_is_given_stays() -> None:
    """A kept response's own fields must not change with what one client gets."""
    headers = list(ALL)
    with_digests(headers, CONTENT)
    with_digests(headers, None)
    with_digests(headers, CONTENT, whole=False)
    assert headers == ALL


@settings(max_examples=100, deadline=None)
@given(
    content=st.binary(max_size=100),
    algorithms=st.lists(st.sampled_from(["sha-256", "sha-512", "md5", "sha", "x"]), unique=True),
)
def test_the_result_is_a_dictionary_of_right_digests(content: bytes, algorithms: list[str]) -> None:
    """An independent parser reads what is written, and finds the digests of the content."""
    stated = ", ".join(f"{name}=:AAAA:" for name in algorithms).encode()
    headers = dict(with_digests([(b"content-digest", stated)], content))
    makers = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}
    parameters: dict[str, object] = {}
    expected = {name: (makers[name](content).digest(), parameters) for name in algorithms if name in makers}
    assert parse(headers.get(b"content-digest", b""), tltype="dictionary") == expected


@settings(max_examples=200, deadline=None)
@given(stated=st.binary(max_size=60), content=st.binary(max_size=20) | st.none(), whole=st.booleans())
def test_no_value_makes_it_raise(stated: bytes, content: bytes | None, whole: bool) -> None:
    """Whatever a view states, it is a field less at worst."""
    for name in (b"content-digest", b"repr-digest", b"digest", b"content-md5"):
        assert len(with_digests([(name, stated)], content, whole=whole)) <= 1
