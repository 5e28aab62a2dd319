"""The preset `photos` with a real ImageNet teacher, in one command, and the minutes that it takes.

    python benchmarks/photos.py cifar10.npz WEIGHTS [--images 2000] [--side 96] [--latency-ms 4]

WEIGHTS is a folder of published weights; `benchmarks/lib/efficientnet_lite0.py` writes one. Images of CIFAR-10 are
made larger and written as PNG files in a folder a class. EfficientNet-Lite0 is fine-tuned on them and distilled into
the best network and resolution of the folder's within the latency budget. The command is printed before it runs; --set
gives it further settings. The run lands below --out.
"""

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.search.spaces.backbones import ENDINGS

_ADAMW = "optimizer: adamw, learning_rate: 0.001, batch_size: 64"


def main() -> int:
    given = _arguments()
    photos = given.out / f"photos_{given.images}_{given.side}"
    if not photos.exists():
        _write(given, photos)
    command = [sys.executable, "-m", "edgestill", "run", "--preset", "photos", "--out", str(given.out)]
    for setting in (*_settings(given, photos), *given.settings):
        command += ["--set", setting]
    machine = describe_machine()
    print(f"{machine['cpu']}, torch {torch.__version__}\n{shlex.join(command[1:])}", flush=True)
    start = time.perf_counter()
    code = subprocess.run(command, check=False).returncode
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes, exit code {code}")
    return code


def _settings(given: argparse.Namespace, photos: Path) -> tuple[str, ...]:
    models = ", ".join(sorted({path.stem for path in given.weights.iterdir() if path.suffix in ENDINGS}))
    weights = given.weights / f"{given.teacher}.safetensors"
    training = f"{{epochs: {given.teacher_epochs}, {_ADAMW}}}"
    return (
        f"data.path={photos}",
        f"data.size={given.side}",
        f"teacher={{name: timm, model: {given.teacher}, weights: {weights}, size: data, finetune: true, "
        f"training: {training}}}",
        f"search.space={{name: backbones, models: [{models}], weights: {given.weights}, "
        f"resolution: [{', '.join(map(str, given.resolution))}]}}",
        f"search.budget={{max_params: null, max_latency_ms: {given.latency_ms}}}",
        "distill.start=pretrained",
        f"distill.training={{epochs: {given.epochs}, {_ADAMW}, patience: 0}}",
        f"tune={{trials: {given.trials}, epochs: 3}}" if given.trials else "tune.enabled=false",
    )


def _write(given: argparse.Namespace, photos: Path) -> None:
    """Write images of both parts as files; the first ones of a random order."""
    rng = np.random.default_rng(0)
    with np.load(given.images_file) as whole:
        for part, count in (("train", given.images), ("test", given.tested)):
            chosen = rng.permutation(len(whole[f"x_{part}"]))[:count]
            targets = whole[f"y_{part}"].ravel()[chosen]
            pixels = torch.from_numpy(whole[f"x_{part}"][chosen]).permute(0, 3, 1, 2).float()
            larger = F.interpolate(pixels, (given.side, given.side), mode="bicubic", antialias=True)
            for n, (image, target) in enumerate(zip(larger.round().clamp(0, 255).byte(), targets, strict=True)):
                path = photos / part / f"class_{target}" / f"{n:05}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images_file", type=Path, help=".npz of CIFAR-10, as Keras' has it")
    parser.add_argument("weights", type=Path, help="folder of published weights, MODEL.safetensors each")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="of the run")
    parser.add_argument("--images", type=int, default=2000, help="training images")
    parser.add_argument("--tested", type=int, default=1000, help="test images")
    parser.add_argument("--side", type=int, default=96, help="of the images, in pixels")
    parser.add_argument("--teacher", default="tf_efficientnet_lite0", help="model of timm with weights in the folder")
    parser.add_argument("--teacher-epochs", type=int, default=5)
    parser.add_argument("--resolution", type=int, nargs="+", default=[48, 64, 80, 96], help="choices for the student")
    parser.add_argument("--latency-ms", type=float, default=4.0, help="budget of the student, on this machine")
    parser.add_argument("--epochs", type=int, default=15, help="of the distillation")
    parser.add_argument("--trials", type=int, default=0, help="trials of the tuning; 0 tunes nothing")
    parser.add_argument("--out", type=Path, default=Path("runs/photos"))
    given = parser.parse_args()
    given.weights, given.out = given.weights.absolute(), given.out.absolute()
    return given


if __name__ == "__main__":
    raise SystemExit(main())
