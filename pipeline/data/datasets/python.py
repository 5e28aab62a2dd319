"""Data sets that a user's own function gives: a torch Dataset, or a pair or a mapping of them. The code is run."""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from edgestill.pipeline.data.datasets.base import RawData
from edgestill.pipeline.data.datasets.photos import Part, PhotoConfig, load_photos
from edgestill.pipeline.data.given import given_parts, labels_of
from edgestill.pipeline.data.rows import files_content
from edgestill.pipeline.errors import DataError, first_line
from edgestill.pipeline.frozen import digest


class PythonDataConfig(PhotoConfig):
    """A torch Dataset of (picture, label), from a function of yours."""

    names_code: ClassVar[tuple[str, ...]] = ("code",)

    name: Literal["python"] = "python"
    code: str = Field(
        description="place of a function that gives a Dataset, a pair (train, test), or a mapping with train, "
        "validation and test: module:name or file.py:name"
    )

    @classmethod
    def settings_for(cls, given: str) -> dict[str, Any] | None:
        place, _, function = given.rpartition(":")
        is_module = all(part.isidentifier() for part in place.split("."))
        return {"code": given} if function.isidentifier() and (is_module or place.endswith(".py")) else None

    @field_validator("code")
    @classmethod
    def _names_a_function(cls, code: str, info: ValidationInfo) -> str:
        place, colon, function = code.rpartition(":")
        if not (colon and place and function.isidentifier()):
            raise ValueError(f"{code!r} is no place of a function; write module:function or path/to/file.py:function")
        if not place.endswith(".py") or not (info.context or {}).get("check_files"):
            return code
        path = Path(place).expanduser()
        if not path.is_file():
            raise ValueError(f"no file at {path}")
        return f"{path.absolute()}:{function}"


def load_python(config: PythonDataConfig) -> RawData:
    """Call the function, and write the pictures of what it gives as rows.

    Its pictures are taken for those of before if its file, the lengths and a sample of them are the same.

    Raises:
        DataError: the code fails, gives something else, or gives other pictures each time.
    """
    function = _loaded(config.code)
    try:
        value = function() if callable(function) else function
    except Exception as error:  # it is the user's code
        raise DataError(f"data.code: {config.code} fails: {type(error).__name__}: {first_line(error)}") from error
    given = given_parts(value)
    names = given["train"].labels
    parts = {
        part: Part([f"{part}:{at}" for at in range(len(each))], labels_of(each, names), each.pixels)
        for part, each in given.items()
    }
    for each in given.values():
        each.require_steady()
    place = Path(config.code.rpartition(":")[0])
    file = files_content(Path("/"), [place], [config.code])
    content = digest(file, [each.sample() for each in given.values()])
    return load_photos(config, config.code, parts, content, names)


def _loaded(code: str) -> Any:
    place, _, function = code.rpartition(":")
    try:
        module = _file(Path(place).expanduser()) if place.endswith(".py") else importlib.import_module(place)
        return getattr(module, function)
    except (Exception, SystemExit) as error:  # it is the user's code
        raise DataError(f"data.code: {code} cannot be loaded: {type(error).__name__}: {first_line(error)}") from error


def _file(path: Path) -> Any:
    """Run a file as a module; its folder is looked into last, for what it imports from beside it."""
    name = f"edgestill_data_{path.stem}"
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
