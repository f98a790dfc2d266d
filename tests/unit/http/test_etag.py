"""Entity tags and the answer 304 (RFC 9110 §8.8.3, §13)."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aeros.http.etag import (
    EntityTag,
    entity_tag_of,
    for_coding,
    is_not_modified,
    parse_entity_tag,
    parse_entity_tags,
    strong_match,
    weak_match,
)

EARLIER = "Sat, 29 Oct 1994 19:43:30 GMT"
DATE = "Sat, 29 Oct 1994 19:43:31 GMT"
LATER = "Sat, 29 Oct 1994 19:43:32 GMT"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"xyzzy"', EntityTag("xyzzy")),
        ('W/"xyzzy"', EntityTag("xyzzy", weak=True)),
        ('""', EntityTag("")),
        ('W/""', EntityTag("", weak=True)),
        (' "a"\t', EntityTag("a")),
        ('"a,b"', EntityTag("a,b")),
        ('"a\\"', EntityTag("a\\")),
        ('"\xe9!#~"', EntityTag("\xe9!#~")),
        ('"W/"', EntityTag("W/")),
        ("", None),
        ("*", None),
        ('"', None),
        ("W/", None),
        ('W/"', None),
        ("xyzzy", None),
        ("'a'", None),
        ('"a', None),
        ('a"', None),
        ('w/"a"', None),
        ('W /"a"', None),
        ('W/ "a"', None),
        ('W"a"', None),
        ('"a"b"', None),
        ('"a b"', None),
        ('"a\x7f"', None),
        ('"a\n"', None),
        ('"€"', None),
        ('"a", "b"', None),
    ],
)
def test_one_tag_is_read_strictly(text: str, expected: EntityTag | None) -> None:
    """A tag is quoted, weak with an upper-case W only, and has neither spaces nor controls."""
    assert parse_entity_tag(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*", "*"),
        (" * ", "*"),
        ("", []),
        (",", []),
        ('"xyzzy"', [EntityTag("xyzzy")]),
        (
            '"xyzzy", "r2d2xxxx", "c3piozzzz"',
            [EntityTag("xyzzy"), EntityTag("r2d2xxxx"), EntityTag("c3piozzzz")],
        ),
        (
            'W/"xyzzy", "r2d2xxxx",W/""',
            [EntityTag("xyzzy", True), EntityTag("r2d2xxxx"), EntityTag("", True)],
        ),
        ('"a,b","c"', [EntityTag("a,b"), EntityTag("c")]),
        ('"a\\", "b"', [EntityTag("a\\"), EntityTag("b")]),
        (',, "a" ,,', [EntityTag("a")]),
        ('a, "b", \'c\', "d"', [EntityTag("b"), EntityTag("d")]),
        ('"a" "b", "c"', [EntityTag("c")]),
        ('"a", *', [EntityTag("a")]),
        ("*, *", []),
        ('"a", "b', [EntityTag("a")]),
        ('"a b", "c"', [EntityTag("c")]),
    ],
)
def test_a_list_keeps_its_valid_members(text: str, expected: list[EntityTag] | Literal["*"]) -> None:
    """Commas in quotes do not split, backslashes escape nothing, what is no tag is left out."""
    assert parse_entity_tags(text) == expected


@pytest.mark.parametrize(
    ("a", "b", "strongly", "weakly"),
    [
        ('W/"1"', 'W/"1"', False, True),
        ('W/"1"', 'W/"2"', False, False),
        ('W/"1"', '"1"', False, True),
        ('"1"', 'W/"1"', False, True),
        ('"1"', '"1"', True, True),
        ('"1"', '"2"', False, False),
        ('"a"', '"A"', False, False),
    ],
)
def test_the_table_of_comparisons(a: str, b: str, *, strongly: bool, weakly: bool) -> None:
    """The rows of RFC 9110 §8.8.3.2, and that case counts."""
    first, second = parse_entity_tag(a), parse_entity_tag(b)
    assert first is not None
    assert second is not None
    assert strong_match(first, second) is strongly
    assert weak_match(first, second) is weakly


@pytest.mark.parametrize("opaque", ['a"b', "a b", "a\r\nset-cookie: x", "\n", "€", "\x7f"])
def test_a_tag_that_could_not_be_sent_is_refused(opaque: str) -> None:
    """What would break out of the quotes, or out of the field, is an error at once."""
    with pytest.raises(ValueError, match="entity tag"):
        EntityTag(opaque)


def test_the_tag_of_a_body_depends_on_its_bytes_only() -> None:
    """The tag is strong, 24 hexadecimal digits, and the same in every process and version."""
    assert str(entity_tag_of(b"")) == '"e3b0c44298fc1c149afbf4c8"'
    assert entity_tag_of(b"a") == entity_tag_of(bytes([0x61]))
    assert entity_tag_of(b"a") != entity_tag_of(b"b")
    assert not entity_tag_of(b"a").weak


def test_a_coding_makes_another_strong_tag() -> None:
    """Other bytes have another strong tag (RFC 9110 §8.8.3.3); a weak one stands for both."""
    assert str(for_coding(EntityTag("x"), "gzip")) == '"x-gzip"'
    assert for_coding(EntityTag("x", weak=True), "gzip") == EntityTag("x", weak=True)


@pytest.mark.parametrize(
    ("if_none_match", "etag", "expected"),
    [
        ('"x"', '"x"', True),
        ('W/"x"', '"x"', True),
        ('"x"', 'W/"x"', True),
        ('"y"', '"x"', False),
        ('"y", W/"x"', '"x"', True),
        ('"y,x"', '"x"', False),
        ("*", '"x"', True),
        ("*", None, True),
        ('"x"', None, False),
        ("x", '"x"', False),
        ("", '"x"', False),
        ('"x-gzip"', '"x"', False),
    ],
)
@pytest.mark.parametrize("if_modified_since", [None, EARLIER, LATER, "0"])
def test_if_none_match_alone_decides(
    if_none_match: str, etag: str | None, expected: bool, if_modified_since: str | None
) -> None:
    """Tags are compared weakly, and no If-Modified-Since changes the answer (RFC 9110 §13.2.2)."""
    answer = is_not_modified(
        if_none_match=if_none_match,
        if_modified_since=if_modified_since,
        etag=None if etag is None else parse_entity_tag(etag),
        last_modified=DATE,
    )
    assert answer is expected


@pytest.mark.parametrize(
    ("if_modified_since", "last_modified", "expected"),
    [
        (DATE, DATE, True),
        (LATER, DATE, True),
        (EARLIER, DATE, False),
        ("Saturday, 29-Oct-94 19:43:31 GMT", DATE, True),
        (DATE, "Sat Oct 29 19:43:31 1994", True),
        (None, DATE, False),
        (DATE, None, False),
        (None, None, False),
        ("0", DATE, False),
        ("", DATE, False),
        (f"{DATE}, {DATE}", DATE, False),
        (f"{DATE}; length=5", DATE, False),
        (DATE, "yesterday", False),
    ],
)
def test_if_modified_since_compares_valid_dates(
    if_modified_since: str | None, last_modified: str | None, expected: bool
) -> None:
    """Not modified is what was last modified at that time or before (RFC 9110 §13.1.3)."""
    answer = is_not_modified(
        if_none_match=None,
        if_modified_since=if_modified_since,
        etag=EntityTag("x"),
        last_modified=last_modified,
    )
    assert answer is expected


OPAQUE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF).filter(lambda c: c not in '"\x7f'))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.builds(EntityTag, OPAQUE, st.booleans()), max_size=5))
def test_rendered_tags_read_back(tags: list[EntityTag]) -> None:
    """Whatever the tags contain, a list of them is the same list again."""
    assert parse_entity_tags(", ".join(map(str, tags))) == tags


@settings(max_examples=200, deadline=None)
@given(st.text() | st.text(alphabet='aW/",*\\ '))
def test_no_text_makes_it_raise(text: str) -> None:
    """Any text gives a star or a list of tags that can be sent again."""
    tags = parse_entity_tags(text)
    assert tags == "*" or all(parse_entity_tag(str(tag)) == tag for tag in tags)
    assert not is_not_modified(if_none_match=None, if_modified_since=text, etag=None, last_modified=None)
