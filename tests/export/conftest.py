"""A small student that is right about its task, its fp32 file, and the splits that it is judged on."""

from types import SimpleNamespace

import pytest
import torch

from export.calibration import calibration_examples
from export.formats import Source
from export.to_onnx import to_onnx
from pipeline.blocks import CifarResNet
from pipeline.data import ImageSplit


def learned(network, split):
    """The network with running statistics of the split, and its last layer solved for by least squares."""
    images, targets = split.images, split.targets
    network.train()
    for _ in range(30):
        network(images)
    network.eval()
    with torch.no_grad():
        embedding = network.forward_head(network.forward_features(images), pre_logits=True).double()
        wide = torch.cat([embedding, torch.ones(len(embedding), 1, dtype=torch.float64)], dim=1)
        wanted = 6 * torch.nn.functional.one_hot(targets, network.num_classes).double() - 2
        solved = torch.linalg.lstsq(wide, wanted).solution.float()
        network.linear.weight.copy_(solved[:-1].T)
        network.linear.bias.copy_(solved[-1])
    return network


TINTS = torch.tensor([[0.3, 0.0, 0.1], [0.0, 0.3, 0.1], [0.1, 0.1, 0.4], [0.2, 0.2, 0.0]])  # of a class, by channel


def tinted(count, seed, role):
    """Images whose class shows as a colour, under noise."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % len(TINTS)
    tint = TINTS[targets] * (0.7 + 0.3 * torch.rand(count, 1, generator=generator))
    images = 0.5 * torch.rand(count, 3, 12, 12, generator=generator) + tint[:, :, None, None]
    return ImageSplit(images, targets, role)


@pytest.fixture(scope="session")
def image_student(make_task, tmp_path_factory):
    """task, splits, network, path (of the fp32 file) and source; right on nine images of ten or so."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        task = make_task(channels=3, side=12, classes=4)
        train = tinted(400, 1, "train")
        mean, std = (tuple(values.tolist()) for values in (train.images.mean((0, 2, 3)), train.images.std((0, 2, 3))))
        task = task.model_copy(update={"mean": mean, "std": std})
        # Its own normalisation differs by channel, or an exchange of channels would go unseen.
        network = CifarResNet((1, 1, 1), (8, 12, 16), num_classes=4, mean=(0.3, 0.5, 0.6), std=(0.2, 0.3, 0.4))
        learned(network, train)
    splits = SimpleNamespace(validation=tinted(300, 2, "validation"), reference=tinted(64, 3, "reference"), task=task)
    path = tmp_path_factory.mktemp("student") / "student.onnx"
    path.write_bytes(to_onnx(network, task.input_shape, 20))
    source = Source(onnx=path, network=network, task=task, calibration=calibration_examples(splits.reference, 64))
    return SimpleNamespace(task=task, splits=splits, network=network, path=path, source=source)
