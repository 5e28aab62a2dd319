"""Table of engines: where independent work is done. Each is a file and a line here."""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Discriminator

from edgestill.pipeline.engines.base import Answer, Cluster
from edgestill.pipeline.engines.dask import Dask, DaskConfig
from edgestill.pipeline.engines.machine import LocalConfig, ProcessesConfig
from edgestill.pipeline.engines.ray import Ray, RayConfig
from edgestill.pipeline.frozen import Frozen, by_name

ENGINES: dict[str, tuple[type[Frozen], type[Cluster] | None]] = {  # None: processes of this machine, by its caller
    "local": (LocalConfig, None),
    "processes": (ProcessesConfig, None),
    "dask": (DaskConfig, Dask),
    "ray": (RayConfig, Ray),
}

if TYPE_CHECKING:
    AnyEngineConfig = Any
else:  # the union over the table
    AnyEngineConfig = Annotated[
        reduce(or_, (config for config, _ in ENGINES.values())), Discriminator("name"), BeforeValidator(by_name)
    ]

LOCAL = LocalConfig()


def make_cluster(config: Any, workers: int) -> Cluster | None:
    """Make the cluster of a configuration; None for an engine of this machine's own processes.

    Args:
        workers: number of worker processes of a cluster that is started for this process alone.
    """
    kind = ENGINES[config.name][1]
    return None if kind is None else kind(config, workers)


__all__ = ["ENGINES", "LOCAL", "Answer", "AnyEngineConfig", "Cluster", "make_cluster"]
