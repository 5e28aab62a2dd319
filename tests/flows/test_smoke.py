"""`edgestill run --smoke`: every stage on a handful of examples, and a caution that no figure counts."""

import time

import numpy as np
import pytest

from edgestill.flows.chain import stage_names
from edgestill.flows.config import RunConfig, load_config
from edgestill.flows.config.smoke import smoke
from edgestill.flows.runner import compress
from edgestill.pipeline.data.loading import load_splits, load_test

EVERY_STAGE = ("rank_check.students=12", "prune.method=l1", "qat.mode=always")


def test_a_smaller_setting_stays_and_all_stages_and_formats_do() -> None:
    config = load_config(None, "digits", [*EVERY_STAGE, "tune.trials=1", "tune.epochs=50", "name=mine"])
    small = smoke(config)
    assert (small.tune.trials, small.tune.epochs, small.teacher.training.epochs, small.data.limit) == (1, 1, 1, 64)
    assert (small.name, small.smoke, smoke(small)) == ("smoke-mine", True, small)
    assert stage_names(small) == stage_names(config)
    assert (small.export.formats, small.search.budget) == (config.export.formats, config.search.budget)
    assert smoke(RunConfig(name="n" * 41)).name == "smoke-" + "n" * 35


def test_a_limit_leaves_some_examples_of_each_class_and_no_limit_all() -> None:
    config = load_config(None, "digits").data
    whole = load_splits(config, 0)
    few = load_splits(config.model_copy(update={"limit": 64}), 0)
    for name, count in few.sizes.items():
        assert 50 <= count <= 64, name
        assert whole.sizes[name] > 64
    assert all(len(part.targets.unique()) == 10 for part in (few.train, few.validation, few.reference))
    least = load_splits(config.model_copy(update={"limit": 1}), 0)
    assert set(least.sizes.values()) == {10}
    test = load_test(config.model_copy(update={"limit": 64}), 0)
    assert len(test) == few.sizes["test"]
    assert np.isin(few.train.targets.numpy(), whole.train.targets.numpy()).all()


@pytest.mark.engines
def test_every_stage_is_over_within_a_minute_and_the_page_says_that_no_figure_counts(tmp_path) -> None:
    config = smoke(load_config(None, "digits", EVERY_STAGE))
    start = time.process_time()  # a busy machine does not count
    outcome = compress(config, out=tmp_path)
    assert (
        time.process_time() - start < 90
    )  # with the stages that the preset has off; without them a minute of wall time
    assert any("smoke run" in caution for caution in outcome.cautions)
    assert "This is a smoke run" in outcome.report.read_text()
    assert outcome.run.name.split("_")[2].startswith("smoke-")
