"""What the page on serving gives to copy: each file is run, or checked as far as it can be here."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, cast

import httpx
import pytest
import yaml

from aeros import ServerSettings, WebServer
from aeros.serving.config import GRACEFUL_SECONDS
from aeros.serving.cpus import usable_cpus
from aeros.serving.watchdog import CLOSING_SECONDS
from tests.conftest import ROOT, RedisProcess
from tests.integration.conftest import PATIENCE, Certificates, Child, Start, eventually

PAGE: Final = ROOT / "docs" / "serving.md"
NGINX: Final = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
# How long a supervisor gives a worker that can not even end itself.
SPARE_SECONDS: Final = 2


def blocks(language: str) -> list[str]:
    """Returns what the page shows in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def write_shop(folder: Path) -> None:
    """Writes the program that is deployed."""
    (program,) = (block for block in blocks("python") if "REDIS_URL" in block)
    (folder / "shop.py").write_text(program)


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_every_program_makes_an_application(number: int) -> None:
    """As it stands, and imported as a worker would."""
    names: dict[str, Any] = {"__name__": "shop"}
    exec(compile(blocks("python")[number], "serving.md", "exec"), names)
    app = names["create_app"]() if "create_app" in names else names["app"]
    assert isinstance(app, WebServer)
    assert len(app.view_functions) >= 2


def test_docker_runs_the_program(start: Start, tmp_path: Path, free_port: int) -> None:
    """The image's command and environment: as many workers as there are CPUs, and a quiet end."""
    (dockerfile,) = blocks("dockerfile")
    lines = dict(line.split(" ", 1) for line in dockerfile.splitlines())
    program, *arguments = cast("list[str]", json.loads(lines["CMD"]))
    environment = dict(pair.split("=") for pair in lines["ENV"].split())
    assert program == "python"
    assert lines["EXPOSE"] == environment["AEROS_PORT"]
    assert lines["STOPSIGNAL"] == "SIGTERM"
    assert lines["COPY"].split() == [*arguments, "."]
    write_shop(tmp_path)
    child = start(*arguments, **{**environment, "AEROS_PORT": str(free_port), "AEROS_HOST": "127.0.0.1"})
    assert environment["AEROS_HOST"] == "0.0.0.0"
    assert child.says(r"workers: (\d+);") == str(usable_cpus())
    assert child.get("/books/1").json()["number"] == 1
    assert child.stop(signal.Signals[lines["STOPSIGNAL"]]) == 0


def test_units_of_systemd_are_verified(tmp_path: Path) -> None:
    """By systemd itself where it is installed; what the page says of them holds in any case."""
    service, sockets = blocks("ini")
    for name, text in (("shop.service", service), ("shop.socket", sockets)):
        here = text.replace("/srv/shop/.venv/bin/python", sys.executable).replace("/srv/shop", str(tmp_path))
        (tmp_path / name).write_text(here)
    if shutil.which("systemd-analyze"):
        result = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", "shop.service", "shop.socket"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        assert "shop." not in result.stderr, result.stderr
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read_string(service)
    unit = parser["Service"]
    assert float(unit["TimeoutStopSec"]) >= GRACEFUL_SECONDS + CLOSING_SECONDS + SPARE_SECONDS
    assert (unit["ExecReload"], unit["KillMode"]) == ("/bin/kill -HUP $MAINPID", "mixed")
    for name, value in re.findall(r"AEROS_(\w+)=(\S+)", service):
        known(name)
        assert value


def known(name: str) -> None:
    """Checks that there is a setting for a variable ``AEROS_NAME``."""
    assert name.lower() in {*ServerSettings.__dataclass_fields__, "livez", "readyz"}


def test_manifest_of_kubernetes_fits_the_program() -> None:
    """Its probes, its ports and its seconds agree with each other and with aeros."""
    (manifest,) = blocks("yaml")
    deployment, service = list[Any](yaml.safe_load_all(manifest))
    pod = deployment["spec"]["template"]
    assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    assert service["spec"]["selector"] == pod["metadata"]["labels"]
    (container,) = pod["spec"]["containers"]
    (port,) = container["ports"]
    assert service["spec"]["ports"][0]["targetPort"] == port["containerPort"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    for name in environment:
        if name.startswith("AEROS_"):
            known(name.removeprefix("AEROS_"))
    for probe, name in (("livenessProbe", "AEROS_LIVEZ"), ("readinessProbe", "AEROS_READYZ")):
        asked = container[probe]["httpGet"]
        assert asked == {"path": environment[name], "port": port["containerPort"]}
        assert asked["path"] in environment["AEROS_ACCESS_LOG_EXCLUDE"].split(",")
    command, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    needed = int(seconds) + GRACEFUL_SECONDS + CLOSING_SECONDS + SPARE_SECONDS
    assert pod["spec"]["terminationGracePeriodSeconds"] >= needed
    (dockerfile,) = blocks("dockerfile")
    assert f"AEROS_PORT={port['containerPort']} " in dockerfile


@contextmanager
def nginx(folder: Path, site: str) -> Generator[None]:
    """Runs nginx with a site, and nothing else, in a folder of its own."""
    paths = "".join(
        f"{name}_temp_path {folder}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log {folder}/nginx.log;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{paths}{site}\n}}\n"
    )
    process = subprocess.Popen(
        [str(NGINX), "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(folder / "nginx.log")]
    )
    try:
        yield
        assert process.poll() is None, (folder / "nginx.log").read_text()
    finally:
        process.terminate()
        process.wait(PATIENCE)


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_two_machines_behind_nginx_share_a_cache(
    start: Start, tmp_path: Path, redis_server: RedisProcess, certificates: Certificates
) -> None:
    """A page is made once for both, an eviction reaches both, the client is the proxy's, and one may end."""
    children: list[Child] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_shop(tmp_path / name)
        children.append(
            start(
                "shop.py",
                folder=name,
                AEROS_HOST="127.0.0.1",
                AEROS_PORT="0",
                REDIS_URL=f"redis://127.0.0.1:{redis_server.port}/0",
                FORWARDED_ALLOW_IPS="127.0.0.1",
            )
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (site,) = blocks("nginx")
    for old, new in (
        ("10.0.0.11:8000", f"127.0.0.1:{children[0].port}"),
        ("10.0.0.12:8000", f"127.0.0.1:{children[1].port}"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/ssl/shop.pem", str(certificates.folder / "server.pem")),
        ("/etc/ssl/shop.key", str(certificates.folder / "server.key")),
    ):
        assert site.count(old) == 1
        site = site.replace(old, new)
    url, forwarded = f"https://127.0.0.1:{port}", {"X-Forwarded-For": "203.0.113.9"}
    with (
        nginx(tmp_path, site),
        httpx.Client(
            base_url=url,
            verify=certificates.context(),
            headers=forwarded,
            timeout=PATIENCE,
        ) as client,
    ):

        def ask(_: int = 0) -> httpx.Response:
            response = client.get("/books/1")
            assert response.status_code == 200
            return response

        def up() -> bool:
            with suppress(httpx.ConnectError):
                return ask().status_code == 200
            return False

        eventually(up)
        assert len({ask().json()["made_by"] for _ in range(10)}) == 1
        assert client.put("/books/1").text == "replaced"
        states = [ask().headers["Cache-Status"].split(";")[1].strip() for _ in range(10)]
        assert states == ["fwd=miss", *["hit"] * 9]
        with ThreadPoolExecutor(4) as pool:
            answers = pool.map(ask, range(200))
            assert children[0].stop() == 0
            assert len(list(answers)) == 200
        assert children[1].stop() == 0
    for child in children:
        lines = [line for line in child.stdout.splitlines() if "/books/1" in line]
        assert lines
        assert all(' 203.0.113.9 "' in line for line in lines)
