"""The fields of a request, read late, behave as those that Quart reads at once."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import Headers

from aeros.dispatch.request import ArrivedHeaders
from aeros.types import RawHeaders

CLIENT: Final = "192.0.2.1"
TOKEN: Final = "abcxyz019!#$%&'*+-.^_`|~"
NAMES: Final = st.sampled_from(
    [
        b"host",
        b"x-one",
        b"content-length",
        b"remote-addr",
        b"remote_addr",
        b"x",
        b"etag",
        b"x1-a2b",
        b"x" * 70,
    ]
) | st.text(alphabet=TOKEN, min_size=1, max_size=8).map(str.encode)
VALUES: Final = st.sampled_from([b"", b"12", b"-1", b"1.5", b"a, b", b"\xe4\xff", b" x "]) | st.binary(
    max_size=6
).map(lambda value: value.replace(b"\r", b"").replace(b"\n", b""))
FIELDS: Final = st.tuples(NAMES, VALUES)
KEYS: Final = st.sampled_from(
    [
        *("Host", "X-ONE", "x-One", "content-length", "Remote-Addr", "REMOTE-ADDR", "remote_addr", "", "ä"),
        *("\u212aey", "X", "none", "host ", "x-one\n", "x" * 70),
    ]
) | st.text(max_size=6)
ODD_KEYS: Final = st.sampled_from([None, 0, 1, -1, 99, b"host", slice(0, 1), ("host",), 1.5])


def read(fields: RawHeaders) -> tuple[ArrivedHeaders, Headers]:
    """Returns the fields of a request, late and as Quart reads them."""
    at_once = Headers()
    at_once["Remote-Addr"] = CLIENT
    for name, value in fields:
        at_once.add(name.decode("latin-1").title(), value.decode("latin-1"))
    return ArrivedHeaders(fields, CLIENT), at_once


def outcome(ask: Callable[[Any], Any], headers: Headers) -> tuple[object, ...]:
    """Returns what asking gives, what it raises, and the fields as they are then."""
    told: Any
    try:
        told = ask(headers)
    except Exception as error:  # noqa: BLE001 - whatever is raised is compared
        told = type(error), str(error).replace("ArrivedHeaders", "Headers")
    if isinstance(told, Iterator):
        told = list(told)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # of anything
    if isinstance(told, Headers):
        told = "headers", list(told)
    return told, list(headers)


def refuse(_: str) -> int:
    """Takes no value."""
    raise ValueError


GETS: Final[list[Callable[[Any, Any], Any]]] = [
    lambda headers, key: headers.get(key),
    lambda headers, key: headers.get(key, "other"),
    lambda headers, key: headers.get(key, None),
    lambda headers, key: headers.get(key, 7, int),
    lambda headers, key: headers.get(key, type=int),
    lambda headers, key: headers.get(key, type=float, default="none"),
    lambda headers, key: headers.get(key, default=[]),
    lambda headers, key: headers.get(key=key),
    lambda headers, key: headers.get(key, "other", refuse),
    lambda headers, key: headers.get(key, "other", None),
    lambda headers, key: headers[key],
    lambda headers, key: key in headers,
    lambda headers, key: headers.getlist(key),
    lambda headers, key: headers.get_all(key),
    lambda headers, key: headers.getlist(key, type=int),
    lambda headers, key: headers.has_key(key),
]
OTHERS: Final[list[Callable[[Any], Any]]] = [
    list,
    len,
    str,
    bool,
    repr,
    lambda headers: headers.keys(),
    lambda headers: headers.values(),
    lambda headers: headers.items(lower=True),
    lambda headers: headers.to_wsgi_list(),
    lambda headers: headers.copy(),
    copy.copy,
    copy.deepcopy,
    lambda headers: pickle.loads(pickle.dumps(headers)),
    lambda headers: headers[0],
    lambda headers: headers[:1],
    hash,
    lambda headers: headers == Headers(list(headers)),
    lambda headers: Headers([("Remote-Addr", CLIENT)]) == headers,
    lambda headers: headers == Headers([("Remote-Addr", CLIENT)]),
    lambda headers: headers != Headers(),
    lambda headers: headers == [],
    lambda headers: headers | {"x-two": "2"},
    lambda headers: headers.add("x-one", "2", a="b"),
    lambda headers: headers.set("x-one", "2"),
    lambda headers: headers.setdefault("x-one", "2"),
    lambda headers: headers.setlist("x-one", ["2", "3"]),
    lambda headers: headers.pop("host"),
    lambda headers: headers.pop("host", None),
    lambda headers: headers.popitem(),
    lambda headers: headers.remove("x-one"),
    lambda headers: headers.clear(),
    lambda headers: headers.extend([("a", "b")]),
    lambda headers: headers.update(a="b"),
    lambda headers: headers.__setitem__("x-one", "1"),
    lambda headers: headers.__delitem__("x-one"),
    lambda headers: headers.unknown,
]


@given(fields=st.lists(FIELDS, max_size=6), keys=st.lists(KEYS | ODD_KEYS, max_size=3))
def test_any_key_gives_what_it_gives_to_quart(fields: RawHeaders, keys: list[Any]) -> None:
    """Of any kind, in any case, with any default and type; and so it does after that."""
    for key in [*keys, *(name.decode() for name, _ in fields), "Host", "Remote-Addr"]:
        for get in GETS:

            def ask(headers: Any, get: Callable[[Any, Any], Any] = get, key: Any = key) -> Any:
                return get(headers, key)

            late, at_once = read(fields)
            expected = outcome(ask, at_once)
            assert outcome(ask, late) == expected
            assert outcome(ask, late) == expected
            late, _ = read(fields)
            assert late.get("x-one") == at_once.get("x-one")
            assert outcome(ask, late) == expected


@pytest.mark.parametrize("number", range(len(OTHERS)))
@given(fields=st.lists(FIELDS, max_size=6))
def test_all_else_that_may_be_done_with_them_does_the_same(number: int, fields: RawHeaders) -> None:
    """Reading, writing, copying, comparing: of fields that nobody has looked at, and that somebody has."""
    for before in (None, "x-one"):
        late, at_once = read(fields)
        if before is not None:
            assert late.get(before) == at_once.get(before)
        assert outcome(OTHERS[number], late) == outcome(OTHERS[number], at_once)


def test_what_is_changed_is_what_is_read() -> None:
    """A change is not lost to those who ask for one field."""
    late, _ = read([(b"x-one", b"1")])
    assert late.get("x-one") == "1"
    late["X-One"] = "2"
    late.add("X-Two", "3")
    assert (late.get("x-one"), late.get("X-TWO"), type(late)) == ("2", "3", Headers)


def test_threads_that_look_at_once_see_the_same() -> None:
    """Whoever comes while another reads all fields gets them too, and loses no change."""
    fields = [(b"x-%d" % number, b"%d" % number) for number in range(30)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            for _ in range(200):
                late, at_once = read(fields)
                together = threading.Barrier(4)

                def look(
                    number: int, late: Headers = late, together: threading.Barrier = together
                ) -> tuple[object, ...]:
                    together.wait(10)
                    late.add(f"Y-{number}", "1")
                    return late.get("x-7"), late["X-29"], len(late) >= 31

                assert list(pool.map(look, range(4))) == [("7", "29", True)] * 4
                added = {f"Y-{number}" for number in range(4)}
                assert sorted(late.keys()) == sorted({*at_once.keys(), *added})
    finally:
        sys.setswitchinterval(interval)
