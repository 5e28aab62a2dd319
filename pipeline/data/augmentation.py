"""Random crops and flips of training images: drawn afresh for every batch, or a few per image that recur.

With `views`, each image has that many crops, which take turns epoch by epoch; the teacher needs to see each only once.
"""

# B batch, N images of the split, C channels, H W height and width

from typing import NamedTuple

import torch
from torch import Tensor

from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.frozen import derive_seed

_NONE = AugmentConfig()


class Crops(NamedTuple):
    corners: Tensor  # [2, N] int64, row and column in the padded image
    flipped: Tensor  # [N] bool

    def of(self, index: Tensor) -> "Crops":
        return Crops(self.corners[:, index], self.flipped[index])


class Augmentation:
    """Augmentation of an epoch's images.

    Args:
        views: number of crops of each image that take turns; 0 draws them afresh for every batch.
        images: N, the size of the split that the batches come from. Only read with views.
        seed: of the views.
    """

    def __init__(self, config: AugmentConfig = _NONE, *, views: int = 0, images: int = 0, seed: int = 0) -> None:
        self._config = config
        self._views, self._images, self._seed = views, images, seed
        self._crops: dict[int, Crops] = {}

    def __call__(self, batch: Batch, epoch: int, generator: torch.Generator) -> Batch:
        """Return the batch as an epoch shows it; epochs count from 0."""
        if not self._config.is_random:
            return batch
        if self._views:
            return self.view(batch, 1 + epoch % self._views)
        drawn = draw_crops(len(batch.targets), self._config, generator)
        return batch._replace(inputs=crop(batch.inputs, self._config, drawn), view=None)

    def view(self, batch: Batch, number: int) -> Batch:
        """Return a batch of the split's own images in a numbered view; 0 leaves them as they are."""
        if number == 0:
            return batch
        if number not in self._crops:
            generator = torch.Generator().manual_seed(derive_seed(self._seed, "view", number))
            self._crops[number] = draw_crops(self._images, self._config, generator)
        chosen = self._crops[number].of(batch.index.cpu())
        return batch._replace(inputs=crop(batch.inputs, self._config, chosen), view=number)


def draw_crops(count: int, config: AugmentConfig, generator: torch.Generator) -> Crops:
    """Draw the crop corner of each of `count` images, and its flip."""
    corners, flipped = torch.zeros(2, count, dtype=torch.int64), torch.zeros(count, dtype=torch.bool)
    if config.pad:
        corners = torch.randint(0, 2 * config.pad + 1, (2, count), generator=generator)
    if config.flip:
        flipped = torch.rand(count, generator=generator) < 0.5
    return Crops(corners, flipped)


def crop(images: Tensor, config: AugmentConfig, crops: Crops) -> Tensor:
    """Crop each image after zero padding, and flip it where `crops` says so. [B, C, H, W] to the same."""
    count, _, height, width = images.shape
    if config.pad:
        padded = torch.nn.functional.pad(images, (config.pad,) * 4)
        corners = crops.corners.to(images.device)[:, :, None]
        rows = corners[0] + torch.arange(height, device=images.device)
        columns = corners[1] + torch.arange(width, device=images.device)
        of_image = torch.arange(count, device=images.device)[:, None, None]
        images = padded[of_image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if config.flip:
        images = torch.where(crops.flipped.to(images.device)[:, None, None, None], images.flip(3), images)
    return images
