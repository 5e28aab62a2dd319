"""A run may begin with what earlier runs of the registry found; without the key, nothing of it takes part."""

from pathlib import Path

import pytest
import small

from edgestill.flows.chain import stage_names
from edgestill.flows.config import RunConfig
from edgestill.flows.registry.book import Decision, held_book
from edgestill.flows.registry.earlier import collect
from edgestill.flows.stages.results import DataResult, Results, WarmStartResult
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.search.result import SearchResult


def test_the_stage_takes_part_where_it_is_asked_for_alone() -> None:
    assert "warm_start" not in stage_names(RunConfig())
    asked = RunConfig.model_validate({"nightly": {"warm_start": True}})
    assert set(stage_names(asked)) - set(stage_names(RunConfig())) == {"warm_start"}
    assert Results().warm_start == WarmStartResult()


@pytest.fixture
def registered(small_run: Path) -> Path:
    """A finished run that is the promoted one."""
    with held_book(small_run.parent) as pages:
        if not pages.book.decisions:
            one = Decision(run=small_run.name, at="", kind="promoted", by="rule", reason="")
            pages.book = pages.book.deciding(one)
    return small_run


@pytest.mark.engines
def test_fronts_trials_and_students_of_runs_alike_are_collected_and_of_others_nothing(registered: Path) -> None:
    run, runs = RunDir.view(registered), registered.parent
    data, found = run.read("data", DataResult), run.read("search", SearchResult)
    path = runs / "x.npz"
    same = collect(runs, small.config(path), data)
    assert same.runs == (registered.name,)
    assert set(same.seeds) <= {candidate.architecture for candidate in found.candidates}
    assert found.winner.architecture in {candidate.architecture for candidate in found.front}
    assert len(same.trials) == 1
    assert set(same.trials[0]) > {"training.learning_rate"}
    assert len(same.students) == 1
    assert set(same.students) <= set(same.seeds)
    assert collect(runs, small.config(path, "search.scorer=flops"), data) == WarmStartResult()
    assert collect(runs, small.config(path, "distill.methods=[lelp]"), data).trials == ()
    other = data.model_copy(update={"digests": {**data.digests, "train": "other"}})
    assert collect(runs, small.config(path), other).trials == ()
    assert collect(runs, small.config(path), other).seeds == same.seeds
