"""The flows as deployments: each by its name, with its run form."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from edgestill.distill.methods import METHODS
from edgestill.export.formats import FORMATS
from edgestill.flows.config.form import ENTRIES, form_schema, values_of
from edgestill.flows.config.model import RunConfig
from edgestill.flows.prefect.names import TAG

_RUN: dict[str, Any] = {
    "type": "string",
    "title": "Run",
    "description": "the run to go on with: its name below the folder of the runs, or latest",
    "default": "latest",
}
_RESUME: dict[str, Any] = {
    "anyOf": [{"type": "string"}, {"type": "null"}],
    "title": "Run to resume",
    "description": "an interrupted run to go on with, with its own settings; empty for a new one",
    "default": None,
}
_SEARCHED = (
    "name", "data", "data_path", "teacher", "max_params", "max_size_bytes", "max_latency_ms", "evaluations", "seed",
)  # fmt: skip
_RANKED = ("name", "data", "data_path", "teacher", "max_params", "seed")


def _number(title: str, words: str, least: int, default: int) -> dict[str, Any]:
    return {"type": "integer", "title": title, "description": words, "minimum": least, "default": default}


def _texts(title: str, words: str, choices: list[str] | None = None) -> dict[str, Any]:
    one = {"type": "string", "enum": choices} if choices else {"type": "string"}
    return {"anyOf": [{"type": "array", "items": one}, {"type": "null"}], "title": title, "description": words}


def _of_methods() -> dict[str, Any]:
    return {"methods": _texts("Distillation methods", "empty: those of the run", list(METHODS))}


def _of_formats() -> dict[str, Any]:
    return {"formats": _texts("Formats", "empty: those of the run", list(FORMATS))}


def _counts() -> dict[str, Any]:
    return {
        "students": _number("Students", "number of students to train, of all sizes", 4, 12),
        "epochs": _number("Epochs", "epochs of each student's training", 1, 8),
    }


class Schedule(NamedTuple):
    """Times at which runs start by themselves."""

    cron: str
    timezone: str


class Kind(NamedTuple):
    """A flow that can be deployed: fields of the form of a new run, or none for one that takes a run; others beside."""

    fields: tuple[str, ...]
    beside: Callable[[], dict[str, Any]] = dict


KINDS: dict[str, Kind] = {
    "compress": Kind(tuple(ENTRIES), lambda: {"resume": copy.deepcopy(_RESUME)}),
    "search": Kind(_SEARCHED),
    "distill": Kind((), _of_methods),
    "export": Kind((), _of_formats),
    "profile": Kind(()),
    "rank-check": Kind(_RANKED, _counts),
}


def schema_of(name: str, config: RunConfig) -> dict[str, Any]:
    """JSON schema of a flow's run form, filled with a configuration's values.

    Parameters that the serving machine sets alone are not in it.
    """
    kind = KINDS[name]
    if kind.fields:
        parts = {"settings": _filled(form_schema(kind.fields), values_of(config)), **kind.beside()}
    else:
        more = _texts("More settings", "any others, as --set takes them: KEY=VALUE each")
        parts = {"run": copy.deepcopy(_RUN), **kind.beside(), "more": more}
    for position, part in enumerate(parts.values()):
        part["position"] = position
    return {"type": "object", "title": "Parameters", "properties": parts, "required": [], "definitions": {}}


def _filled(form: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    for field, part in form["properties"].items():
        part["default"] = values[field]
    return form | {"title": "Settings", "default": {field: values[field] for field in form["properties"]}}


def parameters_of(name: str, config: RunConfig, out: str) -> dict[str, Any]:
    """Parameters fixed when a deployment is made; its form does not offer them."""
    return {"config": config.model_dump(mode="json"), "out": out} if KINDS[name].fields else {"out": out}


def make(
    flow: Any, deployment: str, config: RunConfig, out: str, schedule: Schedule | None, tags: Sequence[str]
) -> Any:
    """Make the deployment of one of the flows, not yet on a server.

    Args:
        deployment: its name.
        config: settings that its runs begin with.
    """
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType
    from prefect.utilities.callables import ParameterSchema

    made = flow.to_deployment(
        name=deployment,
        schedule=Cron(schedule.cron, timezone=schedule.timezone) if schedule else None,
        paused=False if schedule else None,
        parameters=parameters_of(flow.name, config, out),
        tags=[TAG, *tags],
        entrypoint_type=EntrypointType.MODULE_PATH,  # by its file, the folder of our modules would lead the path
    )
    made._parameter_openapi_schema = ParameterSchema.model_validate(schema_of(flow.name, config))
    return made
