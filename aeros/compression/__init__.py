"""Content codings: what a server offers, picks for each request, and applies to responses.

>>> from aeros.compression import Br, Gzip, Negotiated
>>> Negotiated(Br(level=5), Gzip()).negotiate("gzip, br;q=0.5").name
'gzip'
"""

from aeros.compression.codings import Coding, Encoder, StreamCoding, ThoroughCoding
from aeros.compression.compressors import (
    DEFAULT_MIMETYPES,
    DEFAULT_MIN_SIZE,
    Base,
    Br,
    CompressorOptions,
    Gzip,
    Negotiated,
    Zstd,
)
from aeros.compression.middleware import CompressionMiddleware
from aeros.compression.opt_out import uncompressed

__all__ = [
    "DEFAULT_MIMETYPES",
    "DEFAULT_MIN_SIZE",
    "Base",
    "Br",
    "Coding",
    "CompressionMiddleware",
    "CompressorOptions",
    "Encoder",
    "Gzip",
    "Negotiated",
    "StreamCoding",
    "ThoroughCoding",
    "Zstd",
    "uncompressed",
]
