"""Views whose responses are not compressed."""

from __future__ import annotations

from typing import Final

from quart.typing import ResponseTypes

from aeros.views import ResponseDecorator, changing_response


def _opt_out(response: ResponseTypes) -> None:
    # The response says it itself: also one that is stored, and one that goes through middleware.
    if "Content-Encoding" not in response.headers:
        response.headers["Content-Encoding"] = "identity"


uncompressed: Final[ResponseDecorator] = changing_response(_opt_out, name="uncompressed")
"""Decorator for a view that shows a secret beside what its visitor chose (BREACH).

>>> @app.route("/account")
... @uncompressed
... async def account() -> str: ...

It marks the response with ``Content-Encoding: identity``, which any view may do itself and which
aeros takes off again, so it works below and above ``@app.cache()``, on any Quart application inside
``CompressionMiddleware``, and for what error handlers answer.
"""
