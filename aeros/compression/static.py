"""Static files in a content coding: one that lies ready beside the file, or one that is kept.

A file is sent in parts and with conditions (RFC 9110 §13, §14) in each of its codings, because each
is whole and has a strong entity tag of its own.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from errno import ENAMETOOLONG, ENOENT
from pathlib import Path
from stat import S_ISREG
from typing import Final, Protocol, TypeVar

from quart import request, send_from_directory  # pyright: ignore[reportUnknownVariableType]  # a bare PathLike in it
from quart.wrappers import Response
from quart.wrappers.response import DataBody, FileBody
from werkzeug.exceptions import NotFound, RequestedRangeNotSatisfiable

from aeros.compression.codings import Coding
from aeros.compression.compressors import Base
from aeros.compression.response import ResponseCoder
from aeros.http.accept_encoding import negotiate
from aeros.http.etag import parse_entity_tag
from aeros.http.fields import format_http_date
from aeros.http.ranges import if_range_holds, parse_range
from aeros.types import RawHeaders

LARGEST_KEPT_FILE: Final = 8 * 2**20
"""Bytes up to which a file is compressed once and kept; a larger one is a stream each time."""

BodyT = TypeVar("BodyT", DataBody, FileBody)

_EXTENSIONS: Final = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}


class DerivedBytes(Protocol):
    """Where bytes are kept that can be made again."""

    def derived(self, key: bytes) -> bytes | None:
        """Returns what is kept under a key."""
        ...

    def keep_derived(self, key: bytes, content: bytes) -> None:
        """Keeps ``content``, for as long as there is room."""
        ...


@dataclass(frozen=True, slots=True)
class _Ready:
    """A file in a coding, made when the site was built."""

    coding: str
    path: Path
    size: int
    modified_ns: int


class StaticFiles:
    """Sends the files of one application's static folders.

    Args:
        coder: Applies a content coding.
    """

    __slots__ = ("_coder",)

    def __init__(self, coder: ResponseCoder) -> None:
        self._coder = coder

    async def send(
        self, directory: str | os.PathLike[str], filename: str, compressor: Base | None, kept: DerivedBytes
    ) -> Response:
        """Returns the response of a static file for the current request.

        Args:
            directory: The static folder.
            filename: The path within it, as in the URL.
            compressor: Chooses the coding; None: the file as it is.
            kept: Where its codings are kept.

        Raises:
            NotFound: There is no such file in the folder.
            RequestedRangeNotSatisfiable: It has no such part.
        """
        try:
            response = await send_from_directory(directory, filename, conditional=False)
        except OSError as error:
            if error.errno not in (ENOENT, ENAMETOOLONG):
                raise
            raise NotFound from error
        whole = response.response
        if not isinstance(whole, FileBody):
            return response
        body = whole if compressor is None else await self._coded(response, whole, compressor, kept)
        size = body.size if isinstance(body, FileBody) else len(body.data)
        response.content_length = size
        await response.make_conditional(request)
        if response.status_code == 304:
            response.headers.pop("Content-Encoding", None)  # of a content that it does not have
        elif response.status_code == 200:
            await _make_part(response, body, size)
        return response

    async def _coded(
        self, response: Response, whole: FileBody, compressor: Base, kept: DerivedBytes
    ) -> DataBody | FileBody:
        """Gives the response the body that this client should get, and returns it."""
        ready = await asyncio.to_thread(_ready_codings, whole.file_path, compressor.codings)
        if ready:
            response.vary.add("Accept-Encoding")
        found = _negotiated(ready)
        if found is None:
            return await self._made(response, whole, compressor, kept)
        tag = f"{found.modified_ns:x}-{found.size:x}-{found.coding}"
        return _put(response, FileBody(found.path), found.coding, tag)

    async def _made(
        self, response: Response, whole: FileBody, compressor: Base, kept: DerivedBytes
    ) -> DataBody | FileBody:
        """Does the same with a body that is compressed here, once for all."""
        if not self._coder.may_code(compressor, response.status_code, _raw(response)):
            return whole
        response.vary.add("Accept-Encoding")  # here, because it has to be on parts as well
        if not compressor.min_size <= whole.size <= LARGEST_KEPT_FILE:
            return whole
        coding, (tag, _) = compressor.negotiate(_accepted()), response.get_etag()
        if coding is None or tag is None:
            return whole
        key = f"{coding.name} {tag} {whole.file_path}".encode("utf-8", "surrogateescape")
        content = kept.derived(key)
        if content is None:
            content = await self._coder.workshop.once(
                (key, id(kept)), lambda: self._make(whole, coding, compressor.offload_size, key, kept)
            )
        if content:
            return _put(response, DataBody(content), coding.name, f"{tag}-{coding.name}")
        # It was tried in vain: the sign that nobody should try again, e.g. as a stream.
        response.headers["Content-Encoding"] = "identity"
        return whole

    async def _make(
        self, whole: FileBody, coding: Coding, offload_size: int | None, key: bytes, kept: DerivedBytes
    ) -> bytes:
        identity = await asyncio.to_thread(whole.file_path.read_bytes)
        content = await self._coder.workshop.compressed(coding, identity, offload_size)
        if len(identity) != whole.size:
            return b""  # it is being written just now: what was read is not what the tag says
        # Nothing is kept as the sign that compressing gains nothing.
        content = b"" if content is identity else content
        kept.keep_derived(key, content)
        return content


def _ready_codings(path: Path, codings: Iterable[Coding]) -> list[_Ready]:
    """Returns what lies beside a file in a coding and is not older than it, in the server's order."""
    ready: list[_Ready] = []
    try:
        modified_ns = path.stat().st_mtime_ns
        for coding in codings:
            beside = path.with_name(path.name + _EXTENSIONS.get(coding.name, f".{coding.name}"))
            try:
                found = beside.stat()
            except FileNotFoundError:
                continue
            if S_ISREG(found.st_mode) and found.st_mtime_ns >= modified_ns:
                ready.append(_Ready(coding.name, beside, found.st_size, found.st_mtime_ns))
    except OSError:
        return []  # it is gone, or can not be looked at: then the file itself has to do
    return ready


def _negotiated(ready: list[_Ready]) -> _Ready | None:
    name = negotiate(_accepted(), [item.coding for item in ready])
    return next((item for item in ready if item.coding == name), None)


def _accepted() -> str:
    return ", ".join(request.headers.getlist("Accept-Encoding"))


def _put(response: Response, body: BodyT, coding: str, tag: str) -> BodyT:
    response.response = body
    response.headers["Content-Encoding"] = coding
    response.set_etag(tag)
    return body


async def _make_part(response: Response, body: DataBody | FileBody, size: int) -> None:
    """Makes the response the part that the client asks for, if it does (RFC 9110 §14).

    Quart fails for the last bytes of a file, and refuses the ranges that a server is to ignore.

    Raises:
        RequestedRangeNotSatisfiable: The part begins after the end.
    """
    response.headers["Accept-Ranges"] = "bytes"
    asked = request.headers.getlist("Range")
    if request.method != "GET" or not asked or not _if_range(response):
        return
    part = parse_range(", ".join(asked), size)
    if part is None:
        return
    if part == "unsatisfiable":
        raise RequestedRangeNotSatisfiable(size)
    await body.make_conditional(part.first, part.last + 1)
    response.status_code = 206
    response.content_length = part.last + 1 - part.first
    response.headers["Content-Range"] = part.content_range(size)


def _if_range(response: Response) -> bool:
    return if_range_holds(
        request.headers.get("If-Range"),
        etag=parse_entity_tag(response.headers.get("ETag", "")),
        last_modified=response.headers.get("Last-Modified"),
        date=format_http_date(time.time()),  # the server's own Date comes later
    )


def _raw(response: Response) -> RawHeaders:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
