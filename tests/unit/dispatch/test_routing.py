"""The route map finds what an adapter finds, the first time and from memory; in doubt it finds nothing."""

from __future__ import annotations

from typing import Any, Final, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quart import request
from quart.routing import QuartRule
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import BaseConverter, IntegerConverter, RequestRedirect

from aeros import WebServer
from aeros.dispatch.request import Request
from aeros.dispatch.routing import RouteMap

RULES: Final = [
    "/",
    "/plain",
    "/folder/",
    "/text/<name>",
    "/short/<string(length=2):name>",
    "/one/<any(red, green):colour>",
    "/file/<path:name>",
    "/file/<path:name>/raw",
    "/int/<int:number>",
    "/signed/<int(signed=True):number>",
    "/few/<int(min=2, max=5):number>",
    "/digits/<int(fixed_digits=3):number>",
    "/float/<float:number>",
    "/id/<uuid:key>",
    "/two/<int:a>/<b>",
    "/two/1/fixed",
    "/slash/<name>/",
]
ID: Final = "abcdef78-1234-5678-1234-567812345678"
FOUND: Final = [
    *(
        "/",
        "/plain",
        "/folder/",
        "/text/a",
        "/text/1",
        "/text/ä ö",
        "/short/ab",
        "/one/red",
        "/file/a/b/c",
        "/file/a//b",
    ),
    *("/file/a/raw", "/int/0", "/int/007", "/signed/-1", "/few/2", "/digits/001", "/float/1.5", f"/id/{ID}"),
    *(f"/id/{ID.upper()}", "/two/1/b", "/two/1/fixed", "/slash/a/"),
]
MISSED: Final = [
    *(
        "/plain/",
        "/folder",
        "/text/",
        "/text/a/b",
        "/short/abc",
        "/one/blue",
        "/file/",
        "/int/-1",
    ),
    *("/int/x", "/few/1", "/few/6", "/digits/1", "/float/1", "/float/.5", "/id/1", "/two/x/b", "/slash/a"),
    *("/int//1", "/nowhere", "/PLAIN", "/*"),
]
METHODS: Final = ["GET", "HEAD", "POST", "OPTIONS", "DELETE"]


async def view(**_: object) -> str:
    """Answers."""
    return "view"


def made(*rules: str, **options: Any) -> WebServer:
    """Returns an application with rules, each with a name of its own."""
    app = WebServer("made", static_folder=None)
    for rule in rules:
        app.add_url_rule(rule, rule.replace(".", "_"), view, **options)
    return app


def asked(app: WebServer, path: str, method: str = "GET", host: bytes = b"a.example") -> Request:
    """Returns a request for a path."""
    scope = {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": path,
        "query_string": b"x=1",
        "http_version": "1.1",
        "headers": [(b"host", host)],
    }
    return Request.arrived(app, scope, path, lambda: None, is_bodiless=True)


def map_of(app: WebServer) -> Any:
    """Returns an application's map."""
    routes = app.url_map
    assert isinstance(routes, RouteMap)
    return routes


def found(app: WebServer, path: str, method: str = "GET") -> tuple[str, dict[str, Any]] | None:
    """Returns what the map finds by itself."""
    match = map_of(app).find(asked(app, path, method), None)
    return None if match is None else (match[0].rule, match[1])


def adapted(
    app: WebServer, path: str, method: str = "GET"
) -> tuple[str, dict[str, Any]] | type[HTTPException]:
    """Returns what an adapter finds, or what it raises."""
    adapter: Any = app.create_url_adapter(asked(app, path, method))
    try:
        rule, arguments = adapter.match(return_rule=True)
    except HTTPException as error:
        return type(error)
    return rule.rule, arguments


def agree(app: WebServer, path: str, method: str = "GET") -> bool:
    """Compares the map with an adapter, three times; returns whether the map has found it by itself."""
    expected = adapted(app, path, method)
    matches = [found(app, path, method) for _ in range(3)]
    assert [match is None for match in matches] in ([False] * 3, [True] * 3)
    for match in matches:
        if match is not None:
            assert match == expected, (path, method)
            assert isinstance(expected, tuple)
            kinds: list[object] = [type(value) for value in match[1].values()]
            assert kinds == [type(value) for value in expected[1].values()]
    return matches[0] is not None


@pytest.mark.parametrize("method", METHODS)
def test_every_converter_gives_what_an_adapter_gives(method: str) -> None:
    """Values and their types; what does not match is left to the adapter."""
    app = made(*RULES, methods=["GET", "POST"])
    is_allowed = method != "DELETE"
    for path in FOUND:
        assert agree(app, path, method) is is_allowed, path
        assert isinstance(adapted(app, path, method), tuple) is is_allowed, path
    for path in MISSED:
        assert not agree(app, path, method), path
        assert not isinstance(adapted(app, path, method), tuple), path
    with_parameters = [path for path in FOUND if path not in ("/", "/plain", "/folder/", "/two/1/fixed")]
    kept = [path for _, path in map_of(app)._taken_apart]
    assert kept == (with_parameters if is_allowed else [])


TEXTS: Final = st.text(alphabet="/ab1-.é%", max_size=6).map(lambda text: f"/{text}")


@given(
    asks=st.lists(
        st.tuples(
            st.sampled_from([*FOUND, *MISSED]) | TEXTS.map(lambda text: f"/text{text}") | TEXTS,
            st.sampled_from(METHODS),
        ),
        max_size=12,
    ),
    strict=st.sampled_from([None, True, False]),
    merge=st.sampled_from([None, True, False]),
)
def test_paths_in_any_order_are_found_as_by_an_adapter(
    asks: list[tuple[str, str]], strict: bool | None, merge: bool | None
) -> None:
    """Whatever was found before, with strict slashes and without, merging slashes or not."""
    app = made(*RULES, strict_slashes=strict, merge_slashes=merge)
    for path, method in asks:
        agree(app, path, method)


def test_converter_of_the_application_s_own_is_asked_each_time() -> None:
    """What it says may be another thing the next time; a subclass of a pure one is none itself."""
    calls: list[str] = []

    class Counting(BaseConverter):
        def to_python(self, value: str) -> int:
            calls.append(value)
            return len(calls)

    class Odd(IntegerConverter):
        def to_python(self, value: str) -> Any:
            return [value]

    app = WebServer("made", static_folder=None)
    app.url_map.converters.update(counting=Counting, odd=Odd)
    for rule in ("/c/<counting:number>", "/o/<odd:number>", "/m/<int:a>/<counting:b>"):
        app.add_url_rule(rule, rule, view)
    assert [found(app, "/c/x") for _ in range(3)] == [
        ("/c/<counting:number>", {"number": number}) for number in (1, 2, 3)
    ]
    assert [found(app, "/m/1/x") for _ in range(2)] == [
        ("/m/<int:a>/<counting:b>", {"a": 1, "b": number}) for number in (4, 5)
    ]
    lists = [found(app, "/o/7") for _ in range(2)]
    assert lists[0] is not None
    assert lists[1] is not None
    assert lists[0] == lists[1] == ("/o/<odd:number>", {"number": ["7"]})
    assert lists[0][1]["number"] is not lists[1][1]["number"]


async def test_arguments_are_the_view_s_own() -> None:
    """A view, or what runs before it, may change them without changing those of the next request."""
    app = WebServer("made", static_folder=None)

    @app.url_value_preprocessor
    def change(_: str | None, values: dict[str, Any] | None) -> None:
        assert values is not None
        values["name"] = values.pop("name") + "!"

    @app.route("/<name>/<int:number>")
    async def hello(name: str, number: int) -> str:
        assert request.view_args is not None
        request.view_args.clear()
        return f"{name} {number}"

    client = app.test_client()
    for _ in range(3):
        response = await client.get("/ann/7")
        assert await response.get_data(as_text=True) == "ann! 7"
    assert found(app, "/ann/7") == ("/<name>/<int:number>", {"name": "ann", "number": 7})


def test_first_arguments_are_the_view_s_own_as_well() -> None:
    """Not only those that come from memory."""
    app = made("/<name>", "/plain")
    for _ in range(3):
        for path, arguments in (("/ann", {"name": "ann"}), ("/plain", {})):
            match = found(app, path)
            assert match is not None
            assert match[1] == arguments
            match[1]["name"] = "changed"


def test_defaults_of_a_rule_are_among_its_arguments() -> None:
    """Each time anew, also where the path has no parameter."""
    app = made()
    app.add_url_rule("/first", "first", view, defaults={"number": 1})
    app.add_url_rule("/page/<name>", "page", view, defaults={"number": 2})
    for _ in range(3):
        for path, arguments in (("/first", {"number": 1}), ("/page/a", {"number": 2, "name": "a"})):
            match = found(app, path)
            assert match is not None
            assert match[1] == arguments
            assert adapted(app, path) == match
            match[1]["number"] = 9


def test_rule_that_comes_later_counts() -> None:
    """What was remembered before it is forgotten."""
    app = made("/<name>", "/x/<int:number>", "/y/plain")
    before = [found(app, path) for path in ("/hello", "/x/1", "/y/plain") for _ in range(2)]
    assert before[1] == ("/<name>", {"name": "hello"})
    for rule in ("/hello", "/x/1", "/y/<name>"):
        app.add_url_rule(rule, rule, view)
    after = [found(app, path) for path in ("/hello", "/x/1", "/y/plain", "/y/z")]
    assert after == [("/hello", {}), ("/x/1", {}), ("/y/plain", {}), ("/y/<name>", {"name": "z"})]
    for path in ("/hello", "/x/1", "/x/2", "/y/plain", "/other"):
        assert agree(app, path)


def test_redirects_and_errors_are_the_adapter_s_each_time() -> None:
    """To the folder, the merged path, the rule without its default, and where a rule leads elsewhere."""
    app = made("/folder/", "/a/<name>/", "/merged/<path:rest>", "/plain")
    app.add_url_rule("/page/", "page", view, defaults={"number": 1})
    app.add_url_rule("/page/<int:number>", "page", view)
    gone = QuartRule("/gone/<name>", endpoint="gone", methods={"GET"})
    gone.redirect_to = "/plain"
    app.url_map.add(gone)
    expected: dict[str, type[HTTPException]] = {
        "/folder": RequestRedirect,
        "/a/b": RequestRedirect,
        "/merged//x": RequestRedirect,
        "/page/1": RequestRedirect,
        "/gone/x": RequestRedirect,
        "/nowhere": NotFound,
    }
    for _ in range(3):
        for path, error in expected.items():
            assert adapted(app, path) is error, path
            assert found(app, path) is None, path
        assert found(app, "/plain") == adapted(app, "/plain") == ("/plain", {})
        assert found(app, "/plain", "DELETE") is None
        assert adapted(app, "/plain", "DELETE") is MethodNotAllowed
        assert found(app, "/page/2") is None  # two rules for one endpoint: an adapter knows which
        assert adapted(app, "/page/2") == ("/page/<int:number>", {"number": 2})


def test_what_is_kept_is_bounded() -> None:
    """The thousand paths that came last, none of which is longer than two hundred characters."""
    app = made("/text/<name>", "/plain")
    routes = map_of(app)
    for number in range(1_200):
        assert found(app, f"/text/{number}") == ("/text/<name>", {"name": str(number)})
    assert list(routes._taken_apart) == [("GET", f"/text/{number}") for number in range(200, 1_200)]
    longest = "/text/" + "x" * 194
    for path in (longest, longest + "x"):
        assert found(app, path) == ("/text/<name>", {"name": path[6:]})
    assert ("GET", longest) in routes._taken_apart
    assert ("GET", longest + "x") not in routes._taken_apart
    for number in range(1_200):
        found(app, "/plain", f"M{number}")
        found(app, f"/plain/{number}")
        routes.find(asked(app, "/plain", host=b"h%d.example" % number), None)
    assert len(routes._found) == 1
    assert len(routes._taken_apart) == 1_000
    assert len(routes._good_hosts) == 1_000


def test_hosts_and_subdomains_are_the_adapter_s() -> None:
    """Where the host decides, or is none, nothing is found without it."""
    app = made("/plain")
    routes = map_of(app)
    assert routes.find(asked(app, "/plain"), None) is not None
    assert routes.find(asked(app, "/plain"), "a.example") is None
    assert routes.find(asked(app, "/plain", host=b""), None) is None
    matching = WebServer("made", host_matching=True, static_host="s.example")
    matching.add_url_rule("/plain", "plain", view, host="a.example")
    assert cast(Any, matching.url_map).find(asked(matching, "/plain"), None) is None
