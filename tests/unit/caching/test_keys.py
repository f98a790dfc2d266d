"""Cache keys: two requests share one exactly if they may share a stored response."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aeros.caching.keys import (
    QuerySelection,
    join_parts,
    raw_path,
    refined_key,
    request_key,
    selecting_fields,
    sorted_query,
    store_key,
    variant_key,
)
from aeros.types import RawHeaders

PATH = ("view/", "")


def scope_of(
    path: str = "/a",
    *,
    raw: bytes | None = None,
    query: bytes = b"",
    method: str = "GET",
    scheme: str = "http",
    host: bytes | None = b"localhost",
    headers: RawHeaders | None = None,
) -> dict[str, object]:
    """Returns an ASGI scope as a server makes it."""
    lines = list(headers or [])
    if host is not None:
        lines.insert(0, (b"host", host))
    scope: dict[str, object] = {
        "type": "http",
        "method": method,
        "scheme": scheme,
        "path": path,
        "query_string": query,
        "headers": lines,
    }
    if raw is not None:
        scope["raw_path"] = raw
    return scope


def key_of(
    scope: dict[str, object], template: Sequence[str] = PATH, *, query_string: bool = True, view: str = ""
) -> bytes:
    """Returns a request's key."""
    query = QuerySelection() if query_string else None
    return request_key(scope, template=template, view=view, query=query, hash_method=hashlib.md5)


@given(st.lists(st.binary(max_size=12), max_size=5), st.lists(st.binary(max_size=12), max_size=5))
def test_only_the_same_parts_give_the_same_bytes(first: list[bytes], second: list[bytes]) -> None:
    """Joining is injective: no content of a part can look like the border of two."""
    assert (join_parts(first) == join_parts(second)) == (first == second)


@given(st.lists(st.binary(max_size=8), max_size=5), st.data())
def test_a_part_that_is_cut_in_two_gives_other_bytes(parts: list[bytes], data: st.DataObject) -> None:
    """Moving a border between two parts, or writing one by hand, changes the result."""
    joined = b"".join(parts)
    cut = data.draw(st.integers(0, len(joined)))
    moved = [joined[:cut], joined[cut:]]
    assert (join_parts(moved) == join_parts(parts)) == (moved == parts)
    assert join_parts([join_parts(parts)]) != join_parts(parts)


@given(
    st.tuples(st.binary(max_size=4), st.binary(max_size=4), st.text("ab%/", max_size=4), st.booleans()),
    st.tuples(st.binary(max_size=4), st.binary(max_size=4), st.text("ab%/", max_size=4), st.booleans()),
)
def test_requests_that_differ_in_a_selecting_field_have_different_keys(
    first: tuple[bytes, bytes, str, bool], second: tuple[bytes, bytes, str, bool]
) -> None:
    """Path, query, prefix and scheme never mix with each other."""

    def key(parts: tuple[bytes, bytes, str, bool]) -> tuple[bytes, tuple[object, ...]]:
        path, query, prefix, tls = parts
        path = path.partition(b"?")[0]
        scope = scope_of(raw=b"/" + path, query=query, scheme="https" if tls else "http")
        return key_of(scope, (prefix, "")), (path, sorted_query(query), prefix, tls)

    (first_key, first_request), (second_key, second_request) = key(first), key(second)
    assert (first_key == second_key) == (first_request == second_request)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (scope_of("/a?b=1", raw=b"/a%3Fb=1"), scope_of("/a", raw=b"/a", query=b"b=1")),
        (scope_of("/a?b=1"), scope_of("/a", query=b"b=1")),
        (scope_of("/a/b", raw=b"/a%2Fb"), scope_of("/a/b", raw=b"/a/b")),
        (scope_of("//a", raw=b"//a"), scope_of("/a", raw=b"/a")),
        (scope_of("/a/", raw=b"/a/"), scope_of("/a", raw=b"/a")),
        (scope_of("/A", raw=b"/A"), scope_of("/a", raw=b"/a")),
        (scope_of("/a/../b", raw=b"/a/../b"), scope_of("/b", raw=b"/b")),
        (scope_of("/\xe9", raw=b"/%C3%A9"), scope_of("/\xe9", raw=b"/%c3%a9")),
        (scope_of(scheme="http"), scope_of(scheme="https")),
        (scope_of(host=b"a.example"), scope_of(host=b"b.example")),
        (scope_of(host=b"example:80"), scope_of(host=b"example:81")),
        (scope_of(host=None), scope_of(host=b"localhost")),
        (scope_of(query=b"a=1"), scope_of(query=b"a=2")),
        (scope_of(query=b""), scope_of(query=b"a")),
        (scope_of(query=b"a"), scope_of(query=b"a=")),
        (scope_of(query=b"a=1&a=2"), scope_of(query=b"a=2&a=1")),
        (scope_of(query=b"a=%26"), scope_of(query=b"a=&")),
    ],
)
def test_requests_for_different_things_have_different_keys(
    one: dict[str, object], other: dict[str, object]
) -> None:
    """Raw fields go in: what looks alike once decoded stays apart."""
    assert key_of(one) != key_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (scope_of(method="HEAD"), scope_of(method="GET")),
        (scope_of(host=b"EXAMPLE.com"), scope_of(host=b"example.COM")),
        (scope_of(query=b"b=1&a=2"), scope_of(query=b"a=2&b=1")),
        (scope_of(query=b"b&a=1&a=2"), scope_of(query=b"a=1&b&a=2")),
        (scope_of("/a", raw=b"/a?b=1"), scope_of("/a", raw=b"/a")),
        (scope_of("/a b"), scope_of("/a b", raw=b"/a%20b")),
        (scope_of(headers=[(b"cookie", b"a=1")]), scope_of(headers=[(b"cookie", b"a=2")])),
    ],
)
def test_requests_for_the_same_thing_share_a_key(one: dict[str, object], other: dict[str, object]) -> None:
    """HEAD reads GET; host names have no case; the order of different parameters says nothing."""
    assert key_of(one) == key_of(other)


def test_the_query_counts_only_where_the_route_says_so() -> None:
    """By default all queries share a response, and it is not that of a route with queries."""
    one, other = scope_of(query=b"a=1"), scope_of(query=b"a=2")
    assert key_of(one, query_string=False) == key_of(other, query_string=False)
    assert key_of(one, query_string=False) != key_of(one, query_string=True)
    assert key_of(scope_of(), query_string=False) != key_of(scope_of(), query_string=True)


def test_one_text_is_one_key_for_all_paths_of_a_host() -> None:
    """A prefix without a placeholder is shared; other hosts and other texts are not."""
    assert key_of(scope_of("/a"), ("all",)) == key_of(scope_of("/b"), ("all",))
    assert key_of(scope_of("/a"), ("all",)) != key_of(scope_of("/a", host=b"other"), ("all",))
    assert key_of(scope_of("/a"), ("all",)) != key_of(scope_of("/a"), ("every",))


@given(st.binary(max_size=12), st.text(max_size=12), st.text(max_size=6), st.text(max_size=6), st.booleans())
def test_a_shared_key_never_is_the_key_of_a_path(
    path: bytes, shared: str, before: str, after: str, query_string: bool
) -> None:
    """However the text of one and the path of the other are chosen."""
    scope = scope_of(raw=b"/" + path)
    one = key_of(scope, (shared,), query_string=query_string)
    assert one != key_of(scope, (before, after), query_string=query_string)


@pytest.mark.parametrize(
    ("one", "other"), [(("a", "b"), ("ab", "")), (("", ""), ("view/", "")), (("a%s", ""), ("a", "%s"))]
)
def test_the_texts_around_the_path_do_not_mix(one: Sequence[str], other: Sequence[str]) -> None:
    """What stands before the path is not what stands after it."""
    assert key_of(scope_of(), one) != key_of(scope_of(), other)


def test_two_views_on_one_path_share_nothing() -> None:
    """A decorated view may be called from others; where the path has no part in the key, neither has it."""
    assert key_of(scope_of(), view="shop.report") != key_of(scope_of(), view="shop.list")
    assert key_of(scope_of(), view="shop.report") == key_of(scope_of(), view="shop.report")
    assert key_of(scope_of(), ("all",), view="shop.report") == key_of(scope_of(), ("all",), view="shop.list")


def test_the_path_as_the_router_sees_it_is_part_of_the_key() -> None:
    """Middleware may have rewritten it, or mounted the application under a prefix."""
    sent = scope_of("/a", raw=b"/a")
    keys = {
        key_of(sent),
        key_of({**sent, "path": "/b"}),
        key_of({**sent, "root_path": "/shop"}),
        key_of({**sent, "path": "/b", "root_path": "/shop"}),
        key_of({**sent, "path": "/shop/b"}),
    }
    assert len(keys) == 5
    assert key_of({**sent, "path": "/\udcff"}) != key_of({**sent, "path": "/\udcfe"})


def test_what_the_route_adds_keeps_responses_apart() -> None:
    """Fields and texts of one route never look like each other, nor like a key without them."""
    base = key_of(scope_of())
    german, french = [(b"x", b"de")], [(b"x", b"fr")]
    keys = [
        base,
        refined_key(base, (), german, [b"de"]),
        refined_key(base, (), german, [b"de", b""]),
        refined_key(base, (), german, [b"d", b"e"]),
        refined_key(base, [b"x"], german, ()),
        refined_key(base, [b"x"], french, ()),
        refined_key(base, [b"x"], [], ()),
        refined_key(base, [b"x"], [(b"x", b"")], ()),
        refined_key(base, [b"x"], german, [b"de"]),
        refined_key(base, [b"x", b"y"], german, ()),
        variant_key(base, [b"x"], german),
        variant_key(base, [b"x"], french),
    ]
    assert len(set(keys)) == len(keys)
    assert refined_key(base, [b"x"], german, [b"1"]) == refined_key(base, [b"x"], german, [b"1"])


@pytest.mark.parametrize(
    ("selection", "query", "expected"),
    [
        (QuerySelection(), b"b=1&a=2", b"a=2&b=1"),
        (QuerySelection(include=("page",)), b"utm=1&page=2&page=1&x", b"page=2&page=1"),
        (QuerySelection(include=("b", "a")), b"b=1&a=2&c=3", b"a=2&b=1"),
        (QuerySelection(include=("page",)), b"p%61ge=2", b"p%61ge=2"),
        (QuerySelection(include=("a b",)), b"a+b=1&a%20b=2&ab=3", b"a+b=1&a%20b=2"),
        (QuerySelection(include=("\u00e9",)), b"%C3%A9=1&%E9=2", b"%C3%A9=1"),
        (QuerySelection(include=("f*",)), b"f=1&filter=2&of=3&F=4", b"f=1&filter=2"),
        (QuerySelection(include=()), b"a=1", b""),
        (QuerySelection(include=("*",)), b"b&&a=1", b"a=1&b"),
        (QuerySelection(include=("a",)), b"", b""),
        (
            QuerySelection(exclude=("utm_*", "ref")),
            b"utm_a=1&z=2&ref=3&utm=4&reference=5",
            b"reference=5&utm=4&z=2",
        ),
        (QuerySelection(exclude=("utm_*",)), b"utm%5Fa=1&a", b"a"),
        (QuerySelection(exclude=("a",)), b"a=1&&a", b""),
        (QuerySelection(exclude=("A",)), b"a=1", b"a=1"),
    ],
)
def test_a_route_names_the_parameters_that_count(
    selection: QuerySelection, query: bytes, expected: bytes
) -> None:
    """Names as the view sees them, however they are written; ``*`` stands for all that begin so."""
    assert selection.of(query) == expected


def test_parameters_that_do_not_count_do_not_keep_requests_apart() -> None:
    """And those that count do, also the one that is absent."""

    def key(query: bytes) -> bytes:
        selection = QuerySelection(include=("page",))
        return request_key(scope_of(query=query), template=PATH, query=selection, hash_method=hashlib.md5)

    assert key(b"page=1&utm=2") == key(b"utm=3&page=1") == key(b"page=1")
    assert len({key(b"page=1"), key(b"page=2"), key(b"page="), key(b"page"), key(b"")}) == 5


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"", b""),
        (b"b=1&a=2", b"a=2&b=1"),
        (b"a=2&b=0&a=1", b"a=2&a=1&b=0"),
        (b"b&a", b"a&b"),
        (b"a=1&&b", b"&a=1&b"),
        (b"ab=1&a=2", b"a=2&ab=1"),
        (b"a-=1&a=2", b"a=2&a-=1"),
        (b"%62=1&a=1", b"%62=1&a=1"),
        (b"b=%20&a=+", b"a=+&b=%20"),
        (b"page=2&p%61ge=1&a=1", b"page=2&p%61ge=1&a=1"),
        (b"p%61ge=1&page=2&a=1", b"p%61ge=1&page=2&a=1"),
        (b"b+c=1&b%20c=2&a", b"b+c=1&b%20c=2&a"),
        (b"p%61ge=2&p%61ge=1&a=1", b"a=1&p%61ge=2&p%61ge=1"),
    ],
)
def test_the_query_is_sorted_by_name_only(query: bytes, expected: bytes) -> None:
    """Parameters of one name keep their order, however it is written: it may mean something."""
    assert sorted_query(query) == expected


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.sampled_from([b"1", b"2"])), max_size=6))
def test_sorting_keeps_every_parameter_and_the_order_of_each_name(pairs: list[tuple[bytes, bytes]]) -> None:
    """Sorting twice changes nothing more."""
    query = b"&".join(b"%b=%b" % pair for pair in pairs)
    found = sorted_query(query)
    expected = [b"%b=%b" % pair for name in (b"a", b"b", b"c") for pair in pairs if pair[0] == name]
    assert found == b"&".join(expected)
    assert sorted_query(found) == found


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (scope_of("/a b", raw=b"/a%20b"), b"/a%20b"),
        (scope_of("/a", raw=b"/a?b=1"), b"/a"),
        (scope_of("/a b/é?"), b"/a%20b/%C3%A9%3F"),
        (scope_of("/a:@!$&'()*+,;=~-._z"), b"/a:@!$&'()*+,;=~-._z"),
        (scope_of("/50%"), b"/50%25"),
        ({"path": "/a", "raw_path": None}, b"/a"),
    ],
)
def test_the_path_is_the_clients_own(scope: dict[str, object], expected: bytes) -> None:
    """Servers that do not tell the raw path get the decoded one quoted again."""
    assert raw_path(scope) == expected


def test_a_field_that_is_absent_is_not_an_empty_one() -> None:
    """Two variants, as a view can answer them differently."""
    absent, empty = variant_key(b"k", [b"x"], []), variant_key(b"k", [b"x"], [(b"x", b"")])
    assert absent != empty
    assert variant_key(b"k", [b"x"], [(b"x", b"-")]) not in (absent, empty)


def test_a_variant_has_the_values_of_its_fields_and_of_no_other() -> None:
    """Lines of one field are joined; their order counts; other fields do not."""
    lines: RawHeaders = [(b"x", b"1"), (b"y", b"0"), (b"x", b"2")]
    assert selecting_fields([b"x", b"z"], lines) == ((b"x", b"1, 2"), (b"z", None))
    assert variant_key(b"k", [b"x"], lines) == variant_key(b"k", [b"x"], [(b"x", b"1, 2")])
    assert variant_key(b"k", [b"x"], lines) != variant_key(b"k", [b"x"], [(b"x", b"2, 1")])
    assert variant_key(b"k", [b"x"], [(b"x", b"\xff")]) != variant_key(b"k", [b"x"], [(b"x", b"\xfe")])


@given(
    st.lists(st.tuples(st.sampled_from([b"x", b"y"]), st.none() | st.binary(max_size=4)), max_size=3),
    st.lists(st.tuples(st.sampled_from([b"x", b"y"]), st.none() | st.binary(max_size=4)), max_size=3),
)
def test_variants_are_apart_by_fields_and_values(
    first: list[tuple[bytes, bytes | None]], second: list[tuple[bytes, bytes | None]]
) -> None:
    """Names and values never mix."""

    def key(fields: list[tuple[bytes, bytes | None]]) -> tuple[bytes, object]:
        names = sorted({name for name, _ in fields})
        headers = [(name, value) for name, value in fields if value is not None]
        return variant_key(b"k", names, headers), selecting_fields(names, headers)

    (first_key, first_fields), (second_key, second_fields) = key(first), key(second)
    assert (first_key == second_key) == (first_fields == second_fields)


@given(st.binary(max_size=12), st.binary(max_size=12))
def test_the_key_of_a_variant_never_is_a_primary_one(path: bytes, value: bytes) -> None:
    """The mark and the responses that it leads to do not overwrite each other."""
    primary = key_of(scope_of(raw=b"/" + path))
    variant = variant_key(primary, [b"x"], [(b"x", value)])
    assert variant != primary
    assert variant != key_of(scope_of(raw=b"/" + path), (f"{value!r}", ""))
    assert not variant.startswith(primary[:4])


def test_the_name_in_a_store_is_short_and_ours() -> None:
    """It says whose it is, fits any store, and depends on the whole key."""
    name = store_key(b"k" * 10_000, hashlib.sha256)
    assert name == f"aeros:1:{hashlib.sha256(b'k' * 10_000).hexdigest()}"
    assert store_key(b"a", hashlib.md5) != store_key(b"b", hashlib.md5)
