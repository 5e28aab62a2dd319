"""Frozen, strict values that travel between stages as JSON, and the digests that name them."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo


class Frozen(BaseModel):
    """Immutable and strict about its keys, so that a misspelt key is an error and not a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    names_code: ClassVar[tuple[str, ...]] = ()  # fields that name code to run, or allow it
    names_services: ClassVar[tuple[str, ...]] = ()  # fields that name a server or a store to write to
    names_places: ClassVar[tuple[str, ...]] = ()  # fields of text that may be a path
    no_places: ClassVar[tuple[str, ...]] = ()  # values of those that are none


Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


def by_name(value: Any) -> Any:
    """Let a name stand for a configuration with nothing but a name: `kd` for `{name: kd}`."""
    return {"name": value} if isinstance(value, str) else value


def require_utf8(path: Path) -> None:
    """Refuse a path that is not UTF-8: JSON files cannot hold it, and the runtimes do not take it.

    Raises:
        ValueError: the path is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ValueError(f"{str(path)!a} is not UTF-8, which results are written in; rename it") from None


def _at_home(path: Path) -> Path:
    require_utf8(path)
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"{path.parts[0]} is nobody's home here; write ./{path} for a folder of that name") from None


GivenPath = Annotated[Path, AfterValidator(_at_home)]
"""A path as a person gives it: `~/data.npz` is in the home folder."""


def existing_file(path: Path, info: ValidationInfo) -> Path:
    """Check that a given file exists and make its path absolute, so that a run can be resumed from any folder.

    This is done only with `check_files` in the validation's context: a stored configuration may be from elsewhere.
    """
    if not (info.context or {}).get("check_files"):
        return path
    if not path.is_file():
        raise ValueError(f"no file at {path}")
    return path.absolute()


def existing_path(path: Path, info: ValidationInfo) -> Path:
    """Check a given file or folder as `existing_file` checks a file."""
    if not (info.context or {}).get("check_files"):
        return path
    if not path.exists():
        raise ValueError(f"no folder or file at {path}")
    return path.absolute()


def first_problem(error: ValidationError) -> str:
    """First problem that a model's validation found, in a line: `stages.data.seconds: Field required`."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))[:120]
    return f"{where}: {first['msg']}" if where else first["msg"]


def without_none(written: dict[str, Any], *names: str) -> dict[str, Any]:
    """Leave out the fields that are None, so that files and digests from before those fields stay the same."""
    return {name: value for name, value in written.items() if value is not None or name not in names}


def canonical_json(value: Any) -> str:
    """Return JSON, with one spelling for equal values: sorted keys, no spaces, models by their fields."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)


def digest(*values: Any) -> str:
    """SHA-256 of the values' canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(values).encode()).hexdigest()


def derive_seed(*parts: Any) -> int:
    """A seed in [0, 2^63) that depends on all parts and on nothing else.

    Seeds derived from content (run seed, architecture, epoch) rather than drawn in sequence make
    results independent of order, of the number of workers, and of where a run was interrupted.
    """
    return int(digest(*parts)[:16], 16) >> 1


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if hasattr(value, "__fspath__"):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no canonical JSON form")
