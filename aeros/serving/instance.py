"""Where an application lives: the import path by which a worker process finds it again."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Final, cast

from aeros.errors import ImportPathError, InstancePathError, InvalidSettingError

_FACTORY_PATH: Final = re.compile(r"[\w.]+:\w+(\(\))?")
_MAIN: Final = ("__main__", "__mp_main__")  # the latter is multiprocessing's name for the same


def instance_path(app: object, import_name: str) -> str:
    """Returns ``"module:variable"``, under which another process can import ``app``.

    Args:
        app: The application object.
        import_name: What it calls itself, for the error.

    Raises:
        InstancePathError: No module has it as a variable.
    """
    found: list[tuple[str, str]] = []
    for name, module in list(sys.modules.items()):
        # Some put other objects than modules there.
        for variable, value in list(getattr(module, "__dict__", {}).items()):
            importable = _importable_name(name) if value is app else None
            if importable is not None:
                found.append((importable, variable))
    if not found:
        raise InstancePathError("workers", import_name)
    # Other modules may have it only because they were given it. A package's __main__ often runs it unasked.
    best = min(found, key=lambda one: (one[0] != import_name, one[0].endswith(".__main__")))
    return ":".join(best)


def factory_path(factory: Callable[[], object] | str) -> str:
    """Returns ``"module:function()"``, which another process can import and call.

    Args:
        factory: A function at the top level of a module, or its import path.

    Raises:
        InvalidSettingError: It is no such function.
    """
    if isinstance(factory, str):
        if _FACTORY_PATH.fullmatch(factory):
            return factory if factory.endswith("()") else f"{factory}()"
    else:
        name: str = getattr(factory, "__qualname__", "")
        module: str = getattr(factory, "__module__", None) or ""
        importable = _importable_name(module) if module in sys.modules else None
        if importable is not None and getattr(sys.modules[module], name, None) is factory:
            return f"{importable}:{name}()"
    raise InvalidSettingError(
        "factory", factory, "a function at the top level of a module, or its path, e.g. 'shop:create_app'"
    )


def main_module() -> tuple[str, str | None] | None:
    """Returns the name of the main module in other processes, and the file of a script.

    None: they can not import it, or need not, as a package's ``__main__``, which often runs the
    server without asking who imports it.
    """
    name = _importable_name("__main__")
    if name is None or name.endswith(".__main__"):
        return None
    main = sys.modules["__main__"]
    return name, None if main.__spec__ is not None else str(Path(str(main.__file__)).resolve())


def import_main(name: str, file: str | None) -> None:
    """Imports what is the main module of another process, once, under its own name.

    It is the main module here, too, for what was pickled there.

    Args:
        name: Its name.
        file: The file of a script; None: it is imported by its name.

    Raises:
        ImportPathError: Another module has the script's name.
    """
    if file is None:
        module = import_module(name)
    elif name in sys.modules:
        module = sys.modules[name]
        if getattr(module, "__file__", None) != file:
            raise ImportPathError(name, f"another module is called like the script {file}; rename the script")
    else:
        spec = spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise ImportPathError(name, f"{file} is no Python file")
        module = sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(module)
    sys.modules["__main__"] = module


def import_application(path: str) -> object:
    """Returns what stands at ``"module:variable"``, or what ``"module:function()"`` returns.

    Raises:
        ImportPathError: The module has no such name.
    """
    module, _, name = path.partition(":")
    found = cast(object, getattr(import_module(module), name.removesuffix("()"), None))
    if found is None:
        raise ImportPathError(path, "the module has no such name in a worker process")
    return cast("Callable[[], object]", found)() if name.endswith("()") else found


def _importable_name(module: str) -> str | None:
    if module not in _MAIN:
        return module
    main = sys.modules["__main__"]
    if main.__spec__ is not None:  # python -m package.module
        name = main.__spec__.name
        return None if name == "__main__" else name  # a folder or an archive that was run
    file = getattr(main, "__file__", None)
    return None if file is None else Path(str(file)).stem  # python -c and the prompt have no file
