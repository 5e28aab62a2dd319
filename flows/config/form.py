"""The run form: the few settings that a person fills in, drawn from the typed configuration, in that order.

A field's description, bounds and choices are those of the configuration's key. All other keys are given as `--set`
takes them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field, create_model

from edgestill.distill.methods import METHODS
from edgestill.export.formats import FORMATS
from edgestill.flows.config.loading import changed
from edgestill.flows.config.model import RunConfig
from edgestill.pipeline.data.datasets import DATASETS
from edgestill.pipeline.errors import ConfigError, nearest
from edgestill.pipeline.teachers import TEACHERS, TeacherConfig

MORE = "more"


class Entry(NamedTuple):
    """A field of the form: the key that it sets, and how its type and its value are found where they are not the key's.

    A type of None is the key's own.
    """

    key: str
    title: str
    kind: Any = None
    value: Callable[[RunConfig], Any] | None = None


def _teacher(config: RunConfig) -> str:
    teacher = config.teacher
    if isinstance(teacher, TeacherConfig):
        return str(teacher.architecture)
    short = TEACHERS[teacher.name].short
    return f"{teacher.name}:{getattr(teacher, short)}" if short else str(teacher.name)


def _path(config: RunConfig) -> str | None:
    path = getattr(config.data, "path", None)
    return None if path is None else str(path)


ENTRIES: dict[str, Entry] = {
    "name": Entry("name", "Name"),
    "data": Entry("data.name", "Data", Literal[tuple(DATASETS)], lambda config: config.data.name),
    "data_path": Entry("data.path", "File or folder of the data", str | None, _path),
    "teacher": Entry("teacher", "Teacher", str, _teacher),
    "max_params": Entry("search.budget.max_params", "Budget: parameters"),
    "max_size_bytes": Entry("search.budget.max_size_bytes", "Budget: bytes of a file"),
    "max_latency_ms": Entry("search.budget.max_latency_ms", "Budget: latency, ms"),
    "evaluations": Entry("search.evaluations", "Candidates"),
    "trials": Entry("tune.trials", "Trials of tuning"),
    "methods": Entry(
        "distill.methods",
        "Distillation methods",
        list[Literal[tuple(METHODS)]],  # type: ignore[misc]
        lambda config: [method.name for method in config.distill.methods],
    ),
    "epochs": Entry("distill.training.epochs", "Epochs of distillation"),
    "formats": Entry("export.formats", "Formats", list[Literal[tuple(FORMATS)]]),  # type: ignore[misc]
    "seed": Entry("seed", "Seed"),
}
_OWN_WORDS = {
    "data": "data set to learn from and to be judged by",
    "data_path": "for data that is yours; empty for a built-in data set",
    "teacher": "network to learn from: a built-in one such as resnet56, or FAMILY:NAME such as timm:resnet50",
    "epochs": "largest number of epochs that the student is trained for",
}
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}  # pydantic's: JSON's
_MORE_WORDS = "any other settings, as --set takes them, such as search.budget.max_flops=2000000"


def values_of(config: RunConfig) -> dict[str, Any]:
    """Values that the form shows for a configuration."""
    found = {name: entry.value(config) if entry.value else _at(config, entry.key) for name, entry in ENTRIES.items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()} | {MORE: []}


def form_schema(names: Sequence[str] = tuple(ENTRIES)) -> dict[str, Any]:
    """JSON schema of the form: each field's title, description, bounds and choices."""
    fields: dict[str, Any] = {}
    for name in names:
        entry = ENTRIES[name]
        info = _field(entry.key)
        words = _OWN_WORDS.get(name) or info.description
        kind, metadata = (info.annotation, info.metadata) if entry.kind is None else (entry.kind, [])
        fields[name] = (kind, Field(title=entry.title, description=words))
        for constraint in metadata:
            fields[name][1].metadata.append(constraint)
    fields[MORE] = (list[str], Field(title="More settings", description=_MORE_WORDS))
    model: Any = create_model("Settings", **fields)
    schema: dict[str, Any] = model.model_json_schema()
    for position, part in enumerate(schema["properties"].values()):
        part["position"] = position
        for choice in part.get("anyOf", ()):
            for word in _BOUNDS.keys() & choice.keys():
                choice[_BOUNDS[word]] = choice.pop(word)
    return schema | {"required": [name for name in (*names, MORE) if not _may_be_empty(schema["properties"][name])]}


def apply(base: RunConfig, given: Mapping[str, Any], *, check_files: bool = True) -> RunConfig:
    """Return the configuration with what a filled form changes of it.

    Raises:
        ConfigError: with every problem found, in the words of the command line.
    """
    known = values_of(base)
    unknown = [f"{name}: unknown field; {nearest(name, known)}" for name in given if name not in known]
    if unknown:
        raise ConfigError(unknown)
    changes = {ENTRIES[name].key: value for name, value in given.items() if name != MORE and value != known[name]}
    return changed(base, changes, _texts(given.get(MORE)), check_files=check_files)


def _texts(given: Any) -> list[str]:
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        if given is None:
            return []
        raise ConfigError([f"{MORE}: expected a list of KEY=VALUE texts (found {given!r:.80})"])
    return given


def _may_be_empty(part: Mapping[str, Any]) -> bool:
    return any(choice.get("type") == "null" for choice in part.get("anyOf", ()))


def _at(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = getattr(config, part)
    return config


def _field(key: str) -> Any:
    *before, last = key.split(".")
    kind: Any = RunConfig
    for part in before:
        kind = kind.model_fields[part].annotation if hasattr(kind, "model_fields") else kind
    found = getattr(kind, "model_fields", {}).get(last)
    return found if found is not None else Field(description=None)
