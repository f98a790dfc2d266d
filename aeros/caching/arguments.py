"""The part of a cache key that the arguments of a call are.

Two calls share a key exactly if each parameter has an equal value of the same type: ``1``, ``1.0``,
``True`` and ``"1"`` stay apart, however deep they are. The key is the same in every process, so it
takes only types whose values say all about them; anything else is an error, never a guess.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum, Flag
from fractions import Fraction
from inspect import Parameter, Signature, signature
from operator import itemgetter
from pathlib import PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from types import FunctionType, NoneType
from typing import Any, Final, TypeAlias, cast
from uuid import UUID

from aeros.caching.keys import join_parts
from aeros.errors import InvalidSettingError, UncacheableArgumentError

_Encoder: TypeAlias = Callable[[Any], bytes]  # each takes the type that it is listed under

_Pair: TypeAlias = tuple[bytes, bytes]

_IMMUTABLE_TYPE: Final = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE, which no class statement sets


class ArgumentKey:
    """Makes keys of the calls of one function; build it once, as it reads the signature.

    Taken are None, bool, int, float, str, bytes, Decimal, Fraction, date, time, datetime, timedelta,
    UUID, members of enumerations, pathlib's paths, tuple, list, set, frozenset, dict and other
    mappings, frozen dataclasses, named tuples, and classes that extend one of these in Python. The
    order of a set or a mapping does not count, save that of an OrderedDict.

    Args:
        function: Whose signature binds the arguments, so that ``f(1)`` and ``f(a=1)`` are one call.
        ignored: Names of parameters that do not change the result, such as a session.

    Raises:
        InvalidSettingError: The signature can not be read, or has no parameter of an ignored name.
    """

    __slots__ = ("_bind", "_function", "_names")

    def __init__(self, function: Callable[..., object], *, ignored: Collection[str] = ()) -> None:
        try:
            parameters = _parameters_of(function)
        except (TypeError, ValueError) as error:
            expected = f"a function whose signature can be read ({error})"
            raise InvalidSettingError("memoize(function)", function, expected) from error
        # They come from users, and may be anything.
        names = set(ignored) if isinstance(cast(object, ignored), Collection) else {None}
        if isinstance(ignored, str) or not names <= parameters.keys():
            expected = f"a tuple of names of its parameters: {', '.join(parameters) or 'it has none'}"
            raise InvalidSettingError("memoize(ignored=)", ignored, expected)
        name = str(getattr(function, "__qualname__", type(function).__qualname__))
        self._function = f"{getattr(function, '__module__', type(function).__module__)}.{name}"
        self._names = tuple(parameter for parameter in parameters if parameter not in ignored)
        self._bind = _binder(name, tuple(parameters.values()), self._names)

    def of(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bytes:
        """Returns the key of the call ``function(*args, **kwargs)``, with defaults filled in.

        Raises:
            TypeError: The call itself would raise it: an argument is missing, too much or unknown.
            UncacheableArgumentError: An argument is of a type that makes no key, or contains itself.
        """
        values = self._bind(*args, **kwargs)
        parts: list[bytes] = []
        for name, value in zip(self._names, values, strict=True):
            try:
                encode = _EXACT.get(type(value), _encoded_instance)
                parts.append(encode(value))
            except _UnknownTypeError as error:
                raise UncacheableArgumentError(self._function, name, _described(error.kind)) from None
            except RecursionError:
                problem = "contains itself or is nested too deeply"
                kind = _described(type(value))
                raise UncacheableArgumentError(self._function, name, kind, problem) from None
        return join_parts(parts)


class _UnknownTypeError(Exception):
    def __init__(self, kind: type) -> None:
        self.kind = kind
        super().__init__(kind)


def _parameters_of(function: Callable[..., object]) -> Mapping[str, Parameter]:
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        # Annotations do not matter here, so they need not be defined.
        return signature(function, annotation_format=Format.FORWARDREF).parameters
    return signature(function).parameters


def _binder(
    name: str, parameters: tuple[Parameter, ...], wanted: tuple[str, ...]
) -> Callable[..., tuple[object, ...]]:
    """Returns a function with these parameters that returns the values of the wanted ones.

    Python itself then binds the arguments: ten times as fast as ``Signature.bind``, and wrong ones
    raise what the call would.
    """
    bare = [
        parameter.replace(annotation=Parameter.empty, default=Parameter.empty) for parameter in parameters
    ]
    listed = str(Signature(bare))[1:-1]
    source = f"lambda {listed}: ({''.join(f'{parameter},' for parameter in wanted)})"
    # Names of parameters are identifiers, as Parameter checks, so nothing else gets into the source.
    binder = cast(FunctionType, eval(source, {"__builtins__": {}}))  # noqa: S307
    binder.__name__ = binder.__qualname__ = name
    optional = [parameter for parameter in parameters if parameter.default is not Parameter.empty]
    binder.__defaults__ = tuple(p.default for p in optional if p.kind is not Parameter.KEYWORD_ONLY)
    binder.__kwdefaults__ = {p.name: p.default for p in optional if p.kind is Parameter.KEYWORD_ONLY}
    return binder


def _encoded(value: object) -> bytes:
    """Returns bytes that only an equal value of the same type has: a tag for the type, then the value."""
    return _EXACT.get(type(value), _encoded_instance)(value)


def _encoded_instance(value: object) -> bytes:
    """Encodes a value of a class that the program or a library made, with the name of the class."""
    kind = type(value)
    described = kind.__module__.encode(), kind.__qualname__.encode()
    if issubclass(kind, Enum):
        return b"e" + join_parts([*described, _member(cast(Enum, value))])
    base = _extended(kind)
    if base is not None:
        # What the class adds belongs to the value: two amounts of money may be equal as numbers only.
        return b"x" + join_parts([*described, _EXACT[base](value), *map(_encoded, _attributes(value))])
    if _is_frozen_dataclass(kind):
        names = [field.name for field in fields(cast(Any, value))]
        members = [(name.encode(), _encoded(getattr(value, name))) for name in names]
        return b"c" + join_parts([*described, *_flat(members)])
    if _is_mapping(kind):
        # A key may be there several times, and then the order of its values counts.
        pairs = sorted(_encoded_items(cast("Mapping[object, object]", value).items()), key=itemgetter(0))
        return b"m" + join_parts([*described, *_flat(pairs)])
    raise _UnknownTypeError(kind)


def _extended(kind: type) -> type | None:
    """Returns the listed type that ``kind`` extends, if all classes on the way are written in Python.

    One written in C, such as defaultdict, may keep a part of its value where nothing finds it.
    """
    ends = (base for base in kind.__mro__ if base in _EXTENSIBLE or base.__flags__ & _IMMUTABLE_TYPE)
    nearest = next(ends)
    return nearest if nearest in _EXTENSIBLE else None


def _attributes(value: object) -> tuple[dict[str, object], object]:
    """Returns the attributes of ``value`` in its dictionary and in its slots."""
    state = object.__getstate__(value)
    attributes, slots = cast("tuple[object, object]", state) if type(state) is tuple else (state, None)
    # Items[int]() leaves a trace that Items() does not, and means the same.
    own = cast("Mapping[str, object]", attributes or {}).items()
    return {name: attribute for name, attribute in own if name != "__orig_class__"}, slots


def _is_frozen_dataclass(kind: type) -> bool:
    # Of this class itself: a plain one below a frozen one may have attributes that are no fields.
    return is_dataclass(kind) and getattr(vars(kind).get("__dataclass_params__"), "frozen", False) is True


def _is_mapping(kind: type) -> bool:
    # What _extended() refused of dict it had a reason to refuse.
    return issubclass(kind, Mapping) and not issubclass(kind, dict)


def _member(member: Enum) -> bytes:
    # A combination of flags may have no name.
    return b"%x" % member.value if isinstance(member, Flag) else _utf_8(member._name_)


def _utf_8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _datetime(moment: datetime) -> bytes:
    return b"D" + join_parts([datetime.isoformat(moment).encode(), *_clock(moment.fold, moment.tzinfo)])


def _time(moment: time) -> bytes:
    return b"T" + join_parts([time.isoformat(moment).encode(), *_clock(moment.fold, moment.tzinfo)])


def _clock(fold: int, zone: tzinfo | None) -> list[bytes]:
    """Returns what isoformat() leaves out: two zones may have the same offset today."""
    if zone is None:
        return [b"%d" % fold]
    kind, name = type(zone), repr(zone)
    if " at 0x" in name:
        # The address of an object says nothing in another process.
        raise _UnknownTypeError(kind)
    return [b"%d" % fold, kind.__module__.encode(), kind.__qualname__.encode(), name.encode()]


def _timedelta(delta: timedelta) -> bytes:
    return b"d%d,%d,%d" % (delta.days, delta.seconds, delta.microseconds)


def _path(path: PurePath) -> bytes:
    return b"p" + join_parts([type(path).__name__.encode(), _utf_8(str(path))])


def _sequence(tag: bytes, kind: Any) -> _Encoder:
    items = kind.__iter__
    return lambda value: tag + join_parts([_encoded(item) for item in items(value)])


def _set(tag: bytes, kind: Any) -> _Encoder:
    items = kind.__iter__
    return lambda value: tag + join_parts(sorted([_encoded(item) for item in items(value)]))


def _mapping(tag: bytes, kind: Any, arranged: Callable[[list[_Pair]], list[_Pair]]) -> _Encoder:
    items = kind.items
    return lambda value: tag + join_parts(_flat(arranged(_encoded_items(items(value)))))


def _encoded_items(items: Iterable[tuple[object, object]]) -> list[_Pair]:
    return [(_encoded(key), _encoded(value)) for key, value in items]


def _flat(pairs: Iterable[_Pair]) -> list[bytes]:
    return [part for pair in pairs for part in pair]


def _described(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


# The methods are those of the type itself, whatever a class that extends it makes of them.
_EXTENSIBLE: Final[dict[type, _Encoder]] = {
    int: lambda value: b"i%x" % value,  # as decimal, a long number is an error
    float: lambda value: b"f" + float.__repr__(value).encode(),
    str: lambda value: b"s" + str.encode(value, "utf-8", "surrogatepass"),
    bytes: lambda value: b"".join((b"b", value)),
    Decimal: lambda value: b"." + Decimal.__str__(value).encode(),
    Fraction: lambda value: b"/%x/%x" % (value.numerator, value.denominator),
    datetime: _datetime,
    date: lambda value: b"Y" + date.isoformat(value).encode(),
    time: _time,
    timedelta: _timedelta,
    UUID: lambda value: b"u" + value.bytes,
    tuple: _sequence(b"(", tuple),
    list: _sequence(b"[", list),
    set: _set(b"S", set),
    frozenset: _set(b"F", frozenset),
    dict: _mapping(b"{", dict, sorted),
    OrderedDict: _mapping(b"o", OrderedDict, list),
}
_EXACT: Final[dict[type, _Encoder]] = {
    **_EXTENSIBLE,
    NoneType: lambda _: b"n",
    bool: lambda value: b"1" if value else b"0",
    # A path remembers what it was asked, so what a class adds to it can not be told from that.
    **dict.fromkeys((PosixPath, PurePosixPath, WindowsPath, PureWindowsPath), _path),
}
