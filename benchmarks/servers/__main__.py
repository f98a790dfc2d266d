"""Serves one application: ``python -m benchmarks.servers MODULE:FUNCTION[:NUMBER] PORT``.

All are served by the same uvicorn settings, but those of aeros by their own ``run_server()`` unless
``--by uvicorn`` is said. aeros is imported only where it is served: its memory is not the peers'.
"""

from __future__ import annotations

import argparse
import logging
from importlib import import_module
from typing import Any

import uvicorn


def build(name: str) -> Any:
    """Returns the application of ``module:function`` or ``module:function:number``."""
    module, function, *numbers = name.split(":")
    make = getattr(import_module(f"benchmarks.servers.{module}"), function)
    return make(*map(int, numbers))


def log_config(access_log: str) -> dict[str, Any]:
    """Returns the configuration that writes uvicorn's access log to a file, and warnings to the console."""
    line = '%(asctime)s %(client_addr)s - "%(request_line)s" %(status_code)s'
    formatter = {"()": "uvicorn.logging.AccessFormatter", "fmt": line, "use_colors": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"access": formatter},
        "handlers": {
            "access": {"class": "logging.FileHandler", "filename": access_log, "formatter": "access"}
        },
        "loggers": {
            "uvicorn": {"level": "WARNING"},
            "uvicorn.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
        },
    }


def serve(app: Any, port: int, access_log: str | None) -> None:
    """Serves on uvicorn, as all peers are."""
    logs: dict[str, Any] = {"log_level": "warning", "access_log": False}
    if access_log is not None:
        logs = {"log_config": log_config(access_log)}
    uvicorn.run(app, host="127.0.0.1", port=port, loop="uvloop", http="httptools", **logs)


def serve_itself(app: Any, port: int, access_log: str | None, unlimited: bool) -> None:
    """Serves as users of aeros do."""
    limits: dict[str, Any] = {"soft_limit": None, "hard_limit": None} if unlimited else {}
    app.run_server(
        host="127.0.0.1",
        port=port,
        log_level=logging.WARNING,
        access_log_file=access_log,
        access_log_to_std=False,
        **limits,
    )


def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("application")
    parser.add_argument("port", type=int)
    parser.add_argument("--by", choices=["uvicorn", "itself"], default="itself")
    parser.add_argument("--access-log")
    parser.add_argument("--unlimited", action="store_true", help="no admission limits")
    options = parser.parse_args()
    app = build(options.application)
    if options.by == "itself" and hasattr(app, "run_server"):
        serve_itself(app, options.port, options.access_log, options.unlimited)
    else:
        serve(app, options.port, options.access_log)


if __name__ == "__main__":
    main()
