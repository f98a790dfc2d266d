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
            if value is app:
                return f"{_importable_name(name)}:{variable}"
    raise InstancePathError("workers", import_name)


def _importable_name(module: str) -> str:
    if module != "__main__":
        return module
    main = sys.modules["__main__"]
    if main.__spec__ is not None:  # python -m package.module
        return main.__spec__.name
    return Path(str(main.__file__)).stem
