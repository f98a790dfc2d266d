"""``run()``: Quart's development server, with its arguments and defaults, on uvicorn."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import uvicorn
from dependency_injector import providers

from aeros import Container, StartupError, WebServer
from aeros.serving.server import Server
from tests.integration.conftest import Certificates

T = TypeVar("T")

DEADLINE_SECONDS = 20.0


class Recorder:
    """An application whose server keeps its configuration instead of serving."""

    def __init__(
        self, arguments: Mapping[str, Any] | None = None, config: Mapping[str, Any] | None = None
    ) -> None:
        self.configs: list[uvicorn.Config] = []
        recorder = self

        class Stub:
            def __init__(self, config: uvicorn.Config) -> None:
                recorder.configs.append(config)

            def run(self) -> None:
                pass

        self.app = WebServer("recorded", container=container_with(Stub, config), **(arguments or {}))

    def run(self, **arguments: Any) -> uvicorn.Config:
        """Calls ``run()`` without the reloader and returns what uvicorn's server would have got."""
        self.app.run(use_reloader=False, **arguments)
        return self.configs[-1]

    def address(self, **arguments: Any) -> tuple[str, int]:
        """Calls ``run()`` and returns where it would have listened."""
        config = self.run(**arguments)
        return config.host, config.port


def container_with(build: Callable[..., object], config: Mapping[str, Any] | None = None) -> Container:
    """A container with this maker of servers and this configuration."""
    container = Container()
    overriding: providers.Provider[Any] = providers.Factory(build)
    container.server.override(overriding)  # pyright: ignore[reportUnknownMemberType]  # its stub
    container.config.from_dict(dict(config or {}))
    return container


class Probe(Server):
    """A server that notes its loop and stops as soon as it accepts requests."""

    loops: list[asyncio.AbstractEventLoop]
    debugs: list[bool]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, notes, and asks to stop."""
        await super().startup(sockets=sockets)
        loop = asyncio.get_running_loop()
        type(self).loops.append(loop)
        type(self).debugs.append(loop.get_debug())
        self.should_exit = True


@pytest.fixture
def probe() -> type[Probe]:
    """A class of probes with notes of its own."""

    class Noting(Probe):
        loops: list[asyncio.AbstractEventLoop] = []  # noqa: RUF012 - one class per test
        debugs: list[bool] = []  # noqa: RUF012 - one class per test

    return Noting


# The address


def test_run_listens_on_loopback_port_5000_by_default() -> None:
    """Quart's defaults for development, not those of ``run_server()``."""
    assert Recorder().address() == ("127.0.0.1", 5000)


def test_run_takes_host_and_port() -> None:
    """Arguments are strongest, each for itself."""
    assert Recorder().address(host="::1", port=8001) == ("::1", 8001)
    assert Recorder().address(port=8001) == ("127.0.0.1", 8001)
    assert Recorder({"host": "127.0.0.2", "port": 8002}).address(port=0) == ("127.0.0.2", 0)


@pytest.mark.parametrize("layer", ["constructor", "config", "environment"])
def test_run_honours_what_somebody_stated(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what nobody stated is Quart's default, each of host and port for itself."""
    stated: dict[str, Any] = {"host": "127.0.0.2", "port": 8002}
    for names in (("host", "port"), ("host",), ("port",)):
        chosen = {name: stated[name] for name in names}
        with monkeypatch.context() as patch:
            for name, value in chosen.items():
                if layer == "environment":
                    patch.setenv(f"AEROS_{name.upper()}", str(value))
            stating = {layer: chosen}
            recorder = Recorder(stating.get("constructor"), stating.get("config"))
        expected = {"host": "127.0.0.1", "port": 5000} | chosen
        assert recorder.address() == (expected["host"], expected["port"])
        assert recorder.address(host="127.0.0.3", port=8003) == ("127.0.0.3", 8003)


def test_run_takes_the_address_from_server_name() -> None:
    """``SERVER_NAME`` stands in for what nobody else stated, as with Quart."""
    recorder = Recorder()
    recorder.app.config["SERVER_NAME"] = "localhost:8004"
    assert recorder.address() == ("localhost", 8004)
    assert recorder.address(port=8001) == ("localhost", 8001)
    recorder.app.config["SERVER_NAME"] = "localhost"
    assert recorder.address() == ("localhost", 5000)
    stated = Recorder({"port": 8005}, {"host": "127.0.0.2"})
    stated.app.config["SERVER_NAME"] = "localhost:8004"
    assert stated.address() == ("127.0.0.2", 8005)


def test_run_server_listens_on_every_interface_all_the_same() -> None:
    """What ``run()`` chose is forgotten after it."""
    recorder = Recorder()
    recorder.run()
    recorder.app.run_server()
    assert (recorder.configs[-1].host, recorder.configs[-1].port) == ("0.0.0.0", 80)


# Quart's other arguments


@pytest.mark.parametrize("debug", [True, False])
def test_debug_is_the_applications_and_the_loops(debug: bool, probe: type[Probe]) -> None:
    """``debug=`` sets ``app.debug`` and the loop's debug mode alike."""
    app = WebServer("debugged", container=container_with(probe))
    app.debug = not debug
    app.run(port=0, debug=debug, use_reloader=False)
    assert app.debug is debug
    assert probe.debugs == [debug]


def test_debug_that_is_not_given_stays_as_it_was(probe: type[Probe]) -> None:
    """An application that was in debug mode runs in it."""
    app = WebServer("debugged", container=container_with(probe))
    app.debug = True
    app.run(port=0, use_reloader=False)
    assert app.debug is True
    assert probe.debugs == [True]


def test_debug_comes_from_quarts_variable(probe: type[Probe], monkeypatch: pytest.MonkeyPatch) -> None:
    """``QUART_DEBUG`` is honoured, and the argument is stronger."""
    app = WebServer("debugged", container=container_with(probe))
    monkeypatch.setenv("QUART_DEBUG", "1")
    app.run(port=0, use_reloader=False)
    monkeypatch.setenv("QUART_DEBUG", "0")
    app.run(port=0, use_reloader=False)
    app.run(port=0, debug=True, use_reloader=False)
    assert probe.debugs == [True, False, True]


@pytest.mark.parametrize("use_reloader", [False, True])
def test_given_loop_is_used_and_stays_open(probe: type[Probe], use_reloader: bool) -> None:
    """Who brings the loop closes it; it can serve again, with or without the reloader beside it."""
    loop = asyncio.new_event_loop()
    try:
        app = WebServer("looped", container=container_with(probe))
        app.run(port=0, loop=loop, use_reloader=use_reloader)
        app.run(port=0, loop=loop, use_reloader=use_reloader)
        assert probe.loops == [loop, loop]
        assert not loop.is_closed()
        assert not asyncio.all_tasks(loop)
    finally:
        loop.close()


def test_own_loop_is_closed(probe: type[Probe]) -> None:
    """Without ``loop=`` each run has a new one, and leaves none open."""
    app = WebServer("looped", container=container_with(probe))
    app.run(port=0, use_reloader=False)
    app.run(port=0, use_reloader=False)
    first, second = probe.loops
    assert first is not second
    assert first.is_closed()
    assert second.is_closed()


def test_tls_arguments_are_uvicorns() -> None:
    """``certfile``, ``keyfile`` and ``ca_certs`` go where uvicorn looks for them."""
    config = Recorder().run(certfile="cert.pem", keyfile="key.pem", ca_certs="ca.pem")
    assert (config.ssl_certfile, config.ssl_keyfile, config.ssl_ca_certs) == (
        "cert.pem",
        "key.pem",
        "ca.pem",
    )
    assert config.is_ssl
    assert not Recorder().run().is_ssl


def test_options_of_uvicorn_pass_through_run() -> None:
    """What ``run()`` does not know itself is uvicorn's."""
    config = Recorder().run(timeout_keep_alive=1, root_path="/under", server_header=False)
    assert (config.timeout_keep_alive, config.root_path, config.server_header) == (1, "/under", False)


@pytest.mark.parametrize("option", ["reload", "workers"])
def test_run_refuses_other_processes_by_the_options_name(option: str) -> None:
    """The error names what was given, not another option."""
    wrong: dict[str, Any] = {"reload": True} if option == "reload" else {"workers": 2}
    with pytest.raises(StartupError, match=rf"^aeros: {option}: "):
        Recorder().run(**wrong)


def test_run_is_one_process_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """``WEB_CONCURRENCY`` is for production: on a machine that sets it, development goes on."""
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    assert Recorder().run().workers == 1


# Real processes


class Child:
    """A Python process in a session of its own, with what it printed."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.out, self.err = folder / "stdout.txt", folder / "stderr.txt"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=folder,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
                start_new_session=True,
            )

    @property
    def stderr(self) -> str:
        """What it wrote to standard error so far."""
        return self.err.read_text()

    def url(self) -> str:
        """Where the banner says that it answers."""

        def found() -> re.Match[str] | None:
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}: {self.stderr}")
            return re.search(r"https?://127\.0\.0\.1:\d+", self.stderr)

        return eventually(found)[0]

    def stop(self) -> int:
        """Asks it to end and returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_SECONDS)

    def kill(self) -> None:
        """Ends whatever is left of it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE_SECONDS)


def eventually(ask: Callable[[], T | None]) -> T:
    """Asks until the answer is true, and returns it."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"{ask} has not come true")


def answer_of(url: str) -> str | None:
    """The text at ``url``; None while nobody answers there."""
    with suppress(httpx.TransportError):
        return httpx.get(url).text
    return None


Start = Callable[..., Child]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts ``python ARGUMENTS`` in a new folder; ends it with the test."""
    children: list[Child] = []

    def begin(*arguments: str, **environment: str) -> Child:
        children.append(Child(tmp_path, *arguments, **environment))
        return children[-1]

    yield begin
    for child in children:
        child.kill()


SHOP = """\
from aeros import WebServer

app = WebServer("shop")

@app.route("/")
async def index():
    return "first"

"""


def test_reloader_starts_the_script_again_when_it_changes(
    start: Start, tmp_path: Path, free_port: int
) -> None:
    """``use_reloader=True`` answers with the new source at the same address, after one change."""
    script = tmp_path / "shop.py"
    source = SHOP + f"if __name__ == '__main__':\n    app.run(port={free_port})\n"
    script.write_text(source)
    child = start("shop.py")
    url = f"http://127.0.0.1:{free_port}"
    eventually(lambda: answer_of(url) == "first")
    script.write_text(source.replace("first", "second"))
    later = time.time() + 2  # a file system may count in whole seconds
    os.utime(script, (later, later))
    eventually(lambda: answer_of(url) == "second")
    assert child.stop() == 0
    assert "Traceback" not in child.stderr


def test_without_the_reloader_a_change_changes_nothing(start: Start, tmp_path: Path) -> None:
    """``use_reloader=False`` serves until it is stopped, and says where in one banner."""
    script = tmp_path / "shop.py"
    script.write_text(SHOP + "if __name__ == '__main__':\n    app.run(port=0, use_reloader=False)\n")
    child = start("shop.py")
    assert answer_of(child.url()) == "first"
    assert child.stop() == 0
    assert child.stderr.count("Serving on http://127.0.0.1:") == 1


def test_quart_command_runs_a_web_server(start: Start, tmp_path: Path, free_port: int) -> None:
    """``quart run`` finds the application and runs it where it was told."""
    (tmp_path / "shop.py").write_text(SHOP)
    child = start("-m", "quart", "run", "--port", str(free_port), QUART_APP="shop:app")
    assert child.url() == f"http://127.0.0.1:{free_port}"
    assert answer_of(child.url()) == "first"
    assert child.stop() == 0


def test_certfile_and_keyfile_serve_tls(start: Start, tmp_path: Path, certificates: Certificates) -> None:
    """With them the banner says https, and a client that checks the certificate is answered."""
    files = f"certfile='{certificates.folder}/server.pem', keyfile='{certificates.folder}/server.key'"
    (tmp_path / "shop.py").write_text(SHOP + f"app.run(port=0, use_reloader=False, {files})\n")
    child = start("shop.py")
    url = child.url()
    assert url.startswith("https://")
    assert httpx.get(url, verify=certificates.context()).text == "first"
    with pytest.raises(httpx.TransportError):
        httpx.get(url.replace("https", "http"))
    assert child.stop() == 0


def test_ca_certs_check_the_clients_certificate(
    start: Start, tmp_path: Path, certificates: Certificates
) -> None:
    """Where certificates of clients are asked for, only those of the authority are let in."""
    folder = certificates.folder
    files = f"certfile='{folder}/server.pem', keyfile='{folder}/server.key', ca_certs='{folder}/ca.pem'"
    (tmp_path / "shop.py").write_text(
        SHOP + f"import ssl\napp.run(port=0, use_reloader=False, ssl_cert_reqs=ssl.CERT_REQUIRED, {files})\n"
    )
    child = start("shop.py")
    url = child.url()
    assert httpx.get(url, verify=certificates.context(client=True)).text == "first"
    with pytest.raises(httpx.TransportError):
        httpx.get(url, verify=certificates.context())
    assert child.stop() == 0
