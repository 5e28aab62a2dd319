"""Compiled training steps: only where they pay, the same answers, and the decision survives a kill."""

import shutil

import pytest
import torch
from torch import nn

from edgestill.pipeline.conformance.samples import image_task, splits
from edgestill.pipeline.device import Compute
from edgestill.pipeline.training import compiled
from edgestill.pipeline.training.compiled import Compilation
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Supervised
from edgestill.search.spaces.resnet import ResNetSpace

TASK = image_task(side=8)
needs_a_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")


def network():
    torch.manual_seed(0)
    return ResNetSpace().build(ResNetSpace().parse("1-1-1/4-4-8"), TASK)


def train(epochs=3, resume=None, save=lambda state: None, compute=None):
    made = network()
    data = splits(TASK, train=40)
    config = TrainingConfig(epochs=epochs, batch_size=16, learning_rate=0.05)
    result = fit(
        made, Supervised(), data.train, data.validation, config, seed=0, device=torch.device("cpu"), save=save,
        resume=resume, compute=compute or Compute(compile="on"),
    )  # fmt: skip
    return made.state_dict(), [record.loss for record in result.curve]


@needs_a_compiler
@pytest.mark.engines
def test_a_compiled_training_is_that_of_the_plain_steps_and_is_resumed_bit_for_bit():
    states, told = [], []

    def keep(state):
        states.append({key: dict(part) if isinstance(part, dict) else part for key, part in state.items()})
        states[-1]["network"] = {name: value.clone() for name, value in state["network"].items()}

    weights, losses = train(save=lambda s: keep(copied(s)), compute=Compute(compile="on", tell=told.append))
    assert told == []
    assert states[0]["is_compiled"] is True
    plain, plain_losses = train(compute=Compute())
    assert losses == pytest.approx(plain_losses, rel=1e-4)
    for name, value in plain.items():
        assert torch.allclose(weights[name].float(), value.float(), atol=1e-4), name
    again, _ = train(resume=states[0])
    assert all(torch.equal(again[name], value) for name, value in weights.items())


def copied(value):
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: copied(part) for key, part in value.items()}
    return [copied(part) for part in value] if isinstance(value, list) else value


def test_a_short_training_is_not_compiled_and_nothing_is_tried(monkeypatch):
    monkeypatch.setattr(Compilation, "_tried", lambda self: pytest.fail("it was tried"))
    plain, _ = train(compute=Compute())
    found, _ = train(compute=Compute(compile="auto"))
    assert all(torch.equal(found[name], value) for name, value in plain.items())


def test_what_cannot_be_compiled_is_told_in_a_sentence_and_trained_as_it_is(monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no compiler here\nand much more")

    monkeypatch.setattr(compiled.torch, "compile", fail)
    told = []
    found, _ = train(compute=Compute(compile="on", tell=told.append))
    plain, _ = train(compute=Compute())
    assert told == ["the training step was not compiled (RuntimeError: no compiler here)"]
    assert all(torch.equal(found[name], value) for name, value in plain.items())


@pytest.mark.parametrize(("share", "is_on"), [(0.5, True), (0.99, False), (2.0, False)])
def test_auto_compiles_where_steps_are_faster_so(monkeypatch, share, is_on):
    monkeypatch.setattr(compiled.torch, "compile", lambda function, **options: function)
    monkeypatch.setattr(compiled, "brief_medians_ms", lambda calls: {"plain": 100.0, "compiled": 100.0 * share})
    told, made = [], network()
    before = copied(made.state_dict())
    decision = Compilation(made, "auto", lambda: torch.rand(4, *TASK.input_shape), told.append)
    assert not decision.decide(None, 100)  # before an epoch nothing is known
    assert decision.decide(10.0, 100)
    assert decision.is_on is is_on
    assert (decision.network() is made) is not is_on
    assert len(told) == (not is_on)
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    assert not decision.decide(10.0, 100)
    assert not Compilation(made, "off", lambda: pytest.fail("off"), told.append).decide(10.0, 10**6)


def test_a_network_that_gives_its_view_in_one_pass_is_left_alone():
    class Whole(nn.Module):
        def look(self, inputs): ...

    assert Compilation(Whole(), "on", lambda: pytest.fail("asked"), pytest.fail).is_on is False


def test_auto_decides_by_steps_that_take_milliseconds(monkeypatch):
    """Nothing is planted in the stopwatch: both kinds of step are the same here."""
    monkeypatch.setattr(compiled.torch, "compile", lambda function, **options: function)
    told = []
    decision = Compilation(network(), "auto", lambda: torch.rand(64, *TASK.input_shape), told.append)
    assert decision.decide(10.0, 100)
    assert decision.is_on or "it takes" in told[0]
