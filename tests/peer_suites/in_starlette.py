"""A pytest plugin that puts ``CompressionMiddleware`` in the place of Starlette's ``GZipMiddleware``."""

from __future__ import annotations

from importlib import import_module

from aeros.compression import CompressionMiddleware, Gzip
from aeros.types import ASGIApplication


class GZipMiddleware(CompressionMiddleware):
    """Ours, with the arguments of Starlette's."""

    def __init__(self, app: ASGIApplication, minimum_size: int = 500, compresslevel: int = 9) -> None:
        super().__init__(app, Gzip(compresslevel, min_size=minimum_size))


vars(import_module("starlette.middleware.gzip"))["GZipMiddleware"] = GZipMiddleware
