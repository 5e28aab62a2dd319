"""`edgestill plan`: shares and times by hand, and a whole plan of a tiny run."""

from pathlib import Path

import numpy as np
import pytest

from edgestill.flows.chain import STAGES, stage_names
from edgestill.flows.cli.main import execute
from edgestill.flows.config import load_config
from edgestill.flows.plan.estimate import Estimate
from edgestill.flows.plan.page import plan_lines
from edgestill.flows.plan.peak_memory import begin_peak, peak_bytes
from edgestill.flows.plan.plan import Plan, Planned, make_plan
from edgestill.flows.plan.probes import Probes, Speed
from edgestill.flows.plan.reach import Reach, reach_of
from edgestill.flows.stages.baselines.expected import fitting
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.stage import Stage
from edgestill.pipeline.errors import BudgetError
from edgestill.pipeline.networks.cost import measure_cost
from edgestill.pipeline.runs.rundir import RunDir

SMALL = (
    "teacher.architecture=resnet8", "search.space={widths: [[8],[8,12],[16]], blocks: [[1,2],[1],[1]]}",
    "search.budget={max_params: 8k}", "search.draws=1", "search.baselines=[random]", "search.scorer=params",
    "export.formats=[fp32]", "qat.mode=auto", "tune.trials=3",
)  # fmt: skip


@pytest.fixture
def context(tmp_path: Path):
    config = load_config(None, "digits", SMALL)
    with RunDir.create(tmp_path, "r", 0, config) as run:
        yield StageContext(run, config, lambda *given: None)


def test_each_stage_estimates_itself() -> None:
    assert [stage.name for stage in STAGES if type(stage).estimate is Stage.estimate] == []


def test_the_share_within_budget_is_the_one_counted_by_hand(context: StageContext) -> None:
    task, space = context.splits().task, context.space

    def params(architecture) -> int:
        return measure_cost(lambda: space.build(architecture, task), task.input_shape, task.input_dtype).params

    counted = {space.format(one): params(one) for one in space.all_architectures()}
    within = sorted((count, text) for text, count in counted.items() if count <= 8_000)
    assert 0 < len(within) < len(counted)
    reach = reach_of(context, lambda *given: None)
    assert (reach.space_size, reach.drawn, reach.within, reach.timed) == (len(counted), len(counted), len(within), 0)
    assert [space.format(one) for one in reach.architectures] == [text for _, text in within]
    assert reach.sentence.startswith(f"{len(within) / len(counted):.0%} of the space's {len(counted)} students keep")


def test_a_rare_budget_is_told_with_its_interval() -> None:
    told = Reach(10**6, 300, 3, 0, 0, ["a"]).sentence
    assert told == "1% of the space's 1,000,000 students keep the budget [0%, 3%], by 300 random ones"
    assert Reach(10**6, 300, 0, 0, 0, ["a"]).sentence.endswith("the search descends to those that do")
    assert "2 of 6 measured ones keep max_latency_ms [10%, 70%]" in Reach(10**6, 300, 9, 6, 2, ["a"]).sentence


def test_the_typical_student_is_of_the_upper_quartile(context: StageContext) -> None:
    assert Probes(context, ["a", "b", "c", "d", "e"]).typical == "d"
    assert Probes(context, ["a"]).typical == "a"


def test_epochs_examples_and_the_teachers_answers_add_up() -> None:
    speed = Speed(start_s=0.001, example_s=0.002, evaluated_s=0.0005)
    assert speed.seconds(epochs=10, examples=100, validation=40, trainings=3) == pytest.approx(2.0 + 0.2 + 0.3)


def test_a_peak_is_of_the_memory_taken_since_it_began() -> None:
    begin_peak()
    before = peak_bytes()
    if before is None:
        pytest.skip("no /proc here")
    np.ones(40_000_000).sum()
    assert peak_bytes() - before > 200e6


@pytest.mark.parametrize(
    ("affordable", "seeds", "count"),
    [(0, 3, 0), (1, 3, 1), (2, 3, 2), (3, 3, 2), (4, 3, 4), (5, 3, 5), (6, 3, 5), (7, 3, 7), (99, 3, 8), (99, 1, 2)],
)
def test_a_recipe_that_nothing_would_be_compared_with_is_not_planned(affordable: int, seeds: int, count: int) -> None:
    names = [f"recipe {seed}" if arm is None else arm for seed in range(seeds) for arm in (None, "a", "b")][1:]
    assert fitting(affordable, seeds) == count
    assert count in (0, len(names)) or not names[count - 1].startswith("recipe")


def test_the_page_adds_the_stages_up_and_tells_what_is_missing() -> None:
    stages = (
        Planned("teacher", Estimate(60.0, 2_000_000, "trained"), 10**9),
        Planned("own", Estimate(None, note="not measured"), None),
        Planned("report", Estimate(5.0, 1_000_000), 2 * 10**9),
    )
    lines = plan_lines(Plan("5% keep it", stages, ("openvino: pip install it",), ("no budget is set",))).splitlines()
    rows = {line.split()[0]: line.split() for line in lines if line.strip()}
    assert rows["all"] == ["all", "1", "min", "5", "s", "2.00", "GB", "3.00", "MB"]
    assert rows["own"] == ["own", "?", "not", "measured"]
    for words in ("budget: 5% keep it", "missing here: openvino: pip install it", "caution: no budget is set"):
        assert words in lines


def test_a_plan_has_every_stage_and_leaves_no_run_behind(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(None, "digits", SMALL)
    plan = make_plan(config)
    assert tuple(planned.stage for planned in plan.stages) == stage_names(config)
    seconds = {planned.stage: planned.estimate.seconds for planned in plan.stages}
    assert all(seconds[name] > 0 for name in ("teacher", "search", "tune", "distill", "export", "profile", "report"))
    assert 1 < seconds["profile"] < 30  # two files of 2.2 s each
    assert list(tmp_path.iterdir()) == []


def test_a_plan_refuses_what_the_run_would(tmp_path: Path, capsys) -> None:
    with pytest.raises(BudgetError, match="above max_params 100"):
        make_plan(load_config(None, "digits", [*SMALL, "search.budget.max_params=100"]))
    assert execute(["plan"]) == 2
    assert "nothing to plan: give a CONFIG.yaml" in capsys.readouterr().err
