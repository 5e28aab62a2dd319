"""Table of trackers: each is a file and a line here, or of another package. None is on unless configured."""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Discriminator

from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.plugins import Table, require_attributes, require_class, require_config
from edgestill.pipeline.trackers.base import Tracker
from edgestill.pipeline.trackers.mlflow import MlflowTracker
from edgestill.pipeline.trackers.tensorboard import TensorboardTracker


def _line(name: str, found: Any) -> type[Tracker]:
    require_class(found, Tracker)
    require_attributes(found, name, "Config")
    require_config(found.Config, name, Frozen)
    return found  # type: ignore[no-any-return]


TRACKERS: Table[type[Tracker]] = Table("trackers", _line, {
    "tensorboard": TensorboardTracker,
    "mlflow": MlflowTracker,
})  # fmt: skip


def _spelt_out(value: Any) -> Any:
    """Let `tensorboard` stand for `{name: tensorboard}`, and `{mlflow: {uri: …}}` for `{name: mlflow, uri: …}`."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, dict) and len(value) == 1 and "name" not in value:
        ((name, settings),) = value.items()
        return {"name": name, **settings} if isinstance(settings, dict) else value
    return value


if TYPE_CHECKING:
    AnyTrackerConfig = Any
else:  # the union over the table
    AnyTrackerConfig = Annotated[
        reduce(or_, (tracker.Config for tracker in TRACKERS.values())),
        Discriminator("name"),
        BeforeValidator(_spelt_out),
    ]

__all__ = ["TRACKERS", "AnyTrackerConfig", "Tracker"]
