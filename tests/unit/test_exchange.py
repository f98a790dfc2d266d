"""What the parts of aeros tell each other about one request."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from aeros.caching.rules import CacheRules
from aeros.caching.server import Cache
from aeros.exchange import Exchange, attach_exchange, exchange_of, own_date, owns_date
from aeros.http.cache_status import CacheStatus
from aeros.types import Scope

SCOPE: Scope = {
    "type": "http",
    "method": "GET",
    "scheme": "http",
    "path": "/",
    "query_string": b"",
    "headers": [(b"host", b"localhost")],
}


class CountedSlot:
    """A slot that counts how often it was given back."""

    def __init__(self) -> None:
        self.released = 0

    def release(self) -> None:
        """Counts."""
        self.released += 1


def test_an_exchange_is_found_in_the_scope_that_it_was_attached_to() -> None:
    """Two requests never see each other's exchange."""
    first: Scope = {}
    second: Scope = {}
    exchange = Exchange()
    attach_exchange(first, exchange)
    assert exchange_of(first) is exchange
    assert exchange_of(second) is None


def test_a_copy_of_the_scope_has_the_same_exchange() -> None:
    """Middleware that hands a copy on handles the same request."""
    scope: Scope = {}
    exchange = Exchange()
    attach_exchange(scope, exchange)
    for copied in (dict(scope), copy.copy(scope), copy.deepcopy(scope)):
        assert exchange_of(copied) is exchange


def test_a_foreign_object_under_the_same_name_is_no_exchange() -> None:
    """A middleware that copies or replaces scope entries does not break the request."""
    scope: Scope = {}
    attach_exchange(scope, Exchange())
    for name in scope:
        scope[name] = "foreign"
    assert exchange_of(scope) is None


def test_a_slot_is_given_back_once() -> None:
    """Whoever ends the request first gives the slot back, and nobody does it again."""
    slot = CountedSlot()
    exchange = Exchange()
    exchange.slot = slot
    exchange.release_slot()
    exchange.release_slot()
    assert slot.released == 1
    assert exchange.slot is None


def test_a_request_without_a_slot_has_nothing_to_give_back() -> None:
    """Hits and websockets take none."""
    exchange = Exchange()
    exchange.release_slot()
    assert exchange.slot is None


def test_the_cache_status_is_the_transactions() -> None:
    """On a route that is not cached there is none."""
    transaction = Cache().bypass("unless")
    assert Exchange().cache_status is None
    exchange = Exchange()
    exchange.transaction = transaction
    assert exchange.cache_status == CacheStatus(fwd="bypass", detail="unless")


def test_the_date_is_aeros_own_only_where_it_was_said() -> None:
    """A server that aeros does not run writes its own ``Date``."""
    scope: Scope = {}
    assert not owns_date(scope)
    own_date(scope)
    assert owns_date(scope)
    assert exchange_of(scope) is None


@pytest.mark.parametrize(
    ("session_used", "cookies_used", "expected"),
    [(False, False, None), (True, False, "session"), (False, True, "cookies"), (True, True, "session")],
)
def test_what_belongs_to_one_user_is_named(
    session_used: bool, cookies_used: bool, expected: str | None
) -> None:
    """The session before the cookies, which it came in."""
    exchange = Exchange()
    exchange.session_used, exchange.cookies_used = session_used, cookies_used
    assert exchange.personal == expected


def test_what_decides_about_the_cache_is_not_noticed() -> None:
    """Also where it raises; what was noticed before stays."""
    exchange = Exchange()
    exchange.cookies_used = True

    def ask() -> None:
        with exchange.unnoticed():
            exchange.session_used = True
            raise KeyError

    with pytest.raises(KeyError):
        ask()
    assert exchange.personal == "cookies"
    with exchange.unnoticed():
        exchange.session_used = exchange.cookies_used = True
        assert exchange.personal == "session"
    assert (exchange.session_used, exchange.cookies_used) == (False, True)
    exchange.session_used = True
    assert exchange.personal == "session"


async def test_beginning_and_ending_let_those_who_wait_go() -> None:
    """A middleware may have a request handled twice: the second time it begins anew."""
    exchange = Exchange()
    exchange.is_claimed = exchange.session_used = True
    assert await lets_go(exchange, exchange.begin)
    assert exchange.cache_status is None
    assert (exchange.is_claimed, exchange.session_used) == (False, True)
    assert await lets_go(exchange, exchange.end)
    assert (exchange.is_claimed, exchange.session_used) == (True, True)


async def lets_go(exchange: Exchange, end: Callable[[], None]) -> bool:
    """Tells whether ``end`` ends the leading of a transaction of the exchange."""
    transaction = exchange.transaction = await Cache().open(SCOPE, CacheRules())
    before = transaction.is_leading
    end()
    return before and not transaction.is_leading


def test_a_request_without_a_transaction_begins_and_ends() -> None:
    """Whatever a middleware does with it."""
    exchange = Exchange()
    exchange.begin()
    assert not exchange.is_claimed
    exchange.end()
    assert exchange.is_claimed
