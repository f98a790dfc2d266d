"""Applying a content coding to a whole response: which, whether, and what changes in its fields."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from os import cpu_count
from typing import Final

from aeros.compression import Base, Coding
from aeros.exchange import Exchange, Representation
from aeros.http.cache_control import parse_response_directives
from aeros.http.etag import for_coding, parse_entity_tag
from aeros.http.fields import combined_value, first_value, replaced, with_list_member, without
from aeros.per_loop import PerLoop
from aeros.types import RawHeaders, Scope

LARGE_BODY: Final = 64 * 1024
"""Bytes from which a body is compressed in a thread: below, the hop costs more than it saves."""

# They describe the identity body, and nobody recomputes them for the coded one (RFC 9530, RFC 9110).
_OF_IDENTITY: Final = frozenset(
    {b"content-digest", b"repr-digest", b"digest", b"content-md5", b"accept-ranges"}
)


@dataclass(frozen=True, slots=True)
class Coded:
    """A response after its coding: the fields and the body to send, and whether they changed."""

    headers: RawHeaders
    body: bytes
    is_coded: bool


class ResponseCoder:
    """Applies content codings to whole responses, for one application."""

    __slots__ = ("_workshop",)

    def __init__(self) -> None:
        self._workshop = Workshop()

    def may_code(self, compressor: Base, status: int, headers: RawHeaders) -> bool:
        """Tells whether a response may be compressed, by its status and fields.

        Never: 1xx, 204, 205 and 206, what is coded or is a part already, and what its sender
        forbids to transform.
        """
        content_type = first_value(headers, b"content-type")
        return (
            content_type is not None
            and status >= 200
            and status not in (204, 205, 206)
            and first_value(headers, b"content-encoding") is None
            and first_value(headers, b"content-range") is None
            and compressor.is_compressible(content_type.decode("latin-1"))
            and not _forbids_transforming(headers)
        )

    async def apply(
        self, compressor: Base, scope: Scope, exchange: Exchange, headers: RawHeaders, body: bytes
    ) -> Coded:
        """Returns a response that may be compressed as this client should get it.

        ``Vary`` is set whether or not it is compressed this time: another client's copy differs.
        """
        headers = with_list_member(headers, b"vary", "Accept-Encoding")
        # A secret of the session next to text that the client chose could be guessed from the
        # compressed length (BREACH), so such a response goes out as it is.
        if len(body) < compressor.min_size or exchange.session_used:
            return Coded(headers, body, is_coded=False)
        coding = compressor.negotiate(combined_value(scope["headers"], b"accept-encoding"))
        if coding is None:
            return Coded(headers, body, is_coded=False)
        content = await self._content(coding, exchange.representation, body)
        if len(content) >= len(body):
            return Coded(headers, body, is_coded=False)
        return Coded(_coded_headers(headers, coding, len(content)), content, is_coded=True)

    async def _content(self, coding: Coding, kept: Representation | None, body: bytes) -> bytes:
        # A hook may have replaced the body: only the very object that is kept has variants.
        if kept is None or kept.body is not body:
            return await self._workshop.compress(coding, body)
        return await self._workshop.variant_of(kept, coding)


class Workshop:
    """Compresses bodies without holding up the event loop, and each kept one once per coding."""

    __slots__ = ("_benches",)

    def __init__(self) -> None:
        self._benches = PerLoop(_Bench)

    async def compress(self, coding: Coding, body: bytes) -> bytes:
        """Returns ``body`` in ``coding``; a large one is compressed in a thread."""
        if len(body) < LARGE_BODY:
            return coding.compress(body)
        async with self._benches.get().threads:
            return await asyncio.to_thread(coding.compress, body)

    async def variant_of(self, kept: Representation, coding: Coding) -> bytes:
        """Returns the ready variant of a kept body; the first to ask makes it for all."""
        ready = kept.variant(coding.name)
        if ready is not None:
            return ready
        making = self._benches.get().making
        job = (kept, coding.name)
        task = making.get(job)
        if task is None:
            # Its own task: a client that leaves must not cancel what the others wait for.
            task = making[job] = asyncio.create_task(self._make_variant(kept, coding))
            task.add_done_callback(lambda _: making.pop(job, None))
        return await asyncio.shield(task)

    async def _make_variant(self, kept: Representation, coding: Coding) -> bytes:
        content = await self.compress(coding, kept.body)
        # Where compressing gains nothing the body itself is kept as the variant: no second try.
        ready = content if len(content) < len(kept.body) else kept.body
        kept.add_variant(coding.name, ready)
        return ready


class _Bench:
    """One loop's share of a workshop: as many threads as processors, and the work in hand."""

    __slots__ = ("making", "threads")

    def __init__(self) -> None:
        self.threads = asyncio.Semaphore(cpu_count() or 1)
        # By the object, which so outlives its task: another one could get its id().
        self.making: dict[tuple[Representation, str], asyncio.Task[bytes]] = {}


def _forbids_transforming(headers: RawHeaders) -> bool:
    stated = combined_value(headers, b"cache-control")
    return stated is not None and parse_response_directives(stated).no_transform


def _coded_headers(headers: RawHeaders, coding: Coding, length: int) -> RawHeaders:
    headers = replaced(without(headers, _OF_IDENTITY), b"content-length", b"%d" % length)
    headers.append((b"content-encoding", coding.name.encode("ascii")))
    tag = parse_entity_tag((first_value(headers, b"etag") or b"").decode("latin-1"))
    if tag is not None:
        headers = replaced(headers, b"etag", str(for_coding(tag, coding.name)).encode("latin-1"))
    return headers
