"""Defaults for data whose kind of input is not RunConfig's own, images: the parts of a preset that were not given."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from edgestill.flows.config.model import RunConfig
from edgestill.pipeline.data.datasets import DATASETS
from edgestill.pipeline.data.datasets.base import DatasetConfig

_PRESETS = {"text": "sst2", "lm": "strings"}  # by kind of input
_PARTS = ("teacher", "search", "tune", "distill", "export")  # of the preset, where it has them; budgets are the user's
_DECIDE = {"architecture", "folder", "name"}  # keys that choose a teacher


class Lent(NamedTuple):
    """Parts of a preset that a configuration lacks."""

    preset: str
    kind: str
    given: frozenset[str]  # `teacher` or `space`, if the configuration chooses its own

    def parts(self, preset: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parts to put beneath the configuration."""
        parts = {name: preset[name] for name in _PARTS if name in preset and name not in self.given}
        parts["search"] = {
            name: value for name, value in preset["search"].items() if name not in {"budget", *self.given}
        }
        return parts

    @property
    def note(self) -> str:
        lacking = [
            words for name, words in (("teacher", "teacher"), ("space", "search.space")) if name not in self.given
        ]
        return (
            f"the data are {self.kind}: {' and '.join(lacking)}, not given, are those of the preset {self.preset}, as "
            "are settings of their training that are not given"
        )


def lent_to(raw: Mapping[str, Any]) -> Lent | None:
    """Find the parts lent to a configuration; None if it has its own, or its data are of RunConfig's own kind.

    A configuration that chooses teacher and space itself keeps the general defaults for the rest.
    """
    kind = _kind(raw.get("data"))
    given = frozenset(_given(raw))
    if kind not in _PRESETS or given == {"teacher", "space"}:
        return None
    return Lent(_PRESETS[kind], kind, given)


def _kind(data: Any) -> str:
    name = data.get("name") if isinstance(data, Mapping) else data
    if not isinstance(name, str) or name not in DATASETS:
        return RunConfig.model_fields["data"].default.kind  # type: ignore[no-any-return]
    config: type[DatasetConfig] = DATASETS[name][0]
    try:
        return config.model_validate(data if isinstance(data, Mapping) else {"name": name}).kind
    except ValidationError:  # told later, with the rest of the configuration
        return config.kind


def _given(raw: Mapping[str, Any]) -> list[str]:
    search = raw.get("search")
    space = search.get("space") if isinstance(search, Mapping) else None
    teacher = raw.get("teacher")
    own_teacher = bool(_DECIDE & teacher.keys()) if isinstance(teacher, Mapping) else teacher is not None
    own_space = "name" in space if isinstance(space, Mapping) else space is not None
    return ["teacher"] * own_teacher + ["space"] * own_space
