"""A teacher that is read wrongly, or that learnt nothing, is told by its cause on validation."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.errors import CheckpointError
from edgestill.pipeline.networks.network import Normalize
from edgestill.pipeline.task import Task
from edgestill.pipeline.training.calibration import calibration
from edgestill.pipeline.training.confusion import useless
from edgestill.pipeline.training.input_probes import probes_of
from edgestill.pipeline.training.teacher_check import doubt_of, fault_of, figures_of, reordered

CPU = torch.device("cpu")
LABELS = tuple(map(str, range(10)))
TEXTS = Task(kind="text", labels=("no", "yes"), input_shape=(1,), vocab_size=3)


class Small(nn.Module):
    """Convolutions for images of any size; the channels matter, and normalisation is its first layer."""

    def __init__(self, mean, std):
        super().__init__()
        channels = len(mean)
        self.num_classes = 10
        self.normalize = Normalize(mean, std)
        self.body = nn.Sequential(
            nn.Conv2d(channels, 24, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(24, 48, 3, padding=1),
            nn.ReLU(),
        )
        self.linear = nn.Linear(48, 10)

    def forward_features(self, inputs):
        return self.body(self.normalize(inputs))

    def forward_head(self, features, pre_logits=False):
        embedding = features.amax((2, 3))
        return embedding if pre_logits else self.linear(embedding)

    def get_classifier(self):
        return self.linear

    def forward(self, inputs):
        return self.forward_head(self.forward_features(inputs))


class Mapped(Small):
    def get_classifier(self):
        return copy.deepcopy(self.linear)


def digits(channels=1, side=8):
    """Digits as a task and two splits; with 3 channels, each digit has a colour of its own and so has the noise."""
    found = load_digits()
    images = torch.from_numpy(found.images / 16).float()[:, None]
    targets = torch.from_numpy(found.target).long()
    if channels == 3:
        generator = torch.Generator().manual_seed(0)
        colours = torch.stack([targets % 3, targets // 2 % 3, targets // 4 % 3], 1)[:, :, None, None] / 3
        images = (images * (0.3 + colours) + 0.1 * torch.rand(len(images), 3, 8, 8, generator=generator)).clamp(0, 1)
    if side != 8:
        images = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
    train, validation = ImageSplit(images[:1200], targets[:1200]), ImageSplit(images[1200:], targets[1200:])
    mean, std = images[:1200].mean((0, 2, 3)).tolist(), images[:1200].std((0, 2, 3)).tolist()
    return Task(labels=LABELS, input_shape=tuple(images.shape[1:]), mean=mean, std=std), train, validation


def taught(task, train, mean=None, std=None):
    torch.manual_seed(0)
    network = Small(mean or task.mean, std or task.std)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(6):
        for index in torch.randperm(len(train)).split(64):
            batch = train.batch(index)
            optimizer.zero_grad()
            F.cross_entropy(network(batch.inputs), batch.targets).backward()
            optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def grey():
    task, train, validation = digits()
    return task, validation, taught(task, train)


def fault(network, task, validation, takes_mean=True, size_key="data.size"):
    figures = figures_of(network, validation, CPU, task.num_classes)
    probes = probes_of(network, task, takes_mean=takes_mean, size_key=size_key)
    return fault_of(network, task, validation, CPU, figures, probes)


def normalised_by(network, mean, std):
    """The same weights behind another normalisation."""
    found = Small(mean, std)
    found.load_state_dict({k: v for k, v in network.state_dict().items() if "normalize" not in k}, strict=False)
    return found.eval()


def test_figures_are_those_of_the_split(grey):
    _, validation, network = grey
    found = figures_of(network, validation, CPU, 10)
    logits = network(validation.images).detach().numpy()
    assert found.metrics.accuracy == found.confusion.accuracy == (logits.argmax(1) == validation.targets.numpy()).mean()
    assert found.calibration_error == pytest.approx(calibration(logits, validation.targets.numpy())[0], abs=1e-6)
    assert 0 < found.ms_an_example < 1000
    assert not network.training


def test_a_good_teacher_has_no_fault(grey):
    task, validation, network = grey
    assert figures_of(network, validation, CPU, 10).metrics.accuracy > 0.9
    assert fault(network, task, validation) == ""


def test_answers_that_are_no_numbers_are_told_as_such(grey):
    task, validation, network = grey
    broken = taught_again(network)
    with torch.no_grad():
        broken.linear.bias[3] = float("nan")
    count = len(validation)
    assert f"answers {count} of {count} validation examples with NaN; check its weights" in fault(
        broken, task, validation
    )


def test_answers_of_a_sigmoid_are_doubted(grey):
    _, validation, network = grey
    assert doubt_of(figures_of(network, validation, CPU, 10)) == ""
    flat = nn.Sequential(network, nn.Sigmoid()).eval()
    assert "lie between 0 and 1, as those of a sigmoid do" in doubt_of(figures_of(flat, validation, CPU, 10))


def test_rolled_classes_are_told_with_the_order_that_mends_them(grey):
    task, validation, network = grey
    rolled = taught_again(network)
    with torch.no_grad():
        for parameter in rolled.linear.parameters():
            parameter.copy_(torch.roll(parameter, 1, 0))
    said = fault(rolled, task, validation)
    assert "its classes stand in another order: class 0 is the data's '9', class 1 is the data's '0'" in said
    order = [9, 0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert f"set teacher.order to {order}" in said
    mended = reordered(rolled, order)
    assert all(torch.equal(a, b) for a, b in zip(mended.parameters(), network.parameters(), strict=True))
    assert fault(mended, task, validation) == ""


def test_two_classes_in_the_place_of_each_other_are_told_though_accuracy_is_far_above_chance(grey):
    task, validation, network = grey
    swapped = reordered(taught_again(network), [0, 1, 2, 4, 3, 5, 6, 7, 8, 9])
    assert figures_of(swapped, validation, CPU, 10).metrics.accuracy > 0.7
    assert "class 3 is the data's '4', class 4 is the data's '3';" in fault(swapped, task, validation)


def test_a_teacher_at_chance_is_told_with_what_was_tried(grey):
    task, validation, _ = grey
    torch.manual_seed(3)
    network = Small(task.mean, task.std).eval()
    said = fault(network, task, validation)
    assert "not surely more than always answering the most frequent class (10." in said
    assert "no other order of its classes, normalisation, order of channels or size makes it better" in said
    assert useless(figures_of(network, validation, CPU, 10).confusion, "the teacher", "validation") in said


def test_the_wrong_normalisation_is_told_with_the_right_one(grey):
    task, validation, network = grey
    of_bytes = normalised_by(network, (0.0,), (1.0,))
    first = of_bytes.body[0]
    with torch.no_grad():  # the same function of pixels in [0, 255], as far as the padding lets it
        first.weight.copy_(network.body[0].weight / 255 / task.std[0])
        first.bias.copy_(network.body[0].bias - network.body[0].weight.sum((1, 2, 3)) * task.mean[0] / task.std[0])
    said = fault(of_bytes, task, validation)
    assert "it expects pixels from 0 to 255; so read" in said
    assert "set teacher.mean to [0] and teacher.std to [0.003922]" in said
    assert "let the network take the mean [0]" in fault(of_bytes, task, validation, takes_mean=False)


def test_blue_first_channels_are_told():
    task, train, validation = digits(channels=3)
    network = taught(task, dataclasses.replace(train, images=train.images.flip(1)), task.mean[::-1], task.std[::-1])
    said = fault(normalised_by(network, task.mean, task.std), task, validation)
    assert "it expects the channels blue first" in said
    assert "swap the input channels 0 and 2 of its first layer's weights" in said


def test_images_of_another_size_are_told():
    large, train, _ = digits(side=16)
    task, _, validation = digits()
    network = taught(large, train)
    said = fault(normalised_by(network, task.mean, task.std), task, validation)
    assert "it expects images of about 16 x 16 pixels, and the data's are 8 x 8" in said
    assert "set data.size to 16" in said


def test_a_network_for_one_size_alone_is_no_reason_to_fail(grey):
    task, validation, _ = grey
    torch.manual_seed(0)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    assert "no other order" in fault(flat, task, validation)


def test_rare_positives_found_at_a_cost_are_no_fault():
    """Less accurate than always answering the large class, and yet informative."""
    rng = np.random.default_rng(0)
    targets = (rng.random(4000) < 0.03).astype(np.int64)
    answers = np.where(rng.random(4000) < np.where(targets == 1, 0.7, 0.05), 1, 0)
    split = ImageSplit(torch.from_numpy(answers)[:, None], torch.from_numpy(targets))
    network = nn.Sequential(nn.Embedding.from_pretrained(torch.eye(2)), nn.Flatten())
    figures = figures_of(network, split, CPU, 2)
    assert figures.confusion.accuracy < figures.confusion.majority
    assert fault_of(network, TEXTS, split, CPU, figures, []) == ""


def test_always_answering_one_class_is_no_order_of_classes_though_another_class_is_more_frequent():
    targets = (torch.arange(400) % 5 < 3).long()  # 60 % of class 1
    split, task = ImageSplit(torch.ones(400, 1, dtype=torch.int64), targets), TEXTS
    always_0 = nn.Sequential(nn.Embedding.from_pretrained(torch.tensor([[1.0, 0], [1, 0]])), nn.Flatten())
    said = fault_of(always_0, task, split, CPU, figures_of(always_0, split, CPU, 2), [])
    assert "40.00% of 400 validation examples, not surely more" in said
    assert "another order" not in said


def test_the_two_classes_of_a_text_teacher_in_the_place_of_each_other_are_told():
    targets = torch.arange(400) % 2
    split = ImageSplit(1 - targets[:, None], targets)
    swapped = nn.Sequential(nn.Embedding.from_pretrained(torch.eye(2)), nn.Flatten())
    said = fault_of(swapped, TEXTS, split, CPU, figures_of(swapped, split, CPU, 2), [])
    assert "class 0 is the data's 'yes', class 1 is the data's 'no'; so read, it is right on 100.00%" in said


def test_an_order_that_names_no_class_once_is_refused(grey):
    _, _, network = grey
    with pytest.raises(CheckpointError, match="each number from 0 to 9 once"):
        reordered(network, [0] * 10)
    with pytest.raises(CheckpointError, match=r"put in order by their names; give teacher\.labels"):
        reordered(Mapped((0.0,), (1.0,)), range(10))
    with pytest.raises(CheckpointError, match="ends in a Linear"):
        reordered(nn.Flatten(), [0, 1])


def taught_again(network):
    copied = Small((0.0,), (1.0,))
    copied.load_state_dict(network.state_dict())
    return copied.eval()
