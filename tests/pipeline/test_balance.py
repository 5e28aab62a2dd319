"""Classes of unlike sizes in training, and the metric that chooses."""

import io
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import balanced_accuracy_score
from torch import nn

from edgestill.pipeline.data.splits import UNLABELLED, ImageSplit
from edgestill.pipeline.runs.checkpoint import state_bytes
from edgestill.pipeline.training.balance import class_weights, imbalance
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.metrics import Metrics, evaluate, metrics_of
from edgestill.pipeline.training.objective import Supervised
from edgestill.pipeline.training.state import EpochRecord

CPU = torch.device("cpu")


def split_of(*counts, seed=0):
    """Noisy images whose brightness is the class, so many of each class."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.cat([torch.full((n,), k) for k, n in enumerate(counts)])
    images = torch.rand(len(targets), 1, 4, 4, generator=generator) * 0.7 + 0.15 * targets[:, None, None, None]
    return ImageSplit(images, targets)


class Seen(Supervised):
    """Cross-entropy that keeps the targets and weights of each batch."""

    def __init__(self):
        self.targets, self.weights = [], []

    def loss(self, network, batch):
        self.targets += batch.targets.tolist()
        self.weights.append(batch.weight)
        return super().loss(network, batch)


def trained(balance="none", epochs=3, metric="accuracy", **options):
    torch.manual_seed(0)
    network, seen = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), Seen()
    config = TrainingConfig(epochs=epochs, batch_size=16, learning_rate=0.2, balance=balance, metric=metric)
    result = fit(
        network, seen, split_of(200, 40, 10), split_of(60, 12, 6, seed=1), config, seed=3, device=CPU, **options
    )
    return network, seen, result


def test_weights_give_each_class_the_same_sum_and_leave_unlabelled_examples_alone():
    weights = class_weights(torch.tensor([0, 0, 0, 2, UNLABELLED]))
    assert weights.tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2, 1])


def test_sampling_draws_all_classes_alike_and_as_many_examples_as_there_are():
    _, seen, _ = trained("sampling", epochs=12)
    found = Counter(seen.targets)
    assert sum(found.values()) == 12 * 250
    assert all(abs(n - 1000) < 100 for n in found.values())


def test_weights_scale_the_loss_of_each_example():
    _, seen, _ = trained("weights", epochs=1)
    expected = class_weights(torch.tensor(seen.targets)).float()
    assert torch.equal(torch.cat(seen.weights), expected)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    batch = split_of(3, 2, 1).batch(torch.arange(6))
    weighted = Supervised().loss(network, batch._replace(weight=torch.tensor([1.0, 0, 0, 0, 0, 2])))["cross_entropy"]
    losses = F.cross_entropy(network(batch.inputs), batch.targets, reduction="none")
    assert float(weighted) == pytest.approx(float(losses[0] + 2 * losses[5]) / 6)


@pytest.mark.parametrize("balance", ["weights", "sampling"])
def test_a_balanced_training_finds_rare_classes_that_a_plain_one_leaves_out(balance):
    plain, balanced = (
        evaluate(trained(chosen, epochs=8)[0], split_of(60, 60, 60, seed=5), CPU).accuracy
        for chosen in ("none", balance)
    )
    assert balanced > plain + 0.1


@pytest.mark.parametrize("balance", ["weights", "sampling"])
def test_a_balanced_training_goes_on_bit_for_bit(balance):
    saved = []
    whole, _, _ = trained(balance, save=lambda state: saved.append(state_bytes(state)))
    again, _, _ = trained(balance, resume=torch.load(io.BytesIO(saved[0]), weights_only=True))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_the_balanced_accuracy_is_that_of_scikit_learn_and_is_given_where_asked():
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(50, 4, generator=generator), torch.randint(0, 3, (50,), generator=generator)
    found = metrics_of([(logits[:20], targets[:20]), (logits[20:], targets[20:])], balanced=True)
    with pytest.warns(UserWarning, match="y_pred contains"):
        assert found.score == pytest.approx(balanced_accuracy_score(targets, logits.argmax(1)))
    plain = metrics_of([(logits, targets)])
    assert plain.score == plain.accuracy
    assert "balanced_accuracy" not in plain.model_dump()


def test_the_metric_chooses_the_best_epoch():
    _, _, result = trained(metric="balanced_accuracy", epochs=6)
    scores = [record.validation_balanced_accuracy for record in result.curve]
    assert result.best.balanced_accuracy == max(scores)
    assert result.best_epoch == 1 + max(n for n, score in enumerate(scores) if score == max(scores))
    assert [r.validation_balanced_accuracy for r in trained(epochs=1)[2].curve] == [None]


@pytest.mark.parametrize("kind", [Metrics, EpochRecord])
def test_what_was_not_asked_is_not_written(kind):
    _, _, result = trained(epochs=1)
    found = result.best if kind is Metrics else result.curve[0]
    assert "balanced" not in found.model_dump_json()
    assert kind.model_validate_json(found.model_dump_json()) == found


def test_unlike_classes_are_a_caution_with_the_settings_that_help():
    assert imbalance([100, 20, 0], "abc") == ""
    said = imbalance([100, 19, 60], "abc")
    assert "class 'b' has 19 training examples and the largest class 100, 5.3 times as many" in said
    assert "distill.training.balance=sampling" in said
