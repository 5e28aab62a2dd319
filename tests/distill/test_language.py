"""Distillation of language models: a token's row is an example, for each method that says that it takes rows."""

import pytest
import torch

from edgestill.distill.config import DistillConfig
from edgestill.distill.hacking import alarm, hacking
from edgestill.distill.methods import METHODS
from edgestill.distill.methods.base import Context
from edgestill.distill.recipe import make_recipe
from edgestill.distill.train import distill
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.datasets.strings import StringsConfig
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.networks.causal_transformer import CausalTransformer
from edgestill.pipeline.randomness import drawn_from

ROWS = sorted(name for name, method in METHODS.items() if method.takes_rows)


@pytest.fixture(scope="module")
def splits():
    kinds = ("reverse", "sort")
    return load_splits(StringsConfig(count=60, letters=3, largest=9, kinds=kinds, rejected=True), seed=0)


def network(splits, seed, width=4):
    with drawn_from(seed):
        return CausalTransformer(splits.task, depth=1, heads=2, head_width=width, feed_forward=1)


def config(name, **training):
    settings = {"epochs": 2, "batch_size": 16, "optimizer": "adamw", "learning_rate": 0.01, "warmup_epochs": 0}
    method = {"name": name, **({"domains": "sources"} if name == "ddk" else {})}
    return DistillConfig.model_validate({"methods": [method], "training": {**settings, **training}})


@pytest.mark.parametrize("name", ROWS)
def test_each_method_that_takes_rows_trains_a_language_model(name, splits):
    student, teacher = network(splits, 1), network(splits, 2, width=6)
    found = distill(student, teacher, splits, config(name), seed=0, device=torch.device("cpu"))
    assert found.fitted.best.n == len(splits.validation)
    assert all(record.loss == record.loss for record in found.fitted.curve)


def test_the_alarm_of_teacher_hacking_reads_the_curve_of_a_language_models_training(splits):
    found = distill(
        network(splits, 1),
        network(splits, 2, width=6),
        splits,
        config("kd", epochs=9),
        seed=0,
        device=torch.device("cpu"),
    )
    proxy = [record.terms["distillation"] for record in found.fitted.curve]
    assert alarm(proxy).slope < 0
    assert not hacking(proxy, proxy).is_hacked


@pytest.mark.parametrize("name", ["kd", "taid"])
def test_a_kept_answer_of_the_teacher_is_the_one_that_it_gives_anew(name, splits):
    kept, anew = (distillation_loss(name, splits, cache) for cache in (Augmentation(), None))
    assert kept == pytest.approx(anew, rel=1e-5)


def distillation_loss(name, splits, cache):
    recipe, student, teacher = make_recipe(config(name).methods), network(splits, 1), network(splits, 2)
    context = Context(
        splits.task, teacher.eval(), student, splits.train, splits.reference, torch.device("cpu"), 0,
        lambda: student, recipe.look_at_teacher,
    )  # fmt: skip
    recipe.prepare(context, cache)
    return recipe.loss(student.eval(), splits.train.batch(torch.tensor([3, 1])))["distillation"].item()
