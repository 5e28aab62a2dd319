"""Confine flow runs started by others to the folders named by `edgestill serve`.

Whoever reaches the API of a Prefect server chooses a flow run's parameters, and reads its error. The folders are in the
environment of the serving process: its flow runs inherit it, and the API cannot set it. If it names none, the run was
started on this machine and may read every file readable by its user.
"""

import contextlib
import json
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from edgestill.flows.terminal import say
from edgestill.pipeline.errors import EdgestillError, FailedError, UserError
from edgestill.pipeline.frozen import Frozen

_FOLDERS, _CODE = "EDGESTILL_SERVED_FOLDERS", "EDGESTILL_SERVED_CODE"


def confine(folders: Sequence[Path], code: Sequence[str] = ()) -> None:
    """Let this process's flow runs from now on read and write below these folders (or files) alone.

    Args:
        code: settings that name code or a service, as `code_in` and `services_in` give them; no other is used.
    """
    os.environ[_FOLDERS] = os.pathsep.join(str(folder.resolve()) for folder in folders)
    os.environ[_CODE] = json.dumps(list(code))


def require_inside(parameters: Mapping[str, Any]) -> None:
    """Refuse parameters with paths outside the folders, links followed, or with code that was not served.

    Raises:
        UserError: a path is outside the folders, and the error says nothing of its content; or a setting names code.
    """
    folders = _folders()
    if folders is None:
        return
    for setting in code_in(parameters):
        if setting not in json.loads(os.environ.get(_CODE, "[]")):
            raise UserError(
                f"{setting} would run code that this deployment was not served with; the machine that serves it allows "
                "it by serving a configuration that has it"
            )
    for setting in services_in(parameters):
        if setting not in json.loads(os.environ.get(_CODE, "[]")):
            raise UserError(
                f"{setting} would have figures sent to a service that this deployment was not served with; the machine "
                "that serves it allows it by serving a configuration that has it"
            )
    for name, path in paths_in(parameters):
        if not any(path.resolve().is_relative_to(folder) for folder in folders):
            raise UserError(
                f"{name} is {path}, which is outside the folders of this deployment; the machine that serves it allows "
                "others by `edgestill serve --allow FOLDER`"
            )


def paths_in(value: Any, name: str = "") -> Iterator[tuple[str, Path]]:
    """(dotted name, path) of every path in a model, a mapping or a sequence."""
    if isinstance(value, Path):
        yield name, value
        return
    for key, inner in _parts(value):
        within = f"{name}.{key}" if name else key
        if isinstance(inner, str) and isinstance(value, Frozen) and key in value.names_places:
            yield from () if inner in value.no_places else ((within, Path(inner).expanduser()),)
        yield from paths_in(inner, within)


def code_in(value: Any) -> Iterator[str]:
    """`key=value` of every setting that names code, in a model, a mapping or a sequence."""
    return _settings_in(value, lambda model: model.names_code)


def services_in(value: Any) -> Iterator[str]:
    """`key=value` of every setting that names a service to write to, in a model, a mapping or a sequence."""
    return _settings_in(value, lambda model: model.names_services)


def _settings_in(value: Any, names: Callable[[Frozen], Sequence[str]], name: str = "") -> Iterator[str]:
    for key, inner in _parts(value):
        within = f"{name}.{key}" if name else key
        if inner and isinstance(value, Frozen) and key in names(value):
            yield f"{within}={inner}"
        yield from _settings_in(inner, names, within)


def _parts(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, BaseModel | Mapping):
        return [(str(key), inner) for key, inner in dict(value).items()]
    return [(str(place), inner) for place, inner in enumerate(value)] if isinstance(value, tuple | list) else []


@contextlib.contextmanager
def reticent() -> Iterator[None]:
    """Keep file contents out of the errors of a confined flow run: errors quote files, and the server shows errors.

    The whole error goes to standard error, the terminal of `edgestill serve`.
    """
    try:
        yield
    except Exception as error:
        if _folders() is None:
            raise
        say(traceback.format_exc(), err=True)
        where = "the terminal of `edgestill serve` says what was wrong"
        kind = type(error).__name__
        if isinstance(error, EdgestillError) and not _quotes_files(error):
            raise
        if isinstance(error, UserError):
            raise UserError(f"a file that the parameters name does not fit ({kind}); {where}") from None
        raise FailedError(f"the run ended in an error ({kind}); {where}") from None


def _quotes_files(error: EdgestillError) -> bool:
    from edgestill.pipeline import errors

    return isinstance(error, errors.DataError | errors.CheckpointError | errors.RunDirError | errors.BundleError)


def _folders() -> list[Path] | None:
    said = os.environ.get(_FOLDERS)
    return None if said is None else [Path(folder) for folder in said.split(os.pathsep) if folder]
