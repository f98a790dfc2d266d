"""Which values uvicorn's options may have; with a wrong one uvicorn would start, and go wrong later."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, cast

from aeros.errors import InvalidHeaderError, InvalidSettingError
from aeros.http.fields import is_field_value, is_token

Check = tuple[Callable[[object], bool], str]


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _is_path(value: object) -> bool:
    return isinstance(value, str | os.PathLike) and "\0" not in os.fsdecode(cast(str, value))


def _are_folders(value: object) -> bool:
    folders = [value] if _is_path(value) else value
    return isinstance(folders, list | tuple) and all(
        _is_path(folder) and Path(cast(str, folder)).is_dir() for folder in cast("Iterable[object]", folders)
    )


_SWITCH: Final[Check] = (lambda value: isinstance(value, bool), "True or False")
_SECONDS: Final[Check] = (_is_seconds, "a number of seconds above 0, or None")
_PATH: Final[Check] = (_is_path, "the path of a file")
_NAME: Final[Check] = (lambda value: isinstance(value, str | type), "a name of uvicorn's, or a class")

_CHECKS: Final[Mapping[str, Check]] = {
    "access_log": _SWITCH,
    "callback_notify": (callable, "an async function without parameters"),
    "date_header": _SWITCH,
    "env_file": _PATH,
    "http": _NAME,
    "http2": _SWITCH,
    "loop": (lambda value: isinstance(value, str), "the name of a loop of uvicorn's, or an import path"),
    "proxy_headers": _SWITCH,
    "reload": _SWITCH,
    "reload_delay": _SECONDS,
    "reload_dirs": (_are_folders, "folders that are there"),
    "reset_contextvars": _SWITCH,
    "root_path": (lambda value: isinstance(value, str), "a path as text"),
    "ssl_ca_certs": _PATH,
    "ssl_certfile": _PATH,
    "ssl_keyfile": _PATH,
    "uds": (lambda value: isinstance(value, str) and "\0" not in value, "the path of a socket, as text"),
    "ws": _NAME,
    "ws_per_message_deflate": _SWITCH,
    "ws_ping_interval": _SECONDS,
    "ws_ping_timeout": _SECONDS,
}

# What is read when serving begins.
_FILES: Final = ("env_file", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


def check_value(option: str, value: object) -> None:
    """Raises an error if an option of uvicorn's can not have a value.

    Raises:
        InvalidSettingError: It can not.
        InvalidHeaderError: It has a header that must not be sent.
    """
    may_be, expected = _CHECKS.get(option, (None, ""))
    if may_be is not None and not may_be(value):
        raise InvalidSettingError(option, value, expected)
    if option == "headers":
        _check_headers(value)


def check_together(options: Mapping[str, object]) -> None:
    """Raises an error where options contradict each other, or name files that are not there.

    Raises:
        InvalidSettingError: The first one that is wrong.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name in _FILES:
        if name in given and not Path(cast(str, given[name])).is_file():
            raise InvalidSettingError(name, given[name], "the path of a file that is there")
    if "ssl_keyfile" in given and "ssl_certfile" not in given:
        raise InvalidSettingError("ssl_keyfile", given["ssl_keyfile"], "ssl_certfile as well")
    if "uds" in given and "fd" in given:
        raise InvalidSettingError("fd", given["fd"], "either fd or uds")


def _check_headers(value: object) -> None:
    try:
        pairs = [(name, text) for name, text in cast("Iterable[tuple[object, object]]", value)]
    except (TypeError, ValueError):
        raise InvalidSettingError("headers", value, "pairs of a name and a text") from None
    for name, text in pairs:
        if not isinstance(name, str) or not is_token(name):
            raise InvalidHeaderError("headers", name, "is not a valid field name")
        if not isinstance(text, str) or not is_field_value(text):
            raise InvalidHeaderError("headers", name, f"has the invalid value {text!r}")
