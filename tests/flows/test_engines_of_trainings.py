"""Trials, entrants and seeds of baselines on any engine: the same results, weights and journals."""

import json
from pathlib import Path

import pytest
import small

from edgestill.flows.runner import new_run, run_part
from edgestill.pipeline.runs.rundir import RunDir, file_digest

pytestmark = pytest.mark.engines

TRAINED = ("tournament", "tune", "baselines")
SETTINGS = (
    "search.shortlist=3", "search.workers=auto", "search.tournament.epochs=3", "tune.trials=3", "tune.epochs=3",
    "tune.min_epochs=1", "tune.startup_trials=1", "tune.at_once=2", "distill.training.epochs=1",
    "distill.training.batch_size=8", "distill.training.learning_rate=0.05", "baselines.enabled=true",
    "baselines.seeds=2", "baselines.budget=1e6",
)  # fmt: skip


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A run whose trainings are done in its own process."""
    folder = tmp_path_factory.mktemp("engines")
    with new_run(small.config(small.data(folder / "data.npz"), *SETTINGS), folder) as run:
        run_part(run, "baselines")
    return run.root


@pytest.fixture(scope="module")
def there(here):
    """A run whose trainings are done by two processes; all other stages are taken over."""
    config = small.config(here.parent / "data.npz", *SETTINGS, "device.engine=processes")
    with new_run(config, here.parent) as run, RunDir.open(here) as earlier:
        for last, taken_from in (("search", earlier), ("tune", None), ("profile", earlier), ("baselines", None)):
            run_part(run, last, earlier=taken_from)
    return run.root


def found(root: Path):
    told = {
        stage: json.loads((root / stage / "result.json").read_text()) for stage in TRAINED if (root / stage).is_dir()
    }
    rungs = root / "tournament" / "rungs.jsonl"
    lines = rungs.read_text().splitlines() if rungs.exists() else []
    weights = {path.name: file_digest(path) for path in (root / "baselines").glob("*.safetensors")}
    return timeless(told), [timeless(json.loads(line)) for line in lines], weights


def timeless(value):
    if isinstance(value, dict):
        dropped = ("seconds", "allowed_s", "latency", "seal")  # the seal is of a line with its seconds
        return {name: timeless(inner) for name, inner in value.items() if name not in dropped}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def test_entrants_trials_and_baselines_are_the_same_in_two_processes(here, there):
    told, _, weights = found(here)
    assert found(there) == found(here)
    assert (len(told["tournament"]["entrants"]), len(told["tune"]["trials"])) == (3, 3)
    assert {training["seed"] for training in told["baselines"]["trainings"]} == {0, 1}
    assert len(weights) == len(told["baselines"]["trainings"]) - 1  # the first is the distillation
    assert len(set(weights.values())) == len(weights)
