"""nginx and Varnish as caches in front of an application; both are started with files of their own."""

from __future__ import annotations

import getpass
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.process import LeftOutError, Running, found, free_port, running
from benchmarks.servers.python import PythonServer

NGINX = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 1024; }}
http {{
  access_log {access_log};
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  proxy_cache_path {folder}/cache keys_zone=answers:10m use_temp_path=off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{behind};
      proxy_cache answers;
      proxy_cache_valid 200 1h;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class NginxServer:
    """nginx's proxy_cache, one worker.

    Attributes:
        behind: What it asks when it has no answer.
        access_log: Whether it writes an access log, to a file.
    """

    behind: PythonServer
    access_log: bool = False

    def missing(self) -> str | None:
        """Tells whether nginx is installed."""
        return missing_program("nginx")

    @contextmanager
    def started(self, folder: Path) -> Generator[Running]:
        """Serves while the context lasts."""
        port = free_port()
        own = folder / f"nginx-{port}"
        own.mkdir()
        log = own / "access.log" if self.access_log else None
        with self.behind.started(folder) as behind:
            settings = NGINX.format(
                folder=own,
                port=port,
                behind=behind.port,
                access_log=log or "off",
                user=f"user {getpass.getuser()};" if os.geteuid() == 0 else "",
            )
            (own / "nginx.conf").write_text(settings)
            command = [program("nginx"), "-c", str(own / "nginx.conf"), "-p", str(own)]
            with running([*command, "-e", str(own / "nginx-error.log")], port, own / "out.log") as server:
                yield replace(server, behind=behind, access_log=log)


@dataclass(frozen=True, slots=True)
class VarnishServer:
    """Varnish, which passes codings on as they are.

    Attributes:
        behind: What it asks when it has no answer.
    """

    behind: PythonServer

    def missing(self) -> str | None:
        """Tells whether Varnish is installed."""
        return missing_program("varnishd")

    @contextmanager
    def started(self, folder: Path) -> Generator[Running]:
        """Serves while the context lasts."""
        port = free_port()
        own = folder / f"varnish-{port}"
        own.mkdir()
        with self.behind.started(folder) as behind:
            addresses = ["-a", f"127.0.0.1:{port}", "-b", f"127.0.0.1:{behind.port}"]
            # Without that parameter it makes of "br" in a request's Accept-Encoding nothing at all.
            options = ["-F", "-j", "none", "-n", str(own), "-s", "malloc,64m", "-p", "http_gzip_support=off"]
            with running([program("varnishd"), *addresses, *options], port, own / "out.log") as server:
                yield replace(server, behind=behind)


def program(name: str) -> str:
    """Returns the path of a program.

    Raises:
        LeftOutError: It is not installed.
    """
    path = found(name)
    if path is None:
        raise LeftOutError(f"{name} is not installed")
    return path


def missing_program(name: str) -> str | None:
    """Returns a sentence where a program is not installed."""
    return None if found(name) else f"{name} is not installed"
