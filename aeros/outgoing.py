"""One response on its way out: cache labels, content coding, 304, and global headers, in this order.

The messages of a response that the application sends pass through here once, outside of any
middleware, so it does not matter who made the response.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from aeros.caching.entry import StoredResponse
from aeros.caching.rendition import Rendition
from aeros.caching.response import labelled, sliced
from aeros.compression import Base
from aeros.compression.response import ResponseCoder
from aeros.compression.sending import CodedSend
from aeros.exchange import Exchange, HeadMemory, WholeSend
from aeros.http.asked import asked_of
from aeros.http.cache_control import parse_response_directives
from aeros.http.cache_status import CacheStatus
from aeros.http.conditional import is_match, without_content
from aeros.http.etag import EntityTag, entity_tag_of
from aeros.http.fields import combined_value, first_value, steers_connection, with_list_member
from aeros.types import RawHeaders, Scope, Send

_FAILURE_BODY = b"Internal Server Error"
# From here on making a tag takes a millisecond, and goes to a thread.
_LARGE_BODY = 2**20
_MOST_PLAIN: Final = 2_000
_LONGEST_TYPE: Final = 100
_BODILESS: Final = (206, 304)


class Plain:
    """What goes out for a small response of which nothing is known but its status, its type and its length.

    Args:
        headers: The fields that go out.
        terms: The compressor and the global fields that they were made with.

    Attributes:
        head: Where a server keeps the head that it made of the fields.
    """

    __slots__ = ("head", "headers", "terms")

    def __init__(self, headers: RawHeaders, terms: tuple[object, object]) -> None:
        self.headers: RawHeaders = headers
        self.terms: tuple[object, object] = terms
        self.head: tuple[object, object, bytes, bool] | None = None


PlainResponses: TypeAlias = dict[tuple[int, bytes, bytes], Plain]
"""Those of one application, by status, ``Content-Type`` and ``Content-Length``."""


class Outgoing(CodedSend):
    """The ``send`` that an application gets for one request.

    Args:
        send: Where the messages go.
        scope: The request's ASGI scope.
        exchange: What the other parts know of the request.
        coder: Applies a content coding.
        compressor: Chooses the coding; None where responses are not compressed.
        global_headers: Fields for every response that does not have them; ``vary`` joins its list.
        makes_etags: Whether whole responses without an entity tag get one.
        plain: What small responses were sent as; None: that is not remembered.
    """

    __slots__ = ("_global", "_makes_etags", "_plain")

    def __init__(
        self,
        send: Send,
        scope: Scope,
        exchange: Exchange,
        coder: ResponseCoder,
        compressor: Base | None,
        global_headers: RawHeaders,
        makes_etags: bool,
        plain: PlainResponses | None = None,
    ) -> None:
        super().__init__(send, scope, exchange, coder=coder, compressor=compressor)
        self._plain = plain
        self._global = global_headers
        self._makes_etags = makes_etags

    def at_once(
        self, status: int, headers: RawHeaders, body: bytes, memory: HeadMemory | None = None
    ) -> bool:
        """Sends a whole response if nobody has to wait for anything; as the last time, if it is a hit."""
        kept, send = self.exchange.representation, self._whole
        if kept is None and send is not None:
            plain = self._known_plain(status, headers, body)
            if plain is not None:
                return self._sends_as_before(send, status, plain.headers, body, plain)
        if not isinstance(kept, StoredResponse) or body is not kept.body or send is None:
            return super().at_once(status, headers, body, memory)
        transaction = self.exchange.transaction
        if (
            transaction is None
            or not kept.is_in_demand
            or not transaction.status.hit
            or status != kept.status
        ):
            return super().at_once(status, headers, body, memory)
        key = self._kind()
        if key is None:
            return super().at_once(status, headers, body, memory)
        told, terms = transaction.status, self._terms()
        last = kept.rendition(key)
        if last is None or not last.is_of(headers, told, terms):
            return self._sends_first(status, headers, kept, key, told)
        return self._sends_as_before(send, last.status, last.headers, last.content, last.memory)

    def _sends_as_before(
        self, send: WholeSend, status: int, headers: RawHeaders, content: bytes, memory: HeadMemory
    ) -> bool:
        if not send.is_clear:
            return False
        self.on_start()
        if not send.at_once(status, headers, content, memory):
            return False
        self._discards = self.started = self.exchange.is_answered = True
        return True

    def _known_plain(self, status: int, headers: RawHeaders, body: bytes) -> Plain | None:
        """Returns what a small response goes out as, if nothing else decides about that."""
        exchange, known, compressor = self.exchange, self._plain, self._compressor
        if (
            known is None
            or len(headers) != 2
            or exchange.transaction is not None
            or exchange.opted_out
            or self._makes_etags
            or self.started
            or self._held is not None
            or (compressor is not None and len(body) >= compressor.min_size)
        ):
            return None
        (first, kind), (second, length) = headers
        if first != b"content-type" or second != b"content-length" or length != b"%d" % len(body):
            return None
        key = status, kind, length
        plain = known.get(key)
        if plain is not None and plain.terms[0] is compressor and plain.terms[1] is self._global:
            return plain
        if status in _BODILESS or len(kind) > _LONGEST_TYPE or (plain is None and len(known) >= _MOST_PLAIN):
            return None
        made = self.made_at_once(status, headers, body)
        if made is None or made[0] != status or made[2] is not body or steers_connection(made[1]):
            return None
        plain = known[key] = Plain(made[1], (compressor, self._global))
        return plain

    def _sends_first(
        self,
        status: int,
        headers: RawHeaders,
        kept: StoredResponse,
        key: tuple[object, ...],
        told: CacheStatus,
    ) -> bool:
        """Sends a hit, and keeps how."""
        sent = self.sent_at_once(status, headers, kept.body)
        if sent is None:
            return False
        answered, fields, content = sent
        if not self.exchange.opted_out and kept.has(content) and not steers_connection(fields):
            rendition = Rendition(headers, told, self._terms(), answered, fields, content)
            kept.keep_rendition(key, rendition)
        return True

    def _kind(self) -> tuple[object, ...] | None:
        """Returns what of the request decides about how a hit goes out; None where more does."""
        exchange, method = self.exchange, self.scope["method"]
        if (
            exchange.session_used
            or exchange.opted_out
            or (self._compressor is not None and self._compressor.hot_after is not None)
            or method not in ("GET", "HEAD")
        ):
            return None
        asked = asked_of(self.scope["headers"])
        return None if asked is None or asked.condition is not None else (method, asked.accept)

    def _terms(self) -> tuple[object, ...]:
        return self._compressor, self._global, self._makes_etags, self.exchange.selecting_fields

    async def fail(self) -> None:
        """Answers for an application that raised before it had answered: a plain 500."""
        headers: RawHeaders = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(_FAILURE_BODY)),
        ]
        self.forget_start()
        await self({"type": "http.response.start", "status": 500, "headers": headers})
        await self({"type": "http.response.body", "body": _FAILURE_BODY})

    def on_start(self) -> None:
        """From here on the response is on its way: the next request may be handled."""
        self.exchange.release_slot()

    def needs_body(self) -> bool:
        """Tells whether the fields depend on the body: its tag, its parts."""
        return self._makes_etags or self.exchange.transaction is not None

    def labelled(self, headers: RawHeaders) -> RawHeaders:
        """Returns the fields of a stream with what the cache has to say."""
        return labelled(headers, self.exchange, None)

    def labelled_at_once(self, status: int, headers: RawHeaders, body: bytes, /) -> RawHeaders | None:
        """Returns the fields of a whole response with what the cache has to say, and a tag if asked for."""
        headers = labelled(headers, self.exchange, body)
        if not self._lacks_tag(status, headers, body):
            return headers
        return None if len(body) >= _LARGE_BODY else _tagged(headers, entity_tag_of(body))

    async def labelled_whole(self, status: int, headers: RawHeaders, body: bytes, /) -> RawHeaders:
        """Returns the same, for a body whose tag takes long."""
        headers = labelled(headers, self.exchange, body)
        if not self._lacks_tag(status, headers, body):
            return headers
        return _tagged(headers, await self.coder.workshop.run(entity_tag_of, body, _LARGE_BODY))

    def _lacks_tag(self, status: int, headers: RawHeaders, body: bytes) -> bool:
        if not self._makes_etags or status != 200 or self.scope["method"] not in ("GET", "HEAD"):
            return False
        if first_value(headers, b"etag") is not None or _forbids_storing(headers):
            return False
        # HEAD by an application that leaves the body out: nobody knows its tag.
        return bool(body) or first_value(headers, b"content-length") == b"0"

    def concluded(
        self, status: int, headers: RawHeaders, content: bytes, identity: bytes
    ) -> tuple[int, RawHeaders, bytes]:
        """Returns a whole response as the client gets it: as a 304, as a part, or as it is."""
        # Tags made here, by the cache or for a coding, are unknown to the application: only
        # this place can compare them.
        compares = content is not identity or self.needs_body()
        if compares and is_match(self.scope["method"], self.scope["headers"], status, headers):
            return 304, without_content(headers), b""
        kept = self.exchange.representation
        if kept is not None and identity is kept.body:
            return sliced(self.scope, status, headers, content)
        return status, headers, content

    def completed(self, headers: RawHeaders) -> RawHeaders:
        """Returns the fields with the global ones."""
        for name, value in self._global:
            if name == b"vary":  # a list: this place itself may have put a member there
                headers = with_list_member(headers, name, value.decode("latin-1"))
            elif first_value(headers, name) is None:
                headers = [*headers, (name, value)]
        return headers


def _tagged(headers: RawHeaders, tag: EntityTag) -> RawHeaders:
    return [*headers, (b"etag", str(tag).encode("ascii"))]


def _forbids_storing(headers: RawHeaders) -> bool:
    stated = combined_value(headers, b"cache-control")
    return stated is not None and parse_response_directives(stated).no_store
