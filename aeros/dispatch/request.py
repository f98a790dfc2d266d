"""A request that makes what a view may ask of it only when it is asked."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from quart import wrappers
from quart.wrappers.request import Body
from werkzeug.datastructures import Headers

from aeros.http.fields import first_value
from aeros.types import RawHeaders, Scope

if TYPE_CHECKING:
    from quart import Quart

T = TypeVar("T")

_MOST_NAMES: Final = 1_000
_LONGEST_NAME: Final = 64


class ArrivedHeaders(Headers):
    """The fields of a request as they came; they become ``Headers`` when somebody looks at one.

    Args:
        raw: The fields, names in lower case.
        client: The client's address, which Quart keeps among them.
    """

    def __init__(self, raw: RawHeaders, client: str) -> None:
        self.raw = raw
        self._client = client

    def __getattr__(self, name: str) -> Any:
        if name != "_list":
            raise AttributeError(f"{Headers.__name__!r} object has no attribute {name!r}")
        return _read(self)

    # Each of these asks for the class before it asks for the fields; they go on as what this is then.

    def __getitem__(self, key: Any) -> Any:
        _read(self)
        return self[key]

    def __repr__(self) -> str:
        _read(self)
        return repr(self)

    def copy(self) -> Any:
        """Returns a copy."""
        _read(self)
        return self.copy()

    def get(self, key: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the value of a field, or what else was given; all of them need not be read for that."""
        if kwargs or len(args) > 1 or type(key) is not str or not key.isascii():
            _read(self)
            return self.get(key, *args, **kwargs)  # as what it is now
        name = key.lower()
        if name == "remote-addr":
            return self._client
        value = first_value(self.raw, name.encode("ascii"))
        if value is None:
            return args[0] if args else None
        return value.decode("latin-1")

    def __eq__(self, other: object) -> bool:
        _read(self)
        return self == other  # as what it is now

    __hash__: None


def _read(headers: ArrivedHeaders) -> list[tuple[str, str]]:
    """Reads all fields; from here on they are ``Headers``."""
    # Another thread may do so at the same time: both get the same list, and what each began goes on.
    arrived = headers.__dict__
    read = [("Remote-Addr", arrived["_client"])]
    read += [(_titled(name), value.decode("latin-1")) for name, value in arrived["raw"]]
    kept: list[tuple[str, str]] = arrived.setdefault("_list", read)
    # Nothing is left that differs.
    headers.__class__ = Headers  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    return kept


def _titled(name: bytes) -> str:
    return _remembered_title(name) if len(name) <= _LONGEST_NAME else name.decode("latin-1").title()


@lru_cache(_MOST_NAMES)
def _remembered_title(name: bytes) -> str:
    return name.decode("latin-1").title()


def first_field(request: wrappers.Request, name: bytes) -> str | None:
    """Returns the value of a request's field, without reading all of them; None where it is absent."""
    headers = request.headers
    if type(headers) is ArrivedHeaders:
        value = first_value(headers.raw, name)
        return None if value is None else value.decode("latin-1")
    return headers.get(name.decode("latin-1"))


class _Late(Generic[T]):
    """An attribute that is made when it is first read."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = name

    def __get__(self, request: Any, _owner: type) -> T:
        value = request.__dict__[self._name] = self._make(request)
        return value


def _make_body(request: Request) -> Body:
    body = request.body_class(request.content_length, request.__dict__.get("_longest_body"))
    if request.__dict__.get("_is_bodiless"):
        body.set_complete()
    return body


class Request(wrappers.Request):
    """Quart's request. What each has, and few look at, is made late: its fields, its body, its locks."""

    routing_exception: Exception | None = None
    if not TYPE_CHECKING:
        _form = None
        _files = None
        body = _Late(_make_body)
        _cached_json = _Late(lambda _request: {False: Ellipsis, True: Ellipsis})
        _parsing_lock = _Late(lambda request: request.lock_class())
        _send_push_promise = _Late(lambda request: request._push())

    @classmethod
    def arrived(
        cls, app: Quart, scope: Scope, path: str, push: Callable[[], Any], *, is_bodiless: bool
    ) -> Request:
        """Returns the request of an ASGI scope.

        Args:
            app: The application.
            scope: The scope.
            path: The path below the application's root.
            push: Makes what sends a push promise.
            is_bodiless: Whether it is known to have no body.
        """
        request = cls.__new__(cls)
        config = app.config
        method: str = scope["method"]
        client = scope.get("client")
        address = client[0] if client else "<local>"
        headers = ArrivedHeaders.__new__(ArrivedHeaders)
        headers.__dict__ = {"raw": scope["headers"], "_client": address}
        request.__dict__ = {
            "method": method if method.isupper() else method.upper(),
            "scheme": scope["scheme"],
            "server": scope.get("server"),
            "root_path": scope.get("root_path", "").rstrip("/"),
            "path": path if path[:1] == "/" and path[1:2] != "/" else "/" + path.lstrip("/"),
            "query_string": scope["query_string"],
            "headers": headers,
            "remote_addr": address,
            "http_version": scope["http_version"],
            "scope": scope,
            "body_timeout": config["BODY_TIMEOUT"],
            "_longest_body": config["MAX_CONTENT_LENGTH"],
            "_is_bodiless": is_bodiless,
            "_push": push,
        }
        return request

    if not TYPE_CHECKING:

        async def get_data(self, cache=True, as_text=False, parse_form_data=False):
            """Returns the body; one that is there already needs no timer that it might come too late."""
            body = self.body
            if parse_form_data or type(body) is not Body or not body._complete.is_set():
                return await super().get_data(cache, as_text, parse_form_data)
            data = await body
            if not cache:
                body.clear()
            return data.decode() if as_text else data

    @property
    def blueprints(self) -> list[str]:
        """The names of the current blueprints, the innermost first."""
        rule = self.url_rule
        if rule is None or "." not in rule.endpoint:
            return []
        return super().blueprints

    @property
    def has_files(self) -> bool:
        """Whether files were uploaded, which are closed at its end."""
        return cast(Any, self)._files is not None

    async def close(self) -> None:
        """Closes the files that were uploaded."""
        if self.has_files:
            await super().close()
