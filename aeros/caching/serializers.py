"""How values become bytes in a shared store, and come back as they were.

Nothing here executes what it reads: no pickle. A value that would come back changed is an error
when it is written, and bytes that are not what was expected are a ``ValueError``, a miss.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NoReturn, Protocol, TypeAlias, TypeVar, cast

from aeros.errors import InvalidSettingError, MissingExtraError, UnserializableError

if TYPE_CHECKING:
    from collections.abc import Callable

    # Type checkers bring it along; nothing imports it at run time.
    from typing_extensions import TypeForm

T = TypeVar("T")

_Place: TypeAlias = "tuple[_Place, int | str] | None"
"""Where a value is in another: the way to what contains it, and the index or key there."""

_PROSE: Final = frozenset({"description", "examples", "default"})


class Serializer(Protocol[T]):
    """Turns the values of one function into bytes and back; any object with these members is one."""

    @property
    def name(self) -> str:
        """The format, e.g. ``"json"``: a part of the cache key, so that two formats never meet."""
        ...

    def dumps(self, value: T) -> bytes:
        """Returns ``value`` as bytes.

        Raises:
            UnserializableError: It would not come back as it is.
        """
        ...

    def loads(self, data: bytes) -> T:
        """Returns the value that ``dumps`` was given.

        Raises:
            ValueError: ``data`` is not from ``dumps``, or from one for another type.
        """
        ...


class JsonSerializer:
    """JSON for what JSON has: None, bool, int, float, str, list, and dict with text as keys.

    What would come back as something else, such as a tuple, an IntEnum or a key that is a number,
    is an error at once, not a surprise at the first hit.
    """

    name = "json"

    def __init__(self) -> None:
        # No check for circles: whatever contains itself does not pass _check.
        encoder = json.JSONEncoder(
            ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")
        )
        self._encode = encoder.encode
        self._decode = json.JSONDecoder(parse_constant=_refuse_constant).decode

    def dumps(self, value: object) -> bytes:
        """Returns ``value`` as JSON in UTF-8.

        Raises:
            UnserializableError: Something in it would not come back equal and of the same type.
        """
        try:
            _check(value, None)
            return self._encode(value).encode()
        except RecursionError:
            raise UnserializableError("value", "is nested too deeply or contains itself") from None

    def loads(self, data: bytes) -> Any:  # only the caller knows the type, as with json.loads
        """Returns the value that ``data`` is in JSON.

        Raises:
            ValueError: It is not valid JSON in UTF-8, has NaN or Infinity, or is nested too deeply.
        """
        try:
            return self._decode(data.decode())
        except RecursionError:
            msg = "the JSON is nested too deeply"
            raise ValueError(msg) from None


class TypedSerializer(Generic[T]):
    """Values of one type, by msgspec: dataclasses, datetimes, enums, tuples, Structs and more.

    What is read is checked against the type, so a stored value of another shape is a miss, and no
    function gets what its annotation does not say. Values come back as the type says: of a subclass
    only the fields of ``type`` are kept, and a field typed ``Any`` brings a tuple back as a list. An
    aware datetime comes back as the same moment at a fixed offset.

    Example:
        ``TypedSerializer(list[Price])``

    Raises:
        InvalidSettingError: msgspec can not read that type, or the format is not one of the two.
        MissingExtraError: msgspec is not installed.
    """

    def __init__(self, type: TypeForm[T], *, format: Literal["msgpack", "json"] = "msgpack") -> None:  # noqa: A002 - msgspec's words
        if format not in ("msgpack", "json"):
            raise InvalidSettingError("TypedSerializer(format=)", format, "'msgpack' or 'json'")
        try:
            import msgspec
        except ImportError:
            raise MissingExtraError("TypedSerializer()", package="msgspec", extra="msgpack") from None

        codec = msgspec.msgpack if format == "msgpack" else msgspec.json
        try:
            self._decode = cast("Callable[[bytes], T]", codec.Decoder(type).decode)
        except (TypeError, NameError) as error:
            expected = f"a type that msgspec can read ({error})"
            raise InvalidSettingError("TypedSerializer(type=)", type, expected) from error
        self._encode: Callable[[object], bytes] = codec.Encoder().encode
        try:
            shape = json.dumps(_without_prose(msgspec.json.schema(type)), sort_keys=True)
        except TypeError:
            # Some types have no schema, though msgspec can read them.
            shape = repr(type)
        self._shape = blake2b(shape.encode(), digest_size=8).hexdigest()
        self._format = format

    @property
    def name(self) -> str:
        """The format and a digest of the type's fields, so that changing them never meets old bytes."""
        return f"msgspec-{self._format}-{self._shape}"

    def dumps(self, value: T) -> bytes:
        """Returns ``value`` in this format.

        Raises:
            UnserializableError: It is not of the type, so no hit could ever bring it back.
        """
        try:
            data = self._encode(value)
            self._decode(data)
        except Exception as error:
            # Also what a class of the user's raises when it is made again.
            raise UnserializableError("value", f"does not fit the serializer's type ({error})") from error
        return data

    def loads(self, data: bytes) -> T:
        """Returns the value that ``data`` is.

        Raises:
            ValueError: It is damaged, or of another type.
        """
        try:
            return self._decode(data)
        except Exception as error:
            # Also RecursionError, and what a class of the user's raises on fields it never had.
            msg = f"not a stored value of this type: {error}"
            raise ValueError(msg) from error


def _without_prose(schema: object) -> object:
    """Returns what decides how bytes are read; a new docstring or default does not."""
    if isinstance(schema, dict):
        members = cast("dict[str, object]", schema).items()
        return {key: _without_prose(member) for key, member in members if key not in _PROSE}
    if isinstance(schema, list):
        return [_without_prose(member) for member in cast("list[object]", schema)]
    return schema


def _check(value: object, place: _Place) -> None:
    """Raises UnserializableError where JSON would bring ``value`` back as something else."""
    kind = type(value)
    if kind is str:
        _check_text(cast(str, value), place)
    elif kind is float:
        if not isfinite(cast(float, value)):
            raise UnserializableError(_path(place), f"is {value}, which JSON has not")
    elif kind is int:
        _check_digits(cast(int, value), place)
    elif kind is dict:
        for key, member in cast("dict[object, object]", value).items():
            if type(key) is not str:
                problem = f"has a key of the type {type(key).__qualname__}, and keys of JSON are text"
                raise UnserializableError(_path(place), problem)
            _check_text(key, (place, key))
            _check(member, (place, key))
    elif kind is list:
        for index, item in enumerate(cast("list[object]", value)):
            _check(item, (place, index))
    elif value is not None and kind is not bool:
        problem = f"is of the type {kind.__qualname__}, which JSON would not bring back"
        raise UnserializableError(_path(place), problem)


def _check_text(text: str, place: _Place) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnserializableError(_path(place), "has half a surrogate pair, which UTF-8 has not") from None


def _check_digits(number: int, place: _Place) -> None:
    # No interpreter can be set to refuse fewer than 640 digits.
    if number.bit_length() < 2_000:
        return
    try:
        str(number)
    except ValueError:
        raise UnserializableError(_path(place), "has more digits than Python reads back") from None


def _path(place: _Place) -> str:
    steps: list[str] = []
    while place is not None:
        place, step = place
        steps.append(f"[{json.dumps(step)}]")
    return "value" + "".join(reversed(steps))


def _refuse_constant(text: str) -> NoReturn:
    msg = f"{text} is not JSON"
    raise ValueError(msg)
