"""Code that you would have already: a torch data set, and a trained network. Here they are bars, and a small one."""

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset


class Bars(Dataset[tuple[Tensor, int]]):
    """Bright bars under noise: level, upright or slanting. An item is pixels [1, 16, 16] in [0, 1] and its class."""

    classes = ("level", "upright", "slanting")

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed = count, seed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, n: int) -> tuple[Tensor, int]:
        if not 0 <= n < self._count:
            raise IndexError(n)
        generator = torch.Generator().manual_seed(10_000 * self._seed + n)
        pixels, at = torch.rand(16, 16, generator=generator) * 0.6, int(torch.randint(4, 12, (), generator=generator))
        rows, target = torch.arange(16), n % 3
        lit = [(at, rows), (rows, at), (rows, (rows + at) % 16)][target]
        pixels[lit] += 0.4
        return pixels[None], target


class Teacher(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 5, padding=2), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2), nn.ReLU()
        )
        self.head = nn.Linear(64, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).amax((2, 3)))  # type: ignore[no-any-return]


def trained(data: Bars, steps: int = 60) -> Teacher:
    torch.manual_seed(0)
    images, targets = torch.stack([pixels for pixels, _ in data]), torch.tensor([target for _, target in data])
    network = Teacher()
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(steps):
        rows = torch.randint(len(images), (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images[rows]), targets[rows]).backward()
        optimizer.step()
    return network.eval()
