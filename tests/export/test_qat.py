"""Fine-tuning with fake quantisation: is it the quantisation of the file, and does it win back what that loses?"""

import copy
import random

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from edgestill.distill.compression.fake_quant import FakeQuantError, fake_quantized, without_fake_quant
from edgestill.distill.config import DistillConfig
from edgestill.distill.train import distill
from edgestill.export.onnx.quantize import FOR_CPU, quantize
from edgestill.export.onnx.sessions import runner
from edgestill.export.onnx.write import to_onnx
from edgestill.pipeline.networks.cifar_resnet import CifarResNet
from edgestill.pipeline.networks.network import initialise
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.metrics import evaluate
from edgestill.pipeline.training.objective import Supervised

CPU = torch.device("cpu")
GATE = 0.005


@pytest.fixture(scope="module")
def task(make_task):
    return make_task(channels=1, side=8, classes=3)


@pytest.fixture(scope="module")
def splits(task, make_splits):
    return make_splits(task, train=360)


def fresh(task, widths=(8, 8, 8)) -> CifarResNet:
    network = CifarResNet((1, 1, 1), widths, num_classes=3, mean=task.mean, std=task.std)
    initialise(network, "kaiming", 0)
    return network


@pytest.fixture(scope="module")
def trained(task, splits) -> nn.Module:
    network = fresh(task)
    config = TrainingConfig(epochs=8, batch_size=30, learning_rate=0.1)
    fit(network, Supervised(), splits.train, splits.validation, config, seed=0, device=CPU)
    return network.eval()


@pytest.fixture(scope="module")
def hard_blocks(trained) -> nn.Module:
    """The same function, with one channel of each block 2,000 times as large before the layer that reads it."""
    network = copy.deepcopy(trained)
    for name in ("layer1.0", "layer2.0", "layer3.0"):
        block = network.get_submodule(name)
        with torch.no_grad():
            block.bn1.weight[0] *= 2000
            block.bn1.bias[0] *= 2000
            block.conv2.weight[:, 0] /= 2000
    return network


@pytest.fixture(scope="module")
def hard_sum(trained) -> nn.Module:
    """The same function, with a channel 1,000 times as large in the first stage's sum, where nothing can balance it."""
    network = copy.deepcopy(trained)
    with torch.no_grad():
        for norm in (network.bn1, network.layer1[0].bn2):
            norm.weight[0] *= 1000
            norm.bias[0] *= 1000
        for reader in (network.layer1[0].conv1, network.layer2[0].conv1, network.layer2[0].shortcut[0]):
            reader.weight[:, 0] /= 1000
    return network


def int8_file(network: nn.Module, task, splits, folder, name: str, bits: int = 7):
    """The INT8 file as ONNX Runtime's own quantiser makes it, opened; what it computes is the same everywhere."""
    source = folder / f"{name}.onnx"
    source.write_bytes(to_onnx(network, task.inputs, 20))
    examples = splits.reference.batch(torch.arange(len(splits.reference))).inputs.contiguous().numpy()
    (folder / f"{name}.int8.onnx").write_bytes(quantize(source, examples, "minmax", 99.99, FOR_CPU, bits))
    return runner(folder / f"{name}.int8.onnx", exact=True)


def accuracy(run, split) -> float:
    batch = split.batch(torch.arange(len(split)))
    return float(np.mean(run(batch.inputs.contiguous().numpy()).argmax(1) == batch.targets.numpy()))


def test_folding_the_batch_norms_and_taking_the_quantisers_out_again_changes_nothing(trained, splits) -> None:
    inputs = splits.validation.batch(torch.arange(32)).inputs
    plain = without_fake_quant(fake_quantized(trained, splits.reference.batches(9), classifier=True))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    assert {type(m) for m in plain.modules() if list(m.parameters(recurse=False))} == {nn.Conv2d, nn.Linear}
    with torch.no_grad():
        torch.testing.assert_close(plain(inputs), trained(inputs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("bits", "largest"), [(7, 64), (8, 127)])
def test_weights_are_rounded_as_the_file_rounds_them(bits, largest, trained, task, splits, tmp_path) -> None:
    made = fake_quantized(trained, splits.reference.batches(9), classifier=True, weight_bits=bits)
    layer = made.conv1[1]
    rounded = layer.weight_fake_quant(layer.weight).detach()
    scale = layer.weight.detach().abs().amax((1, 2, 3)) / largest  # symmetric, a scale for each output channel
    expected = (layer.weight.detach() / scale.view(-1, 1, 1, 1)).round() * scale.view(-1, 1, 1, 1)
    torch.testing.assert_close(rounded, expected, atol=1e-7, rtol=1e-6)
    (tmp_path / "plain.onnx").write_bytes(to_onnx(without_fake_quant(made), task.inputs, 20))
    examples = splits.reference.batch(torch.arange(len(splits.reference))).inputs.contiguous().numpy()
    data = quantize(tmp_path / "plain.onnx", examples, "minmax", 99.99, FOR_CPU, bits)
    torch.testing.assert_close(torch.from_numpy(first_weights(data)), rounded, atol=1e-7, rtol=1e-5)
    with torch.no_grad():
        layer.weight.mul_(0.01)  # and no scale is remembered
    torch.testing.assert_close(layer.weight_fake_quant(layer.weight).detach(), 0.01 * expected, atol=1e-7, rtol=1e-5)


def first_weights(data: bytes) -> np.ndarray:
    """The weights of the file's first convolution, dequantised."""
    graph = onnx.load_model_from_string(data).graph
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    convolution = next(node for node in graph.node if node.op_type == "Conv")
    source = next(node for node in graph.node if node.output[0] == convolution.input[1])
    weights, scale = held[source.input[0]], held[source.input[1]]
    return weights.astype(np.float32) * scale.reshape(-1, 1, 1, 1)


def test_fake_quantisation_predicts_the_int8_file(hard_sum, task, splits, tmp_path) -> None:
    inputs = splits.validation.batch(torch.arange(60)).inputs
    found = torch.from_numpy(int8_file(hard_sum, task, splits, tmp_path, "hard")(inputs.contiguous().numpy()))
    with torch.no_grad():
        imitated = fake_quantized(hard_sum, splits.reference.batches(18), classifier=True).eval()(inputs)
        exact = hard_sum(inputs)
    assert (found - exact).abs().mean() > 0.3
    assert (found - imitated).abs().mean() < 0.25 * (found - exact).abs().mean()


def test_validation_moves_no_range_and_training_does(trained, splits) -> None:
    made = fake_quantized(trained, splits.reference.batches(9), classifier=True)
    before = {name: value.clone() for name, value in made.state_dict().items() if "activation_post" in name}
    wild = 5 * torch.rand(16, 1, 8, 8)

    def moved() -> int:
        state = made.state_dict()
        return sum(not torch.equal(state[name], value) for name, value in before.items())

    made.eval()(wild)
    assert moved() == 0
    made.train()(wild)
    assert moved() > 5


def fine_tuned(network, teacher, splits, resume=None, bits=7, **training):
    """The student with fake quantisation after it, and the state after each epoch."""
    config = DistillConfig.model_validate({"training": {"batch_size": 30, "patience": 0, **training}})
    states = []
    done = distill(
        fake_quantized(network, splits.reference.batches(9), classifier=True, weight_bits=bits),
        copy.deepcopy(teacher),  # it is frozen
        splits,
        config,
        seed=0,
        device=CPU,
        resume=resume,
        save=lambda state: states.append(copy.deepcopy(state)),
    )
    return done.student, states


def test_an_interrupted_fine_tuning_ends_as_an_undisturbed_one(trained, splits) -> None:
    undisturbed, states = fine_tuned(trained, trained, splits, epochs=2, learning_rate=0.01)
    resumed, _ = fine_tuned(trained, trained, splits, states[0], epochs=2, learning_rate=0.01)
    assert not torch.equal(undisturbed.conv1[1].weight, states[0]["network"]["conv1.1.weight"])
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_what_quantising_wildly_scaled_channels_loses_is_won_back(hard_blocks, trained, task, splits, tmp_path) -> None:
    fp32 = evaluate(hard_blocks, splits.validation, CPU).accuracy
    before = accuracy(int8_file(hard_blocks, task, splits, tmp_path, "before"), splits.validation)
    assert fp32 - before > 50 * GATE
    student, _ = fine_tuned(hard_blocks, trained, splits, epochs=3, learning_rate=0.003)
    after = accuracy(int8_file(without_fake_quant(student), task, splits, tmp_path, "after"), splits.validation)
    assert fp32 - after <= GATE


def test_fine_tuning_wins_back_what_no_equalisation_can(hard_sum, trained, task, splits, tmp_path) -> None:
    """With 8 bits: with 7 it wins back between two thirds and all of it, by seed."""
    fp32 = evaluate(hard_sum, splits.validation, CPU).accuracy
    equalised = without_fake_quant(fake_quantized(hard_sum, splits.reference.batches(9), classifier=True))
    before = accuracy(int8_file(equalised, task, splits, tmp_path, "before", 8), splits.validation)
    assert fp32 - before > 50 * GATE
    student, _ = fine_tuned(hard_sum, trained, splits, bits=8, epochs=12, learning_rate=1e-3, optimizer="adamw")
    after = accuracy(int8_file(without_fake_quant(student), task, splits, tmp_path, "after", 8), splits.validation)
    assert fp32 - after < 0.25 * (fp32 - before)


def test_a_transformer_is_refused_with_the_reason(small_space, make_task, make_split) -> None:
    space, task = small_space("vit"), make_task()
    network = space.build(space.sample(random.Random(0)), task)
    with pytest.raises(FakeQuantError, match="this one is a transformer"):
        fake_quantized(network, make_split(task, 8).batches(8), classifier=True)


@pytest.mark.parametrize("name", ["mobile", "nb201"])
def test_students_of_other_spaces_can_be_fine_tuned_too(name, small_space, make_task, make_split) -> None:
    space, task = small_space(name), make_task()
    network = space.build(space.sample(random.Random(1)), task).eval()
    made = fake_quantized(network, make_split(task, 16).batches(8), classifier=True)
    inputs = make_split(task, 8, seed=5).batch(torch.arange(8)).inputs
    with torch.no_grad():
        torch.testing.assert_close(without_fake_quant(made)(inputs), network(inputs), atol=1e-5, rtol=1e-5)
