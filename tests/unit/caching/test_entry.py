"""Stored responses and their bytes: what is read is exactly what was written, or an error."""

from __future__ import annotations

import json
import pickle
import random
import struct
from dataclasses import fields
from hashlib import blake2b
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aeros.caching.entry import (
    MAGIC,
    Entry,
    StoredResponse,
    StoredValue,
    VaryMark,
    decode_entry,
    encode_entry,
)
from aeros.errors import EntryFormatError

NUMBERS = st.floats(min_value=0, max_value=1e12, allow_nan=False)
LINES = st.tuples(st.binary(max_size=8), st.binary(max_size=8))
RESPONSES = st.builds(
    StoredResponse,
    key=st.binary(max_size=40),
    status=st.integers(200, 599),
    headers=st.lists(LINES, max_size=4),
    body=st.binary(max_size=60),
    etag=st.text(max_size=10),
    stored_at=NUMBERS,
    lifetime=NUMBERS,
    initial_age=NUMBERS,
    vary=st.lists(st.tuples(st.binary(max_size=8), st.none() | st.binary(max_size=8)), max_size=3).map(tuple),
    is_public=st.booleans(),
    while_revalidate=NUMBERS,
    if_error=NUMBERS,
    stamp=st.text(max_size=8),
    variants=st.dictionaries(st.text(min_size=1, max_size=4), st.binary(max_size=30), max_size=3),
    on_growth=st.none(),
)
MARKS = st.builds(
    VaryMark,
    key=st.binary(max_size=40),
    names=st.lists(st.binary(max_size=8), max_size=3).map(tuple),
    stored_at=NUMBERS,
    lifetime=NUMBERS,
    stamp=st.text(max_size=8),
)
VALUES = st.builds(
    StoredValue,
    key=st.binary(max_size=40),
    data=st.binary(max_size=60),
    stored_at=NUMBERS,
    lifetime=NUMBERS,
    while_revalidate=NUMBERS,
    if_error=NUMBERS,
    stamp=st.text(max_size=8),
)


def content(entry: Entry) -> dict[str, object]:
    """Returns all that an entry holds, for comparison."""
    return {item.name: getattr(entry, item.name) for item in fields(entry)}


def response(**changes: Any) -> StoredResponse:
    """Returns a stored response like one from a view."""
    values: dict[str, Any] = {
        "key": b"1:1,4:http",
        "status": 200,
        "headers": [(b"content-type", b"text/plain"), (b"x-name", b"\xe9")],
        "body": b"hello, world" * 20,
        "etag": '"abc"',
        "stored_at": 1000.0,
        "lifetime": 60.0,
        "vary": ((b"accept", b"text/html"), (b"x", None)),
        "stamp": "g1",
        "variants": {"br": b"\x00br", "gzip": b"\x1f\x8b"},
    }
    return StoredResponse(**(values | changes))


def signed(payload: bytes) -> bytes:
    """Returns bytes with the right magic and digest around any payload."""
    return MAGIC + blake2b(payload, digest_size=16).digest() + payload


def payload_of(head: object, bodies: bytes = b"") -> bytes:
    """Returns a payload with a head of one's own."""
    text = json.dumps(head).encode()
    return struct.pack(">I", len(text)) + text + bodies


def head_of(**changes: object) -> dict[str, object]:
    """Returns the head of an intact entry with an empty body."""
    data = encode_entry(response(body=b"", variants={}))
    return {**json.loads(data[len(MAGIC) + 16 + 4 :]), **changes}


@given(RESPONSES | MARKS | VALUES)
def test_an_entry_comes_back_as_it_was(entry: Entry) -> None:
    """Every field, to the last bit, and the same kind of entry."""
    found = decode_entry(encode_entry(entry))
    assert type(found) is type(entry)
    assert content(found) == content(entry)


@given(RESPONSES)
def test_the_same_entry_gives_the_same_bytes(entry: StoredResponse) -> None:
    """The order in which variants were made says nothing."""
    turned = decode_entry(encode_entry(entry))
    assert isinstance(turned, StoredResponse)
    turned.variants = dict(reversed(turned.variants.items()))
    assert encode_entry(turned) == encode_entry(entry)


def test_a_flipped_bit_is_always_found() -> None:
    """Of 1,000 entries with one flipped bit, not one comes back, altered or not."""
    data = encode_entry(response(body=random.Random(5).randbytes(2000)))
    source = random.Random(7)
    for _ in range(1000):
        place, bit = source.randrange(len(data)), source.randrange(8)
        damaged = bytearray(data)
        damaged[place] ^= 1 << bit
        with pytest.raises(EntryFormatError):
            decode_entry(bytes(damaged))


def test_a_cut_entry_is_found_at_every_length() -> None:
    """A write that was broken off, and one with something behind it."""
    data = encode_entry(response())
    for length in range(len(data)):
        with pytest.raises(EntryFormatError):
            decode_entry(data[:length])
    with pytest.raises(EntryFormatError):
        decode_entry(data + b"\0")


@given(st.binary(max_size=200))
def test_foreign_bytes_are_no_entry(data: bytes) -> None:
    """Whatever stands under the name, with or without our magic and digest."""
    for candidate in (data, MAGIC + data, signed(data)):
        with pytest.raises(EntryFormatError):
            decode_entry(candidate)


class Planted:
    """An object that runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_no_entry(protocol: int) -> None:
    """It is not loaded, under its own bytes or behind a right digest."""
    data = pickle.dumps(Planted(), protocol)
    with pytest.raises(EntryFormatError):
        decode_entry(data)
    with pytest.raises(EntryFormatError):
        decode_entry(signed(data))


@pytest.mark.parametrize(
    "magic", [b"AEROS\x00\r\n", b"AEROS\x01\r\n", b"AEROS\x03\r\n", b"AEROS\x02\n", b"aeros\x02\r\n"]
)
def test_an_entry_of_another_version_is_refused(magic: bytes) -> None:
    """The rest may be intact: the magic decides."""
    data = encode_entry(response())
    with pytest.raises(EntryFormatError, match="version"):
        decode_entry(magic + data[len(MAGIC) :])


@pytest.mark.parametrize(
    "head",
    [
        [],
        "text",
        None,
        {},
        {"kind": "other"},
        {"kind": "vary"},
        {"kind": "value"},
        {"kind": "value", "stale": [0, 0]},
        head_of(kind=None),
        head_of(key=5),
        head_of(key="€"),
        head_of(status="200"),
        head_of(status=True),
        head_of(headers=[["a"]]),
        head_of(headers=[[1, 2]]),
        head_of(headers=5),
        head_of(vary=[["a", 1]]),
        head_of(stored_at="now"),
        head_of(stored_at=None),
        head_of(etag=None),
        head_of(stamp=1),
        head_of(body=5),
        head_of(body=-1),
        head_of(body="0"),
        head_of(variants=[["br", 1]]),
        head_of(variants=[["br"]]),
        head_of(variants=None),
        head_of(stored_at=float("nan")),
        head_of(lifetime=float("nan")),
        head_of(lifetime=float("inf")),
        head_of(initial_age=float("-inf")),
        head_of(status=float("inf")),
        head_of(body=float("inf")),
        head_of(stored_at=10**400),
        head_of(lifetime=-(10**400)),
        head_of(status=10**400),
        head_of(body=10**400),
        head_of(lifetime=-1),
        head_of(initial_age=-1e308),
        head_of(stored_at=-1),
        head_of(stale=None),
        head_of(stale=[]),
        head_of(stale=[1]),
        head_of(stale=[1, 2, 3]),
        head_of(stale=["1", 2]),
        head_of(stale=[1, float("inf")]),
        head_of(stale=[-1, 1]),
    ],
)
def test_a_head_that_no_entry_has_is_refused(head: object) -> None:
    """An intact digest proves nothing about who wrote it: the error is the same, whatever is wrong."""
    with pytest.raises(EntryFormatError):
        decode_entry(signed(payload_of(head)))


def test_a_head_that_is_nested_without_end_is_refused() -> None:
    """Neither a recursion error nor a crash."""
    text = b"[" * 200_000
    with pytest.raises(EntryFormatError):
        decode_entry(signed(struct.pack(">I", len(text)) + text))


def test_a_second_identity_body_is_refused() -> None:
    """The body is the one that the digest of the ETag was made of, not one that stands behind it."""
    with pytest.raises(EntryFormatError):
        decode_entry(signed(payload_of(head_of(body=1, variants=[["", 1]]), b"ab")))


def test_bodies_must_fill_what_was_written() -> None:
    """Neither too short nor with bytes that nothing names."""
    assert isinstance(decode_entry(signed(payload_of(head_of(body=2), b"ab"))), StoredResponse)
    for size in (1, 3):
        with pytest.raises(EntryFormatError):
            decode_entry(signed(payload_of(head_of(body=size), b"ab")))


@pytest.mark.parametrize(
    ("now", "age"), [(1000.0, 5.0), (1010.0, 15.0), (1055.0, 60.0), (990.0, 5.0), (0.0, 5.0)]
)
def test_age_counts_from_what_it_was_when_stored(now: float, age: float) -> None:
    """A clock that was set back does not make an entry younger than that (RFC 9111 §4.2.3)."""
    entry = response(initial_age=5.0)
    assert entry.age(now) == age
    assert entry.ttl(now) == 60.0 - age


@pytest.mark.parametrize(("now", "ttl"), [(1000.0, 60.0), (1059.0, 1.0), (1061.0, -1.0), (900.0, 60.0)])
def test_a_mark_stands_for_its_lifetime(now: float, ttl: float) -> None:
    """As an entry that was new when it was stored."""
    mark = VaryMark(key=b"k", names=(b"x",), stored_at=1000.0, lifetime=60.0)
    assert mark.ttl(now) == ttl


@pytest.mark.parametrize(
    ("while_revalidate", "if_error", "expected"), [(0.0, 0.0, 60.0), (30.0, 0.0, 90.0), (5.0, 100.0, 160.0)]
)
def test_an_entry_is_of_use_for_the_longer_of_its_stale_times(
    while_revalidate: float, if_error: float, expected: float
) -> None:
    """They begin at the same moment, the end of its lifetime (RFC 5861)."""
    entry = response(initial_age=0.0, while_revalidate=while_revalidate, if_error=if_error)
    value = StoredValue(
        key=b"k",
        data=b"1",
        stored_at=1000.0,
        lifetime=60.0,
        while_revalidate=while_revalidate,
        if_error=if_error,
    )
    for found in (entry, value):
        assert found.useful_for(1000.0) == expected
        assert found.useful_for(1070.0) == expected - 70
        assert found.useful_for(900.0) == expected
        assert found.ttl(1070.0) == -10


def test_a_value_is_what_stands_behind_its_head() -> None:
    """All of it, whatever the bytes look like; its size counts it and its key."""
    value = StoredValue(key=b"k", data=b"\0\xff" * 100, stored_at=1.0, lifetime=2.0)
    found = decode_entry(encode_entry(value))
    assert isinstance(found, StoredValue)
    assert found.data == b"\0\xff" * 100
    bigger = StoredValue(key=b"key", data=value.data + b"x" * 10, stored_at=1.0, lifetime=2.0)
    assert bigger.size == value.size + 12


def test_size_counts_key_body_fields_and_variants() -> None:
    """Each byte that is kept is counted once."""
    small = response(variants={})
    assert response(variants={}, body=small.body + b"x" * 100).size == small.size + 100
    assert response(variants={}, key=small.key + b"x" * 10).size == small.size + 10
    longer = response(variants={}, headers=[*small.headers, (b"x-more", b"1" * 50)])
    assert longer.size >= small.size + 56
    assert small.size > len(small.body) + len(small.key)


def test_size_grows_with_variants_and_whoever_counts_is_told() -> None:
    """A variant that is the body itself takes no room of its own."""
    entry, told = response(variants={}), list[int]()
    before = entry.size
    entry.on_growth = lambda grown: told.append(grown.size)
    entry.add_variant("br", b"x" * 100)
    entry.add_variant("identity", entry.body)
    assert told == [before + 100, before + 100]
    assert entry.variant("br") == b"x" * 100
    assert entry.variant("gzip") is None


def test_a_variant_may_be_added_where_nobody_counts() -> None:
    """An entry that is in no memory keeps it all the same."""
    entry = response(variants={})
    entry.add_variant("br", b"x")
    assert entry.variant("br") == b"x"


def test_a_mark_has_a_size() -> None:
    """Marks are bounded by the same memory."""
    mark = VaryMark(key=b"k" * 100, names=(b"accept",), stored_at=0.0, lifetime=1.0)
    assert mark.size > 106


def test_demand_is_hits_that_come_soon_after_each_other() -> None:
    """Three of them, each within a second of the one before; a clock that is set back begins anew."""
    entry = response(variants={})
    demand: list[bool] = []
    for moment in (10.0, 11.0, 12.5, 13.0, 14.0, 13.9, 13.9, 14.9):
        entry.note_hit(moment)
        demand.append(entry.is_in_demand)
    assert demand == [False, False, False, False, True, False, False, True]
