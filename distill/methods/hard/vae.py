"""Perturbation of the latents of a small convolutional VAE, trained on the same images."""

# N images, B batch, Z latents, C channels, H W height and width

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgestill.distill.methods.hard.augmentor import Augmentor
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.randomness import drawn_from

LATENTS = 32
_WIDTH, _BATCH, _LEARNING_RATE, _KL_WEIGHT = 32, 64, 2e-3, 0.5


class Vae(nn.Module):
    """VAE of two strided convolutions to the latents' Gaussian, and two upsamplings back."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        channels, self._height, self._width = shape
        self._coarse = (2 * _WIDTH, math.ceil(self._height / 4), math.ceil(self._width / 4))
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, _WIDTH, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(_WIDTH, 2 * _WIDTH, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(math.prod(self._coarse), 2 * LATENTS),
        )
        self.widen = nn.Linear(LATENTS, math.prod(self._coarse))
        self.middle = nn.Conv2d(2 * _WIDTH, _WIDTH, 3, padding=1)
        self.last = nn.Conv2d(_WIDTH, channels, 3, padding=1)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images [B, C, H, W] to the posterior's mean and standard deviation, each [B, Z]."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        return mean, (0.5 * log_variance.clamp(-10, 4)).exp()

    def decode_logits(self, latents: Tensor) -> Tensor:
        """Decode latents [B, Z] to images [B, C, H, W] before the sigmoid."""
        hidden = self.widen(latents).view(-1, *self._coarse).relu()
        half = (math.ceil(self._height / 2), math.ceil(self._width / 2))
        hidden = self.middle(F.interpolate(hidden, size=half)).relu()
        pixels: Tensor = self.last(F.interpolate(hidden, size=(self._height, self._width)))
        return pixels

    def decode(self, latents: Tensor) -> Tensor:
        return self.decode_logits(latents).sigmoid()


class VaeAugmentor(Augmentor):
    """HARD-VAE: x~ = Dec(z + delta_phi(z, u)), z = mean(x) + deviation(x) u, |delta| <= trust * deviation.

    phi is delta's two layers; the VAE stays as it is. Departure from the paper: its VAE is a fine-tuned Very Deep VAE
    with pretrained weights. u = 0 gives the VAE's reconstruction, if delta is 0, not the image.
    """

    def __init__(self, vae: Vae, trust: float) -> None:
        super().__init__()
        self.vae = vae.requires_grad_(False)
        self._trust = trust
        self.hidden = nn.Linear(2 * LATENTS, 64)
        self.delta = nn.Linear(64, LATENTS)
        nn.init.zeros_(self.delta.weight)
        nn.init.zeros_(self.delta.bias)
        self.register_buffer("size", torch.zeros(()))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, LATENTS, generator=generator)

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        mean, deviation = self.vae.encode(images)
        latents = mean + deviation * noise
        step = self.delta(self.hidden(torch.cat([latents, noise], dim=1)).relu()).tanh()
        self.get_buffer("size").copy_(self._trust * step.detach().abs().mean())
        return self.vae.decode(latents + self._trust * deviation * step)

    def measures(self) -> dict[str, float]:
        """Mean size of delta in the last batch, in deviations of the posterior."""
        return {"step_in_deviations": float(self.get_buffer("size"))}


def vae_augmentor(shape: Sequence[int], trust: float, seed: int) -> VaeAugmentor:
    """Make an augmentor with an untrained VAE; all weights come from the seed."""
    with drawn_from(seed):
        return VaeAugmentor(Vae(shape), trust)


def train_vae(vae: Vae, train: ImageSplit, device: torch.device, *, epochs: int, seed: int) -> None:
    """Train the VAE in place on a split."""
    with drawn_from(seed):
        _train(vae, train, device, epochs)


@torch.no_grad()
def agreement(vae: Vae, teacher: nn.Module, split: ImageSplit, device: torch.device) -> float:
    """Share of a split's images that get the same answer from the teacher as their reconstructions."""
    same = 0
    for batch in split.batches(512, device):
        again = vae.decode(vae.encode(batch.inputs)[0])
        same += int((teacher(batch.inputs).argmax(1) == teacher(again).argmax(1)).sum())
    return same / len(split)


def _train(vae: Vae, train: ImageSplit, device: torch.device, epochs: int) -> None:
    """Train with Adam on the evidence lower bound; the divergence from the prior has half weight for sharper images."""
    vae.requires_grad_(True)
    optimizer = torch.optim.Adam(vae.parameters(), lr=_LEARNING_RATE)
    for _ in range(epochs):
        for index in torch.split(torch.randperm(len(train)), _BATCH):
            images = train.batch(index.to(train.images.device), device).inputs
            mean, deviation = vae.encode(images)
            logits = vae.decode_logits(mean + deviation * torch.randn(mean.shape).to(device))
            reconstruction = F.binary_cross_entropy_with_logits(logits, images, reduction="sum")
            prior = 0.5 * (mean.square() + deviation.square() - 1).sum() - deviation.log().sum()
            loss = (reconstruction + _KL_WEIGHT * prior) / len(images)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    vae.requires_grad_(False)
