"""Ranges of bytes and the condition on them (RFC 9110 §13.1.5, §14)."""

from __future__ import annotations

from time import process_time
from typing import Literal, TypeAlias

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aeros.http.etag import EntityTag, parse_entity_tag
from aeros.http.ranges import ByteRange, if_range_holds, parse_range

Answer: TypeAlias = ByteRange | Literal["unsatisfiable"] | None

MODIFIED = "Sat, 29 Oct 1994 19:43:31 GMT"
MODIFIED_RFC_850 = "Saturday, 29-Oct-94 19:43:31 GMT"
MODIFIED_ASCTIME = "Sat Oct 29 19:43:31 1994"
A_SECOND_BEFORE = "Sat, 29 Oct 1994 19:43:30 GMT"
A_SECOND_AFTER = "Sat, 29 Oct 1994 19:43:32 GMT"
ALMOST_A_MINUTE_AFTER = "Sat, 29 Oct 1994 19:44:30 GMT"
A_MINUTE_AFTER = "Sat, 29 Oct 1994 19:44:31 GMT"

NINES = "9" * 5_000  # int() refuses more than 4,300 digits


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-4", ByteRange(0, 4)),
        ("bytes=0-0", ByteRange(0, 0)),
        ("bytes=9-9", ByteRange(9, 9)),
        ("bytes=3-", ByteRange(3, 9)),
        ("bytes=0-", ByteRange(0, 9)),
        ("bytes=-1", ByteRange(9, 9)),
        ("bytes=-10", ByteRange(0, 9)),
        ("bytes=-11", ByteRange(0, 9)),
        ("bytes=5-10", ByteRange(5, 9)),
        ("bytes=5-99", ByteRange(5, 9)),
        ("bytes=007-0008", ByteRange(7, 8)),
        ("bytes=-003", ByteRange(7, 9)),
        pytest.param(f"bytes=2-{NINES}", ByteRange(2, 9), id="long last"),
        pytest.param(f"bytes=-{NINES}", ByteRange(0, 9), id="long suffix"),
        pytest.param(f"bytes={'0' * 5_000}2-4", ByteRange(2, 4), id="long zeros"),
        ("BYTES=0-4", ByteRange(0, 4)),
        ("Bytes=0-4", ByteRange(0, 4)),
    ],
)
def test_one_range_is_read_and_clipped(value: str, expected: ByteRange) -> None:
    """Both ends count, the last is at most the end, a suffix at most the whole."""
    assert parse_range(value, 10) == expected


@pytest.mark.parametrize(
    "value",
    [
        "bytes=10-",
        "bytes=10-10",
        "bytes=99-100",
        "bytes=-0",
        "bytes=-000",
        pytest.param(f"bytes={NINES}-", id="long first"),
        pytest.param(f"bytes={NINES}-{NINES}", id="long both"),
        pytest.param(f"bytes={NINES}0-{NINES}1", id="long in order"),
        pytest.param(f"bytes=-{'0' * 5_000}", id="long zero suffix"),
    ],
)
def test_a_range_without_bytes_is_unsatisfiable(value: str) -> None:
    """It begins beyond the end, or is the last none (RFC 9110 §14.1.2)."""
    assert parse_range(value, 10) == "unsatisfiable"


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=,",
        "bytes=0",
        "bytes=a-b",
        "bytes=0-4-",
        "bytes=--4",
        "bytes=0--4",
        "bytes=+0-4",
        "bytes=0-4;q=1",
        "bytes=0x0-0x4",
        "bytes=1_0-",
        "bytes=1.0-",
        "bytes=\u0660-\u0664",
        "bytes=\xb2-",
        "bytes:0-4",
        "0-4",
        "=0-4",
        "items=0-4",
        "byte=0-4",
        "bytes*=0-4",
        "bytes=4-0",
        "bytes=40-30",
        pytest.param(f"bytes={NINES}1-{NINES}0", id="long in the wrong order"),
        pytest.param(f"bytes={NINES}-0", id="long before zero"),
        "bytes=0-1,3-4",
        "bytes=0-1,3-4,x",
        "bytes=0-1,x",
        "bytes=0-,-1",
        "bytes=0-4\n",
        "\nbytes=0-4",
        "bytes=0-4\0",
    ],
)
def test_what_is_not_one_range_of_bytes_is_ignored(value: str | None) -> None:
    """Then the client gets the whole, which is never wrong (RFC 9110 §14.2)."""
    assert parse_range(value, 10) is None


@pytest.mark.parametrize(
    ("value", "is_valid"),
    [
        (" bytes=0-4", True),
        ("bytes=0-4\t ", True),
        ("bytes=0-4,", True),
        ("bytes=,0-4", True),
        ("bytes=, ,\t, 0-4", True),
        ("bytes= ,0-4", True),
        ("bytes=0-4 ,", True),
        ("bytes=0-4 , ,", True),
        ("bytes= 0-4", False),
        ("bytes=\t0-4", False),
        ("bytes= 0-4,", False),
        ("bytes =0-4", False),
        ("bytes=0 -4", False),
        ("bytes=0- 4", False),
        ("bytes=- 4", False),
        ("bytes=0-4\x0b", False),
        ("bytes=0-4\xa0", False),
    ],
)
def test_whitespace_surrounds_the_value_and_its_commas_only(value: str, *, is_valid: bool) -> None:
    """Empty elements do not count, as in every list (RFC 9110 §5.6.1.2)."""
    assert parse_range(value, 10) == (ByteRange(0, 4) if is_valid else None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes=0-", "unsatisfiable"),
        ("bytes=0-0", "unsatisfiable"),
        ("bytes=5-9", "unsatisfiable"),
        ("bytes=-0", "unsatisfiable"),
        ("bytes=-5", None),
        pytest.param(f"bytes=-{NINES}", None, id="long suffix"),
        ("bytes=9-5", None),
        ("bytes=x", None),
    ],
)
def test_a_representation_of_no_bytes_has_no_range(value: str, expected: Answer) -> None:
    """A suffix of it is satisfiable (RFC 9110 §14.1.2), and the whole, which no Content-Range can say."""
    assert parse_range(value, 0) == expected


def test_content_range_names_the_part_and_the_whole() -> None:
    """The length is that of the whole representation (RFC 9110 §14.4)."""
    assert ByteRange(0, 4).content_range(10) == "bytes 0-4/10"
    assert ByteRange(9, 9).content_range(10) == "bytes 9-9/10"


@pytest.mark.parametrize(("first", "last"), [(-1, 4), (4, 3), (0, -1), (-2, -1)])
def test_a_range_that_does_not_exist_is_refused(first: int, last: int) -> None:
    """A slice with such ends would silently be another one."""
    with pytest.raises(ValueError, match=f"from {first} to {last}"):
        ByteRange(first, last)


def test_a_long_value_costs_little_time() -> None:
    """A megabyte of digits, commas or spaces is read in linear time."""
    million = 1_000_000
    values = [
        f"bytes={'9' * million}-{'9' * million}",
        f"bytes={'0' * million}-",
        f"bytes=-{'9' * million}",
        f"bytes={',' * million}",
        f"bytes={' ' * million}x",
        f"bytes={' ,' * million}0-1",
        f"bytes={'0-1,' * million}",
    ]
    began = process_time()
    for value in values:
        parse_range(value, 10)
    assert process_time() - began < 5


@pytest.mark.parametrize(
    ("value", "etag", "expected"),
    [
        ('"x"', '"x"', True),
        (' "x"\t', '"x"', True),
        ('"x"', '"y"', False),
        ('"x"', None, False),
        ('W/"x"', 'W/"x"', False),
        ('W/"x"', '"x"', False),
        ('"x"', 'W/"x"', False),
        ('"x", "y"', '"x"', False),
        ("*", '"x"', False),
        ("x", '"x"', False),
        ('w/"x"', '"x"', False),
        ("", '"x"', False),
        ("", None, False),
    ],
)
def test_a_tag_must_match_strongly(value: str, etag: str | None, *, expected: bool) -> None:
    """Parts of two representations must never be put together (RFC 9110 §13.1.5)."""
    tag = None if etag is None else parse_entity_tag(etag)
    assert if_range_holds(value, etag=tag, last_modified=MODIFIED, date=A_MINUTE_AFTER) is expected


@pytest.mark.parametrize(
    ("value", "last_modified", "date", "expected"),
    [
        (MODIFIED, MODIFIED, A_MINUTE_AFTER, True),
        (MODIFIED_RFC_850, MODIFIED, A_MINUTE_AFTER, True),
        (MODIFIED, MODIFIED_ASCTIME, A_MINUTE_AFTER, True),
        (f" {MODIFIED} ", MODIFIED, A_MINUTE_AFTER, True),
        (MODIFIED, MODIFIED, ALMOST_A_MINUTE_AFTER, False),
        (MODIFIED, MODIFIED, MODIFIED, False),
        (MODIFIED, MODIFIED, A_SECOND_BEFORE, False),
        (MODIFIED, MODIFIED, None, False),
        (MODIFIED, MODIFIED, "today", False),
        (A_SECOND_BEFORE, MODIFIED, A_MINUTE_AFTER, False),
        (A_SECOND_AFTER, MODIFIED, A_MINUTE_AFTER, False),
        (MODIFIED, None, A_MINUTE_AFTER, False),
        (MODIFIED, "yesterday", A_MINUTE_AFTER, False),
        ("yesterday", "yesterday", A_MINUTE_AFTER, False),
        (f"{MODIFIED}, {MODIFIED}", MODIFIED, A_MINUTE_AFTER, False),
        ("0", MODIFIED, A_MINUTE_AFTER, False),
    ],
)
def test_a_date_must_be_that_of_last_modified_and_strong(
    value: str, last_modified: str | None, date: str | None, *, expected: bool
) -> None:
    """A second has room for two versions, so a date counts only once it lies well back (§8.8.2.2)."""
    answer = if_range_holds(value, etag=EntityTag("x"), last_modified=last_modified, date=date)
    assert answer is expected


def test_without_the_condition_a_range_counts() -> None:
    """If-Range restricts Range; absent, it restricts nothing."""
    assert if_range_holds(None, etag=None, last_modified=None, date=None)


def answer_by_counting(first: int | None, last: int | None, length: int) -> Answer:
    """Returns what a range means by looking at each byte: slow, and hard to get wrong."""
    if first is None:
        assert last is not None
        wanted = [index for index in range(length) if length - index <= last]
        nothing: Answer = "unsatisfiable" if last == 0 else None
    else:
        if last is not None and first > last:
            return None
        wanted = [index for index in range(length) if index >= first and (last is None or index <= last)]
        nothing = "unsatisfiable"
    return ByteRange(wanted[0], wanted[-1]) if wanted else nothing


NUMBERS = st.none() | st.integers(0, 40) | st.integers(10**18, 10**22)
LENGTHS = st.integers(0, 30)
ZEROS = st.sampled_from(["", "0", "000"])


@settings(deadline=None)
@given(NUMBERS, NUMBERS, LENGTHS, ZEROS, ZEROS)
def test_a_single_range_means_what_counting_says(
    first: int | None, last: int | None, length: int, before: str, after: str
) -> None:
    """Whatever the numbers, the answer is that of a model which does no arithmetic."""
    if first is None and last is None:
        return
    value = f"bytes={'' if first is None else f'{before}{first}'}-{'' if last is None else f'{after}{last}'}"
    assert parse_range(value, length) == answer_by_counting(first, last, length)


@settings(max_examples=300, deadline=None)
@given(
    st.text() | st.text("0123456789-, \tx").map("bytes={}".format) | st.text("bytes=019-, \t"),
    LENGTHS | st.just(2**63),
)
@example("bytes=0-0", 0)
def test_no_text_makes_it_raise_or_leaves_the_bounds(text: str, length: int) -> None:
    """Any text gives a part of the representation, a refusal, or nothing."""
    found = parse_range(text, length)
    assert found is None or found == "unsatisfiable" or 0 <= found.first <= found.last < length
    assert not if_range_holds(text, etag=None, last_modified=text, date=None)
