import copy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from edgestill.pipeline.data.datasets import DigitsConfig
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.device import Compute, DeviceConfig, select_device
from edgestill.pipeline.errors import UserError
from edgestill.pipeline.networks.cifar_resnet import CifarResNet
from edgestill.pipeline.networks.network import initialise, look
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Supervised

_COUNT_FAULTS = """
import resource, sys, torch
from edgestill.pipeline.device import DeviceConfig, select_device
if sys.argv[1] == "select":
    select_device(DeviceConfig(accelerator="cpu"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(12_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(argument: str) -> int:
    done = subprocess.run([sys.executable, "-c", _COUNT_FAULTS, argument], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of other systems is left alone")
def test_memory_that_torch_frees_is_not_faulted_in_again():
    assert 2 * faults("select") < faults("leave")  # the heap grows to what is needed, then serves


def test_a_missing_gpu_is_said_before_anything_runs(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert select_device(DeviceConfig()).type == "cpu"
    with pytest.raises(UserError, match="torch sees no CUDA device; use 'auto' or 'cpu'"):
        select_device(DeviceConfig(accelerator="cuda"))


def test_half_precision_without_a_gpu_and_more_gpus_than_there_are_are_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="'fp16' needs a CUDA device; use 'bf16' or 'fp32'"):
        select_device(DeviceConfig(precision="fp16"))
    with pytest.raises(UserError, match=r"device\.gpus is 2, but torch sees 0"):
        select_device(DeviceConfig(gpus=2))


def trained(compute, device, **options):
    """A small ResNet after five epochs on the digits, and how its training went."""
    splits = load_splits(DigitsConfig(), seed=0)
    network = CifarResNet((1, 1, 1), (4, 8, 16), num_classes=10, mean=splits.task.mean, std=splits.task.std)
    initialise(network, "kaiming", 0)
    config = TrainingConfig(epochs=5, learning_rate=0.1)
    given = (splits.train, splits.validation, config)
    return network, fit(network, Supervised(), *given, seed=0, device=device, compute=compute, **options)


def test_mixed_precision_trains_as_well_and_keeps_weights_in_fp32():
    cpu = torch.device("cpu")
    _, plain = trained(Compute(), cpu)
    network, mixed = trained(Compute("bf16"), cpu)
    assert mixed.best.accuracy > plain.best.accuracy - 0.1
    assert mixed.curve[0].loss != plain.curve[0].loss
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_several_gpus_are_a_matter_of_features_alone(monkeypatch):
    """Without GPUs torch's data_parallel runs in place, so what is spread answers as what is not."""
    network, _ = trained(Compute(), torch.device("cpu"))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    spread = Compute(gpus=0).spread(network, torch.device("cuda"))
    assert spread is not network
    assert Compute(gpus=1).spread(network, torch.device("cuda")) is network
    assert Compute(gpus=0).spread(network, torch.device("cpu")) is network
    monkeypatch.setattr("torch.nn.parallel.data_parallel", lambda module, inputs, ids: [module(inputs)][len(ids) - 2])
    images = torch.rand(4, 1, 8, 8)
    assert all(torch.equal(a, b) for a, b in zip(look(spread, images), look(network, images), strict=True))
    assert torch.equal(spread(images), network(images))


def in_another_thread(module, inputs, ids):
    """As torch's data_parallel runs a replica: autocast is on where the caller has it on, in its default type."""

    def run():
        with torch.autocast("cpu", enabled=mixed), torch.no_grad():
            return module(inputs)

    mixed = torch.is_autocast_enabled("cpu")
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_several_gpus_compute_features_in_the_precision_that_was_asked_for(monkeypatch, dtype):
    network = CifarResNet((1, 1, 1), (4, 8, 16), num_classes=10, mean=(0.5,), std=(0.5,)).eval()
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    spread = Compute(gpus=0).spread(network, torch.device("cuda"))
    monkeypatch.setattr("torch.nn.parallel.data_parallel", in_another_thread)
    images = torch.rand(4, 1, 8, 8)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32), torch.no_grad():
        found, expected = spread.forward_features(images), network.forward_features(images)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compute", [Compute("fp16"), Compute("bf16"), Compute(gpus=0)])
def test_training_on_gpus_reaches_what_the_cpu_does(compute):
    _, expected = trained(Compute(), torch.device("cpu"))
    states = []
    _, found = trained(compute, torch.device("cuda"), save=lambda state: states.append(copy.deepcopy(state)))
    assert found.best.accuracy > expected.best.accuracy - 0.1
    _, resumed = trained(compute, torch.device("cuda"), resume=states[0])
    assert resumed.best.accuracy > expected.best.accuracy - 0.1
