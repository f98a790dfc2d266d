"""Ids of requests: which are taken, and what new ones are like."""

from __future__ import annotations

import copy
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from aeros.request_id import RequestIds, current_request_id, enter_request, given_id, leave_request
from aeros.types import RawHeaders, Scope


def scope(*ids: bytes) -> Scope:
    """Returns the scope of a request that brings these ids."""
    return {"type": "http", "headers": [(b"host", b"a"), *((b"x-request-id", one) for one in ids)]}


@pytest.mark.parametrize("text", ["a", "A" * 128, "0f8fad5b-d9cb-469f-a165-70867728950e", "a.b_c-9"])
def test_a_well_formed_id_is_taken(text: str) -> None:
    """Letters, digits, dot, underscore and hyphen; 128 of them at most."""
    assert given_id([(b"x-request-id", text.encode())]) == text


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"A" * 129,
        b"a b",
        b"a,b",
        b"a\tb",
        b"a\n",
        b"\xe4",
        b"<b>",
        b'"',
        b"a\x00",
        b" a",
        b"a/../b",
        b"a%0a",
    ],
)
def test_what_is_not_well_formed_is_not_taken(value: bytes) -> None:
    """Nothing that could break a line, a field, a page or a path."""
    assert given_id([(b"x-request-id", value)]) is None


def test_two_ids_are_none() -> None:
    """Even if they are the same: somebody on the way has added one."""
    twice: RawHeaders = [(b"x-request-id", b"a"), (b"x-request-id", b"a")]
    assert given_id(twice) is None
    assert given_id([]) is None


def test_new_ids_are_long_and_differ() -> None:
    """32 hexadecimal digits, over several draws and in several threads."""
    ids = RequestIds()

    def some(times: int) -> list[str]:
        return [ids.new() for _ in range(times)]

    with ThreadPoolExecutor(4) as pool:
        found = [one for made in pool.map(some, [1_000] * 4) for one in made]
    assert len(set(found)) == 4_000
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in found)


def test_a_fork_has_ids_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would go on with what its parent has drawn."""
    ids = RequestIds()
    ids.new()
    child = copy.deepcopy(ids)
    assert copy.deepcopy(ids).new() == copy.deepcopy(ids).new()  # in one process
    theirs = {ids.new() for _ in range(300)}
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert child.new() not in theirs


def test_a_request_keeps_its_id() -> None:
    """Whoever asks first decides: an application in an application has the id of the outer one."""
    ids, asked, given = RequestIds(), scope(), scope(b"mine")
    assert ids.identify(asked) == RequestIds().identify(asked)
    assert ids.identify(given) == "mine"


def test_the_current_id_is_that_of_the_context() -> None:
    """None outside, and the one before when a request within has ended."""
    assert current_request_id() is None
    outer = enter_request("outer")
    inner = enter_request("inner")
    elsewhere: list[str | None] = []
    thread = threading.Thread(target=lambda: elsewhere.append(current_request_id()))
    thread.start()
    thread.join()
    assert (current_request_id(), elsewhere) == ("inner", [None])
    leave_request(inner)
    assert current_request_id() == "outer"
    leave_request(outer)
    assert current_request_id() is None
