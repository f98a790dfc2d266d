"""What browsers and CDNs are told: Cache-Control, CDN-Cache-Control and entity tags, for views and hooks.

Other than the cache of this application, theirs can not be emptied from here: what is said once
counts until it lapses. So what can not be meant is refused when it is written down.
"""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Never, ParamSpec, TypeGuard, TypeVar, cast, overload

from quart import current_app, has_request_context
from quart.globals import request_ctx
from quart.typing import ResponseTypes
from quart.wrappers import Request
from werkzeug.datastructures import Headers

from aeros.caching.rules import Timeout, check_flag
from aeros.caching.view import whole_body
from aeros.errors import InvalidSettingError
from aeros.exchange import exchange_of
from aeros.http.cache_control import ResponseDirectives, find_contradiction, render_response_directives
from aeros.http.etag import entity_tag_of, is_not_modified, parse_entity_tag
from aeros.http.fields import GREATEST_DELTA_SECONDS
from aeros.settings import UNSET, Unset
from aeros.views import changed_view

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R", bound=ResponseTypes)

_NAME: Final = "CacheControl"
_FIELD: Final = "Cache-Control"
_CDN_FIELD: Final = "CDN-Cache-Control"

_STORABLE_STATUSES: Final = frozenset({200, 203, 204, 206, 301, 304, 308})
"""Those that stand for success, or for good. An error that lapses in a minute should not be kept longer."""

_PARTS_OF_SUCCESS: Final = frozenset({206, 304})
"""What a 200 may turn into has the fields that it would have (RFC 9110 §15.3.7, §15.4.5)."""

# Of the body, which a 304 has not. Content-Type stays, as Quart leaves it: by it is known whether
# the response may be compressed, and so whether Vary is to name Accept-Encoding on the 304, too.
_OF_BODY: Final = ("Content-Length", "Content-Digest", "Content-MD5")

# From here on making a tag takes a millisecond, for which no other request should wait.
_LARGE_BODY: Final = 2**20

_ONE_YEAR: Final = timedelta(days=365)


@dataclass(frozen=True, slots=True, init=False, repr=False)
class CacheControl:
    """What clients and the caches before this application may do with a response.

    It is a decorator for views of any Quart application, and ``apply`` is a hook::

        @app.route("/prices")
        @CacheControl(public=True, max_age=60, stale_while_revalidate=30)
        async def prices() -> dict[str, float]: ...

    A Cache-Control that the view itself has set stays, and then CDN-Cache-Control is not added
    either, because a CDN would obey it instead. What Quart's ``send_file()`` writes on every file,
    by ``SEND_FILE_MAX_AGE_DEFAULT``, gives way to a decorator, and stays for a hook.

    ``str`` of it is the value of Cache-Control, always in the order of the arguments.

    Args:
        public: Any cache may store it, even for a request with ``Authorization``.
        private: Only a browser may store it.
        no_cache: Stored or not, it is validated before each use.
        no_store: No cache may store it.
        must_understand: Caches that know the status code ignore ``no_store``, which goes with it.
        max_age: How long it is fresh: whole seconds or a ``timedelta``.
        s_maxage: How long it is fresh in shared caches.
        immutable: It does not change while it is fresh, so reloading asks for nothing (RFC 8246).
        stale_while_revalidate: How long after that it may be used while a new one is fetched (RFC 5861).
        stale_if_error: How long after that it may be used where a new one can not be had (RFC 5861).
        must_revalidate: It is never used stale.
        proxy_revalidate: Shared caches never use it stale.
        no_transform: Nobody on the way may change the content; aeros does not compress it either.
        statuses: The status codes of the responses that it is for; None: every one. Not given:
            200, 203, 204, 206, 301, 304 and 308, but every one for a field that forbids storing.
            200 brings 206 and 304 with it.
        cdn: What CDNs are told instead, in CDN-Cache-Control (RFC 9213).
        etag: Whether a 200 to GET or HEAD gets an entity tag made of its body, unless it has one or
            is a stream, and a client that has this very response gets 304 (RFC 9110 §13).

    Attributes:
        directives: What Cache-Control states.
        statuses: The status codes of the responses that get Cache-Control; None: every one.
        cdn: What CDNs are told instead.
        etag: Whether responses get an entity tag.

    Raises:
        InvalidSettingError: A value does not fit, two contradict each other, or nothing is stated.
    """

    directives: ResponseDirectives
    statuses: frozenset[int] | None
    cdn: CacheControl | None
    etag: bool
    _cdn_statuses: frozenset[int] | None
    _value: str = field(compare=False)
    _cdn_value: str = field(compare=False)

    def __init__(
        self,
        *views: Never,
        public: bool = False,
        private: bool = False,
        no_cache: bool = False,
        no_store: bool = False,
        must_understand: bool = False,
        max_age: Timeout | None = None,
        s_maxage: Timeout | None = None,
        immutable: bool = False,
        stale_while_revalidate: Timeout | None = None,
        stale_if_error: Timeout | None = None,
        must_revalidate: bool = False,
        proxy_revalidate: bool = False,
        no_transform: bool = False,
        statuses: int | Iterable[int] | Unset | None = UNSET,
        cdn: CacheControl | None = None,
        etag: bool = False,
    ) -> None:
        if views:
            raise InvalidSettingError(
                _NAME, views[0], "directives by name, such as @CacheControl(max_age=60)"
            )
        directives = ResponseDirectives(
            public=_flag("public", public),
            private=_flag("private", private),
            no_cache=_flag("no_cache", no_cache),
            no_store=_flag("no_store", no_store),
            must_understand=_flag("must_understand", must_understand),
            max_age=_whole_seconds("max_age", max_age),
            s_maxage=_whole_seconds("s_maxage", s_maxage),
            immutable=_flag("immutable", immutable),
            stale_while_revalidate=_whole_seconds("stale_while_revalidate", stale_while_revalidate),
            stale_if_error=_whole_seconds("stale_if_error", stale_if_error),
            must_revalidate=_flag("must_revalidate", must_revalidate),
            proxy_revalidate=_flag("proxy_revalidate", proxy_revalidate),
            no_transform=_flag("no_transform", no_transform),
        )
        _check_directives(directives)
        _check_cdn(cdn)
        # Each field has its own usual ones: an error that browsers are not to store must not
        # be stored by a CDN that stores what succeeds.
        if isinstance(statuses, Unset):
            own = _usual_statuses(directives)
            cdn_statuses = own if cdn is None else cdn.statuses
        else:
            own = cdn_statuses = _checked_statuses(statuses)
        # In a class that is frozen, this is how its own constructor writes.
        write = object.__setattr__
        write(self, "directives", directives)
        write(self, "statuses", own)
        write(self, "cdn", cdn)
        write(self, "etag", _flag("etag", etag))
        write(self, "_value", render_response_directives(directives))
        write(self, "_cdn_value", "" if cdn is None else str(cdn))
        write(self, "_cdn_statuses", cdn_statuses)

    def __str__(self) -> str:
        return self._value

    def __repr__(self) -> str:
        told = f", cdn={self._cdn_value!r}" if self.cdn is not None else ""
        return f"<CacheControl {self._value!r}{told}>"

    @overload
    def __call__(self, view: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __call__(self, view: Callable[P, Awaitable[T] | T]) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __call__(self, view: Callable[..., Any]) -> Callable[..., Any]:
        """Returns ``view`` with this said of its responses, also of what error handlers answer for it.

        Below ``@app.cache()`` it is stored with the response, and is its lifetime where the route
        has no ``timeout``. Above it, it is said of hits as well.

        Raises:
            InvalidSettingError: It is no function.
        """
        return changed_view(view, self._change, name=_NAME)

    def apply(self, response: R) -> R:
        """Says this of ``response``, and returns it: for ``app.after_request(CacheControl(...).apply)``.

        Quart runs a hook that is not async in a thread; calling this in an ``async def`` spares that.
        """
        headers = response.headers
        # What stands nearer to the view knows better. Who forbids there what a CDN is allowed here
        # must be heard by the CDN, which would look at its own field only (RFC 9213 §2.2).
        if _FIELD not in headers:
            if self.cdn is not None and _CDN_FIELD not in headers and _has(self._cdn_statuses, response):
                headers[_CDN_FIELD] = self._cdn_value
            if _has(self.statuses, response):
                headers[_FIELD] = self._value
        if self.etag:
            _tag(response)
        return response

    def _change(self, response: ResponseTypes) -> Awaitable[None] | None:
        if _has(self.statuses, response):
            _drop_default_of_files(response.headers)
        size: int | None = cast(Any, response).content_length  # partly typed
        if self.etag and size is not None and size >= _LARGE_BODY:
            return self._change_large(response)
        self.apply(response)
        return None

    async def _change_large(self, response: ResponseTypes) -> None:
        await to_thread(self.apply, response)


def _flag(name: str, value: bool) -> bool:
    check_flag(name, value)
    return value


def _whole_seconds(name: str, value: object) -> int | None:
    """Returns what RFC 9111 §1.2.2 calls delta-seconds; None for None."""
    if value is None:
        return None
    seconds: object = value.total_seconds() if isinstance(value, timedelta) else value
    # A comparison with NaN is false, so int() never sees it.
    if (
        isinstance(seconds, int | float)
        and not isinstance(seconds, bool)
        and 0 <= seconds <= GREATEST_DELTA_SECONDS
        and seconds == int(seconds)
    ):
        return int(seconds)
    expected = f"whole seconds from 0 to {GREATEST_DELTA_SECONDS}, a timedelta of such, or None"
    raise InvalidSettingError(name, value, expected)


def _check_directives(directives: ResponseDirectives) -> None:
    found = find_contradiction(directives)
    if found is not None:
        raise InvalidSettingError(found.directive, getattr(directives, found.directive), found.cure)
    if directives == ResponseDirectives():
        raise InvalidSettingError(_NAME, None, "at least one directive, such as max_age=60 or no_store=True")


def _check_cdn(cdn: object) -> None:
    if cdn is None:
        return
    if not isinstance(cdn, CacheControl):
        raise InvalidSettingError("cdn", cdn, "CacheControl(...), or None")
    if cdn.cdn is not None or cdn.etag or cdn.statuses != _usual_statuses(cdn.directives):
        raise InvalidSettingError(
            "cdn", cdn, "directives only: cdn, etag and statuses belong to the outer CacheControl"
        )


def _usual_statuses(directives: ResponseDirectives) -> frozenset[int] | None:
    forbids_storing = directives.no_store and not directives.must_understand
    return None if forbids_storing else _STORABLE_STATUSES


def _checked_statuses(value: int | Iterable[int] | None) -> frozenset[int] | None:
    if value is None:
        return None
    listed: list[object] = list(value) if isinstance(value, Iterable) else [value]
    codes = frozenset(int(code) for code in listed if _is_status(code))
    if not codes or not all(map(_is_status, listed)):
        raise InvalidSettingError("statuses", value, "status codes from 100 to 599, or None for every one")
    return codes | _PARTS_OF_SUCCESS if 200 in codes else codes


def _is_status(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599


def _has(statuses: frozenset[int] | None, response: ResponseTypes) -> bool:
    return statuses is None or response.status_code in statuses


def _drop_default_of_files(headers: Headers) -> None:
    """Takes off what Quart's ``send_file()`` writes where the view has said nothing."""
    stated = headers.getlist(_FIELD)
    if stated == ["public"]:
        del headers[_FIELD]
    elif stated and "Last-Modified" in headers and "Expires" in headers:
        # Not get_send_file_max_age(): one that an application overrides is its own word on a file.
        default = cast("timedelta | int | None", current_app.config["SEND_FILE_MAX_AGE_DEFAULT"])
        seconds = int(default.total_seconds()) if isinstance(default, timedelta) else default
        if stated == [f"public, max-age={seconds}"]:
            del headers[_FIELD]
            del headers["Expires"]


def _tag(response: ResponseTypes) -> None:
    """Gives a response the tag of its body, and makes it a 304 where the client has it."""
    if response.status_code != 200:
        return
    asked = request_ctx.request if has_request_context() else None
    method = "GET" if asked is None else asked.method
    body = whole_body(response) if method in ("GET", "HEAD") else None
    # To HEAD a view may answer without the body that it has for GET: of that nothing is known.
    if body is None or (method == "HEAD" and not body):
        return
    headers = response.headers
    if "ETag" not in headers:
        headers["ETag"] = str(entity_tag_of(body))
    if asked is not None and _is_known_to_client(asked, headers) and not _is_compared_later(asked):
        response.status_code = 304
        response.set_data(b"")
        for name in _OF_BODY:
            headers.pop(name, None)


def _is_known_to_client(asked: Request, headers: Headers) -> bool:
    tags = asked.headers.getlist("If-None-Match")
    if_none_match = ", ".join(tags) if tags else None
    if_modified_since = asked.headers.get("If-Modified-Since")
    if if_none_match is None and if_modified_since is None:
        return False
    return is_not_modified(
        if_none_match=if_none_match,
        if_modified_since=if_modified_since,
        etag=parse_entity_tag(headers.get("ETag", "")),
        last_modified=headers.get("Last-Modified"),
    )


def _is_compared_later(asked: Request) -> bool:
    """Tells whether aeros compares the tags when the response goes out, as it does on cached routes.

    The view of one makes the response that is stored, for whoever it runs: it must be whole.
    """
    exchange = exchange_of(asked.scope)
    return exchange is not None and exchange.transaction is not None


no_store: Final = CacheControl(no_store=True)
"""No cache may store it, whatever its status."""

immutable: Final = CacheControl(public=True, max_age=_ONE_YEAR, immutable=True)
"""Any cache may keep it for a year: for what gets another URL when it changes."""
