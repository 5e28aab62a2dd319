"""Students that INT8 breaks as a whole: depthwise ones, whose channels differ thousandfold after some convolutions."""

import torch
from torch import nn

from edgestill.export.conformance import TINTS, tinted
from edgestill.pipeline.conformance.samples import image_task
from edgestill.pipeline.task import Task


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
    """Solve for the last layer by least squares, on images whose class shows as a colour."""
    train = tinted(400, 1, "train")
    with torch.no_grad():
        embedding = network.features(train.images[:]).double()
        wide = torch.cat([embedding, torch.ones(len(embedding), 1, dtype=torch.float64)], dim=1)
        wanted = 6 * nn.functional.one_hot(train.targets, len(TINTS)).double() - 2
        solved = torch.linalg.lstsq(wide, wanted).solution.float()
        network.last.weight.copy_(solved[:-1].T)
        network.last.bias.copy_(solved[-1])
    return network.eval()


def task() -> Task:
    """Return the images' task, with the statistics of the training images."""
    images = tinted(400, 1, "train").images[:]
    statistics = {"mean": tuple(images.mean((0, 2, 3)).tolist()), "std": tuple(images.std((0, 2, 3)).tolist())}
    return image_task(channels=3, side=12, classes=len(TINTS)).model_copy(update=statistics)
