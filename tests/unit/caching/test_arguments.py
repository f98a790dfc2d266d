"""Keys of calls: two share one exactly if each parameter has an equal value of the same type."""

from __future__ import annotations

import functools
import os
import random
import re
import subprocess
import sys
from collections import ChainMap, Counter, OrderedDict, UserDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from fractions import Fraction
from inspect import signature
from io import BytesIO
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar, cast
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from werkzeug.datastructures import CombinedMultiDict, ImmutableMultiDict, MultiDict

from aeros.caching.arguments import ArgumentKey
from aeros.errors import InvalidSettingError, UncacheableArgumentError

T = TypeVar("T")

ROOT = Path(__file__).parents[3]
BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 10, 25, 2, 30)  # noqa: DTZ001 - twice in Berlin, and naive on purpose


class Color(Enum):
    RED = "red"
    CRIMSON = "red"  # noqa: PIE796 - an alias
    BLUE = "blue"


class Paint(Enum):
    RED = "red"


class Size(IntEnum):
    ONE = 1


class Word(StrEnum):
    ONE = "1"


class Right(Flag):
    READ = 1
    WRITE = 2


class Labelled(Enum):
    """Has a ``name`` that does not tell its members apart."""

    A = 1
    B = 2

    @property
    def name(self) -> str:
        """The same for both."""
        return "label"


class Number(int):
    """A number, and what an object of it was given besides."""


class Loud(str):
    """Says something else than it is."""

    __slots__ = ("volume",)
    volume: int

    def __str__(self) -> str:
        return "loud"

    __repr__ = __str__

    def encode(self, encoding: str = "", errors: str = "") -> bytes:
        """The same for all."""
        return b"loud"


class Empty(list[int]):
    """Hides its items."""

    def __iter__(self) -> Iterator[int]:
        return iter(())


class Items(list[T]):
    """Remembers what it was made as, if that was said."""


class Point(NamedTuple):
    x: int
    y: object


class Place(NamedTuple):
    x: int
    y: object


@dataclass(frozen=True)
class Price:
    amount: object
    currency: str = "EUR"
    note: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Cost:
    amount: object
    currency: str = "EUR"
    note: str = ""


@dataclass
class Mutable:
    amount: int


class Below(Price):
    """Is no dataclass itself, so it may have any attribute."""


class Bare:
    """Is known by nothing but its address."""


class NamelessZone(tzinfo):
    """Is known by nothing but its address, too."""

    def utcoffset(self, dt: datetime | None) -> timedelta:
        """One hour."""
        return timedelta(hours=1)

    def dst(self, dt: datetime | None) -> None:
        """Not known."""

    def tzname(self, dt: datetime | None) -> None:
        """Not known."""


def one(value: object) -> object:
    """Is asked for the keys of single values."""
    return value


def call(
    a: object, b: object = 1, /, c: object = "x", *rest: object, d: object = None, **more: object
) -> object:
    """Has a parameter of each kind."""
    return a, b, c, rest, d, more


def in_list(value: object) -> object:
    """Returns a list of the value."""
    return [value]


def in_dict(value: object) -> object:
    """Returns a tuple of the value in a dict."""
    return {"k": (value,)}


KEY = ArgumentKey(one)
CALL = ArgumentKey(call)


def key_of(value: object) -> bytes:
    """Returns the key of a single value."""
    return KEY.of((value,), {})


def number(value: int, **attributes: object) -> Number:
    """Returns a number with attributes."""
    made = Number(value)
    vars(made).update(attributes)
    return made


def loud(text: str, volume: int) -> Loud:
    """Returns text with an attribute in a slot."""
    made = Loud(text)
    made.volume = volume
    return made


APART: list[object] = [
    None,
    False,
    True,
    0,
    1,
    -1,
    16,
    "16",
    10,
    1.0,
    0.0,
    -0.0,
    float("nan"),
    float("inf"),
    float("-inf"),
    "",
    "1",
    "i1",
    "None",
    b"",
    b"1",
    b"s1",
    "\ud83d\ude00",
    "\U0001f600",
    "\ud800",
    "é",
    "e\u0301",
    Decimal(1),
    Decimal("1.0"),
    Decimal("1E+1"),
    Decimal(10),
    Decimal("NaN"),
    Decimal("-0"),
    Fraction(1),
    Fraction(1, 2),
    date(2026, 10, 25),
    datetime(2026, 10, 25),  # noqa: DTZ001
    NOON,
    NOON.replace(fold=1),
    NOON.replace(tzinfo=BERLIN),
    NOON.replace(tzinfo=BERLIN, fold=1),
    NOON.replace(tzinfo=ZoneInfo("Europe/Paris")),
    NOON.replace(tzinfo=timezone(timedelta(hours=1))),
    NOON.replace(tzinfo=timezone(timedelta(hours=1), "CET")),
    NOON.replace(tzinfo=UTC),
    NOON.replace(tzinfo=ZoneInfo("UTC")),
    time(2, 30),
    time(2, 30, fold=1),
    time(2, 30, tzinfo=UTC),
    time(2, 30, 0, 1),
    timedelta(0),
    timedelta(1),
    timedelta(seconds=1),
    timedelta(microseconds=1),
    timedelta(microseconds=-1),
    UUID(int=1),
    UUID(int=2),
    Color.RED,
    Color.BLUE,
    Paint.RED,
    Size.ONE,
    Word.ONE,
    Labelled.A,
    Labelled.B,
    Right(0),
    Right.READ,
    Right.WRITE,
    Right.READ | Right.WRITE,
    Path("a"),
    PurePath("a/b"),
    PurePosixPath("a"),
    PureWindowsPath("a"),
    (),
    [],
    set[int](),
    frozenset[int](),
    dict[str, int](),
    OrderedDict[str, int](),
    MappingProxyType[str, int]({}),
    Counter[str](),
    UserDict[str, int](),
    MultiDict[str, int](),
    (1,),
    [1],
    ((1,),),
    [[1]],
    [[], 1],
    [[1], []],
    {1},
    frozenset({1}),
    {True},
    {1.0},
    {1, 2},
    {(1, 2)},
    {1: 2},
    {2: 1},
    {True: 2},
    {(1, 2): None},
    {1: {2: 3}},
    {1: 2, 3: 4},
    {1: 4, 3: 2},
    OrderedDict({1: 2, 3: 4}),
    OrderedDict({3: 4, 1: 2}),
    MappingProxyType({1: 2, 3: 4}),
    ChainMap({1: 2, 3: 4}),
    UserDict({1: 2, 3: 4}),
    Counter({1: 2, 3: 4}),
    Number(1),
    number(1, currency="EUR"),
    number(1, currency="USD"),
    loud("a", 1),
    loud("a", 2),
    loud("b", 1),
    Empty([1]),
    Empty([2]),
    Point(1, 2),
    Point(1, 2.0),
    Place(1, 2),
    (1, 2),
    Price(1),
    Price(1, "USD"),
    Price(1.0),
    Price(1, note="x"),
    Cost(1),
    MultiDict([("a", 1), ("a", 2)]),
    MultiDict([("a", 2), ("a", 1)]),
    MultiDict([("a", 1)]),
    ImmutableMultiDict([("a", 1)]),
    CombinedMultiDict([MultiDict([("a", 1)])]),
    CombinedMultiDict([MultiDict([("a", 2)])]),
]


@pytest.mark.parametrize("wrap", [one, in_list, in_dict])
def test_different_values_have_different_keys(wrap: Callable[[object], object]) -> None:
    """Of two that are equal in Python, but of other types or attributes, too."""
    owners: dict[bytes, object] = {}
    for value in APART:
        other = owners.setdefault(key_of(wrap(value)), value)
        assert other is value, (other, value)


@pytest.mark.parametrize(
    ("value", "equal"),
    [
        (float("nan"), -float("nan")),
        ({1, 2, 300}, {300, 2, 1}),
        (frozenset("abc"), frozenset("cba")),
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
        (Counter("ab"), Counter("ba")),
        (MappingProxyType({1: 2, 3: 4}), MappingProxyType({3: 4, 1: 2})),
        (UserDict({1: 2, 3: 4}), UserDict({3: 4, 1: 2})),
        (MultiDict([("a", 1), ("b", 2)]), MultiDict([("b", 2), ("a", 1)])),
        (Color.RED, Color.CRIMSON),
        (Right.READ | Right.WRITE, Right.WRITE | Right.READ),
        (Path("a//b/"), Path("a/b")),
        (NOON.replace(tzinfo=BERLIN), NOON.replace(tzinfo=ZoneInfo.no_cache("Europe/Berlin"))),
        (Price(amount=(1,)), Price((1,), "EUR")),
        (number(1, a=1, b=2), number(1, b=2, a=1)),
        (number(1), Number(1)),
        (Items[int]([1]), Items([1])),
    ],
)
def test_equal_values_share_a_key(value: object, equal: object) -> None:
    """The order of what has none does not count, nor does the way that a value was made."""
    assert key_of(value) == key_of(equal)


def meaning(value: object) -> object:
    """Returns what is equal for equal values of equal types: the model, which makes no bytes."""
    kind = type(value)
    if isinstance(value, (list, tuple)):
        return kind, tuple(meaning(item) for item in cast("list[object]", value))
    if isinstance(value, (set, frozenset)):
        return kind, frozenset(Counter(meaning(item) for item in cast("set[object]", value)).items())
    if isinstance(value, Mapping):
        pairs = [(meaning(key), meaning(item)) for key, item in cast("dict[object, object]", value).items()]
        return kind, frozenset(Counter(pairs).items())
    if isinstance(value, (Price, Cost)):
        return kind, meaning(value.amount), value.currency, value.note
    if isinstance(value, (float, Decimal)):
        return kind, repr(value)
    if isinstance(value, (datetime, time)):
        return kind, value.isoformat(), value.fold, repr(value.tzinfo)
    return kind, value


NAMES = st.text("ab1", max_size=2)
ZONES = st.sampled_from([UTC, BERLIN, ZoneInfo("Europe/Paris"), timezone(timedelta(hours=1))])
FIRST, LAST = datetime(2026, 10, 25, 1), datetime(2026, 10, 25, 3)  # noqa: DTZ001
MOMENTS = st.datetimes(FIRST, LAST) | st.datetimes(FIRST, LAST, timezones=ZONES)
HASHABLE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.integers()
    | st.sampled_from([0.0, -0.0, 1.0, 2.0, float("nan")])
    | NAMES
    | NAMES.map(str.encode)
    | st.text(st.characters(), max_size=2)
    | st.sampled_from([Decimal(1), Decimal("1.0"), Fraction(1), Color.RED, Size.ONE, Word.ONE, Path("a")])
    | st.dates(date(2026, 1, 1), date(2026, 1, 3))
    | MOMENTS
    | st.timedeltas(timedelta(0), timedelta(seconds=1))
    | st.uuids().filter(lambda value: value.int % 3 == 0),
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.frozensets(inner, max_size=3)
        | st.builds(Point, st.integers(0, 1), inner)
        | st.builds(Price, inner)
        | st.builds(Cost, inner)
    ),
    max_leaves=5,
)
VALUES = st.recursive(
    HASHABLE,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.sets(HASHABLE, max_size=3)
        | st.dictionaries(HASHABLE, inner, max_size=3)
        | st.dictionaries(HASHABLE, inner, max_size=3).map(MappingProxyType)
    ),
    max_leaves=6,
)


def rebuilt(value: object, order: random.Random) -> object:
    """Returns an equal value made anew, with whatever has no order in another one."""
    if isinstance(value, (set, frozenset)):
        items = [rebuilt(item, order) for item in cast("set[object]", value)]
        order.shuffle(items)
        return type(cast("set[object]", value))(items)
    if isinstance(value, Mapping):
        pairs = [
            (rebuilt(key, order), rebuilt(item, order))
            for key, item in cast("dict[object, object]", value).items()
        ]
        order.shuffle(pairs)
        return dict(pairs) if isinstance(value, dict) else MappingProxyType(dict(pairs))
    if type(value) is list:
        return [rebuilt(item, order) for item in cast("list[object]", value)]
    if type(value) is tuple:
        return tuple(rebuilt(item, order) for item in cast("tuple[object, ...]", value))
    return value


@settings(max_examples=400, deadline=None)
@given(VALUES, VALUES)
def test_keys_are_equal_exactly_if_the_values_are(first: object, second: object) -> None:
    """For nested values of all types, as a model without bytes tells it."""
    assert (key_of(first) == key_of(second)) == (meaning(first) == meaning(second))


@settings(max_examples=200, deadline=None)
@given(VALUES, st.randoms(use_true_random=False))
def test_a_value_made_anew_has_the_same_key(value: object, order: random.Random) -> None:
    """Whatever the order in which sets and mappings were filled."""
    again = rebuilt(value, order)
    assume(meaning(again) == meaning(value))  # a set of several nan may lose one
    assert key_of(again) == key_of(value)


SMALL = st.sampled_from([None, True, 0, 1, 1.0, "x", "d", b"x", (), (1,), ("x", 1)])
CALLS = st.tuples(
    st.lists(SMALL, min_size=1, max_size=5).map(tuple),
    st.dictionaries(st.sampled_from(["a", "c", "d", "e", "f", "rest", "more"]), SMALL, max_size=3),
)


def bound(args: tuple[object, ...], kwargs: dict[str, object]) -> object:
    """Returns what the standard library says that a call means."""
    arguments = signature(call).bind(*args, **kwargs)
    arguments.apply_defaults()
    return meaning(arguments.arguments)


@settings(max_examples=400, deadline=None)
@given(CALLS, CALLS)
def test_no_two_different_calls_share_a_key(
    first: tuple[tuple[object, ...], dict[str, object]], second: tuple[tuple[object, ...], dict[str, object]]
) -> None:
    """And each two that are the same do, however they are written."""
    for args, kwargs in (first, second):
        assume(len(args) < 3 or "c" not in kwargs)
    assert (CALL.of(*first) == CALL.of(*second)) == (bound(*first) == bound(*second))


def test_defaults_and_names_do_not_make_another_call() -> None:
    """``f(1)``, ``f(a=1)`` and ``f(1, b=default)`` are one call."""

    def function(a: int, b: list[int] | None = None, *, c: int = 3) -> None: ...

    key = ArgumentKey(function)
    calls: list[tuple[tuple[object, ...], dict[str, object]]] = [
        ((1,), {}),
        ((), {"a": 1}),
        ((1, None), {}),
        ((), {"c": 3, "b": None, "a": 1}),
    ]
    assert len({key.of(*each) for each in calls}) == 1
    assert key.of((1,), {"c": 4}) != key.of((1,), {})


def test_a_default_counts_as_it_is_now() -> None:
    """A list as a default is one list for ever, and the function sees what was put into it."""
    shared: list[int] = []

    def function(items: list[int] = shared) -> None: ...

    key = ArgumentKey(function)
    empty = key.of((), {})
    shared.append(1)
    assert key.of((), {}) == key.of(([1],), {}) != empty


@settings(max_examples=300, deadline=None)
@given(st.lists(SMALL, max_size=5).map(tuple), st.dictionaries(st.sampled_from("abcde"), SMALL, max_size=4))
def test_wrong_arguments_raise_what_the_call_would(
    args: tuple[object, ...], kwargs: dict[str, object]
) -> None:
    """The same error with the same words, so that memoizing a function does not change its mistakes."""

    def function(a: object, /, b: object, c: object = 1, *, d: object, e: object = 2) -> None: ...

    try:
        function(*args, **kwargs)
    except TypeError as error:
        with pytest.raises(TypeError, match=f"^{re.escape(str(error))}$"):
            ArgumentKey(function).of(args, kwargs)
    else:
        ArgumentKey(function).of(args, kwargs)


def test_ignored_parameters_do_not_count() -> None:
    """They may be of any type, but have to be bound as ever."""

    def function(session: object, item: int, *rest: object, **more: object) -> None: ...

    key = ArgumentKey(function, ignored=("session", "more"))
    assert (
        key.of((Bare(), 1), {}) == key.of((Bare(), 1), {"x": Bare()}) == key.of((), {"session": 0, "item": 1})
    )
    assert key.of((Bare(), 1), {}) != key.of((Bare(), 2), {})
    assert key.of((Bare(), 1), {}) != key.of((Bare(), 1, 2), {})
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'item'"):
        key.of((Bare(),), {})


@pytest.mark.parametrize("ignored", [("sesion",), ["item", ""], "item", {"self"}])
def test_an_ignored_name_that_is_no_parameter_is_refused(ignored: Any) -> None:
    """A slip would make a key of what was to be left out; a text is not a collection of names."""

    def function(session: object, item: int) -> None: ...

    with pytest.raises(InvalidSettingError, match="names of its parameters: session, item"):
        ArgumentKey(function, ignored=ignored)


def test_what_has_no_signature_is_refused() -> None:
    """Some functions written in C do not tell their parameters."""
    with pytest.raises(InvalidSettingError, match="whose signature can be read"):
        ArgumentKey(dict)
    with pytest.raises(InvalidSettingError, match="whose signature can be read"):
        ArgumentKey(cast(Any, 5))
    with pytest.raises(InvalidSettingError, match="it has none"):
        ArgumentKey(test_what_has_no_signature_is_refused, ignored=["a"])


def test_any_callable_with_a_signature_has_keys() -> None:
    """Coroutine functions, partial and wrapped ones, bound methods and objects that are called."""

    class Shop:
        def price(self, item: int, currency: str = "EUR") -> None: ...

        __call__ = price

    async def coroutine(item: int, currency: str = "EUR") -> None: ...

    def plain(item: int, currency: str = "EUR") -> None: ...

    @functools.wraps(plain)
    def wrapped(*args: Any, **kwargs: Any) -> None: ...

    functions: list[Callable[..., object]] = [coroutine, plain, wrapped, Shop().price, Shop()]
    keys = {ArgumentKey(function).of((1,), {"currency": "EUR"}) for function in functions}
    keys |= {ArgumentKey(function).of((), {"item": 1}) for function in functions}
    keys.add(ArgumentKey(functools.partial(plain, currency="EUR")).of((1,), {}))
    assert len(keys) == 1
    assert ArgumentKey(lambda: None).of((), {}) == b""


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (Bare(), f"{__name__}.Bare"),
        (object(), "object"),
        (1j, "complex"),
        (bytearray(b"a"), "bytearray"),
        (Mutable(1), f"{__name__}.Mutable"),
        (Below(1), f"{__name__}.Below"),
        (Price, "type"),
        (one, "function"),
        (range(3), "range"),
        (iter([1]), "list_iterator"),
        (defaultdict[str, int](int), "collections.defaultdict"),
        ({1: [Bare()]}, f"{__name__}.Bare"),
        ({Bare()}, f"{__name__}.Bare"),
        (Price(Bare()), f"{__name__}.Bare"),
        (number(1, unit=Bare()), f"{__name__}.Bare"),
        (MappingProxyType({1: Bare()}), f"{__name__}.Bare"),
        (NOON.replace(tzinfo=NamelessZone()), f"{__name__}.NamelessZone"),
    ],
)
def test_what_makes_no_key_is_an_error(value: object, kind: str) -> None:
    """It names the function, the parameter and the type, and how to go on."""
    with pytest.raises(UncacheableArgumentError, match="give memoize") as caught:
        key_of(value)
    error = caught.value
    assert (error.function, error.parameter, error.kind) == (f"{__name__}.one", "value", kind)
    assert "ignored=('value',)" in str(error)
    assert isinstance(error, TypeError)


def test_a_zone_without_a_name_makes_no_key() -> None:
    """Nothing tells another process which zone it is."""
    name = "Europe/Berlin"
    assert name in available_timezones()
    file = Path(next(folder for folder in _zone_folders() if (folder / name).exists())) / name
    zone = ZoneInfo.from_file(BytesIO(file.read_bytes()))
    with pytest.raises(UncacheableArgumentError):
        key_of(NOON.replace(tzinfo=zone))


def _zone_folders() -> Iterator[Path]:
    from zoneinfo import TZPATH

    yield from map(Path, TZPATH)


def test_a_value_is_left_as_it_is() -> None:
    """Making a key changes nothing of what it reads."""
    items = Items[int]([1])
    before = dict(vars(items))
    key_of(items)
    assert vars(items) == before != {}


def test_a_method_is_told_to_become_a_function() -> None:
    """What a method returns depends on its object, which has no key."""

    class Shop:
        def price(self, item: int) -> None: ...

    with pytest.raises(UncacheableArgumentError, match="memoize a function in place of the method") as caught:
        ArgumentKey(Shop.price).of((Shop(), 1), {})
    assert caught.value.parameter == "self"
    assert caught.value.function.endswith("Shop.price")


def test_a_value_that_contains_itself_is_an_error() -> None:
    """It ends, whatever the container."""
    items: list[object] = []
    items.append(items)
    mapping: dict[int, object] = {}
    mapping[1] = (mapping,)
    number_of_itself = number(1)
    vars(number_of_itself)["me"] = number_of_itself
    for value in (items, mapping, number_of_itself, Price(items), UserDict({1: items})):
        with pytest.raises(UncacheableArgumentError, match="contains itself") as caught:
            key_of(value)
        assert caught.value.parameter == "value"


def test_a_long_number_has_a_key() -> None:
    """Python refuses to write more than 4,300 digits, and a call with so many must not fail for it."""
    assert key_of(10**5_000) != key_of(10**5_000 + 1)
    assert key_of(Fraction(1, 10**5_000)) != key_of(Fraction(1, 10**5_000 + 1))


def test_keys_are_the_same_in_every_process() -> None:
    """Workers share what they stored, whatever the seed of their hashes."""
    script = (
        "from aeros.caching.arguments import ArgumentKey\n"
        "from enum import Enum\n"
        "from uuid import UUID\n"
        "class Color(Enum):\n    RED = 1\n"
        "def function(*values): ...\n"
        "values = {'a', 'b'}, {'x': {1, 2}, 'y': {b'z', b'w'}}, Color.RED, UUID(int=1), frozenset('abc')\n"
        "print(ArgumentKey(function).of(values, {}))\n"
    )
    keys = {
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(keys) == 1


def test_the_bytes_of_a_key_stay_what_they_are() -> None:
    """Another encoding would empty every shared cache at an update, so it must be meant."""
    assert CALL.of((1,), {}) == b"2:i1,2:i1,2:sx,1:(,1:n,1:{,"
    assert key_of([1.5, {"a": b"\0"}]) == b"23:[4:f1.5,11:{2:sa,2:b\0,,,"
