"""A language model's loss in parts of its rows: the same loss and gradients, in less memory."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from edgestill.distill.config import DistillConfig
from edgestill.distill.methods import METHODS
from edgestill.distill.methods.base import Context
from edgestill.distill.own_samples import Sampling, own_batch
from edgestill.distill.train import distill
from edgestill.pipeline.data.datasets.strings import StringsConfig
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.networks.causal_transformer import CausalTransformer
from edgestill.pipeline.randomness import drawn_from

CPU = torch.device("cpu")
ALONE = sorted(name for name, method in METHODS.items() if method.rows_alone)
KINDS = ("forward_kl", "reverse_kl", "js", "adaptive_kl")


@pytest.fixture(scope="module")
def splits():
    return load_splits(StringsConfig(count=60, letters=3, largest=9, kinds=("reverse", "add")), seed=0)


def network(splits, seed, width=4, **changes):
    task = splits.task.model_copy(update=changes)
    with drawn_from(seed):
        return CausalTransformer(task, depth=1, heads=2, head_width=width, feed_forward=1).eval()


def prepared(splits, method, rows_at_once, **changes):
    config = DistillConfig.model_validate({"methods": [method], "rows_at_once": rows_at_once})
    student, teacher, recipe = network(splits, 1, **changes), network(splits, 2, width=6, **changes), config.recipe()
    context = Context(
        splits.task, teacher, student, splits.train, splits.reference, CPU, 0,
        lambda: student, recipe.look_at_teacher,
    )  # fmt: skip
    recipe.prepare(context)
    return recipe, student


def loss_and_gradient(recipe, student, batch):
    terms = recipe.loss(student, batch)
    sum(terms.values()).backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in student.parameters()])
    return {name: term.item() for name, term in terms.items()}, gradient


@pytest.mark.parametrize(
    "method", [*ALONE, *({"name": "divergence", "kind": kind} for kind in KINDS)], ids=lambda m: str(m)
)
@pytest.mark.parametrize("at_once", [1, 7, 10_000])
def test_parts_have_the_loss_and_the_gradient_of_the_whole(splits, method, at_once):
    batch = splits.train.batch(torch.arange(9))
    assert len(batch.targets) % 7
    whole, gradient = loss_and_gradient(*prepared(splits, method, None), batch)
    parts, found = loss_and_gradient(*prepared(splits, method, at_once), batch)
    assert parts == pytest.approx(whole, rel=1e-5, abs=1e-7)
    assert float((found - gradient).abs().max()) <= 1e-6 * max(1.0, float(gradient.abs().max()))


def test_the_students_own_samples_come_in_parts_too(splits):
    (recipe, student), (other, same) = (prepared(splits, "divergence", at_once) for at_once in (None, 5))
    batch = own_batch(splits.train.batch(torch.arange(9)), student, Sampling(1.0), torch.Generator().manual_seed(0))
    whole, gradient = loss_and_gradient(recipe, student, batch)
    parts, found = loss_and_gradient(other, same, batch)
    assert parts == pytest.approx(whole, rel=1e-5, abs=1e-7)
    torch.testing.assert_close(found, gradient, atol=1e-6, rtol=1e-5)


class Peak(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, and that are alive at once."""

    def __init__(self):
        super().__init__()
        self.alive, self.most, self._known = 0, 0, set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, tuple | list) else (found,):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return found

    def _count(self, storage):
        at, size = storage.data_ptr(), storage.nbytes()
        if at not in self._known:
            self._known.add(at)
            self.alive += size
            self.most = max(self.most, self.alive)
            weakref.finalize(storage, self._forget, at, size)

    def _forget(self, at, size):
        self._known.discard(at)
        self.alive -= size


def test_parts_take_a_fraction_of_the_memory(splits):
    vocabulary = 4000
    changes = {"labels": tuple(f"token {n}" for n in range(vocabulary)), "vocab_size": vocabulary}
    batch, peaks = splits.train.batch(torch.arange(32)), {}
    for at_once in (None, 8):
        recipe, student = prepared(splits, "kd", at_once, **changes)
        loss_and_gradient(recipe, student, batch)  # gradients are there
        with Peak() as peak:
            loss_and_gradient(recipe, student, batch)
        peaks[at_once] = peak.most
    rows = len(batch.targets) * vocabulary * 4
    assert peaks[None] > 4 * rows
    assert peaks[8] < 0.5 * peaks[None]
    assert peaks[8] < 8 * rows * 8 / len(batch.targets) + 6 * 4 * sum(p.numel() for p in student.parameters())


def test_a_training_in_parts_is_the_whole_training(splits):
    def trained(rows_at_once):
        training = {"epochs": 2, "batch_size": 16, "optimizer": "adamw", "learning_rate": 0.01, "warmup_epochs": 0}
        config = DistillConfig.model_validate({"methods": ["kd"], "rows_at_once": rows_at_once, "training": training})
        return distill(network(splits, 1), network(splits, 2), splits, config, seed=0, device=CPU).fitted.curve

    for whole, parts in zip(trained(None), trained(11), strict=True):
        assert parts.terms == pytest.approx(whole.terms, rel=1e-4)


def test_it_is_not_written_where_it_is_not_set_and_refuses_methods_that_need_all_rows():
    assert "rows_at_once" not in DistillConfig().model_dump()
    with pytest.raises(ValueError, match="method 'tsd_kd' needs them together; leave it out, or take one of kd"):
        DistillConfig.model_validate({"methods": ["tsd_kd"], "rows_at_once": 8})
