"""Making an application starts, opens and configures nothing: seen by the interpreter's own audit."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]

# Everything that leaves the process or begins something, by the names of Python's audit events.
AUDIT = """
import json, logging, sys, threading

PREFIXES = (
    "open", "socket.", "_thread.start", "subprocess.", "os.mkdir", "os.rename", "os.remove", "os.fork",
    "os.posix_spawn", "os.exec", "shutil.", "tempfile.", "sqlite3.", "signal.",
)
seen = []
recording = False

def note(event, arguments):
    if not recording or not event.startswith(PREFIXES):
        return
    target = str(arguments[0]) if arguments else ""
    # What Python reads of its own modules is no file of the application.
    if event == "open" and target.endswith((".py", ".pyc", ".so", "METADATA", "entry_points.txt")):
        return
    seen.append([event, target])

def logging_state():
    loggers = {"root": logging.root}
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger):
            loggers[name] = logger
    states = {
        name: [logger.level, [repr(one) for one in logger.handlers], logger.propagate, logger.disabled]
        for name, logger in loggers.items()
    }
    untouched = [logging.NOTSET, [], True, False]
    states = {name: state for name, state in states.items() if state != untouched}
    return {**states, "disabled below": logging.root.manager.disable, "level 5": logging.getLevelName(5)}

def threads():
    return [thread.name for thread in threading.enumerate()]

sys.addaudithook(note)

# Starting a thread is no audit event in every version of Python.
start = threading.Thread.start

def noted_start(thread):
    note("_thread.start", [thread.name])
    start(thread)

threading.Thread.start = noted_start
"""

APPLICATION = (
    AUDIT
    + """
from pathlib import Path
from cachelib import FileSystemCache, RedisCache
from dependency_injector import providers
from aeros import Br, Cache, Container, WebServer

made = []

def on_redis():
    made.append("redis")
    return Cache(RedisCache(host="127.0.0.1", port=1))

def on_files():
    made.append("files")
    return Cache(FileSystemCache("kept"))

class RedisContainer(Container):
    cache = providers.Singleton(lambda: on_redis())

class FilesContainer(Container):
    cache = providers.Singleton(lambda: on_files())

before = logging_state()
recording = True
apps = []
for container in (None, RedisContainer(), FilesContainer()):
    if container is not None:
        container.config.from_dict({"access_log_file": "configured.log", "log_level": "debug"})
    app = WebServer(
        "shop", "127.0.0.1", 8443, False, "debug", compression=Br(), global_headers={"X-Shop": "1"},
        container=container,
    )
    apps.append(app)

    @app.route("/")
    @app.cache(60)
    async def index():
        return "x"

    @app.route("/sync/<int:number>")
    @app.cache(timeout=5, key_prefix="p", query_string=True)
    def page(number):
        return str(number)

    @app.before_serving
    async def begin():
        made.append("served")

recording = False
report = {
    "seen": seen[:], "made": made[:], "threads": threads(), "logging": [before, logging_state()],
    "files": sorted(path.name for path in Path().iterdir()),
}

# What the audit would have told.
recording = True
apps[2].current_cache()
Path("noted.txt").write_text("x")
import socket
socket.socket().close()
worker = threading.Thread(target=int)
worker.start()
worker.join()
recording = False
report["control"] = sorted({event for event, _ in seen})
report["made later"] = made
print(json.dumps(report))
"""
)

IMPORT = (
    AUDIT
    + """
OPTIONAL = ("redis", "backports", "zstandard", "compression.zstd")
before, threads_before = logging_state(), threads()
recording = True
exec(sys.argv[1])
recording = False
print(json.dumps({
    "aeros": "aeros" in sys.modules, "seen": seen, "threads": [threads_before, threads()],
    "logging": [before, logging_state()],
    "optional": [name for name in sys.modules if name in OPTIONAL or name.partition(".")[0] in OPTIONAL],
}))
"""
)


def report_of(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What a script printed as JSON."""
    assert result.returncode == 0, result.stderr
    return cast("dict[str, Any]", json.loads(result.stdout))


@pytest.fixture
def construction(run_script: RunScript) -> dict[str, Any]:
    """What happened while three applications were made and given cached routes."""
    return report_of(run_script(APPLICATION))


def test_making_applications_opens_and_starts_nothing(construction: dict[str, Any]) -> None:
    """No file, socket, thread or process, whatever is configured; and the audit would have seen them."""
    assert construction["seen"] == []
    assert construction["threads"] == ["MainThread"]
    assert {"open", "socket.__new__", "_thread.start", "os.mkdir"} <= set(construction["control"])


def test_making_applications_leaves_logging_and_the_folder_alone(construction: dict[str, Any]) -> None:
    """No handler, no level, no level name, and neither the log file nor the cache's folder."""
    before, after = construction["logging"]
    assert after == before
    assert construction["files"] == ["script.py"]


def test_a_cache_provider_is_called_when_the_cache_is_needed(construction: dict[str, Any]) -> None:
    """Neither construction nor decoration calls it; the first use does, and only its own."""
    assert construction["made"] == []
    assert construction["made later"] == ["files"]


@pytest.mark.parametrize("statement", ["import aeros", "from aeros import WebServer"])
def test_importing_starts_nothing_and_loads_nothing_optional(run_script: RunScript, statement: str) -> None:
    """No thread, socket or process, no handler or level, and no package that is optional."""
    report = report_of(run_script(IMPORT, statement))
    assert report["aeros"]
    assert report["seen"] == []
    before, after = report["threads"]
    assert after == before == ["MainThread"]
    before, after = report["logging"]
    assert after == before
    assert report["optional"] == []


def test_a_module_with_an_application_can_be_imported_without_effect(
    run_script: RunScript, tmp_path: Path
) -> None:
    """The usual layout, an application at the top level of a module, starts nothing at import."""
    (tmp_path / "shop.py").write_text(
        "from aeros import WebServer\n"
        "app = WebServer(__name__, port=1, global_headers={'X-Shop': '1'})\n"
        "@app.route('/')\n@app.cache(60)\nasync def index() -> str:\n    return 'x'\n"
    )
    report = report_of(run_script(IMPORT, "import shop", PYTHONDONTWRITEBYTECODE="1"))
    assert report["seen"] == []
    assert report["threads"][1] == ["MainThread"]
    assert report["logging"][1] == report["logging"][0]
    assert report["optional"] == []
