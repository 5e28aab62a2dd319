"""Data sets that a user's own function gives: a torch Dataset, or a pair or a mapping of them. The code is run."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from edgestill.pipeline.data.datasets.base import RawData
from edgestill.pipeline.data.datasets.photos import Part, PhotoConfig, load_photos
from edgestill.pipeline.data.given import given_parts, labels_of
from edgestill.pipeline.data.rows import files_content
from edgestill.pipeline.errors import DataError, first_line
from edgestill.pipeline.frozen import digest
from edgestill.pipeline.user_code import load_code, place_of_code


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
        return place_of_code(code, info)


def load_python(config: PythonDataConfig) -> RawData:
    """Call the function, and write the pictures of what it gives as rows.

    Its pictures are taken for those of before if its file, the lengths and a sample of them are the same.

    Raises:
        DataError: the code fails, gives something else, or gives other pictures each time.
    """
    function = load_code(config.code, "data.code", DataError)
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
