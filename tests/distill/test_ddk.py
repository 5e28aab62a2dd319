"""DDK: shares of the domains by hand, what they bound, and the order that they give."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgestill.distill.config import DistillConfig
from edgestill.distill.methods.data.ddk import DDK, DDKConfig, first_shares, next_shares
from edgestill.distill.recipe import make_recipe
from edgestill.distill.train import distill
from edgestill.pipeline.data.splits import UNLABELLED
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.teachers.teacher import frozen

CPU = torch.device("cpu")


@pytest.fixture
def prepared(make_task, make_splits, make_network, make_context):
    def make(splits=None, **settings):
        splits = splits or make_splits(make_task())
        teacher, student = frozen(make_network(1)), make_network(2)
        recipe = make_recipe([DDKConfig(**settings)])
        recipe.prepare(make_context(recipe, splits, teacher, student))
        return recipe.methods[0], splits, teacher, student

    return make


def test_the_first_shares_are_those_of_the_perplexities_and_the_next_multiply_them(prepared):
    method, splits, teacher, student = prepared()
    batch = splits.reference.batch(torch.arange(18))
    ratios = []
    for c in range(3):
        own = batch.targets == c
        with torch.no_grad():
            s, t = (
                F.cross_entropy(network.eval()(batch.inputs[own]).double(), batch.targets[own]).exp()
                for network in (student, teacher)
            )
        ratios.append(float(s / t))
    found = np.exp(ratios) / np.exp(ratios).sum()
    assert method._shares.tolist() == pytest.approx(found.tolist(), rel=1e-4)
    psi = found * np.exp(ratios)
    method.end_epoch(0, student)
    assert method._shares.tolist() == pytest.approx((0.5 * psi / psi.sum() + 0.5 / 3).tolist(), rel=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.3, 0.5, 1.0])
def test_shares_sum_to_one_and_none_starves(smoothing):
    shares, floor = first_shares(torch.tensor([1.0, 50.0, 900.0, 1.0]).double()), (1 - smoothing) / 4
    for step in range(20):
        shares = next_shares(
            shares, torch.rand(4, generator=torch.Generator().manual_seed(step)).double() * 60, smoothing
        )
        assert float(shares.sum()) == pytest.approx(1)
        assert bool((shares >= floor - 1e-12).all())
    if smoothing == 0:
        assert shares.tolist() == pytest.approx([0.25] * 4)


def test_equal_gaps_lead_to_equal_shares_and_without_the_floor_they_swing_more():
    shares = torch.tensor([0.7, 0.1, 0.1, 0.1]).double()
    for _ in range(60):
        shares = next_shares(shares, torch.ones(4).double(), 0.5)
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=1e-9)
    gaps = torch.tensor([1.0, 2.0, 1.5, 1.2]).double()
    smooth = bare = torch.full((4,), 0.25).double()
    for _ in range(5):
        smooth, bare = next_shares(smooth, gaps, 0.5), next_shares(bare, gaps, 1.0)
    assert float(bare.max() - bare.min()) > float(smooth.max() - smooth.min())


def test_an_epoch_draws_each_domain_by_its_share(prepared, make_splits, make_task):
    method, splits, *_ = prepared(make_splits(make_task(), train=3000))
    method._shares = torch.tensor([0.6, 0.3, 0.1]).double()
    drawn = method.order(0, torch.Generator().manual_seed(0))
    assert len(drawn) == len(splits.train)
    shares = torch.bincount(splits.train.targets[drawn], minlength=3) / len(drawn)
    assert shares.tolist() == pytest.approx([0.6, 0.3, 0.1], abs=0.03)


def test_an_unlabelled_example_belongs_to_the_class_that_the_teacher_says(make_task, make_splits, prepared):
    splits = make_splits(make_task())
    hidden = splits.train.targets.clone()
    hidden[5:20] = UNLABELLED
    splits = dataclasses.replace(splits, train=dataclasses.replace(splits.train, targets=hidden))
    method, _, teacher, _ = prepared(splits)
    with torch.no_grad():
        said = teacher(splits.train.batch(torch.arange(5, 20)).inputs).argmax(1)
    assert torch.equal(method._of_train[5:20], said)


def test_sources_are_the_folders_of_the_names_and_one_source_is_refused(make_task, make_splits, prepared):
    splits = make_splits(make_task())
    ids = [np.array([f"{'ab'[i % 2]}/{i}" for i in range(len(part))]) for part in (splits.train, splits.reference)]
    train, reference = (
        dataclasses.replace(part, ids=names) for part, names in zip((splits.train, splits.reference), ids, strict=True)
    )
    named = dataclasses.replace(splits, train=train, reference=reference)
    method, *_ = prepared(named, domains="sources")
    assert len(method._shares) == 2
    assert torch.equal(method._of_train, torch.arange(90) % 2)
    with pytest.raises(ConfigError, match="named by folders"):
        DDK(DDKConfig(domains="sources")).check(splits.task, splits.train)


def test_the_papers_recipe_trains(make_task, make_splits, make_network):
    weights = {"name": "fixed_weights", "label_weight": 1.0, "distill_weight": 0.2}
    told = {"methods": ["ddk", {"name": "kd", "temperature": 1}, weights], "training": {"epochs": 2, "batch_size": 45}}
    done = distill(
        make_network(2),
        make_network(1),
        make_splits(make_task()),
        DistillConfig.model_validate(told),
        seed=0,
        device=CPU,
    )
    assert done.measures["ddk.smallest_share"] >= 0.5 / 3 - 1e-9
