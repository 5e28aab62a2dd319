"""The one training loop: it goes on bit for bit, keeps its best, and says when it diverges."""

import copy
import io
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import edgestill.pipeline.training.fit as fitting
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.errors import TrainingError
from edgestill.pipeline.runs.checkpoint import state_bytes
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import _epochs_done, _set_learning_rate, fit
from edgestill.pipeline.training.metrics import evaluate
from edgestill.pipeline.training.objective import Supervised
from edgestill.pipeline.training.state import restarted

CPU = torch.device("cpu")


@pytest.fixture
def task(make_task):
    return make_task(classes=3)


@pytest.fixture
def make_network():
    """A network with batch norm and dropout, so that all that is random or moving takes part."""

    def make(seed=0):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(4 * 64, 3),
        )

    return make


@pytest.fixture
def train(task, make_split, make_network):
    """Trains a fresh network; gives it and the result. The images number `count`."""
    validation = make_split(task, 45, seed=9)

    def run(config=None, count=70, seed=0, objective=None, weights=0, augmentation=None, **options):
        network = make_network(weights)
        config = config or TrainingConfig(epochs=5, batch_size=16, learning_rate=0.05)
        result = fit(
            network,
            objective or Supervised(),
            make_split(task, count, seed=1),
            validation,
            config,
            seed=seed,
            device=CPU,
            augmentation=augmentation,
            **options,
        )
        return network, result

    return run


def same_weights(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def curve(result):
    """Without the seconds, which alone may differ."""
    return [record.model_dump(exclude={"seconds"}) for record in result.curve]


@pytest.mark.parametrize(("optimizer", "views"), [("sgd", 0), ("adamw", 0), ("sgd", 4)])
def test_going_on_from_any_epoch_gives_the_bits_of_an_undisturbed_run(train, optimizer, views):
    config = TrainingConfig(epochs=6, batch_size=16, learning_rate=0.01, optimizer=optimizer, warmup_epochs=1.5)
    augmentation = Augmentation(AugmentConfig(pad=1, flip=True), views=views, images=70)
    saved = []
    expected, undisturbed = train(
        config, augmentation=augmentation, save=lambda state: saved.append(state_bytes(state))
    )
    assert len(saved) == 6
    for epoch, state in enumerate(saved):
        resume = torch.load(io.BytesIO(state), weights_only=True)
        assert len(resume["curve"]) == epoch + 1
        torch.manual_seed(epoch)
        network, result = train(config, augmentation=augmentation, weights=100 + epoch, resume=resume)
        assert same_weights(network, expected)
        assert curve(result) == curve(undisturbed)
        assert result.best == undisturbed.best
        assert result.best_epoch == undisturbed.best_epoch


def test_a_seed_repeats_a_run_and_another_seed_gives_another(train):
    one, same, other = (train(seed=seed)[0] for seed in (0, 0, 1))
    assert same_weights(one, same)
    assert not same_weights(one, other)


def test_training_learns(train):
    _, result = train(TrainingConfig(epochs=15, batch_size=16, learning_rate=0.05))
    assert result.best.accuracy > 0.8  # chance is a third


def test_the_network_is_left_with_the_weights_of_its_best_epoch(train, task, make_split):
    states = []
    network, result = train(
        TrainingConfig(epochs=8, batch_size=16, learning_rate=0.3),
        save=lambda state: states.append(copy.deepcopy(state["network"])),
    )
    accuracies = [record.validation_accuracy for record in result.curve]
    assert result.best_epoch == 1 + max(range(8), key=lambda e: (accuracies[e], e))  # ties go to the later
    assert result.best_epoch < 8, "the test wants a run whose last epoch is not its best"
    assert all(torch.equal(value, states[result.best_epoch - 1][name]) for name, value in network.state_dict().items())
    assert evaluate(network, make_split(task, 45, seed=9), CPU) == result.best


class Still(Supervised):
    """Descends on nothing, so that validation never changes."""

    def loss(self, network, batch):
        return {"nothing": 0 * network(batch.inputs).sum()}


class Scripted(Supervised):
    """Is worth, on validation, what a script says epoch by epoch."""

    def __init__(self, correct):
        self.correct, self.epoch = correct, -1

    def end_epoch(self, epoch, network):
        self.epoch = epoch

    def deployable(self, network):
        """Answers with the right class (image n is of class n modulo 3) for the scripted number of images."""
        right = F.one_hot(torch.arange(45) % 3, 3).float()
        right[self.correct[self.epoch] :] *= -1
        answer = nn.Module()
        answer.forward = lambda images: right
        return answer


def test_patience_ends_a_run_that_no_longer_gets_better(train):
    config = TrainingConfig(epochs=50, batch_size=16, weight_decay=0, patience=3)
    correct = [10, 20, 20, 15, 30, 30, 29, 12, 8, 45, 45]
    _, result = train(config, objective=Scripted(correct))
    assert result.best_epoch == 6  # 30 images right, twice, and never 30 again in the three epochs after
    assert [record.epoch for record in result.curve] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert result.stopped_early
    _, patient = train(config.model_copy(update={"epochs": 11, "patience": 5}), objective=Scripted(correct))
    assert patient.best_epoch == 11
    assert not patient.stopped_early
    _, endless = train(config.model_copy(update={"epochs": 11, "patience": 0}), objective=Scripted(correct))
    assert len(endless.curve) == 11


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(("epochs", "warmup"), [(10, 2), (10, 0), (7, 1), (12, 3.5)])
def test_the_learning_rate_follows_a_linear_warm_up_and_a_half_cosine(train, optimizer, epochs, warmup):
    config = TrainingConfig(epochs=epochs, batch_size=64, learning_rate=0.2, warmup_epochs=warmup, optimizer=optimizer)
    _, result = train(config, count=64, objective=Still())
    parameter = nn.Parameter(torch.zeros(1))
    reference = torch.optim.SGD([parameter], lr=0.2)
    quarters = torch.optim.lr_scheduler.CosineAnnealingLR(reference, T_max=round(2 * (epochs - warmup)))
    cosine = [0.2]
    for _ in range(round(2 * (epochs - warmup))):
        reference.step()
        quarters.step()
        cosine.append(reference.param_groups[0]["lr"])
    for epoch, record in enumerate(result.curve):
        done = epoch + 1
        expected = 0.2 * done / warmup if done < warmup else cosine[round(2 * (done - warmup))]
        assert record.learning_rate == pytest.approx(expected, abs=1e-9)
    assert result.curve[-1].learning_rate == pytest.approx(0, abs=1e-12)


def test_a_warm_up_longer_than_the_training_is_left_out(train):
    _, result = train(TrainingConfig(epochs=2, warmup_epochs=5, learning_rate=0.2), objective=Still())
    assert [r.learning_rate for r in result.curve] == pytest.approx([0.1, 0])


@pytest.mark.parametrize("warmup", [0, 0.5, 1, 3])
def test_a_training_of_one_step_learns(train, make_network, warmup):
    config = TrainingConfig(epochs=1, batch_size=64, learning_rate=0.2, warmup_epochs=warmup)
    network, result = train(config, count=64)
    expected = 0.2 if warmup == 0.5 else 0.1  # the end of that warm-up, else the middle of the cosine
    assert [r.learning_rate for r in result.curve] == pytest.approx([expected])
    assert not torch.equal(network[0].weight, make_network()[0].weight)


@pytest.mark.parametrize(("epochs", "steps", "warmup"), [(1, 2, 1), (2, 1, 0), (2, 1, 1.5), (3, 2, 0.25), (7, 5, 9)])
def test_two_steps_and_more_follow_the_schedule_to_its_end(epochs, steps, warmup):
    """By its definition at the end of each step, whose last rate is 0; on average at least a quarter of the highest."""
    config = TrainingConfig(epochs=epochs, learning_rate=0.2, warmup_epochs=warmup)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    rates = []
    for number in range(epochs * steps):
        _set_learning_rate(optimizer, config, _epochs_done(*divmod(number, steps), steps, config))
        rates.append(optimizer.param_groups[0]["lr"])
    start = warmup if warmup < epochs else 0
    done = np.arange(1, epochs * steps + 1) / steps
    cosine = 0.5 + 0.5 * np.cos(np.pi * (done - start) / (epochs - start))
    expected = 0.2 * np.where(done < start, done / max(start, 1e-9), cosine)
    assert rates == pytest.approx(expected.tolist(), abs=1e-15)
    assert np.mean(rates) >= 0.05 - 1e-12


class Diverging(Supervised):
    def __init__(self, value, epoch):
        self.value, self.epoch, self.now = value, epoch, 0

    def end_epoch(self, epoch, network):
        self.now = epoch + 1

    def loss(self, network, batch):
        factor = self.value if self.now == self.epoch else 1.0
        return {"cross_entropy": super().loss(network, batch)["cross_entropy"] * factor}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_training_and_says_what_to_try(train, value):
    saved = []
    with pytest.raises(TrainingError, match=r"in epoch 3 at learning rate 0\.\d+; try a lower learning_rate"):
        train(objective=Diverging(value, 2), save=saved.append)
    assert len(saved) == 2  # the diverged epoch is not saved


class Spy(Supervised):
    def __init__(self):
        self.epochs = [[]]

    def loss(self, network, batch):
        assert network.training
        self.epochs[-1].append(batch.index.tolist())
        return super().loss(network, batch)

    def end_epoch(self, epoch, network):
        self.epochs.append([])


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"), [(48, 16, [16] * 3), (50, 16, [16, 16, 16, 2]), (49, 16, [16] * 3), (9, 16, [9])]
)
def test_an_epoch_sees_each_image_once_but_for_a_last_batch_of_one(train, count, batch_size, sizes):
    spy = Spy()
    train(TrainingConfig(epochs=3, batch_size=batch_size), count=count, objective=spy)
    for epoch in spy.epochs[:3]:
        assert [len(batch) for batch in epoch] == sizes
        seen = [index for batch in epoch for index in batch]
        assert len(set(seen)) == len(seen) == sum(sizes)
        assert set(seen) <= set(range(count))
    assert spy.epochs[0] != spy.epochs[1]


def test_what_an_observer_raises_ends_the_training(train):
    class StopError(Exception):
        pass

    met = []

    def observe(record):
        met.append(record.epoch)
        if record.epoch == 3:
            raise StopError

    with pytest.raises(StopError):
        train(observe=observe)
    assert met == [1, 2, 3]


def test_the_curve_holds_the_means_of_the_loss_terms(train):
    class TwoTerms(Supervised):
        def loss(self, network, batch):
            zero = 0 * network(batch.inputs).sum()
            return {"one": zero + float(len(batch.targets)), "two": zero + 1.0}

    _, result = train(TrainingConfig(epochs=1, batch_size=16), count=50, objective=TwoTerms())
    assert result.curve[0].terms == {"one": pytest.approx((16 * 3 + 2) / 4), "two": 1}
    assert result.curve[0].loss == pytest.approx(13.5)


def test_weights_of_the_objectives_own_are_trained_and_restored_with_the_best(train):
    class Scaled(Supervised):
        def __init__(self):
            self.scale = nn.Parameter(torch.ones(1))

        def parameters(self):
            return [self.scale]

        def loss(self, network, batch):
            return {"cross_entropy": F.cross_entropy(self.scale * network(batch.inputs), batch.targets)}

        def state_dict(self):
            return {"scale": self.scale.detach()}

        def load_state_dict(self, state):
            self.scale.data.copy_(state["scale"])

    objective, scales = Scaled(), []
    _, result = train(
        TrainingConfig(epochs=8, batch_size=16, learning_rate=0.3),
        objective=objective,
        observe=lambda record: scales.append(objective.scale.item()),
    )
    assert len(set(scales)) > 4
    assert objective.scale.item() == scales[result.best_epoch - 1]


def test_one_step_is_nesterov_sgd_by_hand(task, make_split):
    """Sutskever et al. 2013 as torch states it: v <- m v + g, p <- p - lr (g + m v), with decay in g."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=False))
    split = make_split(task, 12)
    weight = network[1].weight.detach().clone().double()
    config = TrainingConfig(epochs=3, batch_size=12, learning_rate=0.1, weight_decay=0.01, warmup_epochs=0)
    states = []
    fit(
        network, Supervised(), split, split, config, seed=0, device=CPU,
        save=lambda state: states.append(state["network"]["1.weight"].clone()),
    )  # fmt: skip
    images, targets = split.images.flatten(1).double(), F.one_hot(split.targets).double()
    velocity = torch.zeros_like(weight)
    for epoch in range(3):
        rate = 0.1 * 0.5 * (1 + math.cos(math.pi * (epoch + 1) / 3))
        error = (images @ weight.T).softmax(1) - targets
        gradient = error.T @ images / 12 + 0.01 * weight
        velocity = 0.9 * velocity + gradient
        weight = weight - rate * (gradient + 0.9 * velocity)
        assert torch.allclose(states[epoch].double(), weight, atol=1e-5)


@pytest.mark.parametrize(
    ("parameters", "last", "saved"), [(999, None, [0, 1, 2, 3]), (10**7, None, [0, 3]), (10**7, 2, [0, 2])]
)
def test_a_large_state_is_saved_so_often_that_it_takes_a_twentieth_of_the_time(monkeypatch, parameters, last, saved):
    clock = [0.0]
    monkeypatch.setattr(fitting.time, "perf_counter", lambda: clock[0])
    found = []

    def save(state):
        found.append(state)
        clock[0] += 1.0

    saves = fitting._Saves(save, parameters)
    for epoch in range(4):
        clock[0] += 8.0
        saves.if_due(SimpleNamespace(dump=lambda epoch=epoch: epoch), is_last=epoch == last)
    assert found == saved


def test_a_restart_begins_a_new_schedule_at_the_best_weights_and_survives_a_kill(train, task, make_split):
    """Its first epoch is that of a fresh optimizer on the best weights of the training before."""
    config = TrainingConfig(epochs=8, batch_size=16, learning_rate=0.3)
    saved = []
    best, first = train(config, save=lambda state: saved.append(state_bytes(state)))
    last = torch.load(io.BytesIO(saved[-1]), weights_only=True)
    assert first.best_epoch < 8, "the last weights are to differ from the best"
    again = []
    longer = TrainingConfig(epochs=6, batch_size=16, learning_rate=0.3)
    options = {"seed": 7, "weights": 5, "save": lambda state: again.append(state_bytes(state))}
    network, result = train(longer, resume=restarted(last), **options)
    by_hand = copy.deepcopy(best)
    expected = fit(
        by_hand, Supervised(), make_split(task, 70, seed=1), make_split(task, 45, seed=9), longer, seed=7, device=CPU
    )
    assert len(first.curve) == 8
    assert curve(result) == curve(expected)
    assert same_weights(network, by_hand)
    resumed, _ = train(longer, resume=torch.load(io.BytesIO(again[2]), weights_only=True), seed=7, weights=6)
    assert same_weights(resumed, network)
