"""A short configuration to start with, about ten lines, each with a comment: `edgestill init`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from edgestill.flows.config.loading import preset_names, preset_text
from edgestill.flows.config.looking import data_for
from edgestill.pipeline.data.datasets import DATASETS
from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.errors import ConfigError, command
from edgestill.pipeline.runs.yaml_text import read_yaml, write_yaml
from edgestill.pipeline.teachers import TEACHERS, AnyTeacherConfig
from edgestill.search.budget import Budget

_NOTES = {
    "name": "part of the name of the run's folder",
    "data": "its splits are carved from it where it has no parts of its own",
    "teacher": "without weights it is trained here first",
    "search": "the space of students, and the budget that the shipped file keeps",
    "tune": "short trials that choose the learning rate and the methods' weights",
    "distill": "the methods are named in `edgestill list methods`",
    "export": "the formats are named in `edgestill list formats`; each ships only if it gains and keeps the accuracy",
}
_ORDER = ("name", "seed", "device", "data", "teacher", "search", "tune", "distill", "export")
_LONGEST = 100  # characters of a line with its comment


_IMAGES: dict[str, Any] = {  # of any size; the rest of the defaults suits them
    "data": {"augment": {"pad": 4, "flip": True}},
    "search": {"evaluations": 100},
    "tune": {"trials": 6, "epochs": 6},
    "distill": {"training": {"epochs": 60}},
    "export": {"formats": ["fp32", "fp16", "int8"]},
}


class Wishes(NamedTuple):
    """Answers of a person; None was left open."""

    data: str | None = None
    teacher: str | None = None
    weights: str | None = None
    budget: Mapping[str, Any] = {}  # by the budget's keys
    preset: str | None = None


def short_config(wishes: Wishes, file: Path, otherwise: str) -> str:
    """Return a configuration of the wishes as YAML with comments; what is left open stays at its default.

    Args:
        file: it will be written to, for the comments.
        otherwise: preset to take the values from, where neither data nor a preset is given.

    Raises:
        ConfigError: the data or a teacher is not known here.
        DataError: the data is a table without columns.
    """
    data = None if wishes.data is None else data_for(wishes.data)
    preset = wishes.preset or (otherwise if data is None else _preset_for(data))
    raw: dict[str, Any] = {**_IMAGES} if preset is None else _preset(preset)
    if data is not None and preset != data["name"]:
        raw = {**raw, "name": _name(str(data.get("path", data["name"]))), "data": {**data, **_shared(raw, data)}}
    if wishes.teacher is not None or wishes.weights is not None:
        raw["teacher"] = _teacher(wishes, raw.get("teacher"))
    if wishes.budget or (data is not None and preset != data["name"]):
        raw["search"] = {**raw.get("search", {}), "budget": dict(wishes.budget)}
    return "\n".join(_lines(raw, file)) + "\n"


def _preset_for(data: Mapping[str, Any]) -> str | None:
    """First preset for this data set, or for language where the data are; None where there is none."""
    own = (name for name in preset_names() if _preset(name)["data"]["name"] == data["name"])
    is_language = DATASETS[data["name"]][0].kind == "lm"
    return next(own, "strings" if is_language else None)


def _preset(name: str) -> dict[str, Any]:
    found: dict[str, Any] = read_yaml(preset_text(name), name)
    return found


def _shared(raw: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of the preset's data that hold for other data of its kind."""
    kept = {"max_length", "tokenizer"} if _is_text(data) else {"augment"}
    fields = DATASETS[data["name"]][0].model_fields
    found = {key: value for key, value in raw.get("data", {}).items() if key in kept and key in fields}
    if "augment" in found:
        found["augment"] = {key: value for key, value in found["augment"].items() if key in AugmentConfig.model_fields}
    return found


def _is_text(data: Mapping[str, Any]) -> bool:
    return str(DATASETS[data["name"]][0].kind) == "text"


def _teacher(wishes: Wishes, before: Any) -> Any:
    """The teacher as the configuration takes it: a word such as `timm:resnet50`, or keys where there are weights."""
    if wishes.teacher is None:
        given: Any = before if isinstance(before, dict) else {}
    elif ":" in wishes.teacher:
        given = wishes.teacher
    elif Path(wishes.teacher).expanduser().is_dir():
        given = {"folder": wishes.teacher}
    elif any(wishes.teacher in family.architectures for family in TEACHERS.values()):
        training = before.get("training") if isinstance(before, dict) else None
        given = {"architecture": wishes.teacher} | ({"training": training} if training and not wishes.weights else {})
    else:
        given = wishes.teacher
    if wishes.weights is None:
        return given
    keys = given if isinstance(given, dict) else _spelt_out(given)
    return {key: value for key, value in keys.items() if key != "training"} | {"weights": wishes.weights}


def _spelt_out(word: str) -> dict[str, Any]:
    """Keys that a teacher's word stands for."""
    try:
        found = TypeAdapter(AnyTeacherConfig).validate_python(word)
    except ValidationError:
        known = ", ".join(TEACHERS)
        raise ConfigError([f"--teacher: {word!r} is no teacher known here; known kinds: {known}"]) from None
    keys: dict[str, Any] = found.model_dump(mode="json", exclude_unset=True)
    return keys | ({"name": found.name} if "name" in type(found).model_fields else {})


def _name(path: str) -> str:
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "-" for c in Path(path).stem).strip("-_")
    return stem[:40] or "run"


def _lines(raw: Mapping[str, Any], file: Path) -> Iterator[str]:
    yield f"# {command('plan', file)} estimates it, `edgestill run --smoke` tries it, {command('run', file)} runs it."
    yield "# What is not here is at its default: `edgestill init --full` writes every key."
    for key, value in sorted(raw.items(), key=_place):
        shown = {k: v for k, v in value.items() if k != "budget"} if key == "search" else value
        note = _note(key, value)
        line = f"{key}: {_flow(shown)}"
        has_budget = key == "search" and "budget" in value
        if len(line) <= _LONGEST and not has_budget:
            yield f"{line}  # {note}" if note and len(line) + len(note) <= _LONGEST else line
            continue
        yield f"{key}:  # {note}" if note else f"{key}:"
        for below, inner in shown.items():
            yield f"  {below}: {_flow(inner)}"
        if has_budget:
            yield _budget(value["budget"])


def _note(key: str, value: Any) -> str | None:
    """Comment on a key, where it holds for this value."""
    if "flip" in str(value):
        return "set flip: false where left and right matter"
    is_given = key == "teacher" and (
        isinstance(value, str) or not value.keys().isdisjoint(("weights", "name", "folder"))
    )
    return None if is_given else _NOTES.get(key)


def _place(item: tuple[str, Any]) -> int:
    """Place of a key in the file; one that no preset here has comes last."""
    return _ORDER.index(item[0]) if item[0] in _ORDER else len(_ORDER)


def _flow(value: Any) -> str:
    """Write a value in one line, its keys in their order."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_flow(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_flow, value))}]"
    return write_yaml([value], in_one_line=True)[1:-1]  # quoted as within a list, where a comma parts values


def _budget(budget: Mapping[str, Any]) -> str:
    if budget:
        notes = "; ".join(str(Budget.model_fields[key].description) for key in budget if len(budget) == 1)
        return f"  budget: {_flow(budget)}" + (f"  # {notes}" if notes else "")
    return "  # budget: {max_latency_ms: 5}  # without one, the best-scored student of any size is taken"
