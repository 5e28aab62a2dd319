"""MLflow: a run of an experiment, on a tracking server or in a local store."""

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from edgestill.pipeline.errors import MissingDependencyError
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.trackers.base import Tracked, Tracker

_TAG = "edgestill.run"  # of a run in MLflow: the folder's name, by which a resumed run is found again
_MOST_AT_ONCE, _LONGEST = 100, 500  # parameters in one call, characters of a value: below the limits of every store


class MlflowConfig(Frozen):
    """A run of an MLflow experiment."""

    names_services: ClassVar[tuple[str, ...]] = ("uri",)

    name: Literal["mlflow"] = "mlflow"
    uri: str | None = Field(
        None,
        description="tracking server or store, as MLflow writes it; null: MLFLOW_TRACKING_URI, or mlflow.db among the "
        "runs",
    )
    experiment: str = Field("edgestill", min_length=1, max_length=100, description="experiment, made if need be")


class MlflowTracker(Tracker):
    name: ClassVar[str] = "mlflow"
    Config: ClassVar[type[Frozen]] = MlflowConfig
    config: MlflowConfig

    def __init__(self, config: MlflowConfig, run: Tracked) -> None:
        super().__init__(config, run)
        try:
            import mlflow
            from mlflow.entities import Param
        except ImportError:
            raise MissingDependencyError("it needs `pip install 'edgestill[mlflow]'`") from None
        here = f"sqlite:///{run.root.absolute().parent / 'mlflow.db'}"
        uri = config.uri or os.environ.get("MLFLOW_TRACKING_URI") or here
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        experiment = self._experiment(config.experiment)
        known = self._client.search_runs([experiment], filter_string=f"tags.`{_TAG}` = '{run.name}'")
        if known:  # its settings cannot be told twice
            self._id = known[0].info.run_id
            self._client.set_terminated(self._id, "RUNNING")
            return
        tags = {_TAG: run.name, "edgestill.folder": str(run.root.absolute())}
        self._id = self._client.create_run(experiment, tags=tags, run_name=run.name).info.run_id
        for some in _batches([Param(key, value[:_LONGEST]) for key, value in run.settings.items()]):
            self._client.log_batch(self._id, params=some)

    def values(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        for some in _batches([Metric(name, value, now, step) for name, value in values.items()]):
            self._client.log_batch(self._id, metrics=some)

    def note(self, name: str, text: str) -> None:
        self._client.set_tag(self._id, f"edgestill.{name}", text[:_LONGEST])

    def close(self, is_finished: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if is_finished else "KILLED")

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(self._client.create_experiment(name) if found is None else found.experiment_id)


def _batches(values: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(values), _MOST_AT_ONCE):
        yield values[start : start + _MOST_AT_ONCE]
