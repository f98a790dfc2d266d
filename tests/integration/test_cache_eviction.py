"""What was written is not read from the cache any more: evictions, unsafe methods, and cache_explain()."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cachelib import SimpleCache
from quart import Response, abort, redirect, request, session, url_for
from quart.typing import ResponseReturnValue

from aeros import Cache, WebServer
from aeros.caching.explain import Explanation

if TYPE_CHECKING:
    from tests.conftest import RunScript

IDENTITY = {"accept-encoding": "identity"}
STORED = "aeros; fwd=miss; stored"
HIT = "aeros; hit"
NOW = 1_700_000_000.0
PATIENCE = 20.0


class Clock:
    """The cache's clock, which a test sets forward."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        """Returns the seconds since the epoch."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until a test moves it."""
    return Clock()


@pytest.fixture
def app(clock: Clock) -> WebServer:
    """An application with sessions whose cache goes by the test's clock."""
    app = WebServer(__name__, cache=Cache(clock=clock))
    app.secret_key = "tests only"
    return app


class Served:
    """A running application and a client for it."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.host = f"{client.base_url.host}:{client.base_url.port}"

    def get(self, path: str = "/", **headers: str) -> httpx.Response:
        """GETs without content coding unless the headers ask for one."""
        return self.ask("GET", path, **headers)

    def ask(self, method: str, path: str = "/", **headers: str) -> httpx.Response:
        """Sends a request without content coding unless the headers ask for one."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.request(method, path, headers={**IDENTITY, **fields})

    def store(self, *paths: str) -> None:
        """Makes sure that there is a stored response for each path."""
        for path in paths:
            self.get(path)
        assert [outcome(self.get(path)) for path in paths] == [HIT] * len(paths)

    def gone(self, *paths: str) -> list[str]:
        """Returns the paths that are not answered from the cache; then they are stored again."""
        return [path for path in paths if outcome(self.get(path)) != HIT]


Serve = Callable[..., Served]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts applications, and stops them when the test is over."""
    with ExitStack() as stack:

        def start(app: WebServer, **options: Any) -> Served:
            server = stack.enter_context(app.run_in_thread(**options))
            return Served(stack.enter_context(httpx.Client(base_url=server.url, timeout=PATIENCE)))

        yield start


def outcome(response: httpx.Response) -> str:
    """Returns ``Cache-Status`` without the time left."""
    return response.headers["cache-status"].partition("; ttl=")[0]


def add_pages(app: WebServer, rule: str = "/<path:name>", **options: Any) -> None:
    """Adds a cached view for many paths, tagged by its last part, whose body counts all runs."""
    runs = count(1)

    def tags(name: str) -> list[str]:
        return ["pages", name.rpartition("/")[2]]

    async def pages(name: str) -> str:
        return str(next(runs))

    app.add_url_rule(rule, "pages", app.cache(60, query_string=True, tags=tags, **options)(pages))


def eventually(condition: Callable[[], bool]) -> None:
    """Waits until something in the background has come true."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


# evict() and clear_cache()

CASES: list[tuple[dict[str, Any], list[str]]] = [
    ({"tags": "a"}, ["/a", "/a?x=1", "/b/a"]),
    ({"tags": ["a", "c"]}, ["/a", "/a?x=1", "/b/a", "/c"]),
    ({"tags": "nobody has it"}, []),
    ({"path": "/a"}, ["/a", "/a?x=1"]),
    ({"path": "/b"}, []),
    ({"path": "/b/a", "tags": "c"}, ["/b/a", "/c"]),
    ({"everything": True}, ["/a", "/a?x=1", "/b/a", "/c"]),
]
PAGES = ["/a", "/a?x=1", "/b/a", "/c"]


@pytest.mark.parametrize("where", ["view", "other loop", "clear in a view", "clear in a sync view", "clear"])
def test_evict_and_its_sync_twin_evict_what_they_name(app: WebServer, serve: Serve, where: str) -> None:
    """Tags, a path with all its queries, or everything leave at once, and it is told how many they were."""
    add_pages(app)
    arguments: dict[str, Any] = {}

    def clear() -> int | None:
        named = {key: value for key, value in arguments.items() if key != "everything"}
        return app.clear_cache(**named)

    @app.route("/evict/view")
    async def evict_in_view() -> str:
        return str(await app.evict(**arguments))

    @app.route("/evict/clear in a view")
    async def clear_in_view() -> str:
        return str(clear())

    @app.route("/evict/clear in a sync view")
    def clear_in_sync_view() -> str:
        return str(clear())

    served = serve(app)
    for given, expected in CASES:
        served.store(*PAGES)
        arguments.clear()
        arguments.update(given)
        if where == "other loop":
            found = str(asyncio.run(app.evict(**arguments)))
        elif where == "clear":
            found = str(clear())
        else:
            found = served.get(f"/evict/{where}").text
        assert (given, found) == (given, str(len(expected)))
        assert (given, served.gone(*PAGES)) == (given, expected)
    assert app.cache_stats().evicted == sum(len(expected) for _, expected in CASES)


def test_evicting_from_several_threads_at_once_loses_nothing(app: WebServer, serve: Serve) -> None:
    """What threads without a loop evict while requests go on adds up, and all of it is gone."""
    add_pages(app)
    served = serve(app)
    paths = [f"/{number}" for number in range(40)]
    served.store(*paths)
    counts: list[int | None] = []

    def evict(first: int) -> None:
        counts.extend(app.clear_cache(tags=str(number)) for number in range(first, 40, 4))

    threads = [threading.Thread(target=evict, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert counts == [1] * 40
    assert served.gone(*paths) == paths


@pytest.mark.parametrize("where", ["evict", "clear"])
def test_with_a_store_the_count_is_unknown_and_the_eviction_reaches_it(serve: Serve, where: str) -> None:
    """None is returned, since the store does not tell; neither level brings back what was evicted."""
    app = WebServer(__name__, cache=Cache(SimpleCache(), local_seconds=0))
    add_pages(app)

    @app.route("/evict/<tag>")
    async def evict(tag: str) -> str:
        return str(await app.evict(tags=tag))

    served = serve(app)
    served.store("/a", "/b")
    found = served.get("/evict/a").text if where == "evict" else str(app.clear_cache(tags="a"))
    assert found == "None"
    assert served.gone("/a", "/b") == ["/a"]
    assert app.clear_cache() is None
    assert served.gone("/a", "/b") == ["/a", "/b"]


SCRIPT = """
import asyncio
import threading
from cachelib import SimpleCache
from aeros import WebServer

app = WebServer(__name__, cache={cache})
runs = iter("123456789")

@app.route("/<name>")
@app.cache(60, tags=lambda name: [name, "pages"])
async def page(name):
    return next(runs)

async def get():
    client = app.test_client()
    return [(await (await client.get(path)).get_data()).decode() for path in ("/a", "/b")]

print(*asyncio.run(get()))
print(app.clear_cache(tags="a"), *asyncio.run(get()))
print(app.clear_cache(path="/b"), *asyncio.run(get()))
thread = threading.Thread(target=lambda: print(app.clear_cache(tags=["pages"]), end=" "))
thread.start()
thread.join()
print(*asyncio.run(get()))
print(app.clear_cache(), *asyncio.run(get()))
print(*asyncio.run(get()))
"""


@pytest.mark.parametrize(
    ("cache", "counts"),
    [("None", ["1", "1", "2", "2"]), ("SimpleCache()", ["None"] * 4)],
    ids=["memory", "store"],
)
def test_clear_cache_works_in_a_script_without_a_loop(
    run_script: RunScript, cache: str, counts: list[str]
) -> None:
    """Between two event loops, and from a thread of a process that has none, it evicts and returns."""
    done = run_script(SCRIPT.format(cache=cache))
    assert done.stderr == ""
    one, two, three, four = counts
    assert done.stdout.splitlines() == [
        "1 2",
        f"{one} 3 2",
        f"{two} 3 4",
        f"{three} 5 6",
        f"{four} 7 8",
        "7 8",
    ]
    assert done.returncode == 0


# path=


@pytest.mark.parametrize(
    "written",
    ["/ä b/50%25", "/%C3%A4%20b/50%25", "/%c3%a4 b/50%25?x=1", "/ä b/50%25#top", "/ä b/50%25?a=/other"],
)
def test_path_may_be_encoded_or_not_and_have_a_query(app: WebServer, serve: Serve, written: str) -> None:
    """However it is written it is the same path: all its queries and spellings leave, no other path."""
    add_pages(app)
    served = serve(app)
    same = ["/%C3%A4%20b/50%25", "/%c3%a4%20b/50%25", "/%C3%A4%20b/50%25?x=1"]
    others = ["/%C3%A4%20b/50%2525", "/%C3%A4%20b/50", "/%C3%A4%20b", "/%C3%A4+b/50%25", "/other"]
    served.store(*same, *others)
    found = app.clear_cache(path=written)
    assert served.gone(*same, *others) == same
    assert found == 3


@pytest.mark.parametrize("root_path", ["", "/api", "/api/v1/"])
def test_path_is_what_url_for_gives(app: WebServer, serve: Serve, root_path: str) -> None:
    """Under any prefix, with and without it, and with parameters that need encoding."""
    add_pages(app)

    @app.route("/evict/<path:name>", methods=["POST"])
    async def evict(name: str) -> str:
        url = url_for("pages", name=name, page=2)
        return f"{url} {await app.evict(path=url)}"

    served = serve(app, root_path=root_path)
    paths = ["/a/50%25%20%C3%B6", "/a/50%25%20%C3%B6?page=1", "/a/b"]
    served.store(*paths)
    answer = served.ask("POST", "/evict/a/50%25%20%C3%B6")
    assert answer.text == f"{root_path.rstrip('/')}/a/50%25%20%C3%B6?page=2 2"
    assert served.gone(*paths) == paths[:2]
    assert app.clear_cache(path="/a/b") == 1
    assert served.gone(*paths) == ["/a/b"]


def test_path_evicts_every_variant_and_host(app: WebServer, serve: Serve) -> None:
    """By whatever responses to a path differ, all of them leave."""
    add_pages(app, vary="X-Tone")
    served = serve(app)
    asked = [{}, {"x_tone": "a"}, {"x_tone": "b"}, {"host": "other.example"}]
    for expected in (STORED, HIT):
        assert [outcome(served.get("/page", **headers)) for headers in asked] == [expected] * 4
    assert app.clear_cache(path="/page") == 4
    assert [outcome(served.get("/page", **headers)) for headers in asked] == [STORED] * 4


# @app.invalidates()


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
def test_invalidates_evicts_tags_and_paths_before_its_response_is_sent(
    app: WebServer, serve: Serve, is_async: bool
) -> None:
    """Fixed names, or functions of the view's arguments; the view's own result is what its client gets."""
    add_pages(app)

    def write(name: str = "") -> ResponseReturnValue:
        return {"written": name}, 201, {"X-Own": "yes"}

    async def write_later(name: str = "") -> ResponseReturnValue:
        return write(name)

    def tag_of(name: str) -> str:
        return name

    def paths_of(name: str) -> list[str]:
        return [f"/{name}/1", f"/{name}/2?x=1"]

    def nothing(name: str) -> tuple[str, ...]:
        return ()

    view = write_later if is_async else write
    for rule, decorated in (
        ("/write/tags", app.invalidates(tags=["a", "c"])),
        ("/write/paths", app.invalidates(paths=("/b/1", "/d"))),
        ("/write/both", app.invalidates(tags="c", paths="/d")),
        ("/write/tag-of/<name>", app.invalidates(tags=tag_of)),
        ("/write/paths-of/<name>", app.invalidates(paths=paths_of)),
        ("/write/nothing/<name>", app.invalidates(tags=nothing, paths=nothing)),
    ):
        app.add_url_rule(rule, rule, decorated(view), methods=["POST"])
    served = serve(app)
    pages = ["/b/1", "/b/2", "/a", "/c", "/d"]
    for path, expected in (
        ("tags", ["/a", "/c"]),
        ("paths", ["/b/1", "/d"]),
        ("both", ["/c", "/d"]),
        ("tag-of/a", ["/a"]),
        ("paths-of/b", ["/b/1", "/b/2"]),
        ("nothing/b", []),
    ):
        served.store(*pages)
        answer = served.ask("POST", f"/write/{path}")
        assert (answer.status_code, answer.headers["x-own"]) == (201, "yes")
        assert answer.json() == {"written": path.partition("/")[2]}
        assert (path, served.gone(*pages)) == (path, expected)


def raises() -> ResponseReturnValue:
    """Fails with what nobody handles."""
    raise OSError("the database is away")


def raises_handled() -> ResponseReturnValue:
    """Fails with what a handler makes a 409 of."""
    raise LookupError("no such page")


def aborts() -> ResponseReturnValue:
    """Refuses with a status."""
    abort(403)


def returns_400() -> ResponseReturnValue:
    """Refuses by what it returns."""
    return {"error": "name"}, 400


def returns_500() -> ResponseReturnValue:
    """Fails by the response that it returns."""
    return Response("broken", 500)


FAILURES = [raises, raises_handled, aborts, returns_400, returns_500]


@pytest.mark.parametrize("fail", FAILURES, ids=lambda fail: fail.__name__)
def test_a_view_that_failed_invalidates_nothing(
    app: WebServer, serve: Serve, fail: Callable[[], ResponseReturnValue]
) -> None:
    """Neither what it names nor its own path leaves where its response is an error."""
    add_pages(app)

    @app.errorhandler(LookupError)
    async def conflict(error: Exception) -> tuple[str, int]:
        return "conflict", 409

    @app.route("/a", methods=["POST"])
    @app.invalidates(tags=["a", "b"], paths="/c")
    async def write() -> ResponseReturnValue:
        return fail()

    served = serve(app)
    served.store("/a", "/b", "/c")
    assert served.ask("POST", "/a").status_code >= 400
    assert served.gone("/a", "/b", "/c") == []
    assert app.cache_stats().evicted == 0


def test_a_redirect_is_a_success(app: WebServer, serve: Serve) -> None:
    """POST, then redirect: the page that the client goes to is a new one."""
    add_pages(app)

    @app.route("/write", methods=["POST"])
    @app.invalidates(tags="a")
    async def write() -> ResponseReturnValue:
        return redirect("/b", 303)

    served = serve(app)
    served.store("/a", "/b", "/c")
    assert served.ask("POST", "/write").status_code == 303
    assert served.gone("/a", "/b", "/c") == ["/a", "/b"]


async def test_invalidates_works_outside_of_a_request(app: WebServer) -> None:
    """A job that calls the view evicts when it has returned, and evicts nothing when it has raised."""
    add_pages(app)
    failing = iter([True, False])

    def tag_of(name: str) -> str:
        return name

    def path_of(name: str) -> str:
        return f"/{name}/x"

    @app.invalidates(tags=tag_of, paths=path_of)
    async def write(name: str) -> dict[str, str]:
        if next(failing):
            raise OSError("down")
        return {"name": name}

    client = app.test_client()
    for path in ("/a", "/a/x", "/b"):
        await client.get(path)
    with pytest.raises(OSError, match="down"):
        await write("a")
    assert app.cache_stats().entries == 3
    assert await write("a") == {"name": "a"}
    assert app.cache_stats().entries == 1
    assert (await client.get("/b")).headers["cache-status"].startswith(HIT)


# Unsafe methods (RFC 9111 §4.4)


def add_writer(app: WebServer, answer: Callable[[], ResponseReturnValue], *methods: str) -> None:
    """Adds a view for some methods at all paths under ``/pages/`` and at ``/elsewhere``."""

    async def write(name: str = "") -> ResponseReturnValue:
        return answer()

    for rule in ("/pages/<path:name>", "/elsewhere"):
        app.add_url_rule(rule, f"write {rule}", write, methods=list(methods), provide_automatic_options=False)


OWN = ["/pages/a", "/pages/a?x=1", "/pages/a?y=2&x=1"]
OTHERS = ["/pages/a/b", "/pages/A", "/pages/b"]
UNSAFE = ["POST", "PUT", "PATCH", "DELETE", "PROPFIND", "PURGEX"]


@pytest.mark.parametrize("status", [200, 204, 302])
def test_rfc9111_4_4_a_successful_unsafe_method_invalidates_its_own_uri(
    app: WebServer, serve: Serve, status: int
) -> None:
    """Known or not, it evicts its path with every query, and nothing else."""
    add_pages(app, "/pages/<path:name>")
    add_writer(app, lambda: ("", status), *UNSAFE)
    served = serve(app, http="h11")  # which takes any method
    for method in UNSAFE:
        served.store(*OWN, *OTHERS)
        assert served.ask(method, "/pages/a?z=3").status_code == status
        assert (method, served.gone(*OWN, *OTHERS)) == (method, OWN)


@pytest.mark.parametrize("fail", FAILURES, ids=lambda fail: fail.__name__)
def test_rfc9111_4_4_an_unsafe_method_that_failed_invalidates_nothing(
    app: WebServer, serve: Serve, fail: Callable[[], ResponseReturnValue]
) -> None:
    """Whatever went wrong, what is stored stays."""
    add_pages(app, "/pages/<path:name>")
    add_writer(app, fail, *UNSAFE)
    served = serve(app, http="h11")
    served.store(*OWN)
    for method in UNSAFE:
        assert served.ask(method, "/pages/a").status_code >= 400
        assert (method, served.gone(*OWN)) == (method, [])


def test_rfc9111_4_4_a_safe_method_invalidates_nothing(app: WebServer, serve: Serve) -> None:
    """Its success says nothing about what it asked about."""
    add_pages(app, "/pages/<path:name>")
    add_writer(app, lambda: ("", 200, {"Location": "/pages/b"}), "OPTIONS", "TRACE")
    served = serve(app)
    served.store(*OWN, *OTHERS)
    for method in ("OPTIONS", "TRACE"):
        assert served.ask(method, "/elsewhere").status_code == 200
        assert served.ask(method, "/pages/a").status_code == 200
        assert (method, served.gone(*OWN, *OTHERS)) == (method, [])


@pytest.mark.parametrize("field", ["Location", "Content-Location"])
def test_rfc9111_4_4_location_and_content_location_are_invalidated_on_the_same_host(
    app: WebServer, serve: Serve, field: str
) -> None:
    """Absolute, relative or with a query: the paths there leave; those of another host or scheme do not."""
    add_pages(app, "/pages/<path:name>")
    target = ""
    add_writer(app, lambda: ("", 201, {field: target}), "POST")
    served = serve(app)
    pages = ["/pages/x", "/pages/x?a=1", "/pages/y", "/pages/a"]
    for target, expected in (
        ("/pages/x", ["/pages/x", "/pages/x?a=1"]),
        ("/pages/x?a=1#top", ["/pages/x", "/pages/x?a=1"]),
        ("pages/y", ["/pages/y"]),
        ("./pages/%79", ["/pages/y"]),
        (f"http://{served.host}/pages/y", ["/pages/y"]),
        (f"//{served.host}/pages/y", ["/pages/y"]),
        ("http://other.example/pages/x", []),
        ("//other.example/pages/x", []),
        (f"https://{served.host}/pages/x", []),
        (f"http://{served.host}1/pages/x", []),
        ("http://[broken/pages/x", []),
        ("mailto:/pages/x", []),
        ("", []),
    ):
        served.store(*pages)
        assert served.ask("POST", "/elsewhere").status_code == 201
        assert (target, served.gone(*pages)) == (target, expected)


def test_rfc9111_4_4_a_failed_unsafe_method_invalidates_no_location(app: WebServer, serve: Serve) -> None:
    """The Location of an error names nothing that was written."""
    add_pages(app, "/pages/<path:name>")
    add_writer(app, lambda: ("", 409, {"Location": "/pages/x", "Content-Location": "/pages/y"}), "POST")
    served = serve(app)
    served.store("/pages/x", "/pages/y")
    assert served.ask("POST", "/pages/x").status_code == 409
    assert served.gone("/pages/x", "/pages/y") == []


def test_rfc9111_4_4_the_writer_and_everybody_else_read_what_was_written(
    app: WebServer, serve: Serve
) -> None:
    """GET after PUT on one URL shows the new text, under a prefix and with variants, too."""
    texts = {"a": "old"}

    @app.route("/<name>")
    @app.cache(60, vary="X-Tone")
    async def read(name: str) -> str:
        return texts[name]

    @app.route("/<name>", methods=["PUT"])
    async def write(name: str) -> ResponseReturnValue:
        texts[name] = str(await request.get_data(as_text=True))
        return "", 204

    served = serve(app, root_path="/api")
    for tone in ("", "low"):
        assert served.get("/a", x_tone=tone).text == "old"
    assert served.client.put("/a", content=b"new").status_code == 204
    for tone in ("", "low"):
        assert served.get("/a", x_tone=tone).text == "new"


def test_rfc9111_4_4_a_write_that_a_hook_refuses_afterwards_invalidates_nothing(
    app: WebServer, serve: Serve
) -> None:
    """The status when all hooks have run decides."""
    add_pages(app, "/pages/<path:name>")
    add_writer(app, lambda: "written", "POST")

    @app.after_request
    async def refuse(response: Response) -> Response:
        if request.method == "POST":
            response.status_code = 412
        return response

    served = serve(app)
    served.store("/pages/a")
    assert served.ask("POST", "/pages/a").status_code == 412
    assert served.gone("/pages/a") == []


# Evicting while a view runs


class Slow:
    """A view that waits for the test on its first run, and counts who has come."""

    def __init__(self, app: WebServer, **options: Any) -> None:
        self.began = threading.Event()
        self.opened = threading.Event()
        self.runs: list[str] = []
        self.version = "old"
        self._came = threading.Semaphore(0)

        @app.before_request
        async def arrive() -> None:
            self._came.release()

        @app.route("/page")
        @app.cache(60, tags="page", **options)
        def page() -> str:
            version = self.version
            self.runs.append(version)
            if not self.opened.is_set():
                self.began.set()
                assert self.opened.wait(PATIENCE)
            return version

        @app.route("/page", methods=["POST"])
        async def write() -> str:
            return "written"

        @app.route("/write", methods=["POST"])
        @app.invalidates(tags="page")
        async def invalidate() -> str:
            return "written"

        @app.route("/evict", methods=["POST"])
        async def evict() -> str:
            return str(await app.evict(tags="page"))

    def arrived(self, number: int) -> None:
        """Waits until this many more requests have come, and had a moment to get to the cache."""
        for _ in range(number):
            assert self._came.acquire(timeout=PATIENCE), "they did not come"
        time.sleep(0.1)


class Clients:
    """Requests that go on at the same time, each with a connection of its own."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._threads: list[threading.Thread] = []
        self.answers: list[httpx.Response] = []

    def start(self, number: int = 1) -> None:
        """Begins this many requests."""
        for _ in range(number):
            thread = threading.Thread(target=lambda: self.answers.append(self._served.get("/page")))
            self._threads.append(thread)
            thread.start()

    def finish(self) -> list[tuple[str, str]]:
        """Waits for all of them; returns text and outcome of each, sorted."""
        for thread in self._threads:
            thread.join(PATIENCE)
        return sorted((answer.text, outcome(answer)) for answer in self.answers)


EVICTED = "aeros; fwd=bypass; detail=evicted"
COLLAPSED = "aeros; fwd=miss; collapsed"

EVICTIONS: dict[str, Callable[[WebServer, Served], object]] = {
    "tag": lambda app, served: app.clear_cache(tags="page"),
    "path": lambda app, served: app.clear_cache(path="/page"),
    "everything": lambda app, served: app.clear_cache(),
    "evict": lambda app, served: served.ask("POST", "/evict"),
    "invalidates": lambda app, served: served.ask("POST", "/write"),
    "unsafe method": lambda app, served: served.ask("POST", "/page"),
}


@pytest.mark.parametrize("how", EVICTIONS)
def test_what_a_view_brings_that_began_before_an_eviction_is_not_stored(
    app: WebServer, serve: Serve, how: str
) -> None:
    """Its own client gets it; those who wait, before the eviction or after it, get a run that began later."""
    slow = Slow(app)
    served = serve(app)
    first, others = Clients(served), Clients(served)
    first.start()
    assert slow.began.wait(PATIENCE)
    others.start(3)
    slow.arrived(4)
    slow.version = "new"
    EVICTIONS[how](app, served)
    others.start(2)
    slow.arrived(3 if how in ("evict", "invalidates", "unsafe method") else 2)
    slow.opened.set()
    assert first.finish() == [("old", EVICTED)]
    assert others.finish() == [*[("new", COLLAPSED)] * 4, ("new", STORED)]
    assert slow.runs == ["old", "new"]
    hit = served.get("/page")
    assert (hit.text, outcome(hit)) == ("new", HIT)


def test_eviction_of_something_else_leaves_a_run_its_place(app: WebServer, serve: Serve) -> None:
    """Another tag or path is no reason to run the view again."""
    slow = Slow(app)
    served = serve(app)
    clients = Clients(served)
    clients.start()
    assert slow.began.wait(PATIENCE)
    clients.start(2)
    slow.arrived(3)
    app.clear_cache(tags=["pages", "other"], path="/page/other")
    slow.opened.set()
    assert clients.finish() == [*[("old", COLLAPSED)] * 2, ("old", STORED)]
    assert slow.runs == ["old"]


def test_eviction_during_a_refresh_keeps_its_result_out(app: WebServer, serve: Serve, clock: Clock) -> None:
    """A background run that began before brings nothing back, and the next request runs the view."""
    slow = Slow(app, stale_while_revalidate=1000)
    slow.opened.set()
    served = serve(app)
    served.store("/page")
    slow.opened.clear()
    clock.now += 61
    stale = served.get("/page")
    assert (stale.text, "stale-while-revalidate" in stale.headers["cache-status"]) == ("old", True)
    assert slow.began.wait(PATIENCE)
    slow.version = "new"
    assert app.clear_cache(tags="page") == 1
    slow.opened.set()
    eventually(lambda: app.cache_stats().bypasses.get("evicted") == 1)
    answer = served.get("/page")
    assert (answer.text, outcome(answer)) == ("new", STORED)
    assert slow.runs == ["old", "old", "new"]


# cache_explain()


def explain(app: WebServer, served: Served, path: str, method: str = "GET", **headers: str) -> Explanation:
    """Asks what would become of a request to the running application."""
    fields = {"Host": served.host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return asyncio.run(app.cache_explain(method, path, fields))


def test_explain_tells_of_a_hit_and_of_what_is_stored(app: WebServer, serve: Serve, clock: Clock) -> None:
    """Outcome, age, lifetime, status, tags, what selects it, the codings that are ready, and the key."""
    runs = count(1)

    def tags_of(number: int) -> list[str]:
        return ["books", f"book:{number}"]

    @app.route("/books/<int:number>")
    @app.cache(60, tags=tags_of, query_include="page")
    async def book(number: int) -> tuple[str, int, dict[str, str]]:
        return f"{next(runs)} text" * 1000, 203, {"Vary": "Accept-Language", "Cache-Control": "max-age=9"}

    served = serve(app)
    served.get("/books/7?page=2&x=1", accept_language="de", accept_encoding="br")
    clock.now += 12
    found = explain(app, served, "/books/7?x=2&page=2", accept_language="de")
    assert (found.outcome, found.reason, found.cure) == ("hit", None, None)
    assert (found.status, found.age, found.ttl) == (203, 12, 48)
    assert (found.tags, found.vary, found.codings) == (("books", "book:7"), ("accept-language",), ("br",))
    text = str(found)
    assert text.startswith(
        "hit; stored 12 s ago with status 203, fresh for 48 s; selected by accept-language"
    )
    for word in ("ready in br", "tags books, book:7", "key ", "/books/7", "page=2", served.host):
        assert word in text
    assert explain(app, served, "/books/7?page=2", accept_language="en").outcome == "miss"
    assert explain(app, served, "/books/7?page=3", accept_language="de").outcome == "miss"
    assert (
        asyncio.run(app.cache_explain("GET", "/books/7?page=2", {"Accept-Language": "de"})).outcome == "miss"
    )


def test_explain_tells_of_a_stale_response(app: WebServer, serve: Serve, clock: Clock) -> None:
    """One that may still be used, and for how long it has been stale."""
    add_pages(app, stale_if_error=100)
    served = serve(app)
    served.get("/a")
    clock.now += 70
    found = explain(app, served, "/a")
    assert (found.outcome, found.age, found.ttl) == ("stale", 70, -10)
    assert str(found).startswith("stale; stored 70 s ago with status 200, fresh for -10 s")
    clock.now += 91
    assert explain(app, served, "/a").outcome == "miss"


def test_explain_leaves_no_trace_and_runs_nothing(app: WebServer, serve: Serve) -> None:
    """No view, no hook, no counter: a miss stays a miss, however often it is asked about."""
    ran: list[str] = []

    @app.before_request
    async def before() -> None:
        ran.append("hook")

    @app.route("/page")
    @app.cache(60, tags="pages")
    async def page() -> str:
        ran.append("view")
        return "x"

    served = serve(app)
    for _ in range(2):
        found = explain(app, served, "/page")
        assert (found.outcome, found.reason, found.tags) == ("miss", None, ("pages",))
        assert str(found).startswith("miss; tags pages; key ")
    stats = app.cache_stats()
    assert (ran, stats.misses, stats.hits, stats.entries) == ([], 0, 0, 0)
    served.get("/page")
    assert explain(app, served, "/page").outcome == "hit"
    assert app.cache_stats().hits == 0


def test_explain_says_why_the_last_response_was_not_stored(app: WebServer, serve: Serve) -> None:
    """A miss that would not be stored either has the reason and a cure in words."""

    @app.route("/<why>")
    @app.cache(60)
    async def view(why: str) -> ResponseReturnValue:
        response = Response(f"{session.get('user')}" if why == "session" else why)
        if why == "cookies":
            response.headers["X-User"] = request.cookies.get("user", "nobody")
        if why == "set-cookie":
            response.set_cookie("seen", "yes")
        if why in ("private", "no-store", "no-cache"):
            response.headers["Cache-Control"] = why
        if why == "vary":
            response.headers["Vary"] = "*"
        if why == "status":
            response.status_code = 404
        if why == "incomplete":
            response.headers["Content-Length"] = "1"
        return response

    served = serve(app)
    for why, cure in (
        ("session", "session"),
        ("cookies", "cookies="),
        ("set-cookie", "sets a cookie"),
        ("private", "private"),
        ("no-store", "no-store"),
        ("no-cache", "no-cache"),
        ("vary", "Vary: *"),
        ("status", "statuses="),
        ("incomplete", "Content-Length"),
    ):
        if why == "incomplete":
            with pytest.raises(httpx.RemoteProtocolError):
                served.get(f"/{why}")
        else:
            assert served.get(f"/{why}").headers["cache-status"] == f"aeros; fwd=bypass; detail={why}"
        found = explain(app, served, f"/{why}")
        assert (found.outcome, found.reason) == ("miss", why)
        assert cure in str(found.cure)
        assert str(found).startswith(f"miss; {why}: {found.cure}")


def test_explain_tells_of_requests_that_the_cache_is_not_asked_for(app: WebServer, serve: Serve) -> None:
    """Methods, bodies, the route's own conditions, credentials, views without a cache, and no view."""

    @app.route("/page", methods=["GET", "POST"])
    @app.cache(60, unless=lambda: "unless" in request.args, forced_update=lambda: "update" in request.args)
    async def page() -> str:
        return "x"

    @app.route("/plain")
    async def plain() -> str:
        return "x"

    served = serve(app)
    served.get("/page")
    for method, path, headers, outcome_of, reason, words in (
        ("POST", "/page", {}, "bypass", "method", "only GET and HEAD"),
        ("GET", "/page", {"Content-Length": "3"}, "bypass", "request-body", "with a body"),
        ("GET", "/page?unless", {}, "bypass", "unless", "unless="),
        ("GET", "/page?update", {}, "miss", "forced-update", "forced_update="),
        ("GET", "/page", {"Authorization": "Bearer ann"}, "miss", "authorization", "authorized=True"),
        ("GET", "/plain", {}, "not-cached", "not-cached", "@app.cache()"),
        ("GET", "/nowhere", {}, "not-cached", "not-found", "no view"),
        ("DELETE", "/page", {}, "not-cached", "not-found", "method"),
    ):
        found = explain(app, served, path, method, **headers)
        assert (path, method, found.outcome, found.reason) == (path, method, outcome_of, reason)
        assert words in str(found.cure)
        assert str(found).startswith(f"{outcome_of}; {reason}: {found.cure}")
    for method in ("GET", "HEAD"):
        assert explain(app, served, "/page", method).outcome == "hit"


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("/a%20b/%C3%BC", "/a%20b/%C3%BC"),
        ("/a b/ü?x=ö y", "/a%20b/%C3%BC?x=%C3%B6%20y"),
        ("/a%2Fb", "/a%2Fb"),
        ("/50%25", "/50%25"),
        ("/50%2525", "/50%2525"),
        ("/it's-(1),[2]", "/it's-(1),[2]"),
    ],
)
def test_explain_takes_a_path_as_clients_send_it(app: WebServer, serve: Serve, asked: str, sent: str) -> None:
    """What is encoded stays so, and what a client would encode is encoded."""
    add_pages(app)
    served = serve(app)
    assert explain(app, served, asked).outcome == "miss"
    request_to = served.client.build_request("GET", "/", headers=IDENTITY)
    request_to.url = request_to.url.copy_with(raw_path=sent.encode("ascii"))
    served.client.send(request_to)
    assert explain(app, served, asked).outcome == "hit"


def test_explain_follows_the_route_s_own_keys(app: WebServer, serve: Serve) -> None:
    """Fields, cookies and the key's text of the request that is asked about decide, as for a real one."""
    add_pages(app, vary="X-Tone", cookies="theme", key=lambda: request.headers.get("X-Tenant", ""))
    served = serve(app)
    real = {"x_tone": "low", "cookie": "theme=dark", "x_tenant": "ann"}
    served.get("/a", **real)
    assert explain(app, served, "/a", **real).outcome == "hit"
    for name, value in (("x_tone", "high"), ("cookie", "theme=light"), ("x_tenant", "bob")):
        assert explain(app, served, "/a", **{**real, name: value}).outcome == "miss"


def test_an_evicted_response_is_explained_as_a_miss(app: WebServer, serve: Serve) -> None:
    """The explanation follows the cache, not its memory of it."""
    add_pages(app)
    served = serve(app)
    served.get("/a")
    assert explain(app, served, "/a").outcome == "hit"
    app.clear_cache(tags="a")
    found = explain(app, served, "/a")
    assert (found.outcome, found.reason) == ("miss", None)


def test_an_unsafe_request_evicts_what_is_shared_by_paths(app: WebServer, serve: Serve) -> None:
    """A response that all paths of a view share is also the one of the path that was written to."""
    numbers = count(1)

    @app.route("/shared/<name>")
    @app.cache(timeout=60, key_prefix="shared")
    async def shared(name: str) -> str:
        return str(next(numbers))

    @app.route("/shared/<name>", methods=["POST"])
    async def write(name: str) -> str:
        return "written"

    served = serve(app)
    assert [served.get("/shared/a").text, served.get("/shared/b").text] == ["1", "1"]
    served.client.post("/shared/b")
    assert [served.get("/shared/b").text, served.get("/shared/a").text] == ["2", "2"]
