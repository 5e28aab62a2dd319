"""Files whole or absent; weights from anywhere that fit, and nothing in them that runs."""

import argparse
import errno
import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.errors import CheckpointError
from edgestill.pipeline.networks.cifar_resnet import CifarResNet
from edgestill.pipeline.runs.checkpoint import (
    load_weights,
    read_metadata,
    read_state,
    read_weights,
    state_bytes,
    weights_bytes,
    write_atomic,
)
from edgestill.pipeline.teachers import TeacherConfig, build_teacher, load_teacher, make_teacher
from edgestill.pipeline.teachers.resnet import RESNETS
from edgestill.pipeline.training.metrics import evaluate
from edgestill.search.spaces import SPACES


@pytest.fixture
def resnet():
    """A small network with weights of its own; `blocks` makes it another architecture."""

    def make(blocks=(1, 1, 1), widths=(4, 8, 16), classes=3, shortcut="B"):
        return CifarResNet(blocks, widths, num_classes=classes, mean=(0.5,), std=(0.2,), shortcut=shortcut)

    return make


def same(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


# Writing


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, broken):
    path = tmp_path / "result.json"
    write_atomic(path, b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, broken, full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["result.json"]


def test_an_interruption_leaves_the_old_file_too(tmp_path, monkeypatch):
    path = tmp_path / "result.json"

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_written_file_is_readable_by_others_and_its_folder_is_made(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    write_atomic(path, b"data")
    assert path.read_bytes() == b"data"
    assert path.stat().st_mode & 0o777 == 0o644


# Reading back


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_come_back_as_they_were(tmp_path, resnet, suffix):
    network, other = resnet(), resnet()
    network(torch.rand(4, 1, 8, 8))  # moves the running statistics
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(network.state_dict(), path)
    else:
        path.write_bytes(weights_bytes(network, {"note": "grün"}))
        assert read_metadata(path) == {"note": "grün"}
    assert not same(network, other)
    load_weights(other, path)
    assert same(network, other)


@pytest.mark.parametrize("name", SPACES)
def test_every_spaces_students_come_back_from_their_file(tmp_path, name, small_space, make_task_for, make_batch):
    space = small_space(name)
    task, last = make_task_for(space), list(space.all_architectures())[-1]
    network, other = space.build(last, task), space.build(last, task)
    network(make_batch(task, 4).inputs)
    write_atomic(tmp_path / "weights.safetensors", weights_bytes(network))
    load_weights(other, tmp_path / "weights.safetensors")
    assert same(network, other)


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.", "net."])
@pytest.mark.parametrize("nest", [None, "state_dict", "model", "net"])
def test_what_wrappers_put_around_weights_is_taken_off(tmp_path, resnet, prefix, nest):
    network, other = resnet(), resnet()
    state = {prefix + name: value for name, value in network.state_dict().items()}
    path = tmp_path / "weights.pt"
    torch.save({nest: state, "epoch": 3, "best": 0.5} if nest else state, path)
    load_weights(other, path)
    assert same(network, other)


def test_usual_spellings_of_other_code_are_understood(tmp_path, resnet):
    network, other = resnet(), resnet()
    spelt = {
        name.replace("linear.", "fc.").replace("shortcut.", "downsample."): value
        for name, value in network.state_dict().items()
    }
    assert any("downsample" in name for name in spelt)
    torch.save(spelt, tmp_path / "weights.pth")
    load_weights(other, tmp_path / "weights.pth")
    assert same(network, other)


def test_foreign_weights_leave_the_input_normalisation_as_it_was_built(tmp_path, resnet):
    network = resnet()
    state = {name: value for name, value in network.state_dict().items() if not name.startswith("normalize.")}
    torch.save(state, tmp_path / "weights.pt")
    load_weights(network, tmp_path / "weights.pt")
    assert network.normalize.mean.item() == 0.5
    assert network.normalize.std.item() == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"classes": 5}, r"linear.weight is \[3, 16\] in the file and \[5, 16\] in the network"),
        ({"blocks": (1, 1, 2)}, r"the file lacks layer3.1.conv1.weight, layer3.1.bn1.weight, .* and \d+ more"),
        ({"shortcut": "A"}, r"the file has layer2.0.shortcut.0.weight, .* beyond the network"),
        ({"widths": (6, 8, 16)}, r"conv1.weight is \[4, 1, 3, 3\] in the file and \[6, 1, 3, 3\] .*; and \d+ more"),
    ],
)
def test_weights_of_another_architecture_are_refused_in_one_sentence(tmp_path, resnet, given, said):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(weights_bytes(resnet()))
    network = resnet(**given)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=said) as caught:
        load_weights(network, path)
    assert "is a checkpoint of another architecture" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in before.items())


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def read_saved_state(path):
    return read_state(path.read_bytes())


@pytest.mark.parametrize("read", [read_weights, read_saved_state])
def test_a_checkpoint_that_holds_code_is_refused_and_the_code_not_run(tmp_path, read):
    sprung, path = tmp_path / "sprung", tmp_path / "weights.pt"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "hook": Trap(sprung)}, path)
    with pytest.raises(CheckpointError) as caught:
        read(path)
    assert not sprung.exists()
    if read is read_weights:
        assert "could run code; save its state_dict() alone" in str(caught.value)
    torch.load(path, weights_only=False)  # the trap works where pickles are run
    assert sprung.exists()


def test_a_whole_pickled_module_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        read_weights(tmp_path / "model.pt")


def test_an_old_style_pickle_with_code_is_refused_and_not_run(tmp_path):
    path, sprung = tmp_path / "weights.pth", tmp_path / "sprung"
    path.write_bytes(pickle.dumps({"a": Trap(sprung)}, protocol=2))
    with pytest.raises(CheckpointError):
        read_weights(path)
    assert not sprung.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_truncated_weights_are_refused(tmp_path, resnet, suffix, share):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(resnet().state_dict(), path)
        data = path.read_bytes()
    else:
        data = weights_bytes(resnet())
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match="truncated or not a weights file") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_file_of_another_kind_is_not_said_to_hold_code(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_text("these are not weights at all\n" * 20)
    with pytest.raises(CheckpointError, match="truncated or not a weights file"):
        read_weights(path)


@pytest.mark.parametrize("key", ["model_state_dict", "ema", None])
def test_tensors_are_found_under_the_usual_key_or_the_only_one(tmp_path, key):
    tensors = {"a.weight": torch.rand(2, 3)}
    beside = {"optimizer_state_dict": {"state": {0: {"step": torch.ones(1)}}, "param_groups": []}, "epoch": 3}
    kept = {"args": argparse.Namespace(lr=0.1)} if key is None else {}  # as timm's training script saves
    torch.save(beside | kept | {key or "state_dict": tensors}, tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt").keys() == tensors.keys()
    torch.save({"first": tensors, "second": tensors}, tmp_path / "two.pt")
    with pytest.raises(CheckpointError, match=r"holds several networks \(first, second\)"):
        read_weights(tmp_path / "two.pt")


def test_a_torchscript_archive_is_told_as_one(tmp_path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.rand(1, 2)), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"is a TorchScript archive; .*torchscript:"):
        read_weights(tmp_path / "w.pt")


def test_missing_and_empty_checkpoints_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"no weights file at .*nowhere.pt"):
        read_weights(tmp_path / "nowhere.pt")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(CheckpointError, match="holds no tensors by name"):
        read_weights(tmp_path / "empty.pt")
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="holds no tensors by name"):
        read_weights(tmp_path / "list.pt")


def test_a_training_state_comes_back_as_it_was():
    state = {"weights": {"a": torch.rand(3)}, "curve": [{"epoch": 0, "loss": 0.1}], "best": None}
    found = read_state(state_bytes(state))
    assert torch.equal(found.pop("weights")["a"], state.pop("weights")["a"])
    assert found == state
    with pytest.raises(CheckpointError, match="not a readable training state"):
        read_state(state_bytes(state)[:50])


@pytest.mark.parametrize("content", [b"", b"\x00" * 8, (2**62).to_bytes(8, "little"), b"\x05" + b"\x00" * 7 + b"{bad}"])
def test_metadata_of_what_is_no_safetensors_file_is_empty(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    assert read_metadata(path) == {}


# Teachers


def test_teachers_have_their_papers_depth_and_parameters(make_task):
    """He et al. 2015, table 6: ResNet-20 0.27M, -32 0.46M, -44 0.66M, -56 0.85M, -110 1.7M, on CIFAR-10."""
    published = {"resnet20": 0.27, "resnet32": 0.46, "resnet44": 0.66, "resnet56": 0.85, "resnet110": 1.7}
    counted = {"resnet8": 0.078, "resnet14": 0.175}  # by hand: n = 1 and 2, which the paper has not
    assert set(RESNETS) == {*published, *counted}
    task = make_task(channels=3, side=32, classes=10)
    for name, millions in (published | counted).items():
        network = build_teacher(TeacherConfig(architecture=name), task)
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert len(layers) == int(name.removeprefix("resnet"))
        params = sum(p.numel() for p in network.parameters())
        assert params / 1e6 == pytest.approx(millions, abs=0.05 if millions > 1 else 0.006)


def test_option_a_takes_every_second_pixel_and_pads_channels_with_zeros(resnet):
    shortcut = resnet(shortcut="A").layer2[0].shortcut
    images = torch.rand(2, 4, 5, 5)
    found = shortcut(images)
    assert found.shape == (2, 8, 3, 3)
    assert torch.equal(found[:, 2:6], images[:, :, ::2, ::2])
    assert not found[:, :2].any()
    assert not found[:, 6:].any()


def test_a_teacher_for_images_of_another_size_is_refused(tmp_path, make_task):
    config = TeacherConfig(architecture="resnet20")
    small, large = make_task(side=8), make_task(side=16)
    network = build_teacher(config, small)
    path = tmp_path / "teacher.safetensors"
    path.write_bytes(weights_bytes(network, make_teacher(config).metadata(small)))
    assert same(load_teacher(config, small, path), network)
    with pytest.raises(CheckpointError, match="was trained on images of 8 x 8 pixels, and the data's are 16 x 16"):
        load_teacher(config, large, path)


def test_a_normalisation_with_too_few_channels_is_refused(make_task):
    with pytest.raises(CheckpointError, match=r"hold 3 and 3 values, but the images have 1 channel"):
        build_teacher(TeacherConfig(mean=(0.5,) * 3, std=(0.2,) * 3), make_task(channels=1))


def test_an_unknown_teacher_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"known: .*resnet20, .*resnet56"):
        TeacherConfig(architecture="resnet57")


@pytest.mark.data
def test_the_published_resnet56_reaches_its_accuracy(development_data, make_task):
    """93.4 % on all 10,000 test images; 1,000 of them have a standard error of 0.8 points, the bound is three below."""
    tiles = np.asarray(Image.open(development_data / "cifar10" / "test_00.webp").convert("RGB"))
    images = tiles.reshape(40, 32, 50, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3)[:1000]
    targets = np.load(development_data / "cifar10" / "labels.npz")["test"][:1000]
    config = TeacherConfig(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    task = make_task(channels=3, side=32, classes=10)
    network = load_teacher(config, task, development_data / "weights" / "resnet56-4bfd9763.th")
    split = ImageSplit(
        torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(targets.astype(np.int64))
    )
    assert evaluate(network, split, torch.device("cpu")).accuracy >= 0.91
