"""aeros: one class to serve Quart applications, with caching, compression and injection."""

from aeros.caching.client import CacheControl
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
    ImportPathError,
    InjectionError,
    InstancePathError,
    InvalidHeaderError,
    InvalidSettingError,
    InvalidVariableError,
    LogFileError,
    MissingExtraError,
    NestedServerError,
    NotInjectedError,
    PrivilegedPortError,
    ProviderError,
    RequestScopeError,
    ResourceError,
    StartupError,
    UncacheableArgumentError,
    UnknownOptionError,
    UnknownProviderError,
    UnknownVariableError,
    UnpicklableOptionError,
    UnserializableError,
)
from aeros.injection import inject
from aeros.request_id import current_request_id
from aeros.settings import ServerSettings
from aeros.webserver import WebServer

__all__ = [
    "AddressInUseError",
    "AerosError",
    "BindError",
    "Br",
    "Cache",
    "CacheControl",
    "CacheStats",
    "ConfigurationError",
    "Container",
    "EntryFormatError",
    "Explanation",
    "Gzip",
    "ImportPathError",
    "InjectionError",
    "InstancePathError",
    "InvalidHeaderError",
    "InvalidSettingError",
    "InvalidVariableError",
    "JsonSerializer",
    "LogFileError",
    "Memoized",
    "MissingExtraError",
    "Negotiated",
    "NestedServerError",
    "NotInjectedError",
    "PrivilegedPortError",
    "ProviderError",
    "RedisStore",
    "RequestScopeError",
    "ResourceError",
    "Serializer",
    "ServerSettings",
    "StartupError",
    "TypedSerializer",
    "UncacheableArgumentError",
    "UnknownOptionError",
    "UnknownProviderError",
    "UnknownVariableError",
    "UnpicklableOptionError",
    "UnserializableError",
    "WebServer",
    "Zstd",
    "current_request_id",
    "inject",
]
