"""Symbolic distillation: what the critic keeps, and what that says of the answers."""

import numpy as np
import pytest
import torch

from edgestill.distill.conformance.prepared import network, recipe_on
from edgestill.distill.methods.language.critic import threshold_for
from edgestill.distill.methods.language.symbolic import SymbolicConfig
from edgestill.distill.methods.language.writing import Library, same_answers
from edgestill.pipeline.conformance.samples import language_task, splits
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Supervised

TASK, CPU = language_task(tokens=12), torch.device("cpu")


@pytest.fixture(scope="module")
def data():
    return splits(TASK, train=120)


@pytest.fixture(scope="module")
def teacher(data):
    """A teacher that is right on some of its answers and wrong on others."""
    made = network(TASK, 1, (8, 12, 16))
    training = TrainingConfig(epochs=12, batch_size=16, optimizer="adamw", learning_rate=0.01, warmup_epochs=0)
    fit(made, Supervised(), data.train, data.validation, training, seed=0, device=CPU)
    return frozen(made)


@pytest.fixture(scope="module")
def filtered(data, teacher):
    known = {}

    def make(**settings):
        key = tuple(sorted(settings.items()))
        if key not in known:
            known[key] = recipe_on([SymbolicConfig(**settings)], teacher, network(TASK, 2), data)[0].methods[0]
        return known[key]

    return make


def test_a_perfect_critic_keeps_the_right_answers_alone_and_all_of_them(filtered, data):
    everything, exact = filtered(recall=1.0), filtered(critic="exact")
    base = everything.measures()["precision"]
    assert 0.1 < base < 0.95
    assert everything.measures()["kept"] == everything.measures()["recall"] == 1
    assert exact.measures()["precision"] == exact.measures()["recall"] == 1
    assert exact.measures()["kept"] == pytest.approx(base)
    assert bool(same_answers(exact._library, data.train).all())


def test_a_trained_critic_keeps_fewer_answers_and_more_of_them_are_right(filtered):
    found = [filtered(recall=recall).measures() for recall in (1.0, 0.8, 0.5)]
    assert found[0]["kept"] > found[1]["kept"] >= found[2]["kept"]
    assert found[0]["recall"] > found[1]["recall"] >= found[2]["recall"]
    assert min(one["precision"] for one in found[1:]) > found[0]["precision"] + 0.05


def test_with_honest_scores_precision_rises_and_recall_falls_as_the_filter_gets_stricter():
    rng = np.random.default_rng(0)
    found = torch.tensor(rng.random(20_000))
    is_right = torch.tensor(rng.random(20_000)) < found
    shares = []
    for recall in (1.0, 0.8, 0.5, 0.2):
        kept = found >= threshold_for(recall, found, is_right)
        assert float((kept & is_right).sum() / is_right.sum()) == pytest.approx(recall, abs=0.01)
        shares.append(float((kept & is_right).sum() / kept.sum()))
    assert shares[0] == pytest.approx(0.5, abs=0.02)
    assert shares == sorted(shares)
    assert shares[-1] > 0.9


def test_an_epoch_has_each_prompt_with_a_kept_answer_once_and_draws_kept_answers_alone(filtered, data):
    method = filtered(critic="exact")
    order = method.order(0, torch.Generator().manual_seed(0))
    assert sorted(order.tolist()) == sorted(set(method._library.of.tolist()))
    batch = method.data(data.train.batch(order[:10]), torch.Generator().manual_seed(0))
    assert torch.equal(batch.inputs, data.train.images[order[:10]])


def test_the_threshold_keeps_the_share_of_right_answers_that_is_asked_for():
    rng = np.random.default_rng(0)
    found, is_right = torch.tensor(rng.random(200)), torch.tensor(rng.random(200) < 0.4)
    for recall in (0.1, 0.5, 0.8, 0.999):
        threshold = threshold_for(recall, found, is_right)
        above = [value for value in sorted(found[is_right].tolist()) if value >= threshold]
        assert len(above) / int(is_right.sum()) >= recall
        assert (len(above) - 1) / int(is_right.sum()) < recall
    assert threshold_for(1.0, found, is_right) == 0
    assert threshold_for(0.5, found, torch.zeros(200, dtype=torch.bool)) == 0


def test_a_library_draws_each_prompts_texts_and_skips_prompts_without():
    texts = torch.arange(12).view(6, 2)
    library = Library(texts, torch.tensor([0, 0, 2, 2, 2, 3]))
    seen = {0: set(), 2: set(), 3: set()}
    for seed in range(40):
        found = library.drawn(torch.tensor([3, 1, 0, 2]), torch.Generator().manual_seed(seed))
        assert len(found) == 3
        for prompt, text in zip((3, 0, 2), found[:, 0].tolist(), strict=True):
            seen[prompt].add(text)
    assert seen == {0: {0, 2}, 2: {4, 6, 8}, 3: {10}}
