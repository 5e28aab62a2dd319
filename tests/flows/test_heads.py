"""What of a recipe is held against budget and data before anything is trained."""

import pytest

from edgestill.distill.config import DistillConfig
from edgestill.flows.config import load_config
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.data import Data
from edgestill.flows.stages.heads import heads, what_ships
from edgestill.flows.stages.stage import Results
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.runs.rundir import RunDir


def test_only_methods_with_a_head_change_what_ships() -> None:
    assert what_ships(DistillConfig(methods=("kd", "rkd"))) is None
    assert [method.name for method in heads(DistillConfig(methods=("lelp", "rkd")))] == ["lelp"]


def test_a_budget_that_only_the_bare_student_meets_is_refused_at_once_with_the_way_out(
    here, tiny_arguments, tmp_path
) -> None:
    refused = here(
        "run",
        *tiny_arguments(search__budget__max_params="7000", distill__methods="[lelp]"),
        "--out",
        str(tmp_path),
        "--quiet",
    )
    assert refused.returncode == 2
    assert "is above max_params 7,000" in refused.stderr
    assert "the head that method 'lelp' adds to the student is counted in it: set fewer subclasses" in refused.stderr
    assert not list(tmp_path.glob("*/teacher"))


def test_a_recipe_that_the_data_cannot_serve_is_refused_before_anything_is_trained(tmp_path) -> None:
    config = load_config(preset="digits", settings=["distill.methods=[{name: lelp, subclasses: 500}]"])
    run = RunDir.create(tmp_path, "run", config.seed, config)
    with pytest.raises(
        ConfigError, match=r"lelp: class 0 has .* training examples, and 500 subclasses need 501 or more"
    ):
        Data().work(StageContext(run, config, lambda done, total, note: None), Results())
