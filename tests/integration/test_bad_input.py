"""What is wrong is said before anything serves: in one line that names the setting and the cure."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, cast

import pytest
from dependency_injector import providers

from aeros import (
    Br,
    ConfigurationError,
    Container,
    Gzip,
    InvalidHeaderError,
    InvalidSettingError,
    ProviderError,
    StartupError,
    UnknownOptionError,
    WebServer,
    Zstd,
)

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]

DEADLINE_SECONDS = 30.0
SCRIPT = """\
from aeros import WebServer

app = WebServer("shop", "127.0.0.1", 0)

if __name__ == "__main__":
    app.run_server({})
"""


def clean_environment() -> dict[str, str]:
    """The environment without what would decide the server's settings."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("AEROS_") and name != "WEB_CONCURRENCY"
    }


def assert_one_line_error(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Checks that a script ended with a single line on standard error that has all ``words``."""
    assert "Traceback" not in result.stderr, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("aeros: ")
    for word in words:
        assert word in line
    assert result.returncode == 1
    assert result.stdout == ""


# run_server() of a script

BAD_ARGUMENTS = {
    "port too high": ("port=70000", "port: 70000 does not fit", "a whole number from 0 to 65535"),
    "port negative": ("port=-1", "port: -1 does not fit", "a whole number from 0 to 65535"),
    "port no number": ("port='abc'", "port: 'abc' does not fit", "a whole number from 0 to 65535"),
    "misspelt argument of aeros": ("prot=8000", "prot: run_server() has no such option", "mean 'port'?"),
    "misspelt option of uvicorn": ("worker=2", "worker: run_server() has no such option", "mean 'workers'?"),
    "log file in a missing folder": (
        "access_log_file='missing/access.log'",
        "access_log_file: 'missing/access.log' can not be written (No such file or directory)",
        "give a file in a folder that exists",
    ),
    "folder as log file": (
        "access_log_file='.'",
        "access_log_file: '.' can not be written (Is a directory)",
        "give a file",
    ),
    "error log in a missing folder": (
        "error_log_file='missing/error.log'",
        "error_log_file: 'missing/error.log' can not be written (No such file or directory)",
        "give a file in a folder that exists",
    ),
    "path to keep out without a slash": (
        "access_log_exclude=['livez']",
        "access_log_exclude: ['livez'] does not fit",
        "give paths that begin with a slash",
    ),
    "limits the wrong way round": (
        "soft_limit=10, hard_limit=5",
        "hard_limit: 5 does not fit",
        "at least soft_limit (10)",
    ),
    "limit of nothing": ("soft_limit=0", "soft_limit: 0 does not fit", "or None for no limit"),
    "host that does not exist": (
        "host='no-such-host.invalid'",
        "host: can not listen on no-such-host.invalid:0",
        "give a name or an IP address of this machine",
    ),
    "host of another machine": (
        "host='192.0.2.1'",
        "host: can not listen on 192.0.2.1:0",
        "give a name or an IP address of this machine",
    ),
    "log level": ("log_level='loud'", "log_level: 'loud' does not fit", "give a level such as 'info'"),
    "log format": ("log_format='xml'", "log_format: 'xml' does not fit", "give 'text' or 'json'"),
    "no bool": ("access_log_to_std='maybe'", "access_log_to_std: 'maybe' does not fit", "True or False"),
    "no bool for tracebacks": ("traceback='perhaps'", "traceback: 'perhaps' does not fit"),
    "no bool for colours": ("color='maybe'", "color: 'maybe' does not fit"),
    "no bool under uvicorn's name": ("use_colors='x'", "use_colors: 'x' does not fit"),
    "no workers": ("workers=0", "workers: 0 does not fit"),
    "half a worker": ("workers=1.5", "workers: 1.5 does not fit"),
    "factory in a closure": ("workers=2, factory=lambda: app", "factory: ", "at the top level of a module"),
    "factory's path without a function": ("workers=2, factory='shop'", "factory: 'shop' does not fit"),
    "option that can not be pickled": (
        "workers=2, callback_notify=lambda: None",
        "callback_notify: it can not go to a worker process",
        "give a function or a class that stands at the top level of a module",
    ),
    "header with a line break": (
        "headers=[('X-Shop', 'open\\r\\nSet-Cookie: a=b')]",
        "headers: the field 'X-Shop' has the invalid value",
    ),
    "header's name": ("headers=[('X Shop', 'open')]", "headers: ", "'X Shop' is not a valid field name"),
    "key without its certificate": (
        "ssl_keyfile='shop.py'",
        "ssl_keyfile: 'shop.py' does not fit; give ssl_certfile as well",
    ),
    "certificate that is none": ("ssl_certfile='shop.py'", "ssl_certfile: uvicorn refused the options"),
    "HTTP/2 without its protocol": ("http2=True", "http2: ", "select it with `http='zttp'`"),
    "two places": ("uds='shop.sock', fd=3", "fd: 3 does not fit; give either fd or uds"),
}


BAD_OPTIONS = {
    "http": "http='nope'",
    "lifespan": "lifespan='nope'",
    "loop": "loop='nope'",
    "workers": "workers='two'",
    "backlog": "backlog='many'",
    "ssl_certfile": "ssl_certfile='missing.pem'",
    "log_config": "log_config='missing.ini'",
    "uds": "uds='missing/shop.sock'",
    "fd": "fd=99",
    "access_log": "access_log='x'",
    "callback_notify": "callback_notify=5",
    "date_header": "date_header='maybe'",
    "env_file": "env_file='missing.env'",
    "forwarded_allow_ips": "forwarded_allow_ips=5",
    "h11_max_incomplete_event_size": "h11_max_incomplete_event_size=0",
    "headers": "headers=5",
    "http2": "http2='x'",
    "interface": "interface='nope'",
    "limit_concurrency": "limit_concurrency=0",
    "limit_max_requests": "limit_max_requests=0",
    "limit_max_requests_jitter": "limit_max_requests_jitter=-1",
    "proxy_headers": "proxy_headers='maybe'",
    "reload": "reload='x'",
    "reload_delay": "reload_delay=0",
    "reload_dirs": "reload_dirs=['missing']",
    "reset_contextvars": "reset_contextvars='x'",
    "root_path": "root_path=5",
    "ssl_ca_certs": "ssl_ca_certs='missing.pem'",
    "ssl_context_factory": "ssl_context_factory=5",
    "ssl_keyfile": "ssl_keyfile='missing.pem'",
    "timeout_graceful_shutdown": "timeout_graceful_shutdown=-1",
    "timeout_keep_alive": "timeout_keep_alive='x'",
    "timeout_notify": "timeout_notify=-1",
    "timeout_worker_healthcheck": "timeout_worker_healthcheck=0",
    "ws": "ws=5",
    "ws_max_queue": "ws_max_queue=-1",
    "ws_max_size": "ws_max_size=0",
    "ws_per_message_deflate": "ws_per_message_deflate='x'",
    "ws_ping_interval": "ws_ping_interval=-1",
    "ws_ping_timeout": "ws_ping_timeout='x'",
}


# One process imports everything once and forks for each call, which ends as a script does.
EACH = """\
import gc, json, os, sys
from aeros import WebServer

app = WebServer("shop", "127.0.0.1", 0)

if __name__ == "__main__":
    children = {}
    gc.freeze()
    for arguments in json.loads(sys.argv[1]):
        child = os.fork()
        if child == 0:
            for stream in (1, 2):
                os.dup2(os.open(f"{os.getpid()}.{stream}", os.O_CREAT | os.O_WRONLY), stream)
            eval(f"app.run_server({arguments})")
            sys.exit("the server stopped without an error")
        children[child] = arguments
    ended = [os.wait() for _ in children]
    print(json.dumps([(children[child], child, status) for child, status in ended]))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, subprocess.CompletedProcess[str]]:
    """How a script ended for each of the bad calls, by its arguments."""
    folder = tmp_path_factory.mktemp("calls")
    (folder / "shop.py").write_text(EACH)
    calls = [*(case[0] for case in BAD_ARGUMENTS.values()), *BAD_OPTIONS.values()]
    with subprocess.Popen(
        [sys.executable, "shop.py", json.dumps(calls)],
        cwd=folder,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        try:
            output, _ = parent.communicate(timeout=DEADLINE_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)
    ended: list[tuple[str, int, int]] = json.loads(output)
    return {
        arguments: subprocess.CompletedProcess(
            arguments,
            os.waitstatus_to_exitcode(status),
            *((folder / f"{child}.{stream}").read_text() for stream in (1, 2)),
        )
        for arguments, child, status in ended
    }


Results = Mapping[str, "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_argument_is_a_one_line_error(results: Results, case: str) -> None:
    """A value that does not fit ends the script before it serves."""
    arguments, *words = BAD_ARGUMENTS[case]
    assert_one_line_error(results[arguments], *words)


@pytest.mark.parametrize("option", BAD_OPTIONS)
def test_bad_value_of_uvicorns_is_a_one_line_error(results: Results, option: str) -> None:
    """A value that uvicorn would stumble over is named, with what it is an option of."""
    assert_one_line_error(results[BAD_OPTIONS[option]], option)


def test_port_in_use_is_a_one_line_error(run_script: RunScript) -> None:
    """It names the address, says who is in the way, and both ways out."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = run_script(SCRIPT.format(f"port={port}"))
    assert_one_line_error(
        result,
        f"port: can not listen on 127.0.0.1:{port} (address already in use)",
        "stop the other process or choose another port (0 takes any free one)",
    )


def test_port_in_use_is_a_one_line_error_with_workers(run_script: RunScript) -> None:
    """The supervisor binds before it starts a worker, and says the same."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = run_script(SCRIPT.format(f"port={port}, workers=2"))
    assert_one_line_error(result, f"port: can not listen on 127.0.0.1:{port} (address already in use)")


FIRST_UNPRIVILEGED = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
# What Python loads late it could not read any more. Rights are given back at the end, because what
# measures coverage writes its file then.
WITHOUT_RIGHTS = """\
import atexit, encodings.idna, os
# All that is imported later: without rights the environment may not be readable any more.
import uvloop, uvicorn.lifespan.on, uvicorn.loops.auto, uvicorn.loops.uvloop
import uvicorn.protocols.http.auto, uvicorn.protocols.websockets.auto
if os.geteuid() == 0:
    os.seteuid(65534)
    atexit.register(os.seteuid, 0)
"""
# Where every port is free for all, the system's refusal has to be played.
REFUSING = """\
import errno, socket

def refuse(listener, address):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

socket.socket.bind = refuse
"""


def test_privileged_port_is_a_one_line_error(run_script: RunScript) -> None:
    """Without the right to a low port the cure is another port, or the capability."""
    rights = WITHOUT_RIGHTS + (REFUSING if FIRST_UNPRIVILEGED <= 1 else "")
    script = SCRIPT.replace("    app.run", "    exec(sys.argv[1])\n    app.run").replace(
        "from", "import sys\nfrom", 1
    )
    assert_one_line_error(
        run_script(script.format("port=1"), rights),
        "port: can not listen on 127.0.0.1:1 (permission denied)",
        "choose a port from 1024 on",
    )


def test_variable_of_the_environment_is_named(run_script: RunScript) -> None:
    """A wrong ``AEROS_PORT`` ends the script with one line, too."""
    assert_one_line_error(
        run_script(SCRIPT.format(""), AEROS_PORT="abc"),
        "AEROS_PORT: 'abc' does not fit",
        "a whole number from 0 to 65535",
    )


def test_misspelt_variable_of_the_environment_is_named(run_script: RunScript) -> None:
    """A variable that looks like one of aeros's is no silent no-op."""
    assert_one_line_error(
        run_script(SCRIPT.format(""), AEROS_PROT="8000"), "AEROS_PROT: ", "did you mean 'AEROS_PORT'?"
    )


def test_wrong_configuration_is_named_with_its_place(run_script: RunScript) -> None:
    """A value in ``container.config`` is looked for there, not in the call."""
    script = SCRIPT.replace(
        "    app.run", "    app.container.config.access_log_to_std.from_value('maybe')\n    app.run"
    )
    assert_one_line_error(
        run_script(script.format("")), "config.access_log_to_std: 'maybe' does not fit", "True or False"
    )


def test_a_wrong_number_of_workers_in_the_environment_is_named(run_script: RunScript) -> None:
    """``WEB_CONCURRENCY`` is uvicorn's variable, and its name is what has to be mended."""
    assert_one_line_error(run_script(SCRIPT.format(""), WEB_CONCURRENCY="many"), "WEB_CONCURRENCY")


def test_a_file_in_the_place_of_a_unix_socket_survives(run_script: RunScript, tmp_path: Path) -> None:
    """A path that is something else than a socket is refused and left as it is."""
    precious = tmp_path / "precious.txt"
    precious.write_text("keep me")
    result = run_script(SCRIPT.format("uds='precious.txt'"))
    assert precious.read_text() == "keep me"
    assert_one_line_error(result, "uds", "precious.txt")


@pytest.mark.parametrize("method", ["run_server", "run", "run_in_thread"])
def test_unknown_option_names_the_method_and_the_nearest_name(method: str) -> None:
    """In the process itself: a ``StartupError`` whose cause has the data."""
    app = WebServer("shop")
    wrong: dict[str, Any] = {"timeout_keep_alife": 1}
    call: Callable[..., AbstractContextManager[object] | None] = getattr(app, method)
    with pytest.raises(StartupError) as caught:
        (call(**wrong) or nullcontext()).__enter__()
    cause = caught.value.__cause__
    assert isinstance(cause, UnknownOptionError)
    assert (cause.setting, cause.nearest, cause.where) == (
        "timeout_keep_alife",
        "timeout_keep_alive",
        f"{method}()",
    )


# At construction and decoration


def assert_named(error: ConfigurationError, *words: str) -> None:
    """Checks that the message is one line with the setting, the problem, the cure, and all ``words``."""
    text = str(error)
    assert text.isprintable()
    for word in (error.setting, *words):
        assert word in text
    assert error.cure


@pytest.mark.parametrize(
    ("headers", "word"),
    [
        ({"X-Shop": "a\r\nSet-Cookie: b"}, r"'a\r\nSet-Cookie: b'"),
        ({"X-Shop": "a\nb"}, r"'a\nb'"),
        ({"X-Shop": "a\rb"}, r"'a\rb'"),
        ({"X-Shop": "a\0b"}, r"'a\x00b'"),
        ({"X-Shop": 1}, "1"),
        ({"X-Shop\r\nX": "a"}, r"'X-Shop\r\nX'"),
        ({"X Shop": "a"}, "'X Shop'"),
        ({"X-Shop\0": "a"}, r"'X-Shop\x00'"),
        ({"": "a"}, "''"),
        ({"X-Shop:": "a"}, "'X-Shop:'"),
    ],
    ids=repr,
)
def test_header_that_must_not_be_sent_is_refused_at_construction(headers: Any, word: str) -> None:
    """The field is named, with what is wrong escaped, wherever the headers come from."""
    with pytest.raises(InvalidHeaderError) as caught:
        WebServer("shop", global_headers=headers)
    assert_named(caught.value, "global_headers", word, "without CR, LF and NUL")


@pytest.mark.parametrize(
    ("build", "level", "words"),
    [
        (Gzip, 10, ("Gzip(level=)", "10", "from 1 to 9")),
        (Gzip, 0, ("Gzip(level=)", "0", "from 1 to 9")),
        (Br, 12, ("Br(level=)", "12", "from 0 to 11")),
        (Br, -1, ("Br(level=)", "-1", "from 0 to 11")),
        (Zstd, 0, ("Zstd(level=)", "0", "from 1 to 22")),
        (Zstd, 23, ("Zstd(level=)", "23", "from 1 to 22")),
        (Gzip, True, ("Gzip(level=)", "True", "a whole number")),
        (Br, False, ("Br(level=)", "False", "a whole number")),
        (Zstd, True, ("Zstd(level=)", "True", "a whole number")),
        (Gzip, "5", ("Gzip(level=)", "'5'", "a whole number")),
        (Br, 4.0, ("Br(level=)", "4.0", "a whole number")),
    ],
)
def test_compression_level_out_of_range_is_refused(
    build: Callable[[Any], object], level: object, words: tuple[str, ...]
) -> None:
    """At construction, not at the first response; a bool is no level."""
    with pytest.raises(InvalidSettingError) as caught:
        build(level)
    assert_named(caught.value, *words)


@pytest.mark.parametrize("timeout", [-1, -0.5, timedelta(seconds=-1), float("nan"), "60", True])
def test_timeout_that_is_no_duration_is_refused_by_the_decorator(timeout: Any) -> None:
    """Before any view is decorated, so the line of the mistake is in the traceback."""
    with pytest.raises(InvalidSettingError) as caught:
        WebServer("shop").cache(timeout=timeout)
    assert_named(caught.value, "timeout", "does not fit", "seconds from 0 on")


def test_decorator_without_its_parentheses_is_refused() -> None:
    """``@app.cache`` instead of ``@app.cache()`` would take the view for a timeout."""

    async def view() -> str:
        return "x"

    wrong: Any = view
    with pytest.raises(ConfigurationError) as caught:
        WebServer("shop").cache(wrong)
    assert_named(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"compression": "br"}, ("compress", "'br'", "Br()")),
        ({"compression": Br}, ("compress", "Br()")),
        ({"compression": True}, ("compress", "True")),
        ({"cache": {}}, ("cache", "{}", "cachelib")),
        ({"cache": "redis://localhost"}, ("cache", "'redis://localhost'", "cachelib")),
        ({"port": "80a"}, ("port", "'80a'", "0 to 65535")),
        ({"port": True}, ("port", "True", "0 to 65535")),
        ({"host": ""}, ("host", "''")),
        ({"logging_level": "loud"}, ("log", "'loud'")),
        ({"include_server_header": "perhaps"}, ("include_server_header", "True or False")),
        ({"global_headers": [("X", "y")]}, ("global_headers", "mapping")),
        ({"container": Container}, ("container", "container=MyContainer()")),
        ({"container": {}}, ("container", "not a container instance")),
    ],
    ids=repr,
)
def test_wrong_argument_is_refused_at_construction(arguments: Any, words: tuple[str, ...]) -> None:
    """It names the argument and says what it takes."""
    with pytest.raises(ConfigurationError) as caught:
        WebServer("shop", **arguments)
    assert_named(caught.value, *words)


def wrong_container(name: str, provider: object) -> Container:
    """A container with a provider in the place of, or beside, a standard one."""
    return cast(Container, type("Wrong", (Container,), {name: provider})())


WRONG_PROVIDERS: Final[list[tuple[str, providers.Provider[Any], tuple[str, ...]]]] = [
    ("cache", providers.Singleton(dict), ("container.cache", "gives dict", "must give Cache")),
    ("cache", providers.Object("redis"), ("container.cache", "gives str", "must give Cache")),
    ("logger", providers.Object(None), ("container.logger", "gives NoneType", "must give Logger")),
    ("compressor", providers.Factory(str), ("container.compressor", "gives str", "Base or None")),
    ("settings", providers.Object({}), ("container.settings", "gives dict", "ServerSettings")),
    ("cahce", providers.Object(None), ("container.cahce", "misspelt", "did you mean 'cache'?")),
]


@pytest.mark.parametrize(("name", "provider", "words"), WRONG_PROVIDERS)
def test_wrong_provider_is_refused_at_construction(
    name: str, provider: object, words: tuple[str, ...]
) -> None:
    """Its class can be seen without calling it, so nobody has to wait for the first request."""
    with pytest.raises(ProviderError) as caught:
        WebServer("shop", container=wrong_container(name, provider))
    assert_named(caught.value, *words)


def test_provider_that_hides_its_type_is_named_when_it_is_used() -> None:
    """A function can only be judged by what it gives."""

    def hidden() -> Any:
        return {}

    app = WebServer("shop", container=wrong_container("cache", providers.Singleton(hidden)))
    with pytest.raises(ProviderError) as caught:
        app.cache_stats()
    assert_named(caught.value, "container.cache", "gives dict", "must give Cache")


NO_ZSTD = """\
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == "backports" or name.startswith("backports."):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
import aeros
from aeros.compression.codings import zstd_is_available

try:
    aeros.Zstd()
except aeros.MissingExtraError as error:
    assert isinstance(error, ImportError)
    print(error)
print(zstd_is_available(), aeros.Negotiated())
"""


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="zstd is in the standard library")
def test_missing_package_is_named_with_what_to_install(run_script: RunScript) -> None:
    """``Zstd()`` says which extra brings it, and the default does without."""
    result = run_script(NO_ZSTD)
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        "Zstd(): needs the package backports.zstd; install it with: pip install 'aeros[zstd]'",
        "False Negotiated(br, gzip)",
    ]
