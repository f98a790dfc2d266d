"""``run_server()``: the configuration that uvicorn gets, and real processes that serve until stopped."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import select
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from inspect import signature
from itertools import combinations
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import httpx
import pytest
import uvicorn
from dependency_injector import providers

from aeros import Container, InstancePathError, ServerSettings, StartupError, WebServer
from aeros.serving.protocol import HTTPProtocol
from tests.integration.conftest import Child, Start, eventually

T = TypeVar("T")

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]

DEADLINE_SECONDS = 20.0
ACCESS_LINE = re.compile(r'\[[^]]+\] INFO: 127\.0\.0\.1 "GET (\S+) HTTP/1\.1" (\d{3}) \d+ [\d.]+ms \S+')


# The configuration, with a server that only keeps it


class Recorder:
    """An application whose server keeps what it was made for instead of serving.

    Args:
        arguments: What the application is made with, beside its name and its container.
        config: What its container's configuration states.
    """

    def __init__(
        self, arguments: Mapping[str, Any] | None = None, config: Mapping[str, Any] | None = None
    ) -> None:
        self.configs: list[uvicorn.Config] = []
        self.settings: list[ServerSettings] = []
        recorder = self

        class Stub:
            def __init__(self, config: uvicorn.Config) -> None:
                recorder.configs.append(config)

            def run(self) -> None:
                recorder.settings.append(recorder.app.container.settings())

        container = Container()
        overriding: providers.Provider[Any] = providers.Factory(Stub)
        container.server.override(overriding)  # pyright: ignore[reportUnknownMemberType]  # its stub
        container.config.from_dict(dict(config or {}))
        self.app = WebServer("recorded", container=container, **(arguments or {}))

    def run(self, **arguments: Any) -> uvicorn.Config:
        """Calls ``run_server()`` and returns what uvicorn's server would have got."""
        self.app.run_server(**arguments)
        return self.configs[-1]

    def settings_of_run(self, **arguments: Any) -> ServerSettings:
        """Calls ``run_server()`` and returns the settings that were in force meanwhile."""
        self.app.run_server(**arguments)
        return self.settings[-1]


# By parameter of uvicorn.Config: what a plain run_server() makes of it. "app" is checked apart.
DEFAULTS: Final[Mapping[str, object]] = {
    "host": "0.0.0.0",
    "port": 80,
    "uds": None,
    "fd": None,
    "loop": "auto",
    "http": HTTPProtocol,
    "http2": False,
    "ws": "auto",
    "ws_max_size": 16 * 2**20,
    "ws_max_queue": 32,
    "ws_ping_interval": 20.0,
    "ws_ping_timeout": 20.0,
    "ws_per_message_deflate": True,
    "lifespan": "auto",
    "env_file": None,
    "log_config": None,
    "log_level": None,
    "access_log": False,
    "use_colors": None,
    "interface": "auto",
    "reload": False,
    "reload_dirs": [],
    "reload_delay": 0.25,
    "reload_includes": [],
    "reload_excludes": [],
    "workers": 1,
    "proxy_headers": True,
    "server_header": True,
    "date_header": False,
    "forwarded_allow_ips": "127.0.0.1,::1",
    "root_path": "",
    "limit_concurrency": None,
    "limit_max_requests": None,
    "limit_max_requests_jitter": 0,
    "backlog": 2048,
    "timeout_keep_alive": 5,
    "timeout_notify": 30,
    "timeout_graceful_shutdown": 15,
    "timeout_worker_healthcheck": 5,
    "callback_notify": None,
    "ssl_keyfile": None,
    "ssl_certfile": None,
    "ssl_keyfile_password": None,
    "ssl_version": ssl.PROTOCOL_TLS_SERVER,
    "ssl_cert_reqs": ssl.CERT_NONE,
    "ssl_ca_certs": None,
    "ssl_ciphers": None,
    "ssl_context_factory": None,
    "headers": [],
    "factory": False,
    "h11_max_incomplete_event_size": None,
    "reset_contextvars": False,
}

# The configuration does not keep it: reading the file is all that it is for.
NOT_KEPT: Final = frozenset({"env_file"})


async def notify() -> None:
    """Stands for ``callback_notify``."""


def build_context(config: uvicorn.Config, build_default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """Stands for ``ssl_context_factory``."""
    return build_default()


# Every option that uvicorn gets as it was given, with a value that is not its default.
PASSED: Final[Mapping[str, object]] = {
    "uds": "passed.sock",
    "fd": 99,
    "loop": "asyncio",
    "http": "httptools",
    "http2": True,
    "ws": "none",
    "ws_max_size": 1000,
    "ws_max_queue": 7,
    "ws_ping_interval": 3.0,
    "ws_ping_timeout": None,
    "ws_per_message_deflate": False,
    "lifespan": "off",
    "log_config": {"version": 1, "incremental": True},
    "interface": "asgi3",
    "reload_delay": 1.5,
    "proxy_headers": False,
    "forwarded_allow_ips": ["10.0.0.1"],
    "root_path": "/under",
    "limit_concurrency": 9,
    "limit_max_requests": 1000,
    "limit_max_requests_jitter": 10,
    "backlog": 64,
    "timeout_keep_alive": 1,
    "timeout_notify": 2,
    "timeout_graceful_shutdown": 3,
    "timeout_worker_healthcheck": 4,
    "callback_notify": notify,
    "ssl_keyfile": "key.pem",
    "ssl_certfile": "cert.pem",
    "ssl_keyfile_password": "secret",
    "ssl_version": ssl.PROTOCOL_TLS,
    "ssl_cert_reqs": ssl.CERT_REQUIRED,
    "ssl_ca_certs": "ca.pem",
    "ssl_ciphers": "ECDHE+AESGCM",
    "ssl_context_factory": build_context,
    "headers": [("X-One", "1")],
    "h11_max_incomplete_event_size": 4096,
    "reset_contextvars": True,
}

# Those that aeros looks after, and those that need other processes; each has tests of its own below.
LOOKED_AFTER: Final = frozenset(
    {
        "app",
        "host",
        "port",
        "factory",
        "env_file",
        "log_level",
        "access_log",
        "use_colors",
        "server_header",
        "date_header",
        "workers",
        "reload",
        "reload_dirs",
        "reload_includes",
        "reload_excludes",
    }
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_tables_of_this_file_name_every_option_of_uvicorn() -> None:
    """A new option of uvicorn has to be thought of: here, and in aeros."""
    parameters = set(signature(uvicorn.Config).parameters)
    assert {"app", *DEFAULTS} == parameters
    assert LOOKED_AFTER | set(PASSED) == parameters
    assert not LOOKED_AFTER & set(PASSED)


def test_defaults_of_run_server_reach_uvicorn() -> None:
    """Each field of the configuration of a plain ``run_server()`` is the documented default."""
    recorder = Recorder()
    config = recorder.run()
    found = {name: getattr(config, name) for name in DEFAULTS if name not in NOT_KEPT}
    assert found == {name: value for name, value in DEFAULTS.items() if name not in NOT_KEPT}
    assert callable(config.app)
    assert config.app is not recorder.app


@pytest.mark.parametrize("option", sorted(PASSED))
def test_option_of_uvicorn_passes_through(option: str, folder: Path) -> None:
    """What is passed arrives unchanged, and nothing else changes with it."""
    config = Recorder().run(**{option: PASSED[option]})
    expected = {**DEFAULTS, option: PASSED[option]}
    for name in expected.keys() - NOT_KEPT:
        assert getattr(config, name) == expected[name], name


def test_all_options_pass_through_together(folder: Path) -> None:
    """One call with every option and every argument of aeros's own."""
    recorder = Recorder()
    config = recorder.run(
        host="127.0.0.1",
        port=8001,
        log_level="warning",
        access_log_file="access.log",
        access_log_to_std=False,
        traceback=False,
        soft_limit=3,
        hard_limit=None,
        log_format="json",
        color=False,
        server_header=False,
        **PASSED,
    )
    expected = {**DEFAULTS, **PASSED, "host": "127.0.0.1", "port": 8001, "server_header": False}
    for name in expected.keys() - NOT_KEPT:
        assert getattr(config, name) == expected[name], name
    settings = recorder.settings[-1]
    assert (settings.log_level, settings.access_log_file) == (logging.WARNING, "access.log")
    assert (settings.access_log_to_std, settings.traceback) == (False, False)
    assert (settings.soft_limit, settings.hard_limit) == (3, None)
    assert (settings.log_format, settings.color) == ("json", False)


def test_positional_arguments_are_in_the_order_of_the_reference(folder: Path) -> None:
    """``host, port, log_level, access_log_file, access_log_to_std, traceback, soft_limit, hard_limit``."""
    recorder = Recorder()
    recorder.app.run_server("127.0.0.1", 8001, logging.ERROR, "access.log", False, False, 2, 5)
    settings = recorder.settings[-1]
    assert (settings.host, settings.port, settings.log_level) == ("127.0.0.1", 8001, logging.ERROR)
    assert (settings.access_log_file, settings.access_log_to_std) == ("access.log", False)
    assert (settings.traceback, settings.soft_limit, settings.hard_limit) == (False, 2, 5)


def test_env_file_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``env_file`` fills the environment before the application is served."""
    monkeypatch.setenv("SHOP_COLOR", "")
    monkeypatch.delenv("SHOP_COLOR")
    (folder / "shop.env").write_text("SHOP_COLOR=green\n")
    Recorder().run(env_file="shop.env")
    assert os.environ["SHOP_COLOR"] == "green"


def test_server_header_is_the_setting_of_aeros() -> None:
    """``include_server_header`` of the constructor and uvicorn's ``server_header`` are one setting."""
    assert Recorder({"include_server_header": False}).run().server_header is False
    recorder = Recorder({"include_server_header": True})
    assert recorder.run(server_header=False).server_header is False
    assert recorder.settings[-1].include_server_header is False
    assert Recorder(config={"include_server_header": "no"}).run().server_header is False


def test_use_colors_is_the_setting_of_aeros() -> None:
    """Uvicorn's ``use_colors`` means ``color``; an explicit ``color`` wins."""
    assert Recorder().settings_of_run(use_colors=True).color is True
    assert Recorder().settings_of_run(use_colors=False).color is False
    assert Recorder().settings_of_run(use_colors=None).color is None
    assert Recorder().settings_of_run(use_colors=True, color=False).color is False


def test_access_log_false_switches_both_targets_off(folder: Path) -> None:
    """Uvicorn's ``access_log=False`` means no access log at all, and True changes nothing."""
    settings = Recorder().settings_of_run(access_log=False, access_log_file="access.log")
    assert (settings.access_log_to_std, settings.access_log_file) == (False, None)
    assert not (folder / "access.log").exists()
    settings = Recorder().settings_of_run(access_log=True, access_log_file="access.log")
    assert (settings.access_log_to_std, settings.access_log_file) == (True, "access.log")


def test_a_run_touches_no_logger_of_uvicorn() -> None:
    """``log_config=None``: handlers, levels and propagation are as before when the run has ended."""

    def state() -> list[object]:
        loggers = [logging.getLogger(name) for name in ("uvicorn", "uvicorn.error", "uvicorn.access")]
        return [(logger.level, list(logger.handlers), logger.propagate) for logger in loggers]

    access = logging.getLogger("uvicorn.access")
    mine = logging.NullHandler()
    access.addHandler(mine)
    try:
        before = state()
        Recorder().run(log_level="debug", access_log=False)
        assert state() == before
        assert mine in access.handlers
    finally:
        access.removeHandler(mine)


# Precedence

LAYERS: Final = ("run_server", "WebServer", "config", "environment", "default")

# By setting: the values that the stronger and the weaker of two layers state.
STATED: Final[Mapping[str, tuple[Any, Any]]] = {
    "host": ("127.0.0.1", "127.0.0.2"),
    "port": (8001, 8002),
    "log_level": (logging.ERROR, logging.DEBUG),
    "access_log_file": ("strong.log", "weak.log"),
    "access_log_to_std": (False, True),
    "access_log_exclude": (("/strong",), ("/weak",)),
    "error_log_file": ("strong.err", "weak.err"),
    "traceback": (False, True),
    "soft_limit": (3, 4),
    "hard_limit": (90, 91),
    "log_format": ("json", "text"),
    "color": (False, True),
}
CONSTRUCTOR: Final = {"host": "host", "port": "port", "log_level": "logging_level"}


def resolved_setting(setting: str, layers: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> object:
    """Returns a setting during a run, when each layer states its value."""
    if "environment" in layers:
        value = layers["environment"]
        text = ",".join(cast("tuple[str, ...]", value)) if isinstance(value, tuple) else str(value)
        monkeypatch.setenv(f"AEROS_{setting.upper()}", text)
    recorder = Recorder(
        {CONSTRUCTOR[setting]: layers["WebServer"]} if "WebServer" in layers else {},
        {setting: layers["config"]} if "config" in layers else {},
    )
    run = {setting: layers["run_server"]} if "run_server" in layers else {}
    return getattr(recorder.settings_of_run(**run), setting)


PAIRS: Final = [
    (setting, strong, weak)
    for setting in STATED
    for strong, weak in combinations(LAYERS, 2)
    if setting in CONSTRUCTOR or "WebServer" not in (strong, weak)
]


@pytest.mark.parametrize(("setting", "strong", "weak"), PAIRS)
def test_stronger_layer_wins(
    setting: str, strong: str, weak: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """run_server() > WebServer() > container.config > AEROS_* > default, for each pair and setting."""
    values = STATED[setting]
    layers = {strong: values[0], weak: values[1]}
    layers.pop("default", None)
    assert resolved_setting(setting, layers, monkeypatch) == values[0]


@pytest.mark.parametrize(("strong", "weak"), list(combinations(["WebServer", "config", "environment"], 2)))
def test_stronger_layer_wins_for_the_server_header(
    strong: str, weak: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for ``include_server_header``, which ``run_server()`` takes under uvicorn's name."""
    name = "include_server_header"
    layers = {strong: False, weak: True}
    if "environment" in layers:
        monkeypatch.setenv("AEROS_INCLUDE_SERVER_HEADER", str(layers["environment"]))
    recorder = Recorder(
        {name: layers["WebServer"]} if "WebServer" in layers else {},
        {name: layers["config"]} if "config" in layers else {},
    )
    assert recorder.run().server_header is False
    assert recorder.run(server_header=True).server_header is True


def test_stronger_layer_wins_under_the_constructors_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """``logging_level`` in the configuration beats ``AEROS_LOG_LEVEL`` in the environment."""
    monkeypatch.setenv("AEROS_LOG_LEVEL", "error")
    assert Recorder(config={"logging_level": "debug"}).settings_of_run().log_level == logging.DEBUG
    monkeypatch.setenv("AEROS_LOGGING_LEVEL", "critical")
    assert Recorder(config={"log_level": "debug"}).settings_of_run().log_level == logging.DEBUG


def test_all_layers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every layer stating a port, leaving out the strongest uncovers the next."""
    layers = {"run_server": 8001, "WebServer": 8002, "config": 8003, "environment": 8004}
    for expected in (8001, 8002, 8003, 8004):
        with monkeypatch.context() as patch:
            assert resolved_setting("port", layers, patch) == expected
        layers.pop(next(iter(layers)))
    assert resolved_setting("port", layers, monkeypatch) == 80


def test_limits_of_a_run_can_be_switched_off() -> None:
    """None is a value for the limits, not the absence of one."""
    settings = Recorder(config={"soft_limit": 5, "hard_limit": 6}).settings_of_run(
        soft_limit=None, hard_limit=None
    )
    assert (settings.soft_limit, settings.hard_limit) == (None, None)


# Real processes

SHOP = """\
import os
import time
from aeros import WebServer


app = WebServer("shop", "127.0.0.1", 0)

@app.route("/")
@app.cache(60)
async def index():
    return "open"

@app.route("/pid")
async def pid():
    time.sleep(0.05)  # holds up this worker, so that another one takes the next connection
    return str(os.getpid())

@app.route("/boom")
async def boom():
    raise ValueError("broken\\nview")

@app.route("/log")
async def log():
    app.logger.info("said by the view")
    return "logged"

"""
MAIN = 'if __name__ == "__main__":\n    app.run_server({})\n'


StartShop = Callable[..., Child]


@pytest.fixture
def start_shop(tmp_path: Path, start: Start) -> StartShop:
    """Starts a script that serves the shop, with these arguments for ``run_server()``."""

    def begin(arguments: str = "", *, head: str = "", **environment: str) -> Child:
        (tmp_path / "shop.py").write_text(head + SHOP + MAIN.format(arguments))
        return start("shop.py", **environment)

    return begin


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_script_serves_until_a_signal_and_ends_with_status_0(
    start_shop: StartShop, number: signal.Signals
) -> None:
    """It answers, logs to both standard streams without colour, and ends cleanly."""
    child = start_shop()
    assert child.get("/").text == "open"
    assert child.get("/").text == "open"
    assert child.get("/nothing?a=1").status_code == 404
    assert child.stop(number) == 0
    serving, facts = child.stderr.splitlines()
    assert re.fullmatch(r"\[.*\] INFO: Serving on http://127\.0\.0\.1:\d+ \(Press CTRL\+C to quit\)", serving)
    assert re.fullmatch(
        r"\[.*\] INFO: workers: 1; cache: Cache\(.*\); compression: Negotiated\(.*\);"
        r" soft_limit: 32; hard_limit: 42",
        facts,
    )
    lines = [ACCESS_LINE.fullmatch(line) for line in child.stdout.splitlines()]
    assert [line and line.groups() for line in lines] == [
        ("/", "200"),
        ("/", "200"),
        ("/nothing?a=1", "404"),
    ]
    assert [line.rsplit(" ", 1)[1] for line in child.stdout.splitlines()] == ["stored", "hit", "-"]


def read_terminal(tmp_path: Path, arguments: str = "", **environment: str) -> str:
    """Serves one request on a terminal and returns what stood there."""
    script = tmp_path / "shop.py"
    script.write_text(SHOP + MAIN.format(arguments))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm", **environment},
        start_new_session=True,
    )
    os.close(theirs)
    text, asked = "", False
    deadline = time.monotonic() + DEADLINE_SECONDS
    try:
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    text += os.read(ours, 4096).decode()
                except OSError:  # the last process closed the terminal
                    return text
            address = re.search(r"http://127\.0\.0\.1:\d+", text)
            if address and "hard_limit" in text and not asked:
                asked = True
                assert httpx.get(address[0] + "/").status_code == 200
                process.send_signal(signal.SIGTERM)
        raise AssertionError(f"did not end: {text}")
    finally:
        os.close(ours)
        process.kill()
        process.wait()


def test_lines_are_coloured_on_a_terminal(tmp_path: Path) -> None:
    """The level's name is coloured when a person reads it."""
    text = read_terminal(tmp_path)
    assert "\x1b[32mINFO\x1b[0m: Serving on" in text
    assert '"GET / HTTP/1.1" 200' in text


def test_no_color_is_respected_on_a_terminal(tmp_path: Path) -> None:
    """``NO_COLOR`` in the environment means no escape sequence at all (no-color.org)."""
    text = read_terminal(tmp_path, NO_COLOR="1")
    assert "INFO: Serving on" in text
    assert "\x1b" not in text


def test_use_colors_colours_a_file(start_shop: StartShop) -> None:
    """An explicit wish is stronger than what the stream is."""
    child = start_shop("use_colors=True")
    assert "\x1b[32mINFO\x1b[0m: Serving on" in eventually(lambda: child.stderr)
    assert child.stop() == 0


def test_access_log_goes_to_a_file_instead_of_standard_output(start_shop: StartShop, tmp_path: Path) -> None:
    """``access_log_file`` is appended to, and ``access_log_to_std=False`` keeps the console free."""
    log = tmp_path / "access.log"
    log.write_text("an older line\n")
    child = start_shop("access_log_file='access.log', access_log_to_std=False")
    child.get("/")
    assert child.stop() == 0
    assert child.stdout == ""
    older, line = log.read_text().splitlines()
    assert older == "an older line"
    assert ACCESS_LINE.fullmatch(line)


def test_traceback_false_makes_an_exception_one_line(start_shop: StartShop) -> None:
    """The exception's type and text stand at the end of its line, and no traceback follows."""
    child = start_shop("traceback=False")
    assert child.get("/boom").status_code == 500
    assert child.stop() == 0
    (line,) = child.stderr.splitlines()[2:]
    assert re.search(r"ERROR: Exception on request GET /boom \(ValueError: broken\\nview\)$", line)


def test_traceback_true_shows_it_indented(start_shop: StartShop) -> None:
    """By default the traceback follows, and only lines of the log begin at the margin."""
    child = start_shop()
    assert child.get("/boom").status_code == 500
    assert child.stop() == 0
    line, *rest = child.stderr.splitlines()[2:]
    assert line.endswith("ERROR: Exception on request GET /boom")
    assert rest[0] == "  Traceback (most recent call last):"
    assert all(text.startswith("  ") for text in rest)
    assert "  ValueError: broken" in rest


def test_log_level_hides_what_is_below(start_shop: StartShop, free_port: int) -> None:
    """At ``error`` neither the banner nor a view's INFO line is shown; an error is."""
    child = start_shop(f"port={free_port}, log_level='error', traceback=False")
    url = f"http://127.0.0.1:{free_port}"

    def answers() -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(url + "/log").text == "logged"
        return False

    eventually(answers)
    assert httpx.get(url + "/boom").status_code == 500
    assert child.stop() == 0
    (line,) = child.stderr.splitlines()
    assert "ERROR: Exception on request GET /boom" in line


def test_json_log_is_json_on_every_line(start_shop: StartShop) -> None:
    """Both streams, the banner, uvicorn's lines, accesses and exceptions: one object per line."""
    child = start_shop("log_format='json', log_level='debug'")
    child.get("/?q=%22")
    child.get("/log")
    child.get("/boom")
    assert child.stop() == 0
    log = [json.loads(line) for line in child.stderr.splitlines()]
    assert any(entry["message"].startswith("Serving on") for entry in log)
    assert ("DEBUG", "Application startup complete.") in [(entry["level"], entry["message"]) for entry in log]
    assert "said by the view" in [entry["message"] for entry in log]
    (failure,) = [entry for entry in log if "exception" in entry]
    assert (failure["exception"]["type"], failure["exception"]["message"]) == ("ValueError", "broken\nview")
    accesses = [json.loads(line) for line in child.stdout.splitlines()]
    assert [(entry["path"], entry["status"], entry["cache"]) for entry in accesses] == [
        ("/?q=%22", 200, "stored"),
        ("/log", 200, None),
        ("/boom", 500, None),
    ]


def test_lines_are_not_doubled_by_a_configured_root_logger(start_shop: StartShop) -> None:
    """After ``logging.basicConfig()`` each line comes once, through the user's own handler."""
    child = start_shop(head="import logging\nlogging.basicConfig(level='INFO', format='MINE %(message)s')\n")
    child.get("/log")
    child.get("/boom")
    assert child.stop() == 0
    lines = child.stderr.splitlines()
    assert lines.count("MINE said by the view") == 1
    assert child.stderr.count("said by the view") == 1
    assert child.stderr.count("Serving on") == 1
    assert child.stderr.count("Exception on request") == 1
    assert child.stderr.count("ValueError: broken") == 1
    assert len(child.stdout.splitlines()) == 2


def test_unix_socket_is_served_and_removed(start_shop: StartShop, tmp_path: Path) -> None:
    """``uds`` takes the place of host and port; the banner names it, and it is gone afterwards."""
    path = tmp_path / "shop.sock"
    child = start_shop(f"uds={str(path)!r}")
    eventually(lambda: "Serving on" in child.stderr)
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        assert client.get("http://shop/").text == "open"
    assert child.stop() == 0
    assert f"Serving on unix socket {path} " in child.stderr
    assert not path.exists()


def test_date_header_false_leaves_the_date_out() -> None:
    """Without it no ``Date`` is sent; by default there is exactly one, on hits too."""
    app = WebServer("dated")

    @app.route("/")
    @app.cache(60)
    async def index() -> str:
        return "open"

    for options, count in (({"date_header": False}, 0), ({"date_header": True}, 1), ({}, 1)):
        with app.run_in_thread(**cast(Any, options)) as server:
            for _ in range(2):
                assert len(httpx.get(server.url).headers.get_list("Date")) == count


def test_reload_serves_the_changed_file(start: Start, tmp_path: Path) -> None:
    """With ``reload=True`` a script that was saved again is what answers next."""
    script = tmp_path / "shop.py"
    source = (
        "from aeros import WebServer\n"
        "app = WebServer('shop', '127.0.0.1', 0)\n"
        "@app.route('/')\nasync def index():\n    return 'VERSION'\n"
    ) + MAIN.format("reload=True, reload_delay=0.05")
    script.write_text(source.replace("VERSION", "first"))
    child = start("shop.py")
    assert child.get("/").text == "first"

    def second_answers() -> bool:
        # Again and again: the watcher may not look yet, and it compares times.
        script.write_text(source.replace("VERSION", "second"))
        time.sleep(0.5)
        return child.get("/").text == "second"

    eventually(second_answers)
    assert child.stop() == 0
    eventually(child.is_alone)


def test_workers_share_the_port_and_are_replaced(start_shop: StartShop) -> None:
    """Two processes answer, a killed one is replaced, and nothing remains after SIGTERM."""
    child = start_shop("workers=2")
    pids: set[str] = set()

    def count_after_asking() -> int:
        with ThreadPoolExecutor(8) as pool:
            pids.update(response.text for response in pool.map(child.get, ["/pid"] * 8))
        return len(pids)

    eventually(lambda: count_after_asking() == 2)
    assert str(child.process.pid) not in pids
    os.kill(int(next(iter(pids))), signal.SIGKILL)
    eventually(lambda: count_after_asking() == 3)
    assert child.stop() == 0
    eventually(child.is_alone)
    assert re.search(r"INFO: workers: 2; cache: ", child.stderr)
    assert "Traceback" not in child.stderr
    accesses = child.stdout.splitlines()
    assert len(accesses) >= 16
    assert all(ACCESS_LINE.fullmatch(line) for line in accesses)


def test_workers_that_can_not_start_end_the_run_with_an_error(start: Start, tmp_path: Path) -> None:
    """Where the application fails in every worker, the exit status says so, as for one process."""
    script = tmp_path / "shop.py"
    broken = "\n@app.before_serving\nasync def begin():\n    raise RuntimeError('no database')\n\n"
    script.write_text(SHOP + broken + MAIN.format("workers=2"))
    child = start("shop.py")
    assert child.process.wait(DEADLINE_SECONDS) != 0
    eventually(child.is_alone)
    assert "no database" in child.stderr


def test_workers_of_a_package_started_with_m(start: Start, tmp_path: Path) -> None:
    """The application is a variable of an imported module; the package's ``__main__`` runs it."""
    package = tmp_path / "store"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "web.py").write_text(SHOP)
    (package / "__main__.py").write_text("from store.web import app\n" + MAIN.format("workers=2"))
    child = start("-m", "store")
    assert child.get("/pid").text != str(child.process.pid)
    assert child.stop() == 0
    eventually(child.is_alone)


def test_workers_of_an_application_in_a_closure_are_a_one_line_error(run_script: RunScript) -> None:
    """No other process could import it; the error names the setting and says what to do."""
    result = run_script(
        "from aeros import WebServer\n"
        "def main():\n    app = WebServer('hidden', '127.0.0.1', 0)\n    app.run_server(workers=2)\n"
        "if __name__ == '__main__':\n    main()\n"
    )
    assert result.returncode == 1
    assert result.stderr == (
        "aeros: workers: the application 'hidden' is not a variable of any module, so another process"
        " can not import it; assign it at the top level of a module: app = WebServer(__name__), or name the"
        " function at the top level of a module that makes it: run_server(factory=create_app)\n"
    )


def test_workers_of_a_command_line_are_a_one_line_error(tmp_path: Path) -> None:
    """``python -c`` leaves no file that another process could import."""
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            "import aeros; app = aeros.WebServer('c'); app.run_server('::1', 0, workers=2)",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("aeros: workers: ")


def test_instance_path_of_an_application_in_a_closure_is_an_error() -> None:
    """In the process itself: an ``InstancePathError``, and for ``run_server()`` its ``StartupError``."""
    app = WebServer("hidden")
    with pytest.raises(InstancePathError, match="'hidden' is not a variable of any module"):
        app._get_own_instance_path()  # pyright: ignore[reportPrivateUsage]  # the reference names it
    with pytest.raises(StartupError, match=r"^aeros: workers: the application 'hidden'") as caught:
        app.run_server(workers=2)
    assert isinstance(caught.value.__cause__, InstancePathError)


PRINT_PATH = "from aeros import WebServer\nshop = WebServer(__name__)\nprint(shop._get_own_instance_path())\n"


def test_instance_path_in_a_script_is_the_name_of_the_file(run_script: RunScript) -> None:
    """A worker process imports a script by its file's name, never as ``__main__``."""
    assert run_script(PRINT_PATH).stdout == "script:shop\n"


def test_instance_path_of_an_imported_module(run_script: RunScript, tmp_path: Path) -> None:
    """It is the module that holds the application, whoever runs it, under the variable's name."""
    package = tmp_path / "store"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "web.py").write_text("from aeros import WebServer\nshop = WebServer(__name__)\n")
    result = run_script("import store.web\nprint(store.web.shop._get_own_instance_path())\n")
    assert result.stdout == "store.web:shop\n"


@pytest.mark.parametrize(("module", "expected"), [("store.web", "store.web"), ("store", "store.__main__")])
def test_instance_path_with_m(start: Start, tmp_path: Path, module: str, expected: str) -> None:
    """``python -m`` keeps the module's full name, and that of a package its ``__main__``."""
    package = tmp_path / "store"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / f"{expected.rpartition('.')[2]}.py").write_text(PRINT_PATH)
    child = start("-m", module)
    assert child.process.wait(DEADLINE_SECONDS) == 0, child.stderr
    assert child.stdout == f"{expected}:shop\n"
