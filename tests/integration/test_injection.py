"""``inject()`` wherever an application calls a function, on real sockets."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ClassVar, TypeVar, cast

import httpx
import pytest
from dependency_injector import containers, providers
from quart import Blueprint, abort, after_this_request, render_template_string, websocket
from quart.typing import ResponseTypes
from quart.views import MethodView, View
from websockets.sync.client import connect
from werkzeug.exceptions import HTTPException

from aeros import CacheControl, Container, InvalidSettingError, WebServer, inject
from aeros.errors import NotInjectedError, UnknownProviderError
from aeros.testing import override
from tests.integration.conftest import eventually

ViewT = TypeVar("ViewT", bound=Callable[..., Any])


class Users:
    """A collaborator that knows its name, and how often one was made."""

    made = 0

    def __init__(self, name: str = "ada") -> None:
        self.name = name
        type(self).made += 1


@pytest.fixture(autouse=True)
def none_made() -> None:
    """Each test counts from zero."""
    Users.made = 0


class Inner(containers.DeclarativeContainer):
    users = providers.Factory(Users, "inner")


class Middle(containers.DeclarativeContainer):
    inner = providers.Container(Inner)


class AppContainer(Container):
    users: providers.Provider[Users] = providers.Factory(Users)
    middle = providers.Container(Middle)


class OtherContainer(AppContainer):
    users = providers.Factory(Users, "other")


def shop(container: AppContainer | None = None) -> WebServer[AppContainer]:
    """An application with a container of its own."""
    return WebServer(__name__, container=container or AppContainer())


@contextmanager
def serving(app: WebServer[Any]) -> Generator[httpx.Client]:
    """A client of the running application."""
    with app.run_in_thread() as server, httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


@contextmanager
def talking(app: WebServer[Any], path: str) -> Generator[Callable[[], str]]:
    """A websocket of the running application; the function returns what it says next."""
    with app.run_in_thread() as server:
        url = f"ws://{server.host}:{server.port}{path}"
        with connect(url) as socket:
            yield lambda: str(socket.recv(30))


async def name_of(users: Users = inject(AppContainer.users)) -> str:
    """A view."""
    return users.name


def sync_name_of(users: Users = inject(AppContainer.users)) -> str:
    """A sync view."""
    return users.name


# Views


class NameView(View):
    """A class-based view with one method for all."""

    async def dispatch_request(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, users: Users = inject(AppContainer.users)
    ) -> str:
        """Answers."""
        return users.name


class NameMethods(MethodView):
    """A class-based view with a method for each method."""

    async def get(self, number: int, users: Users = inject(AppContainer.users)) -> str:
        """Answers GET."""
        return f"{users.name} {number}"

    def post(self, number: int, users: Users = inject(AppContainer.users)) -> str:
        """Answers POST."""
        return f"{users.name} {number} posted"


def test_views_get_what_they_inject() -> None:
    """Async and sync, with arguments of the URL, in blueprints within blueprints, and in classes."""
    app = shop()
    app.route("/async")(name_of)
    app.route("/sync")(sync_name_of)

    @app.route("/pages/<int:number>")
    async def page(number: int, *, users: Users = inject(AppContainer.users)) -> dict[str, object]:
        return {"number": number, "name": users.name}

    app.add_url_rule("/view", view_func=NameView.as_view("view"))
    app.add_url_rule("/methods/<int:number>", view_func=NameMethods.as_view("methods"))
    outer, inner = Blueprint("outer", __name__), Blueprint("inner", __name__)
    outer.add_url_rule("/async", "name", name_of)
    inner.add_url_rule("/sync", "name", sync_name_of)
    outer.register_blueprint(inner, url_prefix="/inner")
    app.register_blueprint(outer, url_prefix="/outer")
    app.add_url_rule("/endpoint", "named")
    app.endpoint("named")(name_of)
    with serving(app) as client:
        for path in ("/async", "/sync", "/view", "/outer/async", "/outer/inner/sync", "/endpoint"):
            assert client.get(path).text == "ada", path
        assert client.get("/pages/3").json() == {"number": 3, "name": "ada"}
        assert client.get("/methods/3").text == "ada 3"
        assert client.post("/methods/3").text == "ada 3 posted"
        assert client.head("/methods/3").status_code == 200


def test_a_sync_view_runs_in_a_thread_with_values_that_were_resolved_outside() -> None:
    """The loop is not blocked by the view, and an async value is had by a sync one."""
    threads: list[threading.Thread] = []

    async def found() -> Users:
        threads.append(threading.current_thread())
        return Users("async")

    class AsyncContainer(AppContainer):
        users = cast("providers.Provider[Users]", providers.Coroutine(found))

    app = shop(AsyncContainer())

    @app.route("/")
    def view(users: Users = inject(AsyncContainer.users)) -> str:
        threads.append(threading.current_thread())
        return users.name

    with serving(app) as client:
        assert client.get("/").text == "async"
    assert threads[0] is not threads[1]


def test_websockets_get_what_they_inject() -> None:
    """The view, and what runs around it."""
    app = shop()
    said: list[str] = []
    over = threading.Event()

    @app.before_websocket
    async def before(users: Users = inject(AppContainer.users)) -> None:
        said.append(f"before {users.name}")

    @app.websocket("/ws/<int:number>")
    async def view(number: int, users: Users = inject(AppContainer.users)) -> None:
        await websocket.send(f"{users.name} {number}")

    @app.after_websocket
    async def after(
        response: ResponseTypes | None, users: Users = inject(AppContainer.users)
    ) -> ResponseTypes | None:
        said.append(f"after {users.name}")
        return response

    @app.teardown_websocket
    async def teardown(error: BaseException | None, users: Users = inject(AppContainer.users)) -> None:
        said.append(f"teardown {users.name}")
        over.set()

    with talking(app, "/ws/3") as listen:
        assert listen() == "ada 3"
        assert over.wait(30)
    assert said == ["before ada", "after ada", "teardown ada"]


def test_websockets_of_blueprints_get_what_they_inject() -> None:
    """Their hooks as well."""
    app = shop()
    said: list[str] = []
    rooms = Blueprint("rooms", __name__)

    @rooms.before_websocket
    async def before(users: Users = inject(AppContainer.users)) -> None:
        said.append(f"before {users.name}")

    @rooms.websocket("/ws")
    async def view(users: Users = inject(AppContainer.users)) -> None:
        await websocket.send(users.name)

    app.register_blueprint(rooms)
    with talking(app, "/ws") as listen:
        assert listen() == "ada"
    assert said == ["before ada"]


# What runs around views


def test_hooks_get_what_they_inject() -> None:
    """Of the application and of blueprints, sync and async; with the arguments that Quart gives them."""
    app = shop()
    said: list[str] = []
    pages = Blueprint("pages", __name__)
    app.route("/")(name_of)
    pages.add_url_rule("/pages", "page", name_of)

    def register(where: WebServer[AppContainer] | Blueprint, name: str) -> None:
        @where.before_request
        async def before(users: Users = inject(AppContainer.users)) -> None:
            said.append(f"{name} before {users.name}")

        @where.before_request
        def sync_before(users: Users = inject(AppContainer.users)) -> None:
            said.append(f"{name} sync before {users.name}")

        @where.after_request
        async def after(response: ResponseTypes, users: Users = inject(AppContainer.users)) -> ResponseTypes:
            said.append(f"{name} after {response.status_code} {users.name}")
            return response

        @where.teardown_request
        async def teardown(error: BaseException | None, users: Users = inject(AppContainer.users)) -> None:
            said.append(f"{name} teardown {users.name}")

    register(app, "app")
    register(pages, "pages")

    @pages.before_app_request
    async def before_all(users: Users = inject(AppContainer.users)) -> None:
        said.append(f"all before {users.name}")

    @app.teardown_appcontext
    async def teardown(error: BaseException | None, users: Users = inject(AppContainer.users)) -> None:
        said.append(f"context {users.name}")

    app.register_blueprint(pages)
    with serving(app) as client:
        said.clear()  # the context of the start
        client.get("/")
        eventually(lambda: said and said[-1] == "context ada")
        assert said == [
            "app before ada",
            "app sync before ada",
            "all before ada",
            "app after 200 ada",
            "app teardown ada",
            "context ada",
        ]
        said.clear()
        client.get("/pages")
        eventually(lambda: said and said[-1] == "context ada")
        assert {"pages before ada", "pages after 200 ada", "pages teardown ada"} <= set(said)


def test_a_hook_of_one_response_gets_what_it_injects() -> None:
    """``after_this_request`` is read when it is called."""
    app = shop()

    @app.route("/")
    async def view() -> str:
        async def after(response: ResponseTypes, users: Users = inject(AppContainer.users)) -> ResponseTypes:
            response.headers["X-User"] = users.name
            return response

        after_this_request(after)
        return ""

    with serving(app) as client:
        assert client.get("/").headers["x-user"] == "ada"


def test_error_handlers_get_what_they_inject() -> None:
    """By code and by class, of the application and of a blueprint, and the one for what nobody handles."""
    app = shop()
    pages = Blueprint("pages", __name__)

    @app.route("/boom")
    async def boom() -> str:
        raise ValueError("boom")

    @app.route("/lost")
    async def lost() -> str:
        raise LookupError("lost")

    @pages.route("/gone")
    async def gone() -> str:
        abort(410)

    @app.errorhandler(ValueError)
    async def on_value(error: ValueError, users: Users = inject(AppContainer.users)) -> str:
        return f"{error} {users.name}"

    @app.errorhandler(404)
    def on_missing(error: HTTPException, users: Users = inject(AppContainer.users)) -> tuple[str, int]:
        return f"missing {users.name}", 404

    @app.errorhandler(500)
    async def on_failure(error: HTTPException, users: Users = inject(AppContainer.users)) -> tuple[str, int]:
        return f"failed {users.name}", 500

    @pages.errorhandler(410)
    async def on_gone(error: HTTPException, users: Users = inject(AppContainer.users)) -> tuple[str, int]:
        return f"gone {users.name}", 410

    app.register_blueprint(pages)
    with serving(app) as client:
        assert client.get("/boom").text == "boom ada"
        assert client.get("/nothing").text == "missing ada"
        assert client.get("/gone").text == "gone ada"
        assert client.get("/lost").text == "failed ada"


def test_what_runs_around_serving_gets_what_it_injects() -> None:
    """Before, while and after; a generator asks for its values when it starts, not when it is registered."""
    app = shop()
    said: list[str] = []

    @app.before_serving
    async def before(users: Users = inject(AppContainer.users)) -> None:
        said.append(f"before {users.name}")

    @app.while_serving
    async def while_(users: Users = inject(AppContainer.users)) -> AsyncGenerator[None]:
        said.append(f"begin {users.name}")
        yield
        said.append(f"end {users.name}")

    @app.after_serving
    def after(users: Users = inject(AppContainer.users)) -> None:
        said.append(f"after {users.name}")

    assert Users.made == 0
    with override(app.container.users, Users("grace")), serving(app):
        assert said == ["before grace", "begin grace"]
    assert said[2:] == ["end grace", "after grace"]


def test_what_a_blueprint_runs_around_serving_gets_what_it_injects() -> None:
    """It is the application that calls it."""
    app = shop()
    said: list[str] = []
    pages = Blueprint("pages", __name__)

    @pages.before_app_serving
    async def before(users: Users = inject(AppContainer.users)) -> None:
        said.append(f"before {users.name}")

    @pages.while_app_serving
    async def while_(users: Users = inject(AppContainer.users)) -> AsyncGenerator[None]:
        said.append(f"begin {users.name}")
        yield

    app.register_blueprint(pages)
    with serving(app):
        assert said == ["before ada", "begin ada"]


def test_background_tasks_get_what_they_inject() -> None:
    """Async and sync, with the arguments that the view gives."""
    app = shop()
    said: list[str] = []

    async def job(number: int, *, loud: bool, users: Users = inject(AppContainer.users)) -> None:
        said.append(f"{number} {loud} {users.name}")

    def sync_job(users: Users = inject(AppContainer.users)) -> None:
        said.append(f"sync {users.name}")

    @app.route("/")
    async def view() -> str:
        app.add_background_task(job, 3, loud=True)
        app.add_background_task(sync_job)
        return "begun"

    with serving(app) as client:
        assert client.get("/").text == "begun"
        eventually(lambda: len(said) == 2)
    assert sorted(said) == ["3 True ada", "sync ada"]


def test_templates_get_variables_that_are_injected() -> None:
    """Context processors of the application and of a blueprint."""
    app = shop()
    pages = Blueprint("pages", __name__)

    @app.context_processor
    async def names(users: Users = inject(AppContainer.users)) -> dict[str, Any]:
        return {"name": users.name}

    @pages.app_context_processor
    def more(users: Users = inject(AppContainer.users)) -> dict[str, Any]:
        return {"again": users.name}

    @app.route("/")
    async def view() -> str:
        return await render_template_string("{{ name }} {{ again }}")

    app.register_blueprint(pages)
    with serving(app) as client:
        assert client.get("/").text == "ada ada"


# With the cache


def test_a_hit_resolves_nothing() -> None:
    """What only the view needs is made when the view runs."""
    app = shop()

    @app.route("/<int:number>")
    @app.cache(timeout=60)
    async def view(number: int, users: Users = inject(AppContainer.users)) -> str:
        return f"{users.name} {number}"

    with serving(app) as client:
        assert [client.get("/3").text for _ in range(3)] == ["ada 3"] * 3
        assert Users.made == 1
        assert client.get("/4").text == "ada 4"
        assert Users.made == 2


def passing(view: ViewT) -> ViewT:
    """A decorator that changes nothing, as they are written everywhere."""

    @wraps(view)
    async def call(*args: Any, **kwargs: Any) -> Any:
        result = view(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    return cast(ViewT, call)


@pytest.mark.parametrize("order", ["alone", "below", "above", "both", "told below", "told above"])
@pytest.mark.parametrize("is_async", [True, False])
def test_cached_views_are_injected_once_among_other_decorators(order: str, *, is_async: bool) -> None:
    """Whatever stands above or below the cache: the value is made once, and a hit makes none."""
    app = shop()

    async def view(number: int, users: Users = inject(AppContainer.users)) -> str:
        return f"{users.name} {number}"

    def sync_view(number: int, users: Users = inject(AppContainer.users)) -> str:
        return f"{users.name} {number}"

    cached, told = app.cache(timeout=60), CacheControl(max_age=60)
    decorators: dict[str, list[Callable[[Any], Any]]] = {
        "alone": [cached],
        "below": [passing, cached],
        "above": [cached, passing],
        "both": [passing, cached, passing],
        "told below": [told, cached],
        "told above": [cached, told],
    }
    decorated: Callable[..., Any] = view if is_async else sync_view
    for decorate in decorators[order]:
        decorated = decorate(decorated)
    app.add_url_rule("/<int:number>", view_func=decorated)
    with serving(app) as client:
        assert [client.get("/3").text for _ in range(2)] == ["ada 3"] * 2
        assert Users.made == 1


def test_cached_methods_of_class_based_views_are_injected() -> None:
    """The decorator is made before the class is."""
    app = shop()

    class Cached(MethodView):
        @app.cache(timeout=60)
        async def get(self, number: int, users: Users = inject(AppContainer.users)) -> str:
            return f"{users.name} {number}"

    class Decorated(MethodView):
        decorators: ClassVar[list[Callable[..., Any]]] = [app.cache(timeout=60)]

        async def get(self, number: int, users: Users = inject(AppContainer.users)) -> str:
            return f"{users.name} {number}"

    app.add_url_rule("/cached/<int:number>", view_func=Cached.as_view("cached"))
    app.add_url_rule("/decorated/<int:number>", view_func=Decorated.as_view("decorated"))
    with serving(app) as client:
        for path in ("/cached/3", "/decorated/3"):
            Users.made = 0
            assert [client.get(path).text for _ in range(2)] == ["ada 3"] * 2
            assert Users.made == 1


def test_a_view_that_invalidates_is_injected() -> None:
    """Its tags are made of the view's arguments, without those that are injected."""
    app = shop()
    runs: list[int] = []

    @app.route("/<int:number>")
    @app.cache(timeout=60, tags=lambda number: f"page:{number}")
    async def read(number: int, users: Users = inject(AppContainer.users)) -> str:
        runs.append(number)
        return users.name

    @app.route("/write/<int:number>", methods=["POST"])
    @app.invalidates(tags=lambda number: f"page:{number}")
    async def write(number: int, users: Users = inject(AppContainer.users)) -> str:
        return f"{users.name} wrote {number}"

    with serving(app) as client:
        assert [client.get(f"/{number}").text for number in (1, 2, 1, 2)] == ["ada"] * 4
        assert client.post("/write/1").text == "ada wrote 1"
        assert [client.get(f"/{number}").text for number in (1, 2)] == ["ada"] * 2
    assert runs == [1, 2, 1]


@pytest.mark.parametrize("is_async", [True, False])
def test_the_callables_of_the_cache_get_what_they_inject(*, is_async: bool) -> None:
    """They are asked at each request, with what the container gives then."""
    app = shop()
    asked: list[str] = []

    def made(name: str, answer: Callable[[Users], object]) -> Callable[..., Any]:
        async def ask(*_: object, users: Users = inject(AppContainer.users)) -> object:
            asked.append(f"{name} {users.name}")
            return answer(users)

        def sync_ask(*_: object, users: Users = inject(AppContainer.users)) -> object:
            asked.append(f"{name} {users.name}")
            return answer(users)

        return ask if is_async else sync_ask

    @app.route("/")
    @app.cache(
        timeout=60,
        unless=made("unless", lambda users: users.name == "nobody"),
        forced_update=made("forced", lambda users: users.name == "admin"),
        key=made("key", lambda users: users.name),
        response_filter=made("filter", lambda users: users.name != "guest"),
    )
    async def view() -> str:
        asked.append("view")
        return "page"

    with serving(app) as client:

        def get(name: str) -> tuple[list[str], str]:
            asked.clear()
            with override(app.container.users, Users(name)):
                response = client.get("/")
            return [line.partition(" ")[0] for line in asked], response.headers["cache-status"]

        before = ["unless", "forced", "key"]
        names, status = get("ada")
        assert names == [*before, "view", "filter"]
        assert "stored" in status
        assert asked[0] == "unless ada"
        names, status = get("ada")
        assert names == before
        assert "hit" in status
        names, status = get("grace")  # has a key of its own
        assert names == [*before, "view", "filter"]
        names, status = get("nobody")
        assert names == ["unless", "view", "filter"]
        assert "detail=unless" in status
        names, status = get("guest")
        assert "stored" not in status
        names, status = get("admin")
        assert "view" in names
        names, status = get("admin")
        assert "view" in names


@pytest.mark.parametrize("is_async", [True, False])
def test_the_key_prefix_of_the_cache_gets_what_it_injects(*, is_async: bool) -> None:
    """At each request; also when an unsafe request evicts what its path shares with others."""
    app = shop()
    made: list[str] = []

    async def prefix(users: Users = inject(AppContainer.users)) -> str:
        return f"for {users.name}, not %s"

    def sync_prefix(*, users: Users = inject(AppContainer.users)) -> str:
        return f"for {users.name}, not %s"

    @app.route("/<path>")
    @app.cache(timeout=60, key_prefix=prefix if is_async else sync_prefix)
    async def view(path: str) -> str:
        made.append(path)
        return str(len(made))

    @app.route("/<path>", methods=["POST"])
    async def write(path: str) -> str:
        return "written"

    with serving(app) as client:

        def read(name: str, path: str) -> str:
            with override(app.container.users, Users(name)):
                return client.get(path).text

        def reads() -> list[str]:
            return [read("ada", "/a"), read("ada", "/b"), read("grace", "/a"), read("grace", "/b")]

        assert reads() == ["1", "1", "2", "2"]
        with override(app.container.users, Users("grace")):
            client.post("/b")
        assert reads() == ["1", "1", "3", "3"]


def test_a_key_prefix_that_is_no_text_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """As for the other options: the error says which one it is."""
    app = shop()
    wrong = cast("Callable[[], str]", lambda: 5)

    @app.route("/")
    @app.cache(timeout=60, key_prefix=wrong)
    async def view() -> str:
        return "page"

    with serving(app) as client:
        assert client.get("/").status_code == 500
    assert "key_prefix" in caplog.text


async def test_the_cache_explains_with_the_key_prefix_that_is_injected() -> None:
    """One that needs a value of the request has it then, too."""
    app = shop()

    async def prefix(users: Users = inject(AppContainer.users)) -> str:
        return users.name

    @app.route("/")
    @app.cache(timeout=60, key_prefix=prefix)
    async def view() -> str:
        return "page"

    await app.test_client().get("/")
    assert (await app.cache_explain("GET", "/")).outcome == "hit"
    with override(app.container.users, Users("grace")):
        assert (await app.cache_explain("GET", "/")).outcome == "miss"


async def test_the_cache_explains_with_what_its_callables_inject() -> None:
    """No request is going on then; they are asked all the same."""
    app = shop()

    async def is_nobody(users: Users = inject(AppContainer.users)) -> bool:
        return users.name == "nobody"

    @app.route("/")
    @app.cache(timeout=60, unless=is_nobody)
    async def view() -> str:
        return ""

    assert (await app.cache_explain("GET", "/")).outcome == "miss"
    with override(app.container.users, Users("nobody")):
        assert (await app.cache_explain("GET", "/")).reason == "unless"


def test_a_memoized_function_gets_what_it_injects() -> None:
    """When it runs; a value that is found makes nothing."""
    app = shop()

    @app.memoize(timeout=60)
    async def greeting(number: int, users: Users = inject(AppContainer.users)) -> str:
        return f"{users.name} {number}"

    @app.route("/<int:number>")
    async def view(number: int) -> str:
        return await greeting(number)

    with serving(app) as client:
        assert [client.get(f"/{number}").text for number in (3, 3, 4)] == ["ada 3", "ada 3", "ada 4"]
    assert Users.made == 2


# Which value


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (AppContainer.users, "ada"),
        (OtherContainer.users, "other"),
        (Inner.users, "inner"),
        (cast(Any, AppContainer).middle.inner.users, "inner"),
        (cast(Any, OtherContainer).middle.inner.users, "inner"),
    ],
)
def test_the_value_comes_from_the_applications_own_container(
    named: providers.Provider[Users], expected: str
) -> None:
    """A subclass's provider in place of its base's; those of containers within."""
    app = shop(OtherContainer())

    @app.route("/")
    async def view(users: Users = inject(named)) -> str:
        return users.name

    with serving(app) as client:
        assert client.get("/").text == ("other" if expected == "ada" else expected)


def test_the_applications_own_provider_can_be_named() -> None:
    """Also one that its container got only now, and keys of its configuration."""
    app = shop()
    app.container.set_providers(greeting=providers.Object("hello"))
    app.container.config.from_dict({"shop": {"limit": "5"}})
    greeting = cast("providers.Provider[str]", cast(Any, app.container).greeting)

    @app.route("/")
    async def view(
        users: Users = inject(app.container.users),
        greeting: str = inject(greeting),
        limit: int = inject(AppContainer.config.shop.limit.as_int()),
        name: str = inject(cast("providers.Provider[str]", cast(Any, AppContainer.users).provided.name)),
        port: int = inject(cast("providers.Provider[int]", cast(Any, AppContainer.settings).provided.port)),
    ) -> dict[str, object]:
        return {"users": users.name, "greeting": greeting, "limit": limit, "name": name, "port": port}

    with serving(app) as client:
        expected = {"users": "ada", "greeting": "hello", "limit": 5, "name": "ada", "port": 0}
        assert client.get("/").json() == expected


def test_applications_of_one_class_share_nothing() -> None:
    """A view that both have gets each one's own."""
    first, second = shop(), shop()
    blueprint = Blueprint("pages", __name__)
    blueprint.add_url_rule("/", "name", name_of)
    first.register_blueprint(blueprint)
    second.register_blueprint(blueprint)
    with (
        override(first.container.users, Users("first")),
        serving(first) as one,
        serving(second) as other,
    ):
        assert (one.get("/").text, other.get("/").text) == ("first", "ada")


def test_async_values_are_awaited() -> None:
    """A coroutine, an async resource, a factory that needs one; async modes of other tests' overrides."""

    async def found() -> Users:
        await asyncio.sleep(0)
        return Users("coroutine")

    async def opened() -> AsyncGenerator[Users]:
        await asyncio.sleep(0)
        yield Users("resource")

    class AsyncContainer(Container):
        coroutine = cast("providers.Provider[Users]", providers.Coroutine(found))
        pool = providers.Resource(opened)
        needing = providers.Factory(dict[str, Users], pool=pool)
        above = providers.Singleton(dict[str, dict[str, Users]], needing=needing)

    app = WebServer(__name__, container=AsyncContainer())

    @app.route("/")
    async def view(
        coroutine: Users = inject(AsyncContainer.coroutine),
        pool: Users = inject(AsyncContainer.pool),
        needing: dict[str, Users] = inject(AsyncContainer.needing),
        above: dict[str, dict[str, Users]] = inject(AsyncContainer.above),
    ) -> list[str]:
        return [coroutine.name, pool.name, needing["pool"].name, above["needing"]["pool"].name]

    with override(app.container.pool, Users("fake")), serving(app) as client:
        assert client.get("/").json() == ["coroutine", "fake", "fake", "fake"]
    cast(Any, app.container.above).reset()
    with serving(app) as client:
        assert client.get("/").json() == ["coroutine", "resource", "resource", "resource"]
        assert client.get("/").json() == ["coroutine", "resource", "resource", "resource"]


# Called by hand


async def test_a_view_can_be_called_with_its_arguments() -> None:
    """That is how it is tested: no application, no patching."""
    assert await name_of(Users("fake")) == "fake"
    assert sync_name_of(users=Users("fake")) == "fake"


async def test_a_view_that_is_called_without_its_arguments_says_so() -> None:
    """Nobody injects there."""
    with pytest.raises(NotInjectedError, match=r"name of inject\(.*Users.*pass the argument"):
        await name_of()
    with pytest.raises(NotInjectedError):
        sync_name_of()


async def test_a_cached_view_can_be_called_by_hand() -> None:
    """With its arguments, or with what the container of its application gives."""
    app = shop()

    @app.cache(timeout=60)
    async def view(number: int, users: Users = inject(AppContainer.users)) -> str:
        return f"{users.name} {number}"

    assert await view(3, Users("fake")) == "fake 3"
    assert await view(3, users=Users("fake")) == "fake 3"
    assert await view(3) == "ada 3"


# Registering


class Foreign(Container):
    users = providers.Factory(Users, "foreign")


async def wrong(*_: object, users: Users = inject(Foreign.users)) -> Any:
    """A function that no application of these tests can call."""


async def wrong_generator(users: Users = inject(Foreign.users)) -> AsyncGenerator[None]:
    """The same, around serving."""
    yield


class WrongView(View):
    """A class-based view of the same kind."""

    async def dispatch_request(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, users: Users = inject(Foreign.users)
    ) -> str:
        """Answers."""
        return users.name


class WrongMethods(MethodView):
    """One that is wrong in one of its methods."""

    async def get(self) -> str:
        """Answers GET."""
        return ""

    async def post(self, users: Users = inject(Foreign.users)) -> str:
        """Answers POST."""
        return users.name


def in_blueprint(register: Callable[[Blueprint], object]) -> Callable[[WebServer[AppContainer]], object]:
    """Registers with a blueprint, and that with the application."""

    def act(app: WebServer[AppContainer]) -> None:
        blueprint = Blueprint("wrong", __name__)
        register(blueprint)
        app.register_blueprint(blueprint)

    return act


def in_nested(register: Callable[[Blueprint], object]) -> Callable[[WebServer[AppContainer]], object]:
    """Registers with a blueprint in a blueprint."""

    def act(app: WebServer[AppContainer]) -> None:
        outer, inner = Blueprint("outer", __name__), Blueprint("inner", __name__)
        register(inner)
        outer.register_blueprint(inner)
        app.register_blueprint(outer)

    return act


ON_BOTH: dict[str, Callable[[Any], object]] = {
    "route": lambda where: where.route("/")(wrong),
    "get": lambda where: where.get("/")(wrong),
    "add_url_rule": lambda where: where.add_url_rule("/", "wrong", wrong),
    "websocket": lambda where: where.websocket("/")(wrong),
    "view": lambda where: where.add_url_rule("/", view_func=WrongView.as_view("wrong")),
    "methods": lambda where: where.add_url_rule("/", view_func=WrongMethods.as_view("wrong")),
    "decorated": lambda where: where.route("/")(passing(wrong)),
    "endpoint": lambda where: where.endpoint("wrong")(wrong),
    "before_request": lambda where: where.before_request(wrong),
    "after_request": lambda where: where.after_request(wrong),
    "teardown_request": lambda where: where.teardown_request(wrong),
    "before_websocket": lambda where: where.before_websocket(wrong),
    "after_websocket": lambda where: where.after_websocket(wrong),
    "teardown_websocket": lambda where: where.teardown_websocket(wrong),
    "errorhandler": lambda where: where.errorhandler(404)(wrong),
    "register_error_handler": lambda where: where.register_error_handler(ValueError, wrong),
    "context_processor": lambda where: where.context_processor(wrong),
}
ON_APP: dict[str, Callable[[WebServer[AppContainer]], object]] = {
    "teardown_appcontext": lambda app: app.teardown_appcontext(wrong),
    "before_serving": lambda app: app.before_serving(wrong),
    "after_serving": lambda app: app.after_serving(wrong),
    "while_serving": lambda app: app.while_serving(wrong_generator),
    "cache": lambda app: app.cache(timeout=60)(wrong),
    "unless": lambda app: app.cache(unless=wrong),
    "forced_update": lambda app: app.cache(forced_update=wrong),
    "response_filter": lambda app: app.cache(response_filter=wrong),
    "key": lambda app: app.cache(key=wrong),
    "invalidates": lambda app: app.invalidates(tags="tag")(wrong),
    "add_background_task": lambda app: app.add_background_task(wrong),
}
ON_BLUEPRINT: dict[str, Callable[[Any], object]] = {
    "before_app_request": lambda where: where.before_app_request(wrong),
    "after_app_request": lambda where: where.after_app_request(wrong),
    "teardown_app_request": lambda where: where.teardown_app_request(wrong),
    "before_app_websocket": lambda where: where.before_app_websocket(wrong),
    "after_app_websocket": lambda where: where.after_app_websocket(wrong),
    "teardown_app_websocket": lambda where: where.teardown_app_websocket(wrong),
    "before_app_serving": lambda where: where.before_app_serving(wrong),
    "after_app_serving": lambda where: where.after_app_serving(wrong),
    "while_app_serving": lambda where: where.while_app_serving(wrong_generator),
    "app_errorhandler": lambda where: where.app_errorhandler(404)(wrong),
    "app_context_processor": lambda where: where.app_context_processor(wrong),
}
REGISTERING: dict[str, Callable[[WebServer[AppContainer]], object]] = {
    **ON_BOTH,
    **ON_APP,
    **{f"blueprint {name}": in_blueprint(act) for name, act in {**ON_BOTH, **ON_BLUEPRINT}.items()},
    **{f"nested {name}": in_nested(act) for name, act in {**ON_BOTH, **ON_BLUEPRINT}.items()},
}
# Quart never runs these: it does not take them over from a blueprint.
del REGISTERING["blueprint teardown_websocket"], REGISTERING["nested teardown_websocket"]


@pytest.mark.parametrize("name", REGISTERING)
def test_an_unknown_provider_is_an_error_when_it_is_registered(name: str) -> None:
    """Not at the first request: an application that starts is one whose values are there."""
    app = shop()
    with pytest.raises(UnknownProviderError, match=r"\(users=\): the application's container does not have"):
        REGISTERING[name](app)


async def test_each_signature_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the function is registered; a request reads none."""
    read: list[object] = []
    signature = inspect.signature

    def counted(function: Callable[..., Any], **options: Any) -> inspect.Signature:
        read.append(function)
        return signature(function, **options)

    monkeypatch.setattr(inspect, "signature", counted)
    app = shop()

    @app.before_request
    async def before(users: Users = inject(AppContainer.users)) -> None: ...

    @app.route("/")
    async def view(users: Users = inject(AppContainer.users)) -> str:
        return users.name

    assert [function for function in read if function in (before, view)] == [before, view]
    client = app.test_client()
    for _ in range(3):
        assert await (await client.get("/")).get_data() == b"ada"
    assert [function for function in read if function in (before, view)] == [before, view]


def test_what_is_no_provider_cannot_be_injected() -> None:
    """It is told where the default is written."""
    with pytest.raises(InvalidSettingError, match="a provider"):
        inject(cast(Any, Users))


# Overrides


def test_requests_in_progress_keep_what_they_resolved() -> None:
    """An override is for those that come after it."""
    app = shop()
    running, go = threading.Event(), threading.Event()

    @app.route("/<word>")
    async def view(word: str, users: Users = inject(AppContainer.users)) -> str:
        running.set()
        if word == "slow":
            await asyncio.to_thread(go.wait, 30)
        return users.name

    answers: list[str] = []
    with serving(app) as client:
        url = str(client.base_url)
        asking = threading.Thread(target=lambda: answers.append(httpx.get(url + "/slow", timeout=30).text))
        asking.start()
        assert running.wait(30)
        with override(app.container.users, Users("fake")):
            assert client.get("/quick").text == "fake"
            go.set()
            asking.join(30)
            assert answers == ["ada"]
            assert client.get("/quick").text == "fake"
        assert client.get("/quick").text == "ada"


def test_overrides_under_load_reach_each_request_as_a_whole() -> None:
    """A request that injects one provider twice never sees two of them; each sees what was in force."""
    app = shop()

    @app.route("/")
    async def view(users: Users = inject(AppContainer.users)) -> str:
        before = users.name
        await asyncio.sleep(0.001)
        return f"{before} {users.name}"

    answers: list[str] = []
    with app.run_in_thread(soft_limit=None, hard_limit=None) as server:
        over = threading.Event()

        async def load() -> None:
            async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
                while not over.is_set():
                    asked = await asyncio.gather(*(client.get("/") for _ in range(10)))
                    answers.extend(response.text for response in asked)

        loading = threading.Thread(target=lambda: asyncio.run(load()))
        loading.start()
        for number in range(20):
            with override(app.container.users, Users(f"fake{number}")):
                assert httpx.get(server.url).text == f"fake{number} fake{number}"
            assert httpx.get(server.url).text == "ada ada"
        over.set()
        loading.join(30)
    assert len(answers) >= 10
    assert all(answer.split()[0] == answer.split()[1] for answer in answers)
