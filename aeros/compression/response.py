"""Applying a content coding to a response: which, whether, and what changes in its fields."""

from __future__ import annotations

from typing import Final

from aeros.compression.codings import Coding, StreamCoding
from aeros.compression.compressors import EVENT_STREAM, Base
from aeros.compression.workshop import Workshop
from aeros.exchange import Exchange, Representation
from aeros.http.cache_control import parse_response_directives
from aeros.http.conditional import entity_tag_in
from aeros.http.digest import with_digests
from aeros.http.etag import EntityTag, for_coding
from aeros.http.fields import combined_value, first_value, replaced, with_list_member, without
from aeros.types import RawHeaders, Scope

# A response that says so is not to be compressed. RFC 9110 §8.4 has the word for Accept-Encoding
# only, so it is taken off again.
OPTED_OUT: Final = (b"content-encoding", b"identity")


class ResponseCoder:
    """Applies content codings to responses, for one application."""

    __slots__ = ("workshop",)

    def __init__(self) -> None:
        self.workshop: Workshop = Workshop()

    def may_code(self, compressor: Base, status: int, headers: RawHeaders) -> bool:
        """Tells whether a response may be compressed, by its status and fields.

        Never: 1xx, 204, 205 and 206, what is coded or is a part already, and what its sender
        forbids to transform.
        """
        if status < 200 or status in (204, 205, 206):
            return False
        content_type: bytes | None = None
        may_forbid = False
        for name, value in headers:
            if name == b"content-type":
                content_type = value if content_type is None else content_type
            elif name == b"cache-control":
                may_forbid = True
            elif name == b"content-encoding" or name == b"content-range":
                return False
        return (
            content_type is not None
            and compressor.is_compressible(content_type.decode("latin-1"))
            and not (may_forbid and _forbids_transforming(headers))
        )

    def varies(self, compressor: Base, status: int, headers: RawHeaders) -> bool:
        """Tells whether a 304 or a 206 stands for a 200 that might be compressed.

        Then it says ``Vary`` as that would (RFC 9110 §15.3.7, §15.4.5). A 304 need not tell its type.
        """
        if status == 304 and first_value(headers, b"content-type") is None:
            return not _forbids_transforming(headers)
        whole = without(headers, frozenset({b"content-range"}))
        return status in (206, 304) and self.may_code(compressor, 200, whole)

    def apply_at_once(
        self, compressor: Base, scope: Scope, exchange: Exchange, headers: RawHeaders, body: bytes
    ) -> tuple[RawHeaders, bytes] | None:
        """Returns what ``apply()`` does; None where nobody should wait for that on the event loop."""
        headers = with_list_member(headers, b"vary", "Accept-Encoding")
        coding = _chosen(compressor, scope, exchange, body)
        if coding is None:
            return headers, body
        kept, offload_size = exchange.representation, compressor.offload_size
        made: tuple[str, bytes] | None
        if kept is not None and kept.body is body:
            made = self.workshop.variant_at_once(
                kept, coding, offload_size=offload_size, hot_after=compressor.hot_after
            )
        else:
            content = self.workshop.compressed_at_once(coding, body, offload_size)
            made = None if content is None else (coding.name, content)
        return None if made is None else _encoded(headers, coding, *made, body)

    async def apply(
        self, compressor: Base, scope: Scope, exchange: Exchange, headers: RawHeaders, body: bytes
    ) -> tuple[RawHeaders, bytes]:
        """Returns the fields and the content of a whole response for this client.

        It is one that may be compressed; where it is not, the content is ``body`` itself. ``Vary``
        is set all the same: another client's copy differs.
        """
        headers = with_list_member(headers, b"vary", "Accept-Encoding")
        coding = _chosen(compressor, scope, exchange, body)
        if coding is None:
            return headers, body
        name, content = await self._content(compressor, coding, exchange.representation, body)
        return _encoded(headers, coding, name, content, body)

    def begin_stream(
        self, compressor: Base, scope: Scope, exchange: Exchange, headers: RawHeaders
    ) -> tuple[RawHeaders, StreamCoding | None]:
        """Returns the fields of a stream for this client, and the coding to put it through, if any."""
        headers = with_list_member(headers, b"vary", "Accept-Encoding")
        coding = _negotiated(compressor, scope, exchange)
        if not isinstance(coding, StreamCoding):
            return headers, None
        # How a stream is cut into flushes depends on time, so only a weak tag is true of it. It is
        # the application's own, weakened: what it compares a request's tags with itself.
        tag = entity_tag_in(headers)
        weak = None if tag is None else EntityTag(tag.opaque, weak=True)
        headers = without(with_digests(headers, None), frozenset({b"content-length"}))
        return _coded(headers, coding, weak), coding

    async def _content(
        self, compressor: Base, coding: Coding, kept: Representation | None, body: bytes
    ) -> tuple[str, bytes]:
        # A hook may have replaced the body: only the very object that is kept has variants.
        if kept is None or kept.body is not body:
            return coding.name, await self.workshop.compressed(coding, body, compressor.offload_size)
        return await self.workshop.variant_of(
            kept, coding, offload_size=compressor.offload_size, hot_after=compressor.hot_after
        )


def flush_seconds(compressor: Base, headers: RawHeaders) -> float:
    """Returns for how long the bytes of this stream may wait; an event waits for nothing."""
    content_type = (first_value(headers, b"content-type") or b"").partition(b";")[0].strip().lower()
    return 0.0 if content_type == EVENT_STREAM.encode("ascii") else compressor.flush_seconds


def _chosen(compressor: Base, scope: Scope, exchange: Exchange, body: bytes) -> Coding | None:
    """Returns the coding for a whole body; None where it goes out as it is."""
    return None if len(body) < compressor.min_size else _negotiated(compressor, scope, exchange)


def _encoded(
    headers: RawHeaders, coding: Coding, variant: str, content: bytes, body: bytes
) -> tuple[RawHeaders, bytes]:
    """Returns the fields and the content of a compressed body; as it was where that gained nothing."""
    if len(content) >= len(body):
        return headers, body
    headers = replaced(with_digests(headers, content), b"content-length", b"%d" % len(content))
    return _coded(headers, coding, _strong_tag(headers, variant)), content


def _negotiated(compressor: Base, scope: Scope, exchange: Exchange) -> Coding | None:
    # A secret of the session next to text that the client chose could be guessed from the
    # compressed length (BREACH), so such a response goes out as it is.
    if exchange.session_used:
        return None
    return compressor.negotiate(combined_value(scope["headers"], b"accept-encoding"))


def _forbids_transforming(headers: RawHeaders) -> bool:
    stated = combined_value(headers, b"cache-control")
    return stated is not None and parse_response_directives(stated).no_transform


def _strong_tag(headers: RawHeaders, variant: str) -> EntityTag | None:
    tag = entity_tag_in(headers)
    return None if tag is None else for_coding(tag, variant)


def _coded(headers: RawHeaders, coding: Coding, tag: EntityTag | None) -> RawHeaders:
    # Ranges count in the identity body, from which alone parts are served.
    headers = without(headers, frozenset({b"accept-ranges"}))
    headers.append((b"content-encoding", coding.name.encode("ascii")))
    if tag is not None:
        headers = replaced(headers, b"etag", str(tag).encode("latin-1"))
    return headers
