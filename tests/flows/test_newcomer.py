"""A newcomer's first try: photographs in folders, a teacher in a file of their own, ten lines of configuration."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from edgestill.export.bundle.verify import verify

pytestmark = pytest.mark.engines

COUNT, SIDES = 900, ((32, 32), (40, 30), (28, 44))
COLOURS = {"apple": (190, 40, 40), "leaf": (50, 170, 60), "sky": (60, 90, 210)}
TEACHER = """import torch
from torch import nn


class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def make():
    network = Mine()
    network.load_state_dict(torch.load("WEIGHTS", weights_only=True))
    return network
"""
CONFIG = """\
name: first
data: {name: folder, path: PHOTOS, size: 32}
teacher: TEACHER:make
search:
  space: {name: resnet, widths: [[8], [8, 16], [16]], blocks: [[1], [1], [1]]}
  budget: {max_params: 20k}
tune: {enabled: false}
distill: {training: {epochs: 2, batch_size: 64}}
export: {formats: [fp32]}
profile: {timing: {duration_s: 0.1}}
"""


def photograph(label: str, size: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A shape of the class's colour, by noise and light of its own, so that grey ones keep a hint of it."""
    pixels = np.array(COLOURS[label]) * rng.uniform(0.7, 1.2) + rng.normal(0, 25, (size[1], size[0], 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for n in range(COUNT):
        label = list(COLOURS)[n % 3]
        (root / label).mkdir(exist_ok=True)
        image = photograph(label, SIDES[n % 7 % 3], rng)
        image = image.convert("L") if n % 100 == 50 else image.convert("CMYK") if n == 9 else image
        image.save(root / label / f"{n:04}.jpg", quality=90)
    cut = root / "apple" / "0012.jpg"
    cut.write_bytes(cut.read_bytes()[:300])
    return root


@pytest.fixture(scope="module")
def teacher(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The newcomer's own file, in another folder, and weights that they have trained."""
    folder = tmp_path_factory.mktemp("work")
    text = TEACHER.replace("WEIGHTS", str(folder / "w.pt"))
    (folder / "mine.py").write_text(text)
    space: dict[str, type[nn.Module]] = {}
    exec(text, space)
    torch.manual_seed(0)
    network = space["Mine"]()
    paths = [path for path in sorted(photographs.glob("*/*.jpg")) if path.name != "0012.jpg"][::3]
    images = [np.asarray(Image.open(path).convert("RGB").resize((32, 32))) for path in paths]
    given = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    targets = torch.tensor([list(COLOURS).index(path.parent.name) for path in paths])
    optimizer = torch.optim.Adam(network.parameters(), 2e-2)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(given), targets).backward()
        optimizer.step()
    torch.save(network.state_dict(), folder / "w.pt")
    return folder / "mine.py"


def test_ten_lines_of_configuration_give_a_bundle_at_the_first_try(photographs, teacher, edgestill, tmp_path):
    config = tmp_path / "first.yaml"
    config.write_text(CONFIG.replace("PHOTOS", str(photographs)).replace("TEACHER", str(teacher)))
    assert len(config.read_text().splitlines()) == 10
    assert len(teacher.read_text().splitlines()) <= 20
    brief = ["--quiet", "--set", "baselines.enabled=false"]
    done = edgestill("run", str(config), "--out", str(tmp_path / "runs"), *brief)
    assert done.returncode == 0, done.stderr
    [bundle] = (tmp_path / "runs").glob("*/bundle")
    assert verify(bundle).problems == ()
    assert "0012.jpg" in done.stdout + done.stderr  # the truncated one is named, and left out
    assert "grey" in done.stdout + done.stderr
