"""Decorators that change responses: which views they take, and what they leave as it was."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Coroutine
from functools import partial, wraps
from threading import get_ident
from typing import Any, ClassVar, cast

import pytest
from quart import Blueprint, Quart, Response, abort, after_this_request, request, websocket
from quart.typing import ResponseTypes
from quart.views import MethodView, View

from aeros.errors import InvalidSettingError
from aeros.views import changing_response, hooks_of_this_request, make_late_changes


def stamp(response: ResponseTypes) -> None:
    """Notes on the response that it was here, and when more than once."""
    response.headers.add("X-Stamp", str(response.status_code))


async def stamp_later(response: ResponseTypes) -> None:
    """Does so in an async function."""
    stamp(response)


stamped = changing_response(stamp, name="stamped")


@pytest.fixture
def app() -> Quart:
    """A plain Quart application."""
    return Quart(__name__)


async def asked(app: Quart, path: str = "/", method: str = "GET") -> tuple[int, list[str], bytes]:
    """Returns status, stamps and body of an answer."""
    response: Response = await cast(Any, app.test_client()).open(path, method=method)
    return response.status_code, response.headers.getlist("X-Stamp"), cast(bytes, await response.get_data())


@pytest.mark.parametrize("change", [stamp, stamp_later])
async def test_async_and_sync_views_are_changed(app: Quart, change: Callable[..., Any]) -> None:
    """By sync and async changes; a sync view does not block the event loop."""
    decorate = changing_response(change, name="stamped")
    own = get_ident()
    ran_in: list[int] = []

    @app.route("/async/<int:number>")
    @decorate
    async def view(number: int) -> tuple[dict[str, int], int]:
        return {"number": number}, 201

    @app.route("/sync/<int:number>")
    @decorate
    def sync_view(number: int) -> tuple[str, int]:
        ran_in.append(get_ident())
        return str(number), 202

    status, stamps, _ = await asked(app, "/async/5")
    assert (status, stamps) == (201, ["201"])
    assert await asked(app, "/sync/6") == (202, ["202"], b"6")
    assert own not in ran_in


async def test_other_callables_are_views_too(app: Quart) -> None:
    """Partial functions, functions that return an awaitable, and streams."""

    async def add(left: int, right: int) -> str:
        return str(left + right)

    def passed_on(right: int) -> Awaitable[str]:
        return add(3, right)

    async def stream() -> AsyncGenerator[bytes, None]:
        yield b"a"
        yield b"b"

    app.add_url_rule("/partial/<int:right>", "partial", stamped(partial(add, 2)))
    app.add_url_rule("/passed/<int:right>", "passed", stamped(passed_on))
    app.add_url_rule("/stream", "stream", stamped(stream))
    assert await asked(app, "/partial/5") == (200, ["200"], b"7")
    assert await asked(app, "/passed/5") == (200, ["200"], b"8")
    assert await asked(app, "/stream") == (200, ["200"], b"ab")


async def test_blueprints_and_class_based_views_are_changed(app: Quart) -> None:
    """In ``decorators``, on one method, and around what ``as_view`` returns."""

    class Decorated(MethodView):
        decorators: ClassVar[list[Callable[..., Any]]] = [stamped]

        async def get(self) -> str:
            return "get"

        def post(self) -> tuple[str, int]:
            return "post", 201

    class OneMethod(MethodView):
        @stamped
        async def get(self) -> str:
            return "get"

        async def post(self) -> str:
            return "post"

    class Plain(View):
        methods: ClassVar[Collection[str] | None] = ["PATCH"]

        async def dispatch_request(self, **kwargs: Any) -> str:
            return "plain"

    blueprint = Blueprint("part", __name__)
    blueprint.add_url_rule("/decorated", view_func=Decorated.as_view("decorated"))
    blueprint.add_url_rule("/one", view_func=OneMethod.as_view("one"))
    blueprint.add_url_rule("/around", view_func=stamped(Plain.as_view("around")))
    app.register_blueprint(blueprint)
    assert await asked(app, "/decorated") == (200, ["200"], b"get")
    assert await asked(app, "/decorated", "POST") == (201, ["201"], b"post")
    assert await asked(app, "/one") == (200, ["200"], b"get")
    assert await asked(app, "/one", "POST") == (200, [], b"post")
    # The methods of the class are an attribute of its view, which the decorator has taken over.
    assert await asked(app, "/around", "PATCH") == (200, ["200"], b"plain")
    assert (await asked(app, "/around"))[0] == 405


async def test_what_error_handlers_answer_is_changed(app: Quart) -> None:
    """Once for each decorator, and the error goes on to whoever waits for it outside."""
    passed: list[str] = []

    def watched(view: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
        @wraps(view)
        async def watching(*args: Any, **kwargs: Any) -> Any:
            try:
                return await view(*args, **kwargs)
            except Exception as error:
                passed.append(type(error).__name__)
                raise

        return watching

    @app.route("/abort")
    @watched
    @stamped
    async def missing() -> None:
        abort(404)

    @app.route("/teapot")
    @watched
    @stamped
    def teapot() -> None:
        raise LookupError

    @app.route("/bug")
    @watched
    @stamped
    async def bug() -> None:
        raise ZeroDivisionError

    @app.route("/wrong")
    @watched
    @stamped
    async def wrong() -> Any:
        return 5

    @app.errorhandler(LookupError)
    async def handle(_: Exception) -> tuple[str, int]:
        return "teapot", 418

    assert (await asked(app, "/abort"))[:2] == (404, ["404"])
    assert await asked(app, "/teapot") == (418, ["418"], b"teapot")
    assert (await asked(app, "/bug"))[:2] == (500, ["500"])
    assert (await asked(app, "/wrong"))[:2] == (500, ["500"])
    assert passed == ["NotFound", "LookupError", "ZeroDivisionError", "TypeError"]


async def test_a_view_that_catches_its_callee_s_error_is_changed_once_each(app: Quart) -> None:
    """The change that was left to the end is made on what the outer view answers."""

    @stamped
    async def inner() -> None:
        abort(404)

    @app.route("/")
    async def outer() -> str:
        with pytest.raises(Exception, match="404"):
            await inner()
        return "caught"

    assert await asked(app) == (200, ["200"], b"caught")


async def test_websockets_are_left_alone(app: Quart) -> None:
    """They have no response."""

    @app.websocket("/ws")
    @stamped
    async def echo() -> None:
        await websocket.send(await websocket.receive())

    async with cast(Any, app.test_client()).websocket("/ws") as connection:
        await connection.send("hello")
        assert await connection.receive() == "hello"


async def test_without_a_request_the_view_just_runs() -> None:
    """As in a unit test that calls it, with neither an application nor a loop of a server."""

    @stamped
    async def view(number: int) -> dict[str, int]:
        return {"number": number}

    @stamped
    def sync_view(number: int, *, half: bool = False) -> float:
        return number / 2 if half else number

    assert await view(5) == {"number": 5}
    assert await sync_view(5, half=True) == 2.5


async def test_none_is_left_to_who_stands_above(app: Quart) -> None:
    """For the cache it is an empty response, for Quart a mistake."""
    seen: list[object] = []

    @stamped
    async def nothing() -> object:
        return None

    @app.route("/")
    async def view() -> str:
        seen.append(await nothing())
        return "x"

    assert await asked(app) == (200, [], b"x")
    assert seen == [None]


async def test_the_application_s_own_way_to_run_sync_views_is_used() -> None:
    """A subclass that overrides it is asked, as Quart asks it."""

    class Inline(Quart):
        def sync_to_async(self, func: Callable[..., Any]) -> Callable[..., Any]:
            async def run(*args: Any, **kwargs: Any) -> Any:
                return func(*args, **kwargs)

            return run

    app = Inline(__name__)
    ran_in: list[int] = []

    @app.route("/")
    @stamped
    def view() -> str:
        ran_in.append(get_ident())
        return request.path

    assert await asked(app) == (200, ["200"], b"/")
    assert ran_in == [get_ident()]


def test_name_docstring_signature_and_attributes_are_the_view_s() -> None:
    """Tools that look at views see what they would have seen."""

    def view(number: int, *, draft: bool = False) -> str:
        """Shows a page."""
        return f"{number}{draft}"

    cast(Any, view).mark = "seen"
    decorated = stamped(view)
    assert decorated.__name__ == "view"
    assert decorated.__doc__ == "Shows a page."
    assert inspect.signature(decorated) == inspect.signature(view)
    assert inspect.iscoroutinefunction(decorated)
    assert cast(Any, decorated).mark == "seen"


@pytest.mark.parametrize("view", [5, None, "x", MethodView, Response("x")])
def test_what_is_no_function_is_refused_by_name(view: Any) -> None:
    """When it is decorated, not when it is asked for."""
    with pytest.raises(InvalidSettingError, match=r"^stamped: ") as caught:
        stamped(view)
    assert caught.value.value is view


async def test_late_changes_are_made_once_and_only_where_nothing_else_waits(app: Quart) -> None:
    """Others' hooks must run at the end of the request, so nothing is done before them."""

    async def own(response: ResponseTypes) -> ResponseTypes:
        return response

    @stamped
    async def failing() -> None:
        abort(404)

    async with cast(Any, app).test_request_context("/"):
        after_this_request(own)
        with pytest.raises(Exception, match="404"):
            await failing()
        response = Response("x")
        assert await make_late_changes(response, since=1)
        assert response.headers.getlist("X-Stamp") == ["200"]
        assert hooks_of_this_request() == [own]
        with pytest.raises(Exception, match="404"):
            await failing()
        after_this_request(own)
        assert not await make_late_changes(response, since=1)
        assert response.headers.getlist("X-Stamp") == ["200"]
        assert len(hooks_of_this_request()) == 3
        assert await make_late_changes(response, since=3)
