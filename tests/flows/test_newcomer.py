"""3,000 pictures as they lie on a disk, a teacher in a file of one's own, ten lines: the first try ends in a bundle."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from edgestill.export.bundle.verify import verify
from edgestill.flows.cli.main import execute

pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]

COLOURS = {"apple": (190, 40, 40), "leaf": (50, 170, 60), "sky": (60, 90, 210)}
SIZES = ((40, 30), (30, 40), (32, 32))
TEACHER = """
import torch
from pathlib import Path
from torch import nn


class Mine(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.head = nn.Linear(3, classes)

    def forward(self, images):
        return self.head(images.mean((2, 3)))


def make(num_classes):
    network = Mine(num_classes)
    network.load_state_dict(torch.load(Path(__file__).with_name("mine.pt"), weights_only=True))
    return network
"""
CONFIG = """
name: photos
data: {name: folder, path: photos, size: 16}
teacher: {name: python, code: "../teachers/mine.py:make"}
search:
  space: {name: resnet, widths: [[4, 6], [8], [8]], blocks: [[1], [1], [1]]}
  budget: {max_params: 20k}
  baselines: []
tune: {enabled: false}
distill: {training: {epochs: 2, learning_rate: 0.05}}
export: {formats: [fp32]}
"""
QUICK = ("device.threads=1", "search.scorer=params", "search.draws=1", "search.shortlist=1", "baselines.enabled=false",
         "profile.timing.duration_s=0.02", "profile.timing.min_samples=30")  # fmt: skip


def write_photographs(folder: Path) -> None:
    """Write pictures of a class's colour under noise: some grey, one of CMYK, one truncated."""
    rng = np.random.default_rng(0)
    for label in COLOURS:
        (folder / label).mkdir(parents=True)
    for n in range(3000):
        label = list(COLOURS)[n % 3]
        height, width = SIZES[n % 7 % 3]
        pixels = np.array(COLOURS[label]) * rng.uniform(0.7, 1.2) + rng.normal(0, 25, (height, width, 3))
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        mode = "L" if n % 100 == 50 else "CMYK" if n == 9 else "RGB"
        image.convert(mode).save(folder / label / f"{n:04}.jpg", quality=90)
    cut = folder / "apple" / "0012.jpg"
    cut.write_bytes(cut.read_bytes()[:300])


def test_the_first_try_ends_in_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    assert len(CONFIG.strip().splitlines()) == 10
    project, teachers = tmp_path / "project", tmp_path / "teachers"
    teachers.mkdir()
    write_photographs(project / "photos")
    (teachers / "mine.py").write_text(TEACHER)
    head = nn.Linear(3, 3)  # answers by the mean colour: twice the product with each class's own, as distances have it
    means = torch.tensor(list(COLOURS.values())) * 0.95 / 255
    with torch.no_grad():
        head.weight.copy_(40 * means)
        head.bias.copy_(-20 * means.square().sum(1))
    torch.save({f"head.{name}": tensor for name, tensor in head.state_dict().items()}, teachers / "mine.pt")
    (project / "photos.yaml").write_text(CONFIG)
    monkeypatch.chdir(project)
    assert execute(["run", "photos.yaml", "--quiet", *(word for each in QUICK for word in ("--set", each))]) == 0
    [bundle] = project.glob("runs/*/bundle")
    assert verify(bundle).problems == ()
    told = capfd.readouterr()
    assert "0012.jpg" in told.out + told.err
    assert "pictures are grey" in told.out + told.err
    assert execute(["predict", "latest", "photos/sky/0002.jpg"]) == 0
    assert "sky" in capfd.readouterr().out
