"""A run without a budget is told of it; a latency that no student keeps is refused before anything is trained."""

import pytest

from edgestill.flows.config import load_config
from edgestill.flows.config.cautions import cautions_of
from edgestill.flows.latency import require_reachable_latency
from edgestill.flows.stages.context import StageContext
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.errors import BudgetError
from edgestill.pipeline.runs.rundir import RunDir

SHORT = "search.latency.timing={warmup_s: 0.01, duration_s: 0.03, min_samples: 12}"


def test_a_missing_budget_is_a_caution_and_any_limit_is_a_budget() -> None:
    none = load_config(None, "digits", ["search.budget={max_params: null}"])
    (caution,) = cautions_of(none)
    assert caution.startswith("no budget is set")
    for limit in ("max_latency_ms: 5ms", "max_params: 50k", "max_size_bytes: 1MB"):
        assert list(cautions_of(load_config(None, None, [f"search.budget={{{limit}}}"]))) == []


@pytest.fixture
def context(tmp_path, request):
    settings = [SHORT, f"search.budget={{max_latency_ms: {request.param}}}"]
    config = load_config(None, "digits", settings)
    with RunDir.create(tmp_path, "r", 0, config) as run:
        yield StageContext(run, config, lambda *given: None)


@pytest.mark.parametrize("context", [0.0001], indirect=True)
def test_a_latency_below_the_smallest_students_is_refused_with_its_own(context) -> None:
    task = load_splits(context.config.data, 0).task
    with pytest.raises(BudgetError, match=r"1-1-1/8-12-64, takes [0-9.]+ ms here, above max_latency_ms 0.0001; raise"):
        require_reachable_latency(context, task, None)


@pytest.mark.parametrize("context", [10_000], indirect=True)
def test_a_latency_that_the_smallest_student_keeps_passes(context) -> None:
    require_reachable_latency(context, load_splits(context.config.data, 0).task, None)
    assert context.cautions == []
