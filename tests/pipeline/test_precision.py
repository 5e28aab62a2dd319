"""A mixed precision that makes steps slower on this machine is refused with both figures."""

import contextlib

import pytest
import torch

from edgestill.pipeline.conformance.samples import examples, image_task
from edgestill.pipeline.device import Compute
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.training import precision
from edgestill.pipeline.training.precision import require_fast_precision
from edgestill.search.spaces.resnet import ResNetSpace

CPU = torch.device("cpu")


@pytest.fixture
def require(monkeypatch):
    task = image_task()
    network = ResNetSpace().build(ResNetSpace().parse("1-1-1/4-4-8"), task)
    batch = examples(task, 6).batch(torch.arange(6))

    def run(compute, fp32_ms, ours_ms):
        def timed(calls):
            for call in calls.values():
                call()
            return {"fp32": fp32_ms, "bf16": ours_ms}

        monkeypatch.setattr(precision, "brief_medians_ms", timed)
        require_fast_precision(network, batch, compute, CPU)

    return run


def test_a_slower_precision_is_refused_with_both_figures(require):
    said = (
        r"device.precision: a training step takes 600 ms in bf16 and 50\.0 ms in fp32, 12\.0× as long.*precision=fp32"
    )
    with pytest.raises(ConfigError, match=said):
        require(Compute("bf16"), 50.0, 600.0)


def test_a_faster_one_and_fp32_are_not(require, monkeypatch):
    require(Compute("bf16"), 50.0, 52.0)
    require(Compute("bf16"), 50.0, 20.0)
    require(Compute(), 50.0, 600.0)


def test_steps_of_milliseconds_are_timed_too():
    """Nothing is planted in the stopwatch: this processor may have the instructions or be refused."""
    task = image_task()
    network = ResNetSpace().build(ResNetSpace().parse("1-1-1/16-32-64"), task)
    batch = examples(task, 64).batch(torch.arange(64))
    with contextlib.suppress(ConfigError):
        require_fast_precision(network, batch, Compute("bf16"), CPU)
