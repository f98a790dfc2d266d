"""Load: what is asked, and the program that asks it: wrk where it is installed, else our own."""

from __future__ import annotations

import base64
import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from benchmarks.process import ROOT, found

# What a generator may take longer than it was told, before it is ended.
PATIENCE_SECONDS = 60.0
FILL_SECONDS = 120.0

WRK_SCRIPT = """
wrk.method = "{method}"
wrk.headers["Accept-Encoding"] = "{accept}"
wrk.headers["Connection"] = "keep-alive"
{body}
{request}
done = function(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format('\\n{{"requests":%d,"seconds":%f,"p50_ms":%f,"p99_ms":%f,"errors":%d}}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, failed))
end
"""
WRK_KEYS = """
local made = 0
init = function() math.randomseed({seed}) end
request = function()
  local key
  if math.random() < {new_share} then
    made = made + 1
    key = "{seed}-" .. made
  else
    key = math.random(0, {known_keys} - 1)
  end
  return wrk.format(nil, "{before}" .. key .. "{after}")
end
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """What clients ask for, again and again.

    Attributes:
        path: The target; ``{key}`` in it is another one each time.
        accept: The request's ``Accept-Encoding``.
        body: JSON to post; without it the method is GET.
        known_keys: Keys that are asked for once before, and then at random.
        new_share: How many of the requests, of 1, have a key that was never asked for.
        websocket: Whether it is a websocket, whose messages are the requests.
    """

    path: str
    accept: str = "identity"
    body: bytes = b""
    known_keys: int = 0
    new_share: float = 0.0
    websocket: bool = False

    @property
    def method(self) -> str:
        """The request's method."""
        return "POST" if self.body else "GET"


@dataclass(frozen=True, slots=True)
class Load:
    """What came of it.

    Attributes:
        requests: How many were answered, all of them well.
        seconds: In which time.
        p50_ms: The median of the latency.
        p99_ms: Its 99th percentile.
    """

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Generator:
    """The load generator of one run.

    Attributes:
        wrk: The path of wrk; None: our own is used.
    """

    wrk: str | None

    @property
    def name(self) -> str:
        """How a table calls it."""
        return "wrk" if self.wrk else "benchmarks.generator (wrk is not installed)"

    def run(self, asked: Asked, port: int, connections: int, seconds: float, seed: int) -> Load:
        """Asks for so many seconds.

        Args:
            asked: What.
            port: Whom.
            connections: On how many connections, which are kept alive.
            seconds: How long.
            seed: Of what is random; another one for each run, so that new keys are new.

        Raises:
            RuntimeError: Something was not answered, or not well.
        """
        if asked.websocket:
            printed = ask_own("benchmarks.websocket_generator", asked, port, connections, seconds, seed)
        elif self.wrk:
            printed = ask_wrk(self.wrk, asked, port, connections, seconds, seed)
        else:
            printed = ask_own("benchmarks.generator", asked, port, connections, seconds, seed)
        return as_load(printed)


def find_generator() -> Generator:
    """Returns what this machine has."""
    return Generator(found("wrk"))


def fill(asked: Asked, port: int) -> None:
    """Asks for each of the known keys once."""
    as_load(ask_own("benchmarks.generator", asked, port, 8, FILL_SECONDS, 0, each=True))


def as_load(printed: str) -> Load:
    """Returns what a generator printed in its last line.

    Raises:
        RuntimeError: It counted errors, or nothing at all.
    """
    told = cast("dict[str, Any]", json.loads(printed.strip().splitlines()[-1]))
    if told["errors"] or not told["requests"]:
        raise RuntimeError(f"{told['errors']} errors in {told['requests']} requests")
    return Load(int(told["requests"]), float(told["seconds"]), float(told["p50_ms"]), float(told["p99_ms"]))


def ask_wrk(wrk: str, asked: Asked, port: int, connections: int, seconds: float, seed: int) -> str:
    """Returns what wrk printed; it counts in whole seconds."""
    whole = math.ceil(seconds)
    with TemporaryDirectory() as folder:
        script = Path(folder, "asked.lua")
        script.write_text(wrk_script(asked, Path(folder), seed))
        url = f"http://127.0.0.1:{port}{asked.path}"
        counts = ["-t1", f"-c{connections}", f"-d{whole}s", "--timeout", "20s"]
        return printed_by([wrk, *counts, "-s", str(script), url], whole)


def wrk_script(asked: Asked, folder: Path, seed: int) -> str:
    """Returns the Lua of what is asked."""
    body = ""
    if asked.body:
        Path(folder, "body").write_bytes(asked.body)
        body = f'wrk.body = io.open("{folder}/body", "rb"):read("*a")'
        body += '\nwrk.headers["Content-Type"] = "application/json"'
    keys = ""
    if "{key}" in asked.path:
        before, after = asked.path.split("{key}")
        keys = WRK_KEYS.format(
            seed=seed, new_share=asked.new_share, known_keys=asked.known_keys, before=before, after=after
        )
    return WRK_SCRIPT.format(method=asked.method, accept=asked.accept, body=body, request=keys)


def ask_own(
    module: str, asked: Asked, port: int, connections: int, seconds: float, seed: int, *, each: bool = False
) -> str:
    """Returns what one of our own generators printed, in a process of its own."""
    plan = {
        "port": port,
        "connections": connections,
        "seconds": seconds,
        "seed": seed,
        "each": each,
        "method": asked.method,
        "path": asked.path,
        "accept": asked.accept,
        "body": base64.b64encode(asked.body).decode(),
        "known_keys": asked.known_keys,
        "new_share": asked.new_share,
    }
    return printed_by([sys.executable, "-m", module], seconds, json.dumps(plan))


def printed_by(command: list[str], seconds: float, given: str = "") -> str:
    """Runs a generator and returns what it printed; it is ended if it does not end itself.

    Raises:
        RuntimeError: It failed.
    """
    done = subprocess.run(
        command,
        input=given,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=seconds + PATIENCE_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the load generator failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout
