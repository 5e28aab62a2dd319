"""Trackers are told a run's figures, and none of them can end it."""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar, Literal

import pytest
from pydantic import ValidationError

from edgestill.flows.config import RunConfig, load_config
from edgestill.flows.observer import Observer
from edgestill.flows.prefect import confinement
from edgestill.flows.stages.results import DataResult
from edgestill.pipeline.errors import UserError
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.task import Task
from edgestill.pipeline.trackers import TRACKERS, Tracker
from edgestill.pipeline.trackers.mlflow import MlflowConfig, MlflowTracker
from edgestill.pipeline.trackers.tensorboard import TensorboardConfig
from edgestill.pipeline.training.state import EpochRecord

RESULT = DataResult(
    task=Task(labels=("cat", "dog"), input_shape=(1, 8, 8), mean=(0.25,), std=(0.5,)), sizes={"train": 9}, digests={}
)
SETTINGS = {"seed": 3, "search": {"budget": {"max_params": 70_000}, "space": {"blocks": [[1], [2]]}}}


def record(epoch: int, terms: Mapping[str, float] | None = None) -> EpochRecord:
    return EpochRecord(
        epoch=epoch, learning_rate=0.1, loss=0.5, terms=dict(terms or {"kd": 0.5}), validation_accuracy=epoch / 10,
        validation_cross_entropy=float("inf") if epoch == 2 else 0.3, seconds=0.1,
    )  # fmt: skip


class HeardConfig(Frozen):
    name: Literal["heard"] = "heard"
    fails_at: str = ""


class Heard(Tracker):
    """Keeps what it is told; fails in one of its methods if asked to."""

    name: ClassVar[str] = "heard"
    Config: ClassVar[type[Frozen]] = HeardConfig
    made: ClassVar[list["Heard"]] = []

    def __init__(self, config: Any, run: Any) -> None:
        super().__init__(config, run)
        self.told: list[Any] = []
        self._or_fail("begin")
        self.made.append(self)

    def values(self, values: Mapping[str, float], step: int) -> None:
        self._or_fail("values")
        self.told.append((step, dict(values)))

    def note(self, name: str, text: str) -> None:
        self._or_fail("note")
        self.told.append((name, text))

    def close(self, is_finished: bool) -> None:
        self._or_fail("close")
        self.told.append(is_finished)

    def _or_fail(self, moment: str) -> None:
        if self.config.fails_at == moment:
            raise ConnectionError("the server is gone")


@pytest.fixture(autouse=True)
def _heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRACKERS, "heard", Heard)
    monkeypatch.setattr(Heard, "made", [])


def observed(*configs: Any, root: Path = Path("runs/one")) -> Observer:
    """An observer that saw a whole run of one stage."""
    observer = Observer(configs, root, SETTINGS)
    observer.begin("data")
    for epoch in (1, 2):
        observer.epoch(record(epoch))
    observer.epoch(record(1))
    observer.end("data", RESULT, "nine examples")
    observer.note("bundle", "runs/one/bundle")
    observer.close(is_finished=True)
    return observer


def test_a_tracker_is_told_settings_epochs_results_and_the_bundle() -> None:
    observer = observed(HeardConfig())
    assert observer.cautions == []
    (heard,) = Heard.made
    assert heard.run.settings == {
        "seed": "3", "search.budget.max_params": "70000", "search.space.blocks": "[[1], [2]]",
    }  # fmt: skip
    first, second, third, result, *rest = heard.told
    assert first == (1, {
        "data/learning_rate": 0.1, "data/loss": 0.5, "data/validation_accuracy": 0.1,
        "data/validation_cross_entropy": 0.3, "data/seconds": 0.1,
    })  # fmt: skip
    assert "data/validation_cross_entropy" not in second[1]  # infinite
    assert third[0] == 1
    assert "data/2/loss" in third[1]  # another training of the same stage
    assert result == (0, {"data/sizes/train": 9.0})
    assert rest == [("data", "nine examples"), ("bundle", "runs/one/bundle"), True]


def test_terms_of_the_loss_are_told_where_there_are_several() -> None:
    observer = Observer((HeardConfig(),), Path("runs/one"), {})
    observer.begin("distill")
    observer.epoch(record(1, {"kd": 0.2, "labels": 0.3}))
    assert Heard.made[0].told[0][1].items() >= {"distill/loss/kd": 0.2, "distill/loss/labels": 0.3}.items()


@pytest.mark.parametrize("moment", ["begin", "values", "note", "close"])
def test_a_tracker_that_fails_is_let_go_with_one_caution_and_the_others_go_on(moment: str) -> None:
    observer = observed(HeardConfig(fails_at=moment), HeardConfig())
    assert observer.cautions == ["the tracker heard was left out (ConnectionError: the server is gone)"]
    assert Heard.made[-1].told[-1] is True


def test_a_tracker_is_chosen_by_one_line_and_none_is_on_by_default() -> None:
    assert RunConfig().trackers == ()
    given = load_config(None, "digits", ["trackers=[tensorboard, {mlflow: {uri: 'http://host', experiment: e}}]"])
    assert given.trackers == (TensorboardConfig(), MlflowConfig(uri="http://host", experiment="e"))
    assert load_config(None, "digits", ["trackers=[mlflow]"]).trackers == (MlflowConfig(),)
    with pytest.raises(ValidationError):
        RunConfig.model_validate({"trackers": ["wandb"]})


def test_tensorboard_reads_what_was_written_and_a_resumed_run_goes_on(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for epochs in ((1, 2), (3,)):
        observer = Observer((TensorboardConfig(),), tmp_path, SETTINGS)
        observer.begin("distill")
        for epoch in epochs:
            observer.epoch(record(epoch))
        observer.end("distill", RESULT, "well")
        observer.close()
        assert observer.cautions == []
    found = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    events = found.Scalars("distill/validation_accuracy")
    assert [(event.step, round(event.value, 6)) for event in events] == [(1, 0.1), (2, 0.2), (3, 0.3)]
    settings = found.Tensors("configuration/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| search.budget.max_params | 70000 |" in settings


class FakeClient:
    """MLflow's client and its store."""

    runs: ClassVar[dict[str, dict[str, Any]]] = {}
    experiments: ClassVar[list[str]] = []

    def __init__(self, tracking_uri: str) -> None:
        self.uri = tracking_uri

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id=name) if name in self.experiments else None

    def create_experiment(self, name: str) -> str:
        self.experiments.append(name)
        return name

    def search_runs(self, experiments: list[str], filter_string: str) -> list[Any]:
        wanted = filter_string.partition("= '")[2].removesuffix("'")
        found = [name for name, run in self.runs.items() if run["tags"]["edgestill.run"] == wanted]
        return [SimpleNamespace(info=SimpleNamespace(run_id=name)) for name in found]

    def create_run(self, experiment: str, tags: dict[str, str], run_name: str) -> Any:
        self.runs[f"id-{len(self.runs)}"] = {"tags": dict(tags), "params": {}, "metrics": [], "uri": self.uri}
        return SimpleNamespace(info=SimpleNamespace(run_id=f"id-{len(self.runs) - 1}"))

    def log_batch(self, run: str, params: Any = (), metrics: Any = ()) -> None:
        assert max(len(params), len(metrics)) <= 100
        assert not self.runs[run]["params"].keys() & {key for key, _ in params}
        self.runs[run]["params"] |= dict(params)
        self.runs[run]["metrics"] += metrics

    def set_tag(self, run: str, key: str, value: str) -> None:
        self.runs[run]["tags"][key] = value

    def set_terminated(self, run: str, status: str) -> None:
        self.runs[run]["status"] = status


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> type[FakeClient]:
    module, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")
    module.MlflowClient = FakeClient  # type: ignore[attr-defined]
    entities.Param = lambda key, value: (key, value)  # type: ignore[attr-defined]
    entities.Metric = lambda *given: given  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.setattr(FakeClient, "runs", {})
    monkeypatch.setattr(FakeClient, "experiments", [])
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return FakeClient


def test_mlflow_gets_one_run_for_a_run_and_its_resumption(mlflow: type[FakeClient], tmp_path: Path) -> None:
    observer = Observer((MlflowConfig(experiment="e"),), tmp_path / "one", SETTINGS)
    observer.begin("distill")
    observer.epoch(record(1))
    observer.close()
    assert mlflow.runs["id-0"]["status"] == "KILLED"
    assert observed(MlflowConfig(experiment="e"), root=tmp_path / "one").cautions == []
    assert mlflow.experiments == ["e"]
    (run,) = mlflow.runs.values()
    assert run["uri"] == f"sqlite:///{tmp_path}/mlflow.db"
    assert run["params"]["search.budget.max_params"] == "70000"
    assert ("distill/validation_accuracy", 0.1, 1) in [(name, value, step) for name, value, _, step in run["metrics"]]
    assert run["tags"].items() >= {"edgestill.data": "nine examples", "edgestill.bundle": "runs/one/bundle"}.items()
    assert run["status"] == "FINISHED"


def test_the_configured_store_goes_before_the_environments(
    mlflow: type[FakeClient], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://theirs")
    observed(MlflowConfig(), root=tmp_path / "one")
    observed(MlflowConfig(uri="http://ours"), root=tmp_path / "two")
    assert [run["uri"] for run in mlflow.runs.values()] == ["http://theirs", "http://ours"]


def test_a_library_that_is_not_here_is_a_caution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    observer = observed(MlflowConfig())
    assert observer.cautions == [
        "the tracker mlflow was left out (MissingDependencyError: it needs `pip install 'edgestill[mlflow]'`)"
    ]
    assert TRACKERS["mlflow"] is MlflowTracker


def test_a_service_is_told_only_if_it_was_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGESTILL_SERVED_FOLDERS", "")
    monkeypatch.setenv("EDGESTILL_SERVED_CODE", "")
    given = {"config": RunConfig(trackers=(MlflowConfig(uri="http://elsewhere"),))}
    confinement.confine([tmp_path])
    with pytest.raises(UserError, match=r"^config\.trackers\.0\.uri=http://elsewhere would have figures sent"):
        confinement.require_inside(given)
    confinement.confine([tmp_path], [*confinement.services_in(given)])
    confinement.require_inside(given)
    confinement.require_inside({"config": RunConfig(trackers=(MlflowConfig(),))})
