"""Marks: what responses can be evicted by, as short names of one length."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aeros.caching.marks import (
    call_mark,
    family_mark,
    function_mark,
    path_mark,
    path_marks,
    shared_mark,
    tag_marks,
    tag_names,
)
from aeros.errors import InvalidSettingError


def marks_of(path: str, root_path: str | None = None) -> tuple[str, ...]:
    """Returns the marks of a request."""
    return path_marks({"path": path} if root_path is None else {"path": path, "root_path": root_path})


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("/a", "/a"),
        ("/", "/"),
        ("/a?b=1", "/a"),
        ("/a#b", "/a"),
        ("/a?b#c?d", "/a"),
        ("/a%20b", "/a b"),
        ("/a b", "/a b"),
        ("/a%2Fb", "/a/b"),
        ("/caf%C3%A9", "/café"),
        ("/café", "/café"),
        ("/a%3Fb=1", "/a?b=1"),
        ("/a%23b", "/a#b"),
    ],
)
def test_a_path_is_found_however_it_is_written(written: str, path: str) -> None:
    """With a query or without, percent-encoded or not: as the server decodes it."""
    assert (path_mark(written),) == marks_of(path)


@pytest.mark.parametrize("path", ["/b", "/a/", "/A", "//a", "/a/b", "/"])
def test_other_paths_have_other_marks(path: str) -> None:
    """Not even a slash at the end is the same."""
    assert path_mark("/a") != path_mark(path)


@pytest.mark.parametrize("junk", ["", "a", "?a", "a/b", "http://localhost/a", None, 5, b"/a"])
def test_what_is_no_path_is_refused(junk: Any) -> None:
    """A whole URL would evict nothing, without a word."""
    with pytest.raises(InvalidSettingError, match=r"^path: ") as caught:
        path_mark(junk)
    assert caught.value.value is junk


@pytest.mark.parametrize(
    ("path", "root_path", "names"),
    [
        ("/shop/a", "/shop", ["/shop/a", "/a"]),
        ("/shop/a", "/shop/", ["/shop/a", "/a"]),
        ("/shop/", "/shop", ["/shop/", "/"]),
        ("/shop", "/shop", ["/shop"]),
        ("/shops/a", "/shop", ["/shops/a"]),
        ("/a", "/shop", ["/a"]),
        ("/a", "", ["/a"]),
        ("/a", "/", ["/a"]),
        ("/a", None, ["/a"]),
        ("/s/s/a", "/s", ["/s/s/a", "/s/a"]),
    ],
)
def test_a_mounted_application_is_found_with_and_without_its_prefix(
    path: str, root_path: str | None, names: list[str]
) -> None:
    """Who evicts may know the one or the other."""
    assert list(marks_of(path, root_path)) == [path_mark(name) for name in names]


def test_a_path_of_any_bytes_has_a_mark() -> None:
    """Servers give what is no UTF-8 as surrogates."""
    assert marks_of("/\udcff") != marks_of("/\udcfe")


@pytest.mark.parametrize(
    ("tags", "names"),
    [
        ("a", ("a",)),
        (["a"], ("a",)),
        (["b", "a", "b"], ("b", "a")),
        ((), ()),
        ((name for name in "ab"), ("a", "b")),
        ({"a": 1}, ("a",)),
        ("a b", ("a b",)),
        ("é" * 500, ("é" * 500,)),
    ],
)
def test_tags_are_names_each_once(tags: object, names: tuple[str, ...]) -> None:
    """One text is one name, not its letters."""
    assert tag_names(tags) == names
    assert tag_marks(names) == tuple(dict.fromkeys(tag_marks(name)[0] for name in names))


@pytest.mark.parametrize("junk", [None, 5, "", [""], ["a", None], ["a", 5], b"a", [b"a"]])
def test_what_is_no_tag_is_refused(junk: Any) -> None:
    """A response must not be stored under fewer tags than its view has named."""
    with pytest.raises(InvalidSettingError, match=r"^tags: "):
        tag_names(junk)
    with pytest.raises(InvalidSettingError, match=r"^tags: "):
        tag_marks(junk)


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_the_same_name_gives_the_same_mark_and_another_gives_another(one: str, other: str) -> None:
    """Whatever is in them."""
    assert (tag_marks(one) == tag_marks(other)) == (one == other)
    assert (function_mark(one) == function_mark(other)) == (one == other)
    assert (shared_mark(one) == shared_mark(other)) == (one == other)


@pytest.mark.parametrize("name", ["/a", "path:/a", "", "x" * 10_000])
def test_marks_of_different_kinds_never_meet(name: str) -> None:
    """A tag that is called like a path evicts no path; all have one length."""
    key = name.encode()
    marks = [function_mark(name), call_mark(key), family_mark(key), shared_mark(name), *marks_of(name)]
    marks += tag_marks(name or ())
    assert all(one != other for one, other in combinations(marks, 2))
    assert {len(mark) for mark in marks} == {25}
    assert all(mark.isalnum() and mark.isascii() for mark in marks)


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_marks_of_keys_are_those_of_all_their_bytes(one: bytes, other: bytes) -> None:
    """A key may have any bytes."""
    assert (call_mark(one) == call_mark(other)) == (one == other)
    assert (family_mark(one) == family_mark(other)) == (one == other)
