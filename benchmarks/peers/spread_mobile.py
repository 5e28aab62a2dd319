"""Students that INT8 breaks as a whole: depthwise ones, whose channels differ thousandfold after some convolutions."""

import torch
from torch import nn

from edgestill.export.conformance import TINTS, tinted
from edgestill.pipeline.conformance.samples import image_task
from edgestill.pipeline.task import Task

_RIDGE = 1e-3  # of the features' variance


class SpreadMobile(nn.Module):
    """A convolution, blocks of a depthwise and a pointwise one, a pool and a last layer."""

    def __init__(
        self, seed: int, at: tuple[int, ...], spread: float = 3000.0, width: int = 32, blocks: int = 4
    ) -> None:
        """Spread the channels after the depthwise convolutions of the blocks `at`; the function stays the same."""
        super().__init__()
        torch.manual_seed(seed)
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
        scales = torch.logspace(0, float(torch.tensor(spread).log10()), width)[torch.randperm(width)]
        for place in range(blocks):
            depthwise, pointwise = nn.Conv2d(width, width, 3, padding=1, groups=width), nn.Conv2d(width, width, 1)
            for layer in (depthwise, pointwise):  # by torch's own start all images look alike after a few blocks
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if place in at:
                with torch.no_grad():
                    depthwise.weight.mul_(scales[:, None, None, None])
                    depthwise.bias.mul_(scales)
                    pointwise.weight.div_(scales[None, :, None, None])
            layers += [depthwise, nn.ReLU(), pointwise, nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.last = nn.Linear(width, len(TINTS))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(self.features(inputs))
        return logits


def fitted(network: SpreadMobile) -> SpreadMobile:
    """Solve for the last layer by ridge regression, on images whose class shows as a colour.

    Features are scaled to a deviation of 1; without the ridge, small ones would carry the answer, and rounding with it.
    """
    train = tinted(400, 1, "train")
    with torch.no_grad():
        embedding = network.features(train.images[:]).double()
        mean, deviation = embedding.mean(0), embedding.std(0).clamp_min(1e-6)
        scaled = (embedding - mean) / deviation
        wanted = 6 * nn.functional.one_hot(train.targets, len(TINTS)).double() - 2
        ridge = _RIDGE * len(scaled) * torch.eye(scaled.shape[1], dtype=torch.float64)
        solved = torch.linalg.solve(scaled.T @ scaled + ridge, scaled.T @ (wanted - wanted.mean(0)))
        weight = solved.T / deviation
        network.last.weight.copy_(weight.float())
        network.last.bias.copy_((wanted.mean(0) - weight @ mean).float())
    return network.eval()


def task() -> Task:
    """Return the images' task, with the statistics of the training images."""
    images = tinted(400, 1, "train").images[:]
    statistics = {"mean": tuple(images.mean((0, 2, 3)).tolist()), "std": tuple(images.std((0, 2, 3)).tolist())}
    return image_task(channels=3, side=12, classes=len(TINTS)).model_copy(update=statistics)
