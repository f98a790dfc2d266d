"""Where an application lives: the import path by which a worker process finds it again."""

from __future__ import annotations

import sys
from pathlib import Path

from aeros.errors import InstancePathError


def instance_path(app: object, import_name: str) -> str:
    """Returns ``"module:variable"``, under which another process can import ``app``.

    Args:
        app: The application object.
        import_name: What it calls itself, for the error.

    Raises:
        InstancePathError: No module has it as a variable.
    """
    for name, module in list(sys.modules.items()):
        # Some put other objects than modules there.
        for variable, value in list(getattr(module, "__dict__", {}).items()):
            importable = _importable_name(name) if value is app else None
            if importable is not None:
                return f"{importable}:{variable}"
    raise InstancePathError("workers", import_name)


def _importable_name(module: str) -> str | None:
    if module not in ("__main__", "__mp_main__"):  # the latter is multiprocessing's name for the same
        return module
    main = sys.modules["__main__"]
    if main.__spec__ is not None:  # python -m package.module
        return main.__spec__.name
    file = getattr(main, "__file__", None)
    return None if file is None else Path(str(file)).stem  # python -c and the prompt have no file
