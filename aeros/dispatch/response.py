"""Responses and JSON, made with less ado where nothing special is asked for."""

from __future__ import annotations

import json
from functools import lru_cache
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
    """Quart's JSON, with an encoder that is made once and not for each response."""

    _encoder: json.JSONEncoder | None = None
    _made_for: tuple[object, ...] = ()

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """Returns ``obj`` as JSON; ``kwargs`` are those of ``json.dumps``."""
        if kwargs and (len(kwargs) > 1 or "separators" not in kwargs):
            return super().dumps(obj, **kwargs)
        wanted = self.default, self.ensure_ascii, self.sort_keys, kwargs.get("separators")
        if self._encoder is None or wanted != self._made_for:
            default, ensure_ascii, sort_keys, separators = wanted
            self._encoder = json.JSONEncoder(
                default=default, ensure_ascii=ensure_ascii, sort_keys=sort_keys, separators=separators
            )
            self._made_for = wanted
        return self._encoder.encode(obj)

    def response(self, *args: Any, **kwargs: Any) -> Any:
        """Returns a response with JSON of one value, of several, or of names and values."""
        if len(args) != 1 or kwargs or self.compact is False or (self.compact is None and self._app.debug):
            return super().response(*args, **kwargs)
        text = self.dumps(args[0], separators=_COMPACT)
        return self._app.response_class(text + "\n", mimetype=self.mimetype)
