"""Teachers of several members, files among them: their weighted mean, and a copy that needs no member's file."""

import copy

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from edgestill.export.onnx.write import to_onnx
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.errors import CheckpointError
from edgestill.pipeline.networks.network import look
from edgestill.pipeline.runs.checkpoint import weights_bytes
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers import AnyTeacherConfig, build_teacher, load_teacher, make_teacher
from edgestill.pipeline.teachers.teacher import frozen

TASK = Task(labels=("cat", "dog", "fish"), input_shape=(1, 8, 8), mean=(0.5,), std=(0.2,))
IMAGES = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
IDS = np.array([f"pets/{n}.png" for n in range(6)])
SPLIT = ImageSplit(IMAGES, torch.zeros(6, dtype=torch.int64), "train", IDS)
LOGITS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.answer = nn.Conv2d(1, 6, 3), nn.Linear(6, 3)

    def forward(self, x):
        return self.answer(self.body(x).relu().mean((2, 3)))


def config_of(**given):
    return TypeAdapter(AnyTeacherConfig).validate_python(given, context={"check_files": True})


@pytest.fixture
def members(tmp_path):
    """By kind: a built-in network with a file of weights, an ONNX file, a file of answers."""
    weights, answers, graph = tmp_path / "w.safetensors", tmp_path / "answers.npz", tmp_path / "plain.onnx"
    built_in = config_of(architecture="resnet8")
    weights.write_bytes(weights_bytes(build_teacher(built_in, TASK), make_teacher(built_in).metadata(TASK)))
    graph.write_bytes(to_onnx(Plain().eval(), TASK.inputs, 18))
    np.savez(answers, ids=IDS, logits=LOGITS)
    return {
        "weights": {"architecture": "resnet8", "weights": str(weights)},
        "onnx": f"onnx:{graph}",
        "outputs": f"outputs:{answers}",
    }


def read(config):
    """The network, and its answers on all examples."""
    teacher = make_teacher(config)
    network = frozen(teacher.read(TASK))
    teacher.meet(network, iter([SPLIT]))
    return network, network(SPLIT.batch(torch.arange(6)).inputs)


@pytest.mark.parametrize("kinds", [("weights", "onnx"), ("weights", "outputs"), ("weights", "onnx", "outputs")])
@pytest.mark.parametrize("mean_of", ["probabilities", "logits"])
def test_files_are_members_with_weights_of_their_own(kinds, mean_of, members, tmp_path):
    given, shares = [members[kind] for kind in kinds], (3.0, 1.0, 1.0)[: len(kinds)]
    config = config_of(name="ensemble", members=given, weights=shares, mean_of=mean_of)
    assert TypeAdapter(AnyTeacherConfig).validate_python(config.model_dump(mode="json")) == config
    network, logits = read(config)
    alone = [read(member)[1] for member in config.members]
    if mean_of == "probabilities":
        alone = [each.softmax(1) for each in alone]
    expected = sum(share * each for share, each in zip(shares, alone, strict=True)) / sum(shares)
    found = logits if mean_of == "logits" else logits.softmax(1)
    assert torch.allclose(found, expected, atol=1e-6)
    teacher = make_teacher(config)
    assert (teacher.exports, teacher.is_network) == (False, "outputs" not in kinds)
    assert ("inputs" in teacher.gives) == ("outputs" not in kinds)
    assert "embedding" not in network.gives
    assert look(network, SPLIT.batch(torch.arange(2)).inputs).embedding.shape == (2, 0)


def test_a_run_goes_on_from_its_copy_when_the_files_are_gone(members, tmp_path):
    config = config_of(name="ensemble", members=list(members.values()))
    network, logits = read(config)
    kept = tmp_path / "copy.safetensors"
    kept.write_bytes(weights_bytes(network, make_teacher(config).metadata(TASK)))
    for name in ("answers.npz", "plain.onnx"):
        (tmp_path / name).unlink()
    again = frozen(load_teacher(config, TASK, kept))
    make_teacher(config).meet(again, [SPLIT])
    inputs = SPLIT.batch(torch.arange(6)).inputs
    assert torch.equal(again(inputs), logits)
    assert torch.equal(copy.deepcopy(again)(inputs), logits)


def test_examples_that_a_member_does_not_know_are_named(members):
    config = config_of(name="ensemble", members=[members["weights"], members["outputs"]])
    network = make_teacher(config).read(TASK)
    stranger = ImageSplit(IMAGES[:1], torch.zeros(1, dtype=torch.int64), "test", np.array(["pets/else.png"]))
    with pytest.raises(CheckpointError, match=r"the teacher answers\.npz has no row for 1 of the 1 examples of test"):
        make_teacher(config).meet(network, [stranger])


def test_an_ensemble_of_networks_has_a_form_to_be_timed_by(members):
    config = config_of(name="ensemble", members=[members["weights"], members["weights"]])
    assert make_teacher(config).exports
    of_a_file = config_of(name="ensemble", members=[members["onnx"]])
    assert all(min(make_teacher(each).count(TASK)) > 0 for each in (config, of_a_file))
