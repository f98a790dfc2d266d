"""Responses and JSON, made with less ado where nothing special is asked for."""

from __future__ import annotations

import json
import json.encoder
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from importlib import import_module
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any, Final

from quart import wrappers
from quart.json.provider import DefaultJSONProvider
from quart.wrappers.response import DataBody
from werkzeug.datastructures import Headers
from werkzeug.utils import get_content_type

_MOST_TYPES: Final = 100
_COMPACT: Final = (",", ":")


class Response(wrappers.Response):
    """Quart's response; one of text or bytes, without fields of its own, is made in one go."""

    def __init__(
        self,
        response: Any = None,
        status: Any = None,
        headers: Any = None,
        mimetype: str | None = None,
        content_type: str | None = None,
    ) -> None:
        kind: type[object] = type(response)  # pyright: ignore[reportUnknownVariableType]  # it may be anything
        if (
            (kind is not str and kind is not bytes)
            or status is not None
            or headers
            or content_type is not None
            or type(self) is not Response
        ):
            super().__init__(response, status, headers, mimetype, content_type)  # pyright: ignore[reportUnknownMemberType]  # its bare types
            return
        content: bytes = response.encode() if kind is str else response
        made = Headers.__new__(Headers)
        made.__dict__ = {
            "_list": [
                ("Content-Type", _content_type(mimetype or self.default_mimetype)),
                ("Content-Length", str(len(content))),
            ]
        }
        self.__dict__ = {
            "headers": made,
            "_status": "200 OK",
            "_status_code": 200,
            "timeout": Ellipsis,
            "response": DataBody(content),
        }


@lru_cache(_MOST_TYPES)
def _content_type(mimetype: str) -> str:
    return get_content_type(mimetype, "utf-8")


class JSONProvider(DefaultJSONProvider):
    """Quart's JSON, with encoders that are made once and not for each response."""

    _encoding: Encoding | None = None
    _decode: Callable[[str | bytes], Any] | None = None

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """Returns ``obj`` as JSON; ``kwargs`` are those of ``json.dumps``."""
        if kwargs and (len(kwargs) > 1 or "separators" not in kwargs):
            return super().dumps(obj, **kwargs)
        wanted = self.default, self.ensure_ascii, self.sort_keys, kwargs.get("separators")
        encoding = self._encoding
        if encoding is None or encoding.wanted != wanted:
            encoding = self._encoding = Encoding(wanted)
        return encoding.encode(obj)

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Returns what JSON text says; ``kwargs`` are those of ``json.loads``.

        With msgspec installed (``aeros[speed]``) it is asked first. What it reads it reads as ``json`` does;
        what it refuses, ``json`` may know (``NaN``, a lone surrogate), or has its own error for.
        """
        decode = self._decode
        if decode is None:
            decode = self._decode = _decoder()
        if not kwargs and type(s) in (str, bytes):
            with suppress(ValueError, RecursionError):
                return decode(s)
        return super().loads(s, **kwargs)

    def response(self, *args: Any, **kwargs: Any) -> Any:
        """Returns a response with JSON of one value, of several, or of names and values."""
        if len(args) != 1 or kwargs or self.compact is False or (self.compact is None and self._app.debug):
            return super().response(*args, **kwargs)
        text = self.dumps(args[0], separators=_COMPACT)
        return self._app.response_class(text + "\n", mimetype=self.mimetype)


def _decoder() -> Callable[[str | bytes], Any]:
    try:
        decoder: Any = import_module("msgspec.json").Decoder()
    except ImportError:
        return json.loads
    decode: Callable[[str | bytes], Any] = decoder.decode
    return decode


class Encoding:
    """One way to write JSON, as ``json.dumps`` would.

    ``json`` makes an encoder in C for each call. What it is made of does not change from call to call but
    for one thing: the containers that it is in, by which it finds circles. So each encoder serves one call
    at a time, because a view in a thread, or a ``default`` that writes JSON itself, may come between.

    Args:
        wanted: ``default``, ``ensure_ascii``, ``sort_keys`` and ``separators`` of ``json.dumps``.
    """

    __slots__ = ("_free", "_make", "wanted")

    def __init__(self, wanted: tuple[Any, bool, bool, Any]) -> None:
        self.wanted: tuple[Any, bool, bool, Any] = wanted
        default, ensure_ascii, sort_keys, separators = wanted
        self._make: Callable[[], json.JSONEncoder] = partial(
            KeptEncoder,
            default=default,
            ensure_ascii=ensure_ascii,
            sort_keys=sort_keys,
            separators=separators,
        )
        self._free: list[json.JSONEncoder] = []

    def encode(self, obj: Any) -> str:
        """Returns ``obj`` as JSON."""
        try:
            encoder = self._free.pop()
        except IndexError:
            encoder = self._make()
        text = encoder.encode(obj)
        # Not after an error: it may have been in a container then.
        self._free.append(encoder)
        return text


class KeptEncoder(json.JSONEncoder):
    """An encoder whose part in C is made once."""

    _in_c: Callable[[Any, int], Any] | None = None

    def iterencode(self, o: Any, _one_shot: bool = False) -> Any:
        """Returns the parts of ``o`` as JSON."""
        in_c = self._in_c
        if in_c is None:
            make: Any = getattr(json.encoder, "c_make_encoder", None)
            if make is None or not _one_shot:
                return super().iterencode(o, _one_shot)
            escape: Any = encode_basestring_ascii if self.ensure_ascii else encode_basestring
            in_c = self._in_c = make(
                {},
                self.default,
                escape,
                None,
                self.key_separator,
                self.item_separator,
                self.sort_keys,
                self.skipkeys,
                self.allow_nan,
            )
        return in_c(o, 0)
