"""Where bodies are compressed: off the event loop where they are large, kept ones once per coding."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from os import cpu_count
from typing import Final, TypeVar

from aeros.compression.codings import Coding, ThoroughCoding
from aeros.exchange import Representation
from aeros.per_loop import PerLoop

T = TypeVar("T")

LARGEST_HOT_BODY: Final = 2**20
"""Bytes up to which a body is compressed thoroughly: brotli takes two seconds for as much."""

_THOROUGH: Final = "+"


class Workshop:
    """Compresses bodies without holding up the event loop, for one application.

    Attributes:
        compressed_bytes: By coding, how many bytes were given to it, and how many they have become.
    """

    __slots__ = ("_benches", "compressed_bytes")

    def __init__(self) -> None:
        self._benches = PerLoop(_Bench)
        self.compressed_bytes: dict[str, tuple[int, int]] = {}

    async def run(self, work: Callable[[bytes], T], data: bytes, offload_size: int | None) -> T:
        """Returns what ``work`` makes of ``data``; from ``offload_size`` bytes on in a thread."""
        if offload_size is None or len(data) < offload_size:
            return work(data)
        async with self._benches.get().threads:
            return await asyncio.to_thread(work, data)

    async def compressed(self, coding: Coding, content: bytes, offload_size: int | None) -> bytes:
        """Returns ``content`` in a coding; as it is where that gains nothing, or where the coding fails."""
        return self.noted(
            coding, content, await self.run(partial(_compressed, coding), content, offload_size)
        )

    def compressed_at_once(self, coding: Coding, content: bytes, offload_size: int | None) -> bytes | None:
        """Returns what ``compressed()`` does; None where that is for a thread."""
        is_large = offload_size is not None and len(content) >= offload_size
        return None if is_large else self.noted(coding, content, _compressed(coding, content))

    def noted(self, coding: Coding, content: bytes, coded: bytes) -> bytes:
        """Counts what a coding was given and has made of it, which is returned."""
        taken, made = self.compressed_bytes.get(coding.name, (0, 0))
        self.compressed_bytes[coding.name] = taken + len(content), made + len(coded)
        return coded

    def variant_at_once(
        self, kept: Representation, coding: Coding, *, offload_size: int | None, hot_after: int | None
    ) -> tuple[str, bytes] | None:
        """Returns what ``variant_of()`` does; None where somebody has to wait for it."""
        if hot_after is not None:
            return None  # it counts, and begins work beside the requests
        ready = kept.variant(coding.name)
        if ready is None:
            ready = self.compressed_at_once(coding, kept.body, offload_size)
            if ready is None:
                return None
            kept.add_variant(coding.name, ready)
        return coding.name, ready

    async def variant_of(
        self, kept: Representation, coding: Coding, *, offload_size: int | None, hot_after: int | None
    ) -> tuple[str, bytes]:
        """Returns the variant of a kept body and what names it; the first to ask makes it for all.

        A variant that was compressed thoroughly has a name of its own, because a strong entity tag
        stands for the very bytes.
        """
        becomes_hot = False
        if hot_after is not None:
            thorough = kept.variant(coding.name + _THOROUGH)
            if thorough is not None:
                return coding.name + _THOROUGH, thorough
            becomes_hot = kept.note_use(coding.name) == hot_after
        ready = kept.variant(coding.name)
        if ready is None:
            ready = await self.once(
                (kept, coding.name), lambda: self._make_variant(kept, coding, offload_size)
            )
        # Only now, because the thorough variant takes the place of this one.
        if becomes_hot and isinstance(coding, ThoroughCoding):
            self._begin_thoroughly(kept, coding)
        return coding.name, ready

    async def once(self, job: Hashable, make: Callable[[], Coroutine[None, None, bytes]]) -> bytes:
        """Returns what ``make`` makes; whoever asks for the same job meanwhile shares it.

        Its own task: a client that leaves must not cancel what the others wait for.
        """
        making = self._benches.get().making
        task = making.get(job)
        if task is None:
            task = making[job] = asyncio.create_task(make())
            task.add_done_callback(lambda _: making.pop(job, None))
        return await asyncio.shield(task)

    async def _make_variant(self, kept: Representation, coding: Coding, offload_size: int | None) -> bytes:
        # Where compressing gains nothing the body itself is kept as the variant: no second try.
        ready = await self.compressed(coding, kept.body, offload_size)
        kept.add_variant(coding.name, ready)
        return ready

    def _begin_thoroughly(self, kept: Representation, coding: ThoroughCoding) -> None:
        if len(kept.body) > LARGEST_HOT_BODY:
            return
        bench = self._benches.get()
        task = asyncio.create_task(self._make_thorough(kept, coding, bench.spare_time))
        bench.background.add(task)
        task.add_done_callback(bench.background.discard)

    async def _make_thorough(
        self, kept: Representation, coding: ThoroughCoding, spare_time: asyncio.Semaphore
    ) -> None:
        try:
            async with spare_time:
                content = await asyncio.to_thread(coding.compress_thoroughly, kept.body)
        except Exception as error:  # noqa: BLE001 - as above
            _log_failure(coding, error)
            return
        self.noted(coding, kept.body, content)
        ready = kept.variant(coding.name)
        if ready is None or len(content) < len(ready):
            kept.add_variant(coding.name + _THOROUGH, content, instead_of=coding.name)


def _compressed(coding: Coding, content: bytes) -> bytes:
    try:
        coded = coding.compress(content)
    except Exception as error:  # noqa: BLE001 - whatever a user's own coding raises
        # A client can do without a coding, but not without the content.
        _log_failure(coding, error)
        return content
    return coded if len(coded) < len(content) else content


def _log_failure(coding: Coding, error: Exception) -> None:
    logging.getLogger("aeros.compression").error(
        "The coding %r failed: what it was to compress is sent without it", coding.name, exc_info=error
    )


class _Bench:
    """One loop's share of a workshop: as many threads as processors, and the work in hand."""

    __slots__ = ("background", "making", "spare_time", "threads")

    def __init__(self) -> None:
        self.threads = asyncio.Semaphore(cpu_count() or 1)
        # What nobody waits for takes one thread, and only one.
        self.spare_time = asyncio.Semaphore(1)
        # By the object, which so outlives its task: another one could get its id().
        self.making: dict[Hashable, asyncio.Task[bytes]] = {}
        self.background: set[asyncio.Task[None]] = set()
