"""Functions of a user's own, by the place that a configuration names by hand: `module:name` or `file.py:name`."""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationInfo

from edgestill.pipeline.errors import UserError, first_line, nearest


def place_of_code(code: str, info: ValidationInfo) -> str:
    """Check that text names a function, and make a file's path absolute; the file must exist where files are checked.

    Raises:
        ValueError: it names none, or there is no such file.
    """
    place, colon, function = code.rpartition(":")
    if not (colon and place and function.isidentifier()):
        raise ValueError(f"{code!r} is no place of a function; write module:function or path/to/file.py:function")
    if not (info.context or {}).get("check_files"):
        return code
    if not place.endswith(".py"):
        if importlib.util.find_spec(place.partition(".")[0]) is None:
            raise ValueError(f"{code!r}: there is no module {place!r}, nor a kind of this name")
        return code
    path = Path(place).expanduser()
    if not path.is_file():
        raise ValueError(f"no file at {path}")
    return f"{path.absolute()}:{function}"


def load_code(code: str, key: str, error: type[UserError]) -> Any:
    """Run the module or the file, and return what it has by that name.

    Args:
        key: of the configuration, for the error's sentence.

    Raises:
        error: it cannot be imported, or lacks the name.
    """
    place, _, name = code.rpartition(":")
    try:
        module = _run(Path(place).expanduser()) if place.endswith(".py") else importlib.import_module(place)
    except (Exception, SystemExit) as cause:  # it is the user's code
        raise error(f"{key}: {code} cannot be loaded: {type(cause).__name__}: {first_line(cause)}") from cause
    if not hasattr(module, name):
        own = [known for known, value in vars(module).items() if callable(value) and not known.startswith("_")]
        raise error(f"{key}: {place} has no {name!r}; {nearest(name, own)}")
    return getattr(module, name)


def _run(path: Path) -> Any:
    """Run a file as a module; its folder is looked into last, for what it imports from beside it."""
    name = f"edgestill_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"no Python file at {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.parent)
    sys.path.append(folder)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
    return module
