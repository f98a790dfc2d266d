"""aeros: one class to serve Quart applications, with caching, compression and injection."""

from aeros.caching.server import Cache, CacheStats
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
    UnknownOptionError,
    UnknownVariableError,
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
    "Gzip",
    "InstancePathError",
    "InvalidHeaderError",
    "InvalidSettingError",
    "InvalidVariableError",
    "LogFileError",
    "MissingExtraError",
    "Negotiated",
    "PrivilegedPortError",
    "ProviderError",
    "ServerSettings",
    "StartupError",
    "UnknownOptionError",
    "UnknownVariableError",
    "WebServer",
    "Zstd",
]
