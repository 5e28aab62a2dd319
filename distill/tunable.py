"""Declaration of a hyperparameter on one line: default, legal range, tuning range."""

from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo


class TuningRange(NamedTuple):
    low: float
    high: float
    scale: Literal["linear", "log"]


def tunable(
    default: float,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    tune: tuple[float, float],
    log: bool = False,
    description: str = "",
) -> Any:
    """Declare a pydantic field for the tuning stage to vary over `tune` (both ends included)."""
    extra: dict[str, Any] = {"tune": [*tune, "log" if log else "linear"]}
    return Field(default, ge=ge, gt=gt, le=le, description=description, json_schema_extra=extra)


def distillation_share(default: float) -> Any:
    """Declare the weight b of distillation where the labels weigh 1 - b."""
    return tunable(
        default,
        ge=0,
        le=1,
        tune=(0.1, 1.0),
        description="weight (b) of distillation; labels weigh a = 1 - b; unused if a method fills `weight`",
    )


def tuning_ranges(model: type[BaseModel]) -> dict[str, TuningRange]:
    """Return the tuning ranges declared by a configuration, by field name."""
    return {name: TuningRange(*found) for name, field in model.model_fields.items() if (found := _declared(field))}


def _declared(field: FieldInfo) -> Any:
    extra = field.json_schema_extra
    return extra.get("tune") if isinstance(extra, dict) else None
