"""Serializers: a value comes back as it was, or is an error when it is written."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypeVar, cast
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aeros.caching.serializers import JsonSerializer, Serializer, TypedSerializer
from aeros.errors import InvalidSettingError, MissingExtraError, UnserializableError

ROOT = Path(__file__).parents[3]
T = TypeVar("T")
Format: TypeAlias = Literal["msgpack", "json"]


if TYPE_CHECKING:
    from decimal import Decimal as Absent

SORTED: OrderedDict[str, int] = OrderedDict(a=1)


class Size(IntEnum):
    SMALL = 1


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Name(str):
    __slots__ = ()


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Price:
    amount: Decimal
    currency: str = "EUR"


@dataclass
class Order:
    """Has one field of each kind that JSON has no word for."""

    id: UUID
    at: datetime
    day: date
    took: timedelta
    color: Color
    size: Size
    prices: list[Price]
    corner: tuple[int, str]
    tags: frozenset[str] = frozenset()
    raw: bytes = b""
    by_number: dict[int, Price] = field(default_factory=dict[int, Price])


@dataclass
class Dangling:
    """Has a field of a type that does not exist when it is asked for."""

    one: Absent


@dataclass
class Fragile:
    """Raises what no serializer expects when it is made of other values than its own."""

    one: int

    def __post_init__(self) -> None:
        if self.one != 1:
            raise KeyError(self.one)


ORDER = Order(
    id=UUID(int=7),
    at=datetime(2026, 3, 29, 1, 2, 3, 456789, UTC),
    day=date(2026, 3, 29),
    took=timedelta(days=1, microseconds=5),
    color=Color.BLUE,
    size=Size.SMALL,
    prices=[Price(Decimal("1.10")), Price(Decimal(0), "USD")],
    corner=(1, "a"),
    tags=frozenset({"a", "b"}),
    raw=b"\0\xff",
    by_number={1: Price(Decimal(1))},
)


def returned(serializer: Serializer[T], value: T) -> T:
    """Returns what a hit would bring."""
    return serializer.loads(serializer.dumps(value))


def is_same(one: object, other: object) -> bool:
    """Tells whether two values are equal and of the same types, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        pairs = zip(cast(Any, one).items(), cast(Any, other).items(), strict=False)
        return len(cast(Any, one)) == len(cast(Any, other)) and all(is_same(*pair) for pair in pairs)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        items = zip(cast(Any, one), cast(Any, other), strict=False)
        return len(cast(Any, one)) == len(cast(Any, other)) and all(is_same(*pair) for pair in items)
    return repr(one) == repr(other) if isinstance(one, float) else one == other


PLAIN = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
JSON = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)
ODD = (
    PLAIN
    | st.floats()
    | st.binary(max_size=3)
    | st.text(st.characters(categories=["Cs", "L"]), max_size=3)
    | st.sampled_from([Size.SMALL, Color.RED, Name("n"), Point(1, 2), 10**4_000, Decimal(1), SORTED])
)
ANYTHING = st.recursive(
    ODD,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(
            st.text(max_size=2) | st.integers(0, 1) | st.booleans() | st.none(), inner, max_size=3
        )
    ),
)


@settings(deadline=None)
@given(JSON)
def test_what_json_has_comes_back_as_it_was(value: object) -> None:
    """Equal, of the same types, and with the keys in their order."""
    assert is_same(returned(JsonSerializer(), value), value)


@settings(max_examples=300, deadline=None)
@given(ANYTHING)
def test_no_value_comes_back_changed(value: object) -> None:
    """It is either refused or comes back equal and of the same types; nothing in between."""
    serializer = JsonSerializer()
    try:
        data = serializer.dumps(value)
    except UnserializableError:
        return
    assert is_same(serializer.loads(data), value)


@pytest.mark.parametrize(
    ("value", "path", "problem"),
    [
        ((1, 2), "value", "is of the type tuple"),
        ({"prices": [1, 2, (3,)]}, 'value["prices"][2]', "is of the type tuple"),
        ({1: "a"}, "value", "has a key of the type int"),
        ({"a": {None: 1}}, 'value["a"]', "has a key of the type NoneType"),
        ({True: 1}, "value", "has a key of the type bool"),
        ({Name("n"): 1}, "value", "has a key of the type Name"),
        ({"1": 1, 1: 1}, "value", "has a key of the type int"),
        ([math.nan], "value[0]", "is nan"),
        ([math.inf], "value[0]", "is inf"),
        (-math.inf, "value", "is -inf"),
        (Size.SMALL, "value", "is of the type Size"),
        (Color.RED, "value", "is of the type Color"),
        ([Name("n")], "value[0]", "is of the type Name"),
        (Point(1, 2), "value", "is of the type Point"),
        (SORTED, "value", "is of the type OrderedDict"),
        ({1, 2}, "value", "is of the type set"),
        (b"a", "value", "is of the type bytes"),
        (Decimal(1), "value", "is of the type Decimal"),
        (ORDER.at, "value", "is of the type datetime"),
        (object(), "value", "is of the type object"),
        (["a", "\ud800"], "value[1]", "has half a surrogate pair"),
        (["\ud83d\ude00"], "value[0]", "has half a surrogate pair"),
        ({"\ud800": 1}, 'value["\\ud800"]', "has half a surrogate pair"),
        pytest.param({"n": 10**5_000}, 'value["n"]', "has more digits", id="long number"),
        ({'a"b\n': [()]}, 'value["a\\"b\\n"][0]', "is of the type tuple"),
    ],
)
def test_what_json_would_change_is_refused(value: object, path: str, problem: str) -> None:
    """The error says where it is and what, and how to keep such values."""
    with pytest.raises(UnserializableError, match="give memoize") as caught:
        JsonSerializer().dumps(value)
    assert caught.value.path == path
    assert problem in caught.value.problem
    assert str(caught.value).startswith(path)


def test_numbers_that_look_alike_stay_apart() -> None:
    """True, 1, 1.0 and -0.0 come back as themselves."""
    numbers = [True, 1, 1.0, 0.0, -0.0, 1e300, 5e-324, 2**64, 10**600]
    assert repr(returned(JsonSerializer(), numbers)) == repr(numbers)


def test_a_value_that_contains_itself_is_refused() -> None:
    """It would be written for ever."""
    circle: list[object] = []
    circle.append({"again": circle})
    with pytest.raises(UnserializableError, match="contains itself"):
        JsonSerializer().dumps(circle)


def test_json_is_compact_utf_8() -> None:
    """Bytes in a store cost money: no spaces, and text as it is."""
    assert JsonSerializer().dumps({"größe": ["東京", 1.5, None]}) == '{"größe":["東京",1.5,null]}'.encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"nul",
        b"NaN",
        b"[Infinity]",
        b'{"a":-Infinity}',
        b"1 2",
        b"\xff",
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf1",
        "[1]".encode("utf-16"),
        pytest.param(b"1" * 5_000, id="long number"),
        pytest.param(b"[" * 200_000, id="deep list"),
        pytest.param(b'{"a":' * 200_000, id="deep dict"),
    ],
)
def test_bytes_that_are_not_json_are_a_value_error(data: bytes) -> None:
    """A store may hold anything, and the cache counts it as a miss."""
    with pytest.raises(ValueError):
        JsonSerializer().loads(data)


@settings(deadline=None)
@given(st.binary() | st.text().map(str.encode) | st.text('{}[]",:0eE-.ntN').map(str.encode))
def test_no_bytes_make_json_raise_anything_else(data: bytes) -> None:
    """Whatever the store holds."""
    with suppress(ValueError):
        JsonSerializer().loads(data)


@pytest.mark.parametrize("wire", ["msgpack", "json"])
def test_typed_values_come_back_as_they_were(wire: Format) -> None:
    """Dataclasses, datetimes, enums, tuples, sets, bytes: all that JSON has not."""
    back = returned(TypedSerializer(Order, format=wire), ORDER)
    assert back == ORDER
    assert all(is_same(getattr(back, name), value) for name, value in vars(ORDER).items())


ZONES = st.sampled_from([UTC, timezone(timedelta(hours=-3, minutes=-30))])
AWARE = st.datetimes(datetime(1950, 1, 1), timezones=ZONES)  # noqa: DTZ001 - the strategy takes no other
ORDERS = st.builds(
    Order,
    at=st.datetimes() | AWARE,
    took=st.timedeltas(timedelta(days=-9_999), timedelta(days=9_999)),
    prices=st.lists(
        st.builds(Price, st.decimals(allow_nan=False, allow_infinity=False, places=2), st.text()), max_size=3
    ),
    corner=st.tuples(st.integers(-(2**63), 2**63 - 1), st.text()),
    by_number=st.dictionaries(
        st.integers(-(2**63), 2**63 - 1), st.builds(Price, st.just(Decimal(1))), max_size=3
    ),
)


@settings(max_examples=100, deadline=None)
@given(ORDERS, st.sampled_from(["msgpack", "json"]))
def test_any_typed_value_comes_back_equal(order: Order, wire: Format) -> None:
    """Whatever the fields hold that their types allow."""
    assert returned(TypedSerializer(Order, format=wire), order) == order


@settings(max_examples=100, deadline=None)
@given(
    st.datetimes(datetime(1950, 1, 1), timezones=st.just(ZoneInfo("Europe/Berlin"))),  # noqa: DTZ001
    st.sampled_from(["msgpack", "json"]),
)
def test_a_datetime_in_a_named_zone_comes_back_as_the_same_moment(at: datetime, wire: Format) -> None:
    """The offset is kept, not the zone's name; also in the hour that the clocks are put back."""
    back = returned(TypedSerializer(datetime, format=wire), at)
    assert back.tzinfo is not None
    assert back.timestamp() == at.timestamp()


def test_unions_literals_and_containers_are_types_too() -> None:
    """The type is inferred from what is given, also where it is no class."""
    optional: TypedSerializer[int | None] = TypedSerializer(int | None)
    prices: TypedSerializer[list[Price]] = TypedSerializer(list[Price])
    answer = TypedSerializer[Literal["yes", "no"]](Literal["yes", "no"])
    assert [returned(optional, value) for value in (1, None)] == [1, None]
    assert returned(prices, [Price(Decimal(1))]) == [Price(Decimal(1))]
    assert answer.loads(answer.dumps("yes")) == "yes"


@pytest.mark.parametrize("wire", ["msgpack", "json"])
def test_a_stored_value_of_another_shape_is_a_value_error(wire: Format) -> None:
    """After a deployment the store holds what the old code returned: a miss, not a surprise."""
    stored = TypedSerializer(dict[str, str], format=wire).dumps({"amount": "1", "currency": "EUR"})
    assert TypedSerializer(Price, format=wire).loads(stored) == Price(Decimal(1))
    for other in (int, list[Price], Order, Color):
        with pytest.raises(ValueError, match="stored value"):
            TypedSerializer[object](other, format=wire).loads(stored)


@pytest.mark.parametrize("wire", ["msgpack", "json"])
def test_a_value_that_could_not_be_read_back_is_refused(wire: Format) -> None:
    """Else it would be stored each time and never be a hit."""
    wrong = cast(Any, ["one"])
    with pytest.raises(UnserializableError, match=r"Expected `int`, got `str` - at `\$\[0\]`"):
        TypedSerializer(list[int], format=wire).dumps(wrong)
    with pytest.raises(UnserializableError, match="unsupported"):
        TypedSerializer(object, format=wire).dumps(object())
    with pytest.raises(UnserializableError, match="surrogates"):
        TypedSerializer(str, format=wire).dumps("\ud800")
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(UnserializableError, match="recursion"):
        TypedSerializer(list[Any], format=wire).dumps(circle)


@pytest.mark.parametrize(
    ("data", "wire"),
    [
        pytest.param(b"\x91" * 200_000, "msgpack", id="deep msgpack"),
        pytest.param(b"[" * 200_000, "json", id="deep json"),
        (b"\xc1", "msgpack"),
        (b"\xa1\xff", "msgpack"),
        (b"", "json"),
        (b'"\xff"', "json"),
    ],
)
def test_damaged_bytes_are_a_value_error(data: bytes, wire: Format) -> None:
    """Also where msgspec itself raises something else, as for bytes that are nested too deeply."""
    with pytest.raises(ValueError, match="stored value"):
        TypedSerializer(Any, format=wire).loads(data)


def test_a_class_that_raises_on_foreign_fields_makes_a_miss() -> None:
    """Its own code may raise anything on values that it never wrote."""
    serializer = TypedSerializer(Fragile, format="json")
    assert returned(serializer, Fragile(1)) == Fragile(1)
    with pytest.raises(ValueError, match="stored value"):
        serializer.loads(b'{"one":2}')
    changed = Fragile(1)
    changed.one = 2
    with pytest.raises(UnserializableError):
        serializer.dumps(changed)


@settings(max_examples=200, deadline=None)
@given(
    st.binary(), st.sampled_from([Any, Order, list[Price], datetime]), st.sampled_from(["msgpack", "json"])
)
def test_no_bytes_make_a_typed_one_raise_anything_else(data: bytes, kind: Any, wire: Format) -> None:
    """Whatever the store holds."""
    with suppress(ValueError):
        TypedSerializer[object](kind, format=wire).loads(data)


def test_names_keep_formats_and_types_apart() -> None:
    """Two that could misread each other's bytes never have the same key."""
    kinds: list[Any] = [int, str, list[int], dict[str, int], Price, Order, list[Price], Color, int | None]
    names = [TypedSerializer[object](kind).name for kind in kinds]
    names += [TypedSerializer[object](kind, format="json").name for kind in kinds]
    names.append(JsonSerializer().name)
    assert len(set(names)) == len(names)
    assert TypedSerializer(Price).name == TypedSerializer(Price).name


def test_another_field_is_another_name_and_other_prose_is_not() -> None:
    """A field that was renamed and has a default would otherwise be read as that default."""

    def name_of(annotations: dict[str, type], doc: str, **defaults: object) -> str:
        members = {"__annotations__": annotations, "__doc__": doc, **defaults}
        return TypedSerializer[object](dataclass(type("Item", (), members))).name

    name = name_of({"size": int}, "An item.", size=0)
    assert name == name_of({"size": int}, "One item.", size=1)
    assert name != name_of({"length": int}, "An item.", length=0)
    assert name != name_of({"size": float}, "An item.", size=0)
    assert name != name_of({"size": int}, "An item.")


def test_a_type_without_a_schema_has_a_name_too() -> None:
    """It happens that msgspec reads some types that JSON Schema can not describe."""

    class Holder:
        pass

    assert TypedSerializer(Holder).name != TypedSerializer(object).name
    assert returned(TypedSerializer(object), 1) == 1


def test_a_name_is_the_same_in_every_process() -> None:
    """Workers share what they stored, whatever the seed of their hashes."""
    script = (
        "from dataclasses import dataclass\nfrom enum import Enum\nfrom typing import Literal\n"
        "from aeros.caching.serializers import TypedSerializer\n"
        "class E(Enum):\n    A = 'a'\n    B = 'b'\n"
        "@dataclass\nclass Item:\n    a: Literal['x', 'y', 1] | list[bytes] | None\n"
        "    b: dict[E, int]\n    c: frozenset[str] = frozenset({'p', 'q', 'r'})\n"
        "Union = Item | list[int] | bool | str\n"
        "print(TypedSerializer(Union).name)\n"
    )
    names = {
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(names) == 1
    assert names.pop().startswith("msgspec-msgpack-")


@pytest.mark.parametrize("wire", ["yaml", "", None, "JSON", []])
def test_an_unknown_format_is_refused(wire: Any) -> None:
    """At construction, with the two that exist."""
    with pytest.raises(InvalidSettingError, match="'msgpack' or 'json'"):
        TypedSerializer(int, format=wire)


@pytest.mark.parametrize("kind", [5, "Price", list[int] | tuple[int, ...], Dangling])
def test_a_type_that_can_not_be_read_is_refused(kind: Any) -> None:
    """At construction, with what msgspec says."""
    with pytest.raises(InvalidSettingError, match="a type that msgspec can read"):
        TypedSerializer[object](kind)


def test_without_msgspec_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is imported at construction, and only there."""
    monkeypatch.setitem(sys.modules, "msgspec", None)
    with pytest.raises(MissingExtraError, match=r"aeros\[msgpack\]") as caught:
        TypedSerializer(int)
    assert (caught.value.package, caught.value.extra) == ("msgspec", "msgpack")
    assert returned(JsonSerializer(), [1]) == [1]


def test_json_of_other_writers_is_read() -> None:
    """What another service stored as JSON is JSON, spaces and escapes included."""
    assert JsonSerializer().loads(json.dumps({"größe": "東"}, indent=2).encode()) == {"größe": "東"}
