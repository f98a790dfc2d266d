"""Every error that aeros raises, in one tree.

::

    AerosError
    ├── ConfigurationError           a setting is wrong: its name, the problem, the cure
    │   ├── InvalidSettingError      a value outside what the setting takes
    │   │   └── InvalidVariableError in an AEROS_* variable (also a SystemExit)
    │   ├── UnknownOptionError       a name that nothing takes
    │   │   └── UnknownVariableError an AEROS_* variable (also a SystemExit)
    │   ├── InvalidHeaderError       a field that must not be sent
    │   ├── ProviderError            a provider of the container that gives the wrong thing
    │   ├── MissingExtraError        an optional package that is not installed
    │   ├── LogFileError             a log file that can not be written
    │   ├── BindError                an address that can not be listened on
    │   │   ├── AddressInUseError
    │   │   └── PrivilegedPortError
    │   └── InstancePathError        an application that a worker process could not import
    ├── StartupError                 the server did not start (also a SystemExit: one line, status 1)
    ├── InjectionError               what inject() can not do
    │   ├── UnknownProviderError     a provider that the application's container does not have
    │   ├── NotInjectedError         a function that was called by hand, without its values
    │   ├── ResourceError            a resource that did not open
    │   └── RequestScopeError        a value of a request, asked for where there is none
    ├── EntryFormatError             stored bytes that are not an intact entry of this version
    ├── UnserializableError          a value that its serializer would not bring back as it is
    └── UncacheableArgumentError     an argument of which no cache key can be made

Errors are built from data, keep it as attributes, and say in one sentence what to change.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class AerosError(Exception):
    """The root of every error that aeros raises on purpose."""


class ConfigurationError(AerosError, ValueError):
    """A setting is wrong. The message is one line: the setting, the problem, the cure.

    Attributes:
        setting: The name to look for in the caller's code, e.g. ``"port"`` or ``"AEROS_PORT"``.
        problem: What is wrong with it.
        cure: What to do about it.
    """

    def __init__(self, setting: str, problem: str, cure: str) -> None:
        self.setting = setting
        self.problem = problem
        self.cure = cure
        super().__init__(setting, problem, cure)

    def __reduce__(self) -> tuple[object, ...]:
        # Each class is built from data of its own, so it comes back from another process by it.
        return _rebuilt, (type(self), self.args, vars(self))

    def __str__(self) -> str:
        return one_line(f"{self.setting}: {self.problem}; {self.cure}")


class InvalidSettingError(ConfigurationError):
    """A value that the setting does not take.

    Attributes:
        value: The value as it was given.
        expected: What the setting takes, e.g. ``"a whole number from 0 to 65535"``.
    """

    def __init__(self, setting: str, value: object, expected: str) -> None:
        self.value = value
        self.expected = expected
        super().__init__(setting, f"{value!r} does not fit", f"give {expected}")


class UnknownOptionError(ConfigurationError, TypeError):
    """An option that nothing takes; names the nearest one that exists.

    Attributes:
        known: The names that would have been taken.
        nearest: The most similar of them, or None.
    """

    def __init__(self, setting: str, known: Iterable[str], *, where: str) -> None:
        self.known: tuple[str, ...] = tuple(sorted(known))
        self.where = where
        self.nearest: str | None = nearest_name(setting, self.known)
        cure = f"did you mean {self.nearest!r}?" if self.nearest else f"it takes {', '.join(self.known)}"
        super().__init__(setting, f"{where} has no such option", cure)


class InvalidVariableError(InvalidSettingError, SystemExit):
    """An ``AEROS_*`` variable has a value that its setting does not take.

    Whoever starts a program sets its variables, not who wrote it: uncaught, this is one line on
    standard error and exit status 1 instead of a traceback through the program.
    """

    def __init__(self, setting: str, value: object, expected: str) -> None:
        super().__init__(setting, value, expected)
        self.code: str | int | None = one_line(f"aeros: {self}")


class UnknownVariableError(UnknownOptionError, SystemExit):
    """An ``AEROS_*`` variable looks like a misspelt one; uncaught, one line and exit status 1."""

    def __init__(self, setting: str, known: Iterable[str]) -> None:
        super().__init__(setting, known, where="the environment")
        self.code: str | int | None = one_line(f"aeros: {self}")


class InvalidHeaderError(ConfigurationError):
    """A header field whose name or value must not go on the wire (RFC 9110 §5.1, §5.5)."""

    def __init__(self, setting: str, name: object, problem: str) -> None:
        self.name = name
        super().__init__(
            setting,
            f"the field {name!r} {problem}",
            "give a token as the name and text without CR, LF and NUL as the value",
        )


class ProviderError(ConfigurationError, TypeError):
    """A provider of the container is missing, misspelt, or gives something else than it must.

    Attributes:
        provider: The provider's name in the container.
    """

    def __init__(self, provider: str, problem: str, cure: str) -> None:
        self.provider = provider
        super().__init__(f"container.{provider}", problem, cure)


class MissingExtraError(ConfigurationError, ImportError):
    """An optional package is needed and not installed.

    Attributes:
        package: The package that could not be imported.
        extra: The extra of aeros that brings it.
    """

    def __init__(self, setting: str, *, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(
            setting, f"needs the package {package}", f"install it with: pip install 'aeros[{extra}]'"
        )


class LogFileError(ConfigurationError):
    """A log file can not be opened for appending.

    Attributes:
        path: The file.
        reason: What the operating system said.
    """

    def __init__(self, setting: str, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(
            setting,
            f"{path!r} can not be written ({reason})",
            "give a file in a folder that exists and that this user may write to",
        )


class BindError(ConfigurationError):
    """The address can not be listened on.

    Attributes:
        host: The host as given; for a Unix socket its path, for a descriptor ``"fd 3"``.
        port: The port as given; 0 for those.
        reason: What the operating system said.
    """

    def __init__(self, host: str, port: int, reason: str, cure: str, *, setting: str = "host") -> None:
        self.host = host
        self.port = port
        self.reason = reason
        where = host if setting in ("fd", "uds") else f"{host}:{port}"
        super().__init__(setting, f"can not listen on {where} ({reason})", cure)


class AddressInUseError(BindError):
    """Another process listens on this address already."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            host,
            port,
            "address already in use",
            "stop the other process or choose another port (0 takes any free one)",
            setting="port",
        )


class PrivilegedPortError(BindError):
    """The port needs rights that this user does not have."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            host,
            port,
            "permission denied",
            "ports below 1024 need privileges: choose a port from 1024 on, e.g. 8000, or grant"
            " CAP_NET_BIND_SERVICE",
            setting="port",
        )


class InstancePathError(ConfigurationError):
    """No module holds the application under a name, so a worker process could not import it."""

    def __init__(self, setting: str, import_name: str) -> None:
        self.import_name = import_name
        super().__init__(
            setting,
            f"the application {import_name!r} is not a variable of any module,"
            " so another process can not import it",
            "assign it at the top level of a module: app = WebServer(__name__), or name the function at the"
            " top level of a module that makes it: run_server(factory=create_app)",
        )


class ImportPathError(ConfigurationError, ImportError):
    """A worker process can not import the application.

    Attributes:
        import_path: The module, or ``"module:variable"``.
        reason: Why not.
    """

    def __init__(self, path: str, reason: str) -> None:
        self.import_path = path
        self.reason = reason
        super().__init__(
            "workers",
            f"{path!r} can not be imported ({reason})",
            "a worker process imports the module anew: what it serves must be there then, too",
        )


class NestedServerError(ConfigurationError):
    """The server was started again while a worker process imported the application."""

    def __init__(self) -> None:
        super().__init__(
            "workers",
            "the server is started while a worker process imports the module",
            "put the call where imports do not come: if __name__ == '__main__': app.run_server(...)",
        )


class UnpicklableOptionError(ConfigurationError):
    """An option can not be sent to a worker process.

    Attributes:
        reason: What pickle said.
    """

    def __init__(self, setting: str, reason: str) -> None:
        self.reason = reason
        super().__init__(
            setting,
            f"it can not go to a worker process ({reason})",
            "give a function or a class that stands at the top level of a module",
        )


class StartupError(AerosError, SystemExit):
    """The server did not start.

    It is a ``SystemExit`` too: a script that does not catch it ends with this one line on
    standard error and exit status 1 instead of a traceback. ``__cause__`` is the error itself.
    """

    def __init__(self, reason: str) -> None:
        line = one_line(f"aeros: {reason}")
        super().__init__(line)
        self.code: str | int | None = line

    def __str__(self) -> str:
        return str(self.code)


class InjectionError(AerosError):
    """Something can not be injected."""


class UnknownProviderError(InjectionError, ConfigurationError):
    """A parameter names a provider that the application's container does not have.

    Attributes:
        setting: The function and its parameter.
        provider: The provider, as text.
    """

    def __init__(self, where: str, provider: str) -> None:
        self.provider = provider
        super().__init__(
            where,
            f"the application's container does not have {provider}",
            "name a provider of its class, e.g. inject(AppContainer.users), and give the application"
            " that container: WebServer(..., container=AppContainer())",
        )


class NotInjectedError(InjectionError, AttributeError, TypeError):
    """A value was used that nobody has injected: its function was called by hand.

    Attributes:
        provider: The provider, as text.
        use: What was to be done with the value.
    """

    def __init__(self, provider: str, use: str) -> None:
        self.provider = provider
        self.use = use
        super().__init__(provider, use)

    def __str__(self) -> str:
        return one_line(
            f"{self.use} of inject({self.provider}): the application injects a value when it calls the"
            " function; where you call it yourself, pass the argument"
        )


class ResourceError(InjectionError, RuntimeError):
    """A resource of the container did not open, so the application does not start.

    ``__cause__`` is the error itself.

    Attributes:
        provider: The provider's name in the container.
        problem: What it raised.
    """

    def __init__(self, provider: str, problem: str) -> None:
        self.provider = provider
        self.problem = problem
        super().__init__(provider, problem)

    def __str__(self) -> str:
        return one_line(f"the resource {self.provider!r} did not open: {self.problem}")


class RequestScopeError(InjectionError, RuntimeError):
    """A value that lives as long as one request was asked for where there is none.

    Attributes:
        provider: Its factory's name.
        problem: What is wrong.
    """

    def __init__(self, provider: str, problem: str) -> None:
        self.provider = provider
        self.problem = problem
        super().__init__(provider, problem)

    def __str__(self) -> str:
        return one_line(
            f"RequestScoped({self.provider}) is {self.problem}; inject it in a view or a hook, or open a"
            " scope for a job or a test: async with app.request_scope()"
        )


class EntryFormatError(AerosError):
    """Stored bytes are damaged, foreign, or of another version; the cache treats them as a miss."""


class UnserializableError(AerosError, TypeError):
    """A value that a serializer can not write, or would not bring back as it is.

    Attributes:
        path: Where in the value, e.g. ``value["prices"][2]``.
        problem: What is wrong there, e.g. ``"is of the type tuple"``.
    """

    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(path, problem)

    def __str__(self) -> str:
        return one_line(
            f"{self.path} {self.problem}; return another value or give memoize(serializer=...) that takes it"
        )


class UncacheableArgumentError(AerosError, TypeError):
    """An argument of which no cache key can be made: nothing tells when two of its kind are the same.

    Attributes:
        function: The function that was called, e.g. ``"shop.price"``.
        parameter: The parameter that has the argument.
        kind: The type that is not supported, of the argument or of something in it.
        problem: Why it is not.
    """

    def __init__(
        self, function: str, parameter: str, kind: str, problem: str = "makes no lasting cache key"
    ) -> None:
        self.function = function
        self.parameter = parameter
        self.kind = kind
        self.problem = problem
        super().__init__(function, parameter, kind, problem)

    def __str__(self) -> str:
        cure = f"give memoize(key=...), or leave it out with memoize(ignored=({self.parameter!r},))"
        if self.parameter in ("self", "cls"):
            cure = "memoize a function in place of the method, or give memoize(key=...)"
        return one_line(f"{self.function}({self.parameter}=): the type {self.kind} {self.problem}; {cure}")


def _rebuilt(
    kind: type[ConfigurationError], args: tuple[object, ...], attributes: dict[str, object]
) -> ConfigurationError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name most like ``name``, or None where none is alike."""
    matches = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def misspelt_name(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name that one slip of the finger makes ``name`` of, or None.

    A slip is one character missing, too much or wrong, or two that changed places.
    """
    return next((other for other in known if other != name and _is_slip(name, other)), None)


def _is_slip(name: str, meant: str) -> bool:
    short, long = sorted((name, meant), key=len)
    if len(long) - len(short) == 1:
        return any(long[:index] + long[index + 1 :] == short for index in range(len(long)))
    if len(long) != len(short):
        return False
    wrong = [index for index, letters in enumerate(zip(name, meant, strict=True)) if len(set(letters)) == 2]
    if len(wrong) == 2:
        first, second = wrong
        swapped = name[first] == meant[second] and name[second] == meant[first]
        return second - first == 1 and swapped
    return len(wrong) == 1


def one_line(text: str) -> str:
    """Escapes what would break ``text`` into several lines or hide part of it on a terminal."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )
