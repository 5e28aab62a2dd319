"""Make what you would bring: photographs in folders, a fine-tuned teacher, and published weights of small networks.

Here the photographs are noise in the colour of their class, and the "published" weights are drawn at random.
"""

import argparse
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from torch import nn

COLOURS = {"apple": (190, 60, 50), "leaf": (70, 160, 70), "sky": (70, 90, 200)}
SIDE, STUDENTS = 64, ("lcnet_050", "mobilenetv3_small_050")
MEAN, STD = (torch.tensor(values).reshape(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def photograph(label: str, rng: np.random.Generator) -> np.ndarray:
    """Make an image [H, W, 3], uint8."""
    light = rng.uniform(0.6, 1.3)
    return np.clip(np.array(COLOURS[label]) * light + rng.normal(0, 40, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)


def write_photographs(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Write them to photos/, and return them as pixels [N, 3, H, W] in [0, 1] with their classes."""
    rng, labels = np.random.default_rng(0), sorted(COLOURS)
    made = [(labels[n % 3], photograph(labels[n % 3], rng)) for n in range(count)]
    for n, (label, pixels) in enumerate(made):
        Path("photos", label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(Path("photos", label, f"{n:04}.jpg"), quality=95)
    images = torch.from_numpy(np.stack([pixels for _, pixels in made])).permute(0, 3, 1, 2) / 255
    return images, torch.tensor([labels.index(label) for label, _ in made])


def fine_tune(images: torch.Tensor, targets: torch.Tensor, steps: int = 40) -> None:
    """Train a teacher on a few of them as its owner would, and write teacher.pt."""
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=3)  # pretrained=True, with a network
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    for _ in range(steps):
        rows = torch.randint(len(images), (16,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(network((images[rows] - MEAN) / STD), targets[rows]).backward()
        optimizer.step()
    torch.save(network.state_dict(), "teacher.pt")


def write_weights() -> None:
    Path("weights").mkdir(exist_ok=True)
    for model in STUDENTS:
        torch.save(timm.create_model(model).state_dict(), Path("weights", f"{model}.pth"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make photographs, a teacher and weights in this folder.")
    parser.add_argument("--count", type=int, default=600, help="photographs, of three classes")
    fine_tune(*write_photographs(parser.parse_args().count))
    write_weights()
