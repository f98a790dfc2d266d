"""What clients are told, as a value: what it takes, what it refuses, and on which responses it stands."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from datetime import timedelta
from http import HTTPStatus
from itertools import product
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quart import Quart
from quart.wrappers import Response
from quart.wrappers.response import IterableBody
from werkzeug.wrappers import Response as WerkzeugResponse

from aeros import CacheControl as ExportedCacheControl
from aeros.caching.client import CacheControl, immutable, no_store
from aeros.errors import InvalidSettingError
from aeros.http.cache_control import ResponseDirectives, parse_response_directives
from aeros.http.etag import entity_tag_of

FLAGS = (
    "public",
    "private",
    "no_cache",
    "no_store",
    "must_understand",
    "immutable",
    "must_revalidate",
    "proxy_revalidate",
    "no_transform",
)
NUMBERS = ("max_age", "s_maxage", "stale_while_revalidate", "stale_if_error")

USUAL = {200, 203, 204, 206, 301, 304, 308}
OTHERS = {201, 202, 302, 303, 307, 400, 401, 403, 404, 410, 429, 500, 501, 502, 503, 504}


def made(**options: Any) -> CacheControl:
    """Returns what these options make, whatever their types."""
    return CacheControl(**options)


def told(response: Response | WerkzeugResponse) -> tuple[str | None, str | None]:
    """Returns what all clients, and what CDNs, are told."""
    return response.headers.get("Cache-Control"), response.headers.get("CDN-Cache-Control")


def test_it_is_what_aeros_exports() -> None:
    """One class under both names."""
    assert ExportedCacheControl is CacheControl


# What it takes


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (CacheControl(max_age=60, public=True), "public, max-age=60"),
        (CacheControl(no_cache=True), "no-cache"),
        (CacheControl(max_age=0, must_revalidate=True), "max-age=0, must-revalidate"),
        (
            CacheControl(s_maxage=timedelta(minutes=1), stale_while_revalidate=30.0),
            "s-maxage=60, stale-while-revalidate=30",
        ),
        (no_store, "no-store"),
        (immutable, "public, max-age=31536000, immutable"),
    ],
)
def test_its_text_is_the_field_value(value: CacheControl, expected: str) -> None:
    """And its representation shows it."""
    assert str(value) == expected
    assert repr(value) == f"<CacheControl {expected!r}>"


def test_its_representation_shows_what_cdns_are_told() -> None:
    """Both fields, because they differ."""
    value = CacheControl(no_cache=True, cdn=CacheControl(max_age=600))
    assert repr(value) == "<CacheControl 'no-cache', cdn='max-age=600'>"


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0),
        (60, 60),
        (60.0, 60),
        (2**31, 2**31),
        (timedelta(0), 0),
        (timedelta(days=1), 86400),
        (timedelta(milliseconds=3000), 3),
    ],
)
def test_seconds_are_whole_numbers_or_timedeltas(name: str, value: object, seconds: int) -> None:
    """A float that is whole is as good as an int, and comes out as one."""
    found = getattr(made(**{name: value}).directives, name)
    assert (found, type(found)) == (seconds, int)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "value",
    [
        -1,
        -0.5,
        1.5,
        True,
        False,
        math.nan,
        math.inf,
        -math.inf,
        2**31 + 1,
        1e300,
        "60",
        b"60",
        [60],
        timedelta(seconds=-1),
        timedelta(milliseconds=1500),
        timedelta.max,
    ],
)
def test_what_is_no_number_of_seconds_is_refused(name: str, value: object) -> None:
    """The error names the directive and what it takes."""
    with pytest.raises(
        InvalidSettingError, match=rf"^{name}: .*whole seconds from 0 to 2147483648"
    ) as caught:
        made(**{name: value})
    assert caught.value.setting == name
    assert caught.value.value is value


@pytest.mark.parametrize("name", [*FLAGS, "etag"])
@pytest.mark.parametrize("value", [1, 0, None, "yes", ("Set-Cookie",)])
def test_a_flag_is_true_or_false(name: str, value: object) -> None:
    """``private`` and ``no_cache`` name no fields, either: hardly any cache knows that form."""
    with pytest.raises(InvalidSettingError, match=rf"^{name}: .*True or False") as caught:
        made(**{"max_age": 60, name: value})
    assert caught.value.setting == name


@pytest.mark.parametrize(
    ("options", "setting", "other"),
    [
        ({"public": True, "private": True}, "public", "private"),
        ({"private": True, "s_maxage": 60}, "s_maxage", "private"),
        ({"private": True, "proxy_revalidate": True}, "proxy_revalidate", "private"),
        ({"no_store": True, "max_age": 60}, "max_age", "no_store"),
        ({"no_store": True, "max_age": timedelta(seconds=1)}, "max_age", "no_store"),
        ({"no_store": True, "s_maxage": 60}, "s_maxage", "no_store"),
        ({"no_store": True, "public": True}, "public", "no_store"),
        ({"no_store": True, "immutable": True}, "immutable", "no_store"),
        ({"no_store": True, "must_revalidate": True}, "must_revalidate", "no_store"),
        ({"no_store": True, "proxy_revalidate": True}, "proxy_revalidate", "no_store"),
        ({"no_store": True, "stale_while_revalidate": 60}, "stale_while_revalidate", "no_store"),
        ({"no_store": True, "stale_if_error": 60}, "stale_if_error", "no_store"),
        ({"no_cache": True, "immutable": True, "max_age": 60}, "immutable", "no_cache"),
        ({"no_cache": True, "stale_while_revalidate": 60}, "stale_while_revalidate", "no_cache"),
        ({"no_cache": True, "stale_if_error": 60}, "stale_if_error", "no_cache"),
        (
            {"must_revalidate": True, "stale_while_revalidate": 60},
            "stale_while_revalidate",
            "must_revalidate",
        ),
        ({"must_revalidate": True, "stale_if_error": 60}, "stale_if_error", "must_revalidate"),
        ({"immutable": True}, "immutable", "max_age"),
        ({"immutable": True, "max_age": 0}, "immutable", "max_age"),
        ({"must_understand": True}, "must_understand", "no_store"),
        ({"must_understand": True, "max_age": 60}, "must_understand", "no_store"),
    ],
)
def test_a_contradiction_is_an_error_that_names_both(
    options: dict[str, object], setting: str, other: str
) -> None:
    """In one line: which one to change, beside which other, and where that is written."""
    with pytest.raises(InvalidSettingError) as caught:
        made(**options)
    assert caught.value.setting == setting
    message = str(caught.value)
    assert message.startswith(f"{setting}: ")
    assert other in message
    assert "RFC " in message
    with pytest.raises(InvalidSettingError, match=f"^{setting}: "):
        made(max_age=1, cdn=made(**options))


@pytest.mark.parametrize("options", [{}, {"etag": True}, {"statuses": 200}, {"cdn": CacheControl(max_age=1)}])
def test_nothing_stated_is_an_error(options: dict[str, object]) -> None:
    """An empty field would say nothing; one that was forgotten is a mistake."""
    with pytest.raises(InvalidSettingError, match=r"^CacheControl: .*at least one directive"):
        made(**options)


def test_used_without_parentheses_it_says_so() -> None:
    """The error shows what to write."""

    def view() -> None: ...

    with pytest.raises(InvalidSettingError, match=r"^CacheControl: .*@CacheControl\(max_age=60\)"):
        cast(Any, CacheControl)(view)


@pytest.mark.parametrize("view", [5, None, "view", CacheControl, Response("x")])
def test_only_functions_can_be_decorated(view: Any) -> None:
    """A class is none: its views are decorated by ``decorators``."""
    with pytest.raises(InvalidSettingError, match=r"^CacheControl: .*view function.*decorators"):
        no_store(view)


def test_it_is_a_frozen_value() -> None:
    """Equal by what it says, usable as a key, and the same in another process."""
    value = CacheControl(max_age=60, statuses={200}, cdn=CacheControl(s_maxage=1), etag=True)
    same = CacheControl(
        max_age=timedelta(minutes=1), statuses=[200], cdn=CacheControl(s_maxage=1.0), etag=True
    )
    assert value == same
    assert hash(value) == hash(same)
    assert pickle.loads(pickle.dumps(value)) == value
    assert str(pickle.loads(pickle.dumps(value))) == "max-age=60"
    others = [
        CacheControl(max_age=61, statuses={200}, cdn=CacheControl(s_maxage=1), etag=True),
        CacheControl(max_age=60, statuses={404}, cdn=CacheControl(s_maxage=1), etag=True),
        CacheControl(max_age=60, statuses={200}, cdn=CacheControl(s_maxage=2), etag=True),
        CacheControl(max_age=60, statuses={200}, cdn=CacheControl(s_maxage=1)),
    ]
    assert len({value, *others}) == 5
    with pytest.raises(FrozenInstanceError):
        cast(Any, value).etag = False
    silent = CacheControl(no_store=True)
    # The second says no-store to CDNs for these statuses only.
    assert CacheControl(max_age=1, cdn=silent) != CacheControl(max_age=1, cdn=silent, statuses=USUAL)


@given(
    flags=st.sets(st.sampled_from(FLAGS)),
    numbers=st.dictionaries(st.sampled_from(NUMBERS), st.integers(0, 2**31)),
)
def test_it_is_refused_or_says_exactly_what_it_was_given(flags: set[str], numbers: dict[str, int]) -> None:
    """Whatever can be constructed is read back from its text by the parser of the other side."""
    options: dict[str, Any] = dict.fromkeys(flags, True) | numbers
    try:
        value = made(**options)
    except InvalidSettingError:
        return
    assert value.directives == ResponseDirectives(**options)
    assert parse_response_directives(str(value)) == value.directives


# On which responses it stands


@pytest.mark.parametrize(
    "value",
    [
        CacheControl(max_age=60),
        CacheControl(private=True),
        CacheControl(no_cache=True),
        CacheControl(max_age=0),
        CacheControl(no_transform=True),
        CacheControl(no_store=True, must_understand=True, max_age=60),
    ],
)
def test_by_default_it_is_for_what_succeeds(value: CacheControl) -> None:
    """What allows storing is not said of an error, of which it is not known how long it lasts."""
    for status in USUAL | OTHERS:
        response = value.apply(Response("x", status))
        assert told(response) == (str(value) if status in USUAL else None, None), status


def test_no_store_is_for_every_status() -> None:
    """Errors show personal things as well."""
    for status in USUAL | OTHERS:
        assert told(no_store.apply(Response("x", status))) == ("no-store", None)


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (404, {404}),
        (HTTPStatus.NOT_FOUND, {404}),
        ([404, 410], {404, 410}),
        ((404,), {404}),
        ({404: 10}, {404}),
        (range(400, 500), set(range(400, 500))),
        (iter([404]), {404}),
        (200, {200, 206, 304}),
        ({200, 404}, {200, 206, 304, 404}),
        (206, {206}),
        ([100, 599], {100, 599}),
        (None, None),
    ],
)
def test_statuses_say_which_responses_it_is_for(statuses: Any, expected: set[int] | None) -> None:
    """One, several or every one; a 304 and a 206 have what the 200 would have."""
    value = CacheControl(max_age=5, statuses=statuses)
    assert value.statuses == expected
    for status in (200, 206, 304, 404, 410, 500):
        stands = expected is None or status in expected
        assert told(value.apply(Response("x", status)))[0] == ("max-age=5" if stands else None)


@pytest.mark.parametrize(
    "statuses", [99, 600, 0, -1, True, "404", "", [], (), [404, "410"], [404, 600], 404.0, [None]]
)
def test_what_is_no_status_code_is_refused(statuses: Any) -> None:
    """Also one among others."""
    with pytest.raises(InvalidSettingError, match=r"^statuses: .*from 100 to 599"):
        CacheControl(max_age=5, statuses=statuses)


def test_a_view_s_own_statement_stays() -> None:
    """Whatever it says, even nothing; the names are those of HTTP, in any case."""
    value = CacheControl(max_age=60, cdn=CacheControl(max_age=600))
    for own in ("private", "no-store", "public, max-age=5", "", "x-unknown"):
        response = Response("x", headers={"cache-control": own})
        # A CDN reads its own field only: it must hear what the view has said.
        assert told(value.apply(response)) == (own, None)
        assert len(response.headers.getlist("Cache-Control")) == 1


def test_a_view_s_own_statement_to_cdns_stays_too() -> None:
    """And does not keep the others from being told."""
    value = CacheControl(max_age=60, cdn=CacheControl(max_age=600))
    response = Response("x", headers={"CDN-Cache-Control": "no-store"})
    assert told(value.apply(response)) == ("max-age=60", "no-store")


def test_cdns_are_told_for_statuses_of_their_own() -> None:
    """An error that browsers are not to store is not stored by the CDN that stores what succeeds."""
    split = CacheControl(no_store=True, cdn=CacheControl(max_age=600))
    assert told(split.apply(Response("x", 200))) == ("no-store", "max-age=600")
    assert told(split.apply(Response("x", 500))) == ("no-store", None)
    reverse = CacheControl(max_age=60, cdn=CacheControl(no_store=True))
    assert told(reverse.apply(Response("x", 200))) == ("max-age=60", "no-store")
    assert told(reverse.apply(Response("x", 500))) == (None, "no-store")
    stated = CacheControl(max_age=60, statuses=404, cdn=CacheControl(no_store=True))
    assert told(stated.apply(Response("x", 404))) == ("max-age=60", "no-store")
    assert told(stated.apply(Response("x", 500))) == (None, None)


@pytest.mark.parametrize(
    "cdn",
    [
        CacheControl(max_age=1, cdn=CacheControl(max_age=1)),
        CacheControl(max_age=1, etag=True),
        CacheControl(max_age=1, statuses=404),
        CacheControl(max_age=1, statuses=None),
        CacheControl(no_store=True, statuses=200),
        "max-age=60",
        60,
        True,
        CacheControl,
    ],
)
def test_a_cdn_is_told_directives_only(cdn: Any) -> None:
    """The rest belongs to the outer one."""
    with pytest.raises(InvalidSettingError, match=r"^cdn: "):
        CacheControl(max_age=60, cdn=cdn)


def test_it_applies_to_werkzeug_s_responses_too() -> None:
    """Quart answers with one for an HTTP error; the type of the response is kept."""
    response = WerkzeugResponse("x")
    assert CacheControl(max_age=60, etag=True).apply(response) is response
    assert told(response) == ("max-age=60", None)
    assert response.headers["ETag"] == str(entity_tag_of(b"x"))


# Entity tags


@pytest.fixture
def app() -> Quart:
    """A plain Quart application, for its contexts."""
    return Quart(__name__)


TAGGING = CacheControl(no_cache=True, etag=True)
TAG = str(entity_tag_of(b"text"))
OLD, NEW = "Tue, 14 Nov 2023 22:13:20 GMT", "Wed, 15 Nov 2023 22:13:20 GMT"


async def answered(
    app: Quart, asked: dict[str, str], response: Response | WerkzeugResponse, method: str = "GET"
) -> Response | WerkzeugResponse:
    """Returns a response as it is for a request with these fields."""
    async with cast(Any, app).test_request_context("/", method=method, headers=asked):
        return TAGGING.apply(response)


@pytest.mark.parametrize(
    ("asked", "own", "status"),
    [
        ({}, {}, 200),
        ({"If-None-Match": TAG}, {}, 304),
        ({"If-None-Match": f"W/{TAG}"}, {}, 304),
        ({"If-None-Match": f'"other", {TAG}'}, {}, 304),
        ({"If-None-Match": "*"}, {}, 304),
        ({"If-None-Match": '"other"'}, {}, 200),
        ({"If-None-Match": "nonsense"}, {}, 200),
        ({"If-None-Match": "", "If-Modified-Since": NEW}, {"Last-Modified": OLD}, 200),
        ({"If-None-Match": '"v1"'}, {"ETag": '"v1"'}, 304),
        ({"If-None-Match": '"v1"'}, {"ETag": 'W/"v1"'}, 304),
        ({"If-None-Match": TAG}, {"ETag": '"v1"'}, 200),
        ({"If-Modified-Since": NEW}, {}, 200),
        ({"If-Modified-Since": NEW}, {"Last-Modified": OLD}, 304),
        ({"If-Modified-Since": OLD}, {"Last-Modified": OLD}, 304),
        ({"If-Modified-Since": OLD}, {"Last-Modified": NEW}, 200),
        ({"If-Modified-Since": "nonsense"}, {"Last-Modified": OLD}, 200),
        # The tag is asked first, and then alone (RFC 9110 §13.1.3).
        ({"If-None-Match": '"other"', "If-Modified-Since": NEW}, {"Last-Modified": OLD}, 200),
        ({"If-None-Match": TAG, "If-Modified-Since": OLD}, {"Last-Modified": NEW}, 304),
    ],
)
@pytest.mark.parametrize(("method", "kind"), list(product(["GET", "HEAD"], [Response, WerkzeugResponse])))
async def test_a_client_that_has_it_gets_304(
    app: Quart, asked: dict[str, str], own: dict[str, str], status: int, method: str, kind: type[Response]
) -> None:
    """By the tag, else by the date; the 304 has the fields of the 200 but those of its body."""
    given_fields = {"Content-Language": "de", "Vary": "Accept", **own}
    response = await answered(app, asked, kind("text", headers=given_fields), method)
    assert response.status_code == status
    assert response.headers["ETag"] == own.get("ETag", TAG)
    assert response.headers["Cache-Control"] == "no-cache"
    assert response.headers["Vary"] == "Accept"
    data = response.get_data()
    body = data if isinstance(data, bytes) else await data
    if status == 304:
        assert "Content-Length" not in response.headers
        assert body in (b"", "")
    else:
        assert response.headers["Content-Length"] == "4"
        assert body == b"text"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_left_alone(app: Quart, method: str) -> None:
    """Their responses are not what a GET of the same URL would bring."""
    response = await answered(app, {"If-None-Match": "*"}, Response("text"), method)
    assert (response.status_code, "ETag" in response.headers) == (200, False)


@pytest.mark.parametrize("status", [201, 204, 206, 301, 304, 404, 500])
async def test_other_statuses_are_left_alone(app: Quart, status: int) -> None:
    """Only a 200 stands for the resource as a whole."""
    response = await answered(app, {"If-None-Match": "*"}, Response("text", status))
    assert (response.status_code, "ETag" in response.headers) == (status, False)


async def test_a_stream_is_left_without_a_tag(app: Quart) -> None:
    """Nobody knows its bytes before they are sent."""

    def chunks() -> Iterator[bytes]:
        yield b"text"

    for body in (IterableBody(chunks()), IterableBody([b"te", b"xt"])):
        response = await answered(app, {"If-None-Match": "*"}, Response(body))
        assert (response.status_code, "ETag" in response.headers) == (200, False)


async def test_a_head_without_its_body_is_left_without_a_tag(app: Quart) -> None:
    """The tag of no bytes would be another one than GET has."""
    response = await answered(app, {}, Response(""), "HEAD")
    assert "ETag" not in response.headers
    assert "ETag" in (await answered(app, {}, Response(""), "GET")).headers


async def test_a_digest_of_the_body_goes_with_it(app: Quart) -> None:
    """The content of a 304 is empty, and its digest would be another (RFC 9530 §2)."""
    own = {"Content-Digest": "sha-256=:x:", "Content-MD5": "x", "Repr-Digest": "sha-256=:x:"}
    response = await answered(app, {"If-None-Match": "*"}, Response("text", headers=own))
    assert response.status_code == 304
    assert {name for name in own if name in response.headers} == {"Repr-Digest"}


def test_without_a_request_there_is_a_tag_and_no_304() -> None:
    """As in a unit test of the application."""
    response = TAGGING.apply(Response("text"))
    assert (response.status_code, response.headers["ETag"]) == (200, TAG)
    assert "ETag" not in CacheControl(no_cache=True).apply(Response("text")).headers
