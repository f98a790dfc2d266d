"""aeros: one class to serve Quart applications, with caching, compression and injection."""

from aeros.caching.explain import Explanation
from aeros.caching.memoize import Memoized
from aeros.caching.serializers import JsonSerializer, Serializer, TypedSerializer
from aeros.caching.server import Cache
from aeros.caching.stats import CacheStats
from aeros.caching.stores.redis import RedisStore
from aeros.compression import Br, Gzip, Negotiated, Zstd
from aeros.containers import Container
from aeros.errors import (
    AddressInUseError,
    AerosError,
    BindError,
    ConfigurationError,
    EntryFormatError,
    InstancePathError,
    InvalidHeaderError,
    InvalidSettingError,
    InvalidVariableError,
    LogFileError,
    MissingExtraError,
    PrivilegedPortError,
    ProviderError,
    StartupError,
    UncacheableArgumentError,
    UnknownOptionError,
    UnknownVariableError,
    UnserializableError,
)
from aeros.settings import ServerSettings
from aeros.webserver import WebServer

__all__ = [
    "AddressInUseError",
    "AerosError",
    "BindError",
    "Br",
    "Cache",
    "CacheStats",
    "ConfigurationError",
    "Container",
    "EntryFormatError",
    "Explanation",
    "Gzip",
    "InstancePathError",
    "InvalidHeaderError",
    "InvalidSettingError",
    "InvalidVariableError",
    "JsonSerializer",
    "LogFileError",
    "Memoized",
    "MissingExtraError",
    "Negotiated",
    "PrivilegedPortError",
    "ProviderError",
    "RedisStore",
    "Serializer",
    "ServerSettings",
    "StartupError",
    "TypedSerializer",
    "UncacheableArgumentError",
    "UnknownOptionError",
    "UnknownVariableError",
    "UnserializableError",
    "WebServer",
    "Zstd",
]
