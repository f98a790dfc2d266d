"""Doors 1 and 2 say what door 3 says: applications are made up, and asked with the doors open and closed."""

from __future__ import annotations

import asyncio
import random
import re
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Final, cast

import pytest
from quart import Blueprint, Response, after_this_request, g, jsonify, request, session
from quart.signals import request_started
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from aeros import Br, Cache, CacheControl, WebServer, Zstd
from aeros.serving.application import ServedApplication
from aeros.serving.config import build_config
from aeros.serving.protocol import HTTPProtocol
from aeros.settings import ServerSettings

pytestmark = pytest.mark.usefixtures("untraced")

APPLICATIONS: Final = 100  # in each of the blocks
BLOCKS: Final = 6
REQUESTS: Final = 32
ROWS: Final = [{"id": number, "name": f"row {number}"} for number in range(60)]


@dataclass
class Made:
    """An application that was made up, and what is known of it.

    Attributes:
        app: The application.
        events: What ran in it, in order.
        now: The time on its clock.
        late: What may be done to it while it is being asked.
    """

    app: WebServer
    events: list[str] = field(default_factory=list[str])
    now: float = 1_800_000_000.0
    late: list[Callable[[], object]] = field(default_factory=list[Callable[[], object]])


def make(seed: int, *, early: bool) -> Made:
    """Returns the application of a seed; ``early`` is all that two of one seed differ in."""
    source = random.Random(seed)
    # In some nothing stands on the way, in some only now and then, in others more often than not.
    wildness = source.choice([0.0, 0.2, 0.5, 1.0])

    def happens(share: float) -> bool:
        return source.random() < share * wildness

    app = WebServer(
        "made up",
        cache=Cache(clock=lambda: made.now, show_status=not happens(0.2)),
        compression=source.choice([None, False, Br(), Zstd(min_size=100)]) if happens(0.7) else None,
        global_headers=source.choice([None, None, {"X-Everywhere": "yes"}, {"Vary": "Origin"}]),
        etag=happens(0.2),
    )
    made = Made(app)
    if happens(0.2):
        app.secret_key = "tests only"
    if happens(0.05):
        app.config["SERVER_NAME"] = "site.example"
    put_on_the_way(app, made, happens)

    options: dict[str, Any] = {"timeout": source.choice([5, 60, None]), "early": early}
    options |= {name: value for name, share, value in OPTIONS if happens(share)}
    view = make_view(made, source)
    for decorate, share in INSIDE:
        if happens(share):
            view = decorate(view)
    view = app.cache(**options)(view)
    if happens(0.1):
        view = outside(made, view)

    owner: WebServer | Blueprint = app
    if happens(0.3):
        owner = Blueprint("part", __name__, url_prefix=source.choice([None, "/part"]))
        if happens(0.2):
            owner.before_request(noted(made, "before the part"))
        if happens(0.1):
            owner.after_request(marked(made, "X-Part"))
    rules: dict[str, Any] = {"methods": ["GET", "POST"]} if happens(0.3) else {}
    for rule in ("/v", "/v/<int:number>", "/w/"):
        owner.add_url_rule(rule, view_func=view, **rules)
    if isinstance(owner, Blueprint):
        app.register_blueprint(owner)

    @app.route("/plain")
    async def plain() -> str:
        made.events.append("plain")
        return "plain"

    return made


def put_on_the_way(app: WebServer, made: Made, happens: Callable[[float], bool]) -> None:
    """Registers what sees requests on their way to a view, and what may be put there later."""
    if happens(0.1):
        app.before_request(noted(made, "before"))
    if happens(0.1):
        app.after_request(marked(made, "X-Late"))
    if happens(0.05):
        app.teardown_request(noted_sync(made, "teardown"))
    if happens(0.05):
        app.teardown_appcontext(noted_sync(made, "teardown of the context"))
    if happens(0.05):
        app.url_value_preprocessor(noted_sync(made, "values"))
    if happens(0.05):
        app.session_interface = cast(Any, type("Own", (type(app.session_interface),), {}))()
    if happens(0.15):
        cast(Any, app).asgi_app = middleware(made, app.asgi_app)
    views = cast("dict[str, Any]", app.view_functions)
    container = cast(Any, app.container)
    before: list[Any] = app.before_request_funcs[None]
    after: list[Any] = app.after_request_funcs[None]

    def listen() -> None:
        listener = noted_sync(made, "signal")
        made.events.append("listening")
        request_started.connect(listener, app, weak=False)

    def named() -> None:
        app.config["SERVER_NAME"] = "other.example"

    def decorate() -> None:
        for name in list(views):
            views[name] = outside(made, views[name])

    made.late += [
        lambda: before.append(noted(made, "late before")),
        lambda: after.append(marked(made, "X-Later")),
        before.clear,
        after.clear,
        listen,
        lambda: setattr(app, "asgi_app", middleware(made, app.asgi_app)),
        lambda: setattr(app, "secret_key", "set late"),
        decorate,
        named,
        app.clear_cache,
        lambda: app.clear_cache(path="/v"),
        lambda: container.settings.override(ServerSettings(global_headers={"X-Now": "1"})),
        lambda: container.compressor.override(Br(level=1)),
        container.settings.reset_override,
        lambda: container.cache.override(Cache(clock=lambda: made.now)),
    ]


def is_ok(response: Response) -> bool:
    """Tells whether a response is one that a route stores."""
    return response.status_code == 200


OPTIONS: Final[list[tuple[str, float, Any]]] = [
    ("query_string", 0.3, True),
    ("vary", 0.1, ["Accept-Language"]),
    ("cookies", 0.05, ["theme"]),
    ("key", 0.05, lambda: request.headers.get("X-Key", "")),
    ("unless", 0.05, lambda: "X-Not" in request.headers),
    ("forced_update", 0.05, lambda: "X-Update" in request.headers),
    ("response_filter", 0.05, is_ok),
    ("key_prefix", 0.1, "shared"),
    ("stale_while_revalidate", 0.1, 30),
    ("stale_if_error", 0.1, 30),
    ("authorized", 0.1, True),
    ("statuses", 0.1, {404: 20}),
    ("cache_none", 0.3, True),
    ("tags", 0.1, "tagged"),
]
INSIDE: Final[list[tuple[Callable[[Any], Any], float]]] = [
    (CacheControl(max_age=7), 0.15),
    (CacheControl(no_store=True), 0.03),
]


def make_view(made: Made, source: random.Random) -> Callable[..., Awaitable[Any]]:
    """Returns a view of one of many kinds; it says how often it ran."""
    kind = source.choice([*KINDS, *USUAL_KINDS])
    runs = Counter[str]()

    async def view(number: int = 0) -> Any:
        runs[request.path] += 1
        made.events.append(f"view {kind} {request.path}")
        return KINDS[kind](number, runs[request.path])

    return view


def _with_session(number: int, run: int) -> Any:
    return {"visits": session.get("visits", number)}


def _with_cookies(number: int, run: int) -> Any:
    return {"theme": request.cookies.get("theme", "none")}


def _with_hook(number: int, run: int) -> Any:
    @after_this_request
    async def mark(response: Any) -> Any:
        response.headers["X-This"] = str(run)
        return response

    g.seen = number
    return "hooked"


def _failing(number: int, run: int) -> Any:
    if run % 3 == 0:
        raise RuntimeError("on purpose")
    return f"run {run}"


KINDS: Final[dict[str, Callable[[int, int], Any]]] = {
    "rows": lambda number, run: ROWS[number:],
    "json": lambda number, run: jsonify(number=number, run=run),
    "text": lambda number, run: f"number {number}, run {run}",
    "bytes": lambda number, run: (b"x" * 600, 200, {"Content-Type": "application/octet-stream"}),
    "large": lambda number, run: "large " * 20_000,
    "empty": lambda number, run: "",
    "none": lambda number, run: None,
    "no content": lambda number, run: ("", 204),
    "missing": lambda number, run: ("missing " * 100, 404),
    "etag": lambda number, run: ("tagged " * 100, 200, {"ETag": f'"v{number}"'}),
    "weak etag": lambda number, run: ("tagged " * 100, 200, {"ETag": f'W/"v{number}"'}),
    "modified": lambda number, run: ("old", 200, {"Last-Modified": "Tue, 01 Jan 2019 00:00:00 GMT"}),
    "states": lambda number, run: ("stated", 200, {"Cache-Control": "public, max-age=9, s-maxage=3"}),
    "private": lambda number, run: ("mine", 200, {"Cache-Control": "private"}),
    "varies": lambda number, run: ("varied", 200, {"Vary": "Accept-Language"}),
    "coded": lambda number, run: (b"coded", 200, {"Content-Encoding": "br"}),
    "cookie": lambda number, run: ("cookie", 200, {"Set-Cookie": "a=b"}),
    "fields": lambda number, run: ("fields", 200, [("X-One", "a"), ("X-One", "b"), ("X-Two", "ü")]),
    "connection": lambda number, run: ("closing", 200, {"Connection": "close"}),
    "digest": lambda number, run: ("digest " * 90, 200, {"Repr-Digest": "sha-256=:AAAA:"}),
    "dated": lambda number, run: ("dated", 200, {"Date": "Tue, 01 Jan 2019 00:00:00 GMT", "Age": "2"}),
    "no-transform": lambda number, run: ("as it is " * 90, 200, {"Cache-Control": "no-transform"}),
    "session": _with_session,
    "cookies": _with_cookies,
    "hook": _with_hook,
    "failing": _failing,
    "response": lambda number, run: Response("made " * 200, content_type="text/plain"),
}


USUAL_KINDS: Final = ("rows", "json", "text", "large", "etag", "fields", "response", "dated", "states") * 3


def noted(made: Made, event: str) -> Callable[[], Awaitable[None]]:
    """Returns a hook that notes that it ran."""

    async def hook() -> None:
        made.events.append(event)

    return hook


def noted_sync(made: Made, event: str) -> Callable[..., None]:
    """Returns a function that notes that it ran, whatever it is called with."""

    def hook(*_: object, **__: object) -> None:
        made.events.append(event)

    return hook


def marked(made: Made, name: str) -> Callable[[Response], Awaitable[Response]]:
    """Returns a hook that puts a field on the response."""

    async def hook(response: Response) -> Response:
        made.events.append(f"after {name}")
        response.headers[name] = str(len(made.events))
        return response

    return hook


def outside(made: Made, view: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Returns a view with a decorator that sees every request to it."""

    @wraps(view)
    async def decorated(*args: Any, **kwargs: Any) -> Any:
        made.events.append("outside")
        return await view(*args, **kwargs)

    return decorated


def middleware(made: Made, inner: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Returns an ASGI application that puts a field on each response."""

    async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
        made.events.append("middleware")

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"x-middleware", b"yes")]}
            await send(message)

        await inner(scope, receive, sending)

    return asgi_app


# What is asked


def make_request(source: random.Random, tags: list[bytes], favourite: bytes) -> bytes:
    """Returns the head of a request, mostly one that a cache can answer."""
    if source.random() < 0.4:
        lines = [b"GET " + favourite + b" HTTP/1.1", b"Host: site.example", b"Accept-Encoding: gzip, br"]
        return b"\r\n".join([*lines, b"", b""])
    method = source.choices([b"GET", b"HEAD", b"POST", b"OPTIONS", b"PUT"], [80, 10, 4, 3, 3])[0]
    target = source.choices(TARGETS, [12 if target in USUAL else 1 for target in TARGETS])[0]
    lines = [method + b" " + target + b" HTTP/1." + (b"0" if source.random() < 0.03 else b"1")]
    host = (
        b"site.example" if source.random() < 0.95 else source.choice([b"other.example", b"SITE.example:80"])
    )
    lines.append(b"Host: " + host)
    accepted = source.choices([b"gzip, deflate, br", b"", b"gzip", b"br;q=0, identity"], [10, 4, 2, 1])[0]
    if accepted:
        lines.append(b"Accept-Encoding: " + accepted)
    if source.random() < 0.15 and tags:
        lines.append(b"If-None-Match: " + source.choice([*tags, b"*", b'"other"', b", ".join(tags)]))
    lines += (line for line in FIELDS if source.random() < 0.03)
    content = b""
    if method in (b"POST", b"PUT"):
        content = b"abc"
        lines.append(b"Content-Length: 3")
    return b"\r\n".join([*lines, b"", content])


USUAL: Final = (b"/v", b"/v/1", b"/w/")
TARGETS: Final = [
    *USUAL,
    *(b"/part/v", b"/part/v/1", b"/v/2", b"/v?x=1", b"/v?y=2&x=1", b"/v?", b"/w", b"/plain", b"/nowhere"),
    *(b"/%76", b"//v", b"/v/%31", b"http://site.example/v", b"/v;p", b"/v#f", b"/v/x", b"/v?x=%zz"),
]
FIELDS: Final = [
    *(
        b"Range: bytes=0-3",
        b"If-Modified-Since: Tue, 01 Jan 2030 00:00:00 GMT",
        b'If-Match: "x"',
        b"If-Range: x",
    ),
    *(
        b"Authorization: Bearer x",
        b"Cookie: theme=dark",
        b"Cookie: session=e30.x.y",
        b"Cache-Control: no-cache",
    ),
    *(b"Accept-Language: de", b"X-Key: 1", b"X-Not: 1", b"X-Update: 1", b"X-Forwarded-For: 192.0.2.1"),
    *(
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: evil.example",
        b"Connection: close",
        b"Pragma: no-cache",
    ),
    *(b"Accept-Encoding: br", b"Origin: http://x.example", b"Expect: 100-continue", b"Content-Length: 0"),
    *(b"Upgrade: h2c", b"TE: trailers", b"If-None-Match:", b"Host: twice.example"),
]


async def ask(protocol: type[asyncio.Protocol], made: Made, content: bytes) -> bytes:
    """Returns all that the application says to what comes on one connection."""
    settings = made.app.container.settings()
    served = ServedApplication(made.app, settings)
    config = build_config(served)
    config.http = cast(Any, protocol)
    config.load()
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    state = ServerState()
    factory: Any = protocol
    transport, _ = await loop.connect_accepted_socket(lambda: factory(config, state, {}), ours)
    reader, writer = await asyncio.open_connection(sock=theirs)
    try:
        writer.write(content)
        return await asyncio.wait_for(read_one(reader, head_only=content.startswith(b"HEAD")), 20)
    finally:
        writer.close()
        transport.close()
        while state.tasks:
            await asyncio.sleep(0)


async def read_one(reader: asyncio.StreamReader, *, head_only: bool) -> bytes:
    """Returns one response."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    if head.startswith(b"HTTP/1.1 100"):
        return head + await read_one(reader, head_only=head_only)
    length = re.search(rb"\r\ncontent-length: (\d+)", head)
    if head_only or length is None:
        return head
    return head + await reader.readexactly(int(length[1]))


def steady(said: bytes) -> bytes:
    """Returns what was said without the moment at which it was."""
    return re.sub(rb"\r\ndate: \w{3}, [^\r]+ (20(?!19)\d\d) [^\r]+", b"\r\ndate: now", said)


async def compare(seed: int, protocol: type[asyncio.Protocol]) -> Counter[int]:
    """Asks the two applications of a seed the same, and returns the hits of the first one by door."""
    opened, closed = make(seed, early=True), make(seed, early=False)
    source = random.Random(-seed - 1)
    favourite, often = (
        source.choice([b"/v", b"/v/1", b"/part/v", b"/v?x=1"]),
        source.choice([0, 0, 0.03, 0.1]),
    )
    before = asyncio.all_tasks()
    tags: list[bytes] = []
    for number in range(REQUESTS):
        content = make_request(source, tags, favourite)
        passes = source.choice([0.0, 0.0, 0.25, 1.0, 1.0, 4.0, 30.0, -2.0])
        late = source.randrange(len(opened.late)) if source.random() < often else None
        said: list[bytes] = []
        for made in (opened, closed):
            made.now += passes
            if late is not None:
                made.late[late]()
            said.append(steady(await ask(protocol, made, content)))
            # Stale responses are made anew in the background.
            while asyncio.all_tasks() - before:
                await asyncio.sleep(0)
        where = f"seed {seed}, request {number}: {content!r}, late {late}"
        assert said[0] == said[1], where
        assert Counter(opened.events) == Counter(closed.events), where
        tags += re.findall(rb"\r\netag: ([^\r]+)", said[0])
        del tags[:-3]
    counts = [made.app.cache_stats() for made in (opened, closed)]
    assert counts[1].hits == counts[1].hits_by_door[3]
    for name in ("hits", "misses", "stores", "bypasses", "collapsed", "stale", "refreshes"):
        assert getattr(counts[0], name) == getattr(counts[1], name), (seed, name)
    return Counter(dict(counts[0].hits_by_door))


@pytest.mark.filterwarnings("ignore:Current server name")
@pytest.mark.parametrize("block", range(BLOCKS))
async def test_doors_say_the_same_as_the_view(block: int) -> None:
    """On aeros's protocol: the same bytes, the same events, the same counters."""
    await compare_block(block, HTTPProtocol, least={1: 60, 2: 2, 3: 100})


@pytest.mark.filterwarnings("ignore:Current server name")
@pytest.mark.parametrize("block", range(BLOCKS // 2))
async def test_door_2_says_the_same_as_the_view(block: int) -> None:
    """On a server that has no door 1 it answers what that one would have."""
    await compare_block(1_000 + block, HttpToolsProtocol, least={1: 0, 2: 60, 3: 100})


async def compare_block(block: int, protocol: type[asyncio.Protocol], least: dict[int, int]) -> None:
    """Compares many applications; each door must have answered often enough to tell."""
    hits = Counter[int]()
    for seed in range(block * APPLICATIONS, (block + 1) * APPLICATIONS):
        receivers = dict(request_started.receivers)
        hits += await compare(seed, protocol)
        for known in request_started.receivers.keys() - receivers.keys():
            request_started.disconnect(request_started.receivers[known])
    assert all(hits[door] >= count for door, count in least.items()), hits
