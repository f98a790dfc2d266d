"""Marks: short opaque names of what responses can be evicted by, a path or a tag.

A mark has the same length whatever it stands for, so neither a long path nor a long tag costs
room in the memory of the process or of a shared store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import cast
from urllib.parse import unquote

from aeros.errors import InvalidSettingError


def path_marks(scope: Mapping[str, object]) -> tuple[str, ...]:
    """Returns the marks of a request's path, with and without the prefix it is mounted under."""
    path, prefix = str(scope["path"]), str(scope.get("root_path", ""))
    root = prefix.rstrip("/")
    if not root or not path.startswith(f"{root}/"):
        return (_mark("path", path),)
    # A prefix that ends with a slash makes two of them in the path, of which url_for() writes one.
    inner = f"/{path.removeprefix(prefix).removeprefix('/')}"
    return _mark("path", root + inner), _mark("path", inner)


def path_mark(path: str) -> str:
    """Returns the mark of a path as people write it: percent-encoded or not, without a query.

    Raises:
        InvalidSettingError: It is no path.
    """
    if not _is_path(path):
        raise InvalidSettingError("path", path, "a path that begins with a slash, such as url_for() gives")
    return _mark("path", unquote(path.partition("#")[0].partition("?")[0]))


def tag_marks(tags: object) -> tuple[str, ...]:
    """Returns the marks of a tag, or of several.

    Raises:
        InvalidSettingError: They are not text.
    """
    return tuple(_mark("tag", tag) for tag in tag_names(tags))


def tag_names(tags: object) -> tuple[str, ...]:
    """Returns the names of a tag, or of several, each once.

    Raises:
        InvalidSettingError: They are not text.
    """
    given = tags
    named = (tags,) if isinstance(tags, str) else tags
    listed = list(cast("Iterable[object]", named)) if isinstance(named, Iterable) else [None]
    names = [name for name in listed if isinstance(name, str) and name]
    if len(names) < len(listed):
        raise InvalidSettingError("tags", given, "a name, or several; each some text")
    return tuple(dict.fromkeys(names))


def shared_mark(text: str) -> str:
    """Returns the mark of the response that several paths share, by the text of its key."""
    return _mark("shared", text)


def function_mark(name: str) -> str:
    """Returns the mark of all values of a memoized function."""
    return _mark("function", name)


def call_mark(key: bytes) -> str:
    """Returns the mark of one call of a memoized function."""
    return _mark("call", key.decode("latin-1"))


def family_mark(key: bytes) -> str:
    """Returns the mark of all variants of one URL; it never leaves this process."""
    return _mark("family", key.decode("latin-1"))


def _is_path(value: object) -> bool:
    return isinstance(value, str) and value.startswith("/")


def _mark(kind: str, name: str) -> str:
    # "surrogateescape": a path may have bytes that are not UTF-8.
    text = f"{kind}:{name}".encode("utf-8", "surrogateescape")
    return kind[0] + blake2b(text, digest_size=12).hexdigest()
