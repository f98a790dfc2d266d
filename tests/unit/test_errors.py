"""The error tree, its one-line messages, and how a failed start looks from outside."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

import aeros
from aeros.errors import (
    AddressInUseError,
    AerosError,
    BindError,
    ConfigurationError,
    EntryFormatError,
    ImportPathError,
    InstancePathError,
    InvalidHeaderError,
    InvalidSettingError,
    LogFileError,
    MissingExtraError,
    NestedServerError,
    PrivilegedPortError,
    ProviderError,
    StartupError,
    UncacheableArgumentError,
    UnknownOptionError,
    UnpicklableOptionError,
    UnserializableError,
    nearest_name,
    one_line,
)

if TYPE_CHECKING:
    from tests.conftest import RunScript

CONFIGURATION_ERRORS = [
    (ConfigurationError("port", "is taken", "take another"), "port", "take another"),
    (InvalidSettingError("port", -1, "a number"), "port", "give a number"),
    (UnknownOptionError("prot", ["port", "host"], where="run_server()"), "prot", "did you mean 'port'?"),
    (UnknownOptionError("zzz", ["port", "host"], where="run_server()"), "zzz", "it takes host, port"),
    (InvalidHeaderError("global_headers", "X A", "is not valid"), "global_headers", "give a token"),
    (ProviderError("cache", "gives int", "it must give Cache"), "container.cache", "it must give Cache"),
    (MissingExtraError("cache", package="redis", extra="redis"), "cache", "pip install 'aeros[redis]'"),
    (LogFileError("access_log_file", "/x/y.log", "No such directory"), "access_log_file", "give a file"),
    (BindError("h", 1, "no such host", "give another host"), "host", "give another host"),
    (AddressInUseError("127.0.0.1", 8000), "port", "choose another port"),
    (PrivilegedPortError("127.0.0.1", 80), "port", "from 1024 on"),
    (InstancePathError("workers", "shop"), "workers", "app = WebServer(__name__)"),
    (InstancePathError("workers", "shop"), "workers", "run_server(factory=create_app)"),
    (ImportPathError("shop:app", "it is not there"), "workers", "imports the module anew"),
    (NestedServerError(), "workers", "if __name__ == '__main__': app.run_server(...)"),
    (UnpicklableOptionError("callback_notify", "a lambda"), "callback_notify", "the top level of a module"),
]

MEMOIZE_ERRORS = [
    (
        UnserializableError('value["prices"][2]', "is of the type tuple"),
        'value["prices"][2] is of the type tuple; ',
        "give memoize(serializer=...)",
    ),
    (
        UncacheableArgumentError("shop.price", "item", "shop.Item"),
        "shop.price(item=): the type shop.Item ",
        "memoize(ignored=('item',))",
    ),
    (
        UncacheableArgumentError("shop.price", "item", "list", "contains itself"),
        "shop.price(item=): the type list contains itself; ",
        "give memoize(key=...)",
    ),
    (
        UncacheableArgumentError("Shop.price", "self", "shop.Shop"),
        "Shop.price(self=): the type shop.Shop ",
        "memoize a function in place of the method",
    ),
    (
        UnserializableError('value["a\n"]', "is\r\nbad"),
        'value["a\\n"] is\\r\\nbad; ',
        "return another value",
    ),
]


def subclasses(of: type[BaseException]) -> Iterator[type[BaseException]]:
    """Gives every class below ``of``."""
    for child in of.__subclasses__():
        yield child
        yield from subclasses(child)


@pytest.mark.parametrize(("error", "setting", "cure"), CONFIGURATION_ERRORS)
def test_a_message_is_one_line_that_names_the_setting_and_the_cure(
    error: ConfigurationError, setting: str, cure: str
) -> None:
    """Whoever reads only the message knows what to change and how."""
    message = str(error)
    assert message.startswith(f"{setting}: ")
    assert cure in message
    assert error.setting == setting
    assert error.problem in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(("error", "start", "cure"), MEMOIZE_ERRORS)
def test_what_can_not_be_memoized_says_where_and_how_to_go_on(
    error: AerosError, start: str, cure: str
) -> None:
    """On one line: the place, the type, and what to write in its stead."""
    message = str(error)
    assert message.startswith(start)
    assert cure in message
    assert len(message.splitlines()) == 1


def test_every_error_is_in_the_tree_that_the_package_exports() -> None:
    """One ``except AerosError`` catches all, and each name can be imported from ``aeros``."""
    found = {kind.__name__ for kind in subclasses(AerosError) if kind.__module__ == "aeros.errors"}
    exported = {name for name in aeros.__all__ if name.endswith("Error")}
    assert exported == found | {"AerosError"}
    assert all(issubclass(getattr(aeros, name), AerosError) for name in exported)


@pytest.mark.parametrize(
    ("kind", "parents"),
    [
        (ConfigurationError, (AerosError, ValueError)),
        (InvalidSettingError, (ConfigurationError,)),
        (UnknownOptionError, (ConfigurationError, TypeError)),
        (InvalidHeaderError, (ConfigurationError,)),
        (ProviderError, (ConfigurationError, TypeError)),
        (MissingExtraError, (ConfigurationError, ImportError)),
        (LogFileError, (ConfigurationError,)),
        (BindError, (ConfigurationError,)),
        (AddressInUseError, (BindError,)),
        (PrivilegedPortError, (BindError,)),
        (InstancePathError, (ConfigurationError,)),
        (ImportPathError, (ConfigurationError, ImportError)),
        (NestedServerError, (ConfigurationError,)),
        (UnpicklableOptionError, (ConfigurationError,)),
        (StartupError, (AerosError, SystemExit)),
        (EntryFormatError, (AerosError,)),
        (UnserializableError, (AerosError, TypeError)),
        (UncacheableArgumentError, (AerosError, TypeError)),
    ],
)
def test_errors_are_the_kinds_that_callers_catch(
    kind: type[Exception], parents: tuple[type[Exception], ...]
) -> None:
    """A caller may catch the branch, or the built-in error that it resembles."""
    assert all(issubclass(kind, parent) for parent in parents)


def test_errors_keep_their_data_as_attributes() -> None:
    """No caller has to parse a message."""
    setting = InvalidSettingError("port", -1, "a number")
    option = UnknownOptionError("prot", ["port", "host"], where="run_server()")
    header = InvalidHeaderError("global_headers", "X A", "is not valid")
    extra = MissingExtraError("cache", package="redis", extra="fast")
    log_file = LogFileError("access_log_file", "/x", "No such directory")
    bind = BindError("h", 1, "no such host", "another")
    value = UnserializableError('value["a"]', "is nan")
    argument = UncacheableArgumentError("shop.price", "item", "shop.Item", "has no key")
    assert (setting.value, setting.expected) == (-1, "a number")
    assert (option.known, option.nearest, option.where) == (("host", "port"), "port", "run_server()")
    assert header.name == "X A"
    assert ProviderError("cache", "gives int", "").provider == "cache"
    assert (extra.package, extra.extra) == ("redis", "fast")
    assert (log_file.path, log_file.reason) == ("/x", "No such directory")
    assert (bind.host, bind.port, bind.reason) == ("h", 1, "no such host")
    assert InstancePathError("workers", "shop").import_name == "shop"
    path = ImportPathError("shop:app", "it is not there")
    assert (path.import_path, path.reason) == ("shop:app", "it is not there")
    assert UnpicklableOptionError("callback_notify", "a lambda").reason == "a lambda"
    assert (value.path, value.problem) == ('value["a"]', "is nan")
    assert (argument.function, argument.parameter, argument.kind) == ("shop.price", "item", "shop.Item")
    assert argument.problem == "has no key"


@pytest.mark.parametrize("error", [error for error, *_ in (*CONFIGURATION_ERRORS, *MEMOIZE_ERRORS)])
def test_errors_that_have_data_survive_pickling(error: AerosError) -> None:
    """A process pool brings an error back as it was, instead of breaking."""
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is type(error)
    assert str(copied) == str(error)
    assert vars(copied) == vars(error)


def test_a_value_with_line_breaks_stays_on_one_line() -> None:
    """What an attacker or a slip puts into a value can not forge a second log line."""
    error = ConfigurationError("host", "bad\nFake line\r\x1b[2J\x85\u2028", "mend\tit")
    assert str(error) == "host: bad\\nFake line\\r\\x1b[2J\\x85\\u2028; mend\\tit"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text", "plain text"),
        ("größe 東京", "größe 東京"),
        ("a\nb", "a\\nb"),
        ("a\0b", "a\\x00b"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202etxt", "\\u202etxt"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
        ("", ""),
    ],
)
def test_one_line_escapes_what_breaks_or_hides_text(text: str, expected: str) -> None:
    """Control, separator and direction characters become visible; letters of any script stay."""
    assert one_line(text) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("prot", "port"), ("hots", "host"), ("soft_limt", "soft_limit"), ("qqqq", None), ("", None)],
)
def test_the_nearest_name_is_found_or_none(name: str, expected: str | None) -> None:
    """A slip of the finger finds the name that was meant; something else finds nothing."""
    assert nearest_name(name, ["port", "host", "soft_limit"]) == expected


def test_a_startup_error_says_its_reason_once_on_one_line() -> None:
    """The message, the exit code and the text are the same line."""
    error = StartupError("port: 80\ncan not be used")
    assert str(error) == error.code == "aeros: port: 80\\ncan not be used"


def test_an_uncaught_startup_error_is_one_line_and_exit_status_1(run_script: RunScript) -> None:
    """A script that does not catch it ends without a traceback."""
    done = run_script(
        "from aeros.errors import StartupError\nraise StartupError('port: in use; take another')"
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "aeros: port: in use; take another\n"


def test_a_wrong_setting_of_a_run_ends_the_process_with_one_line(run_script: RunScript) -> None:
    """``run_server`` turns every configuration error into a clean end of the process."""
    done = run_script("from aeros import WebServer\nWebServer('shop').run_server(port=70000)")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "aeros: port: 70000 does not fit; give a whole number from 0 to 65535"
    ]
