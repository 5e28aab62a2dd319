"""Pretrained students beside random-born ones, on three sets of photographs under one latency budget.

    python benchmarks/pretrained.py cifar10.npz WEIGHTS [--seeds 5] [--images 3000] [--side 64] [--latency-ms 5]

WEIGHTS is a folder of published weights as `search.space.weights` takes it; `benchmarks/lib/efficientnet_lite0.py`
writes one. For each set (of classes) and each seed, images are drawn and made larger, a teacher (timm's
`--teacher`, from the same folder) is fine-tuned on them once, and each kind of student is searched, chosen by a
tournament and distilled by it, with equal settings: the folder's models from their weights (pretrained), the same
models from nothing (same, random), and the space `--other` from nothing (best random-born); `--kinds` leaves some out.
Accuracies are of the shipped file on the set's test images. A difference is paired by seed; its interval is Student's t
over seeds, 95 %.

Finished runs are kept in --out, and are not repeated.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import t as student_t

from edgestill.flows.outcome import Outcome
from edgestill.flows.runner import compress
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.runs.checkpoint import write_atomic
from edgestill.search.spaces.backbones import ENDINGS

SETS = {"all": tuple(range(10)), "animals": (2, 3, 4, 5, 6, 7), "vehicles": (0, 1, 8, 9)}  # of CIFAR-10's classes
_ADAMW = "optimizer: adamw, learning_rate: 0.001, batch_size: 64"  # SGD needs more epochs
KINDS = ("pretrained", "same, random", "best random-born")


class Row(NamedTuple):
    """One student's outcome."""

    accuracy: float  # on test
    architecture: str
    latency_ms: float


def main() -> None:
    given = _arguments()
    kinds = given.kinds
    print(f"| set | {' | '.join([*kinds, *(f'{kinds[0]} - {other}' for other in kinds[1:])])} |")
    print("|---|" + "---|" * (2 * len(kinds) - 1))
    for name in given.sets:
        found = [_of_seed(name, seed, given) for seed in range(given.seeds)]
        print(_line(name, found, given.kinds), flush=True)


def _of_seed(name: str, seed: int, given: argparse.Namespace) -> dict[str, Row]:
    """Outcome of each kind of student for one set and seed; the teacher is the first run's."""
    folder = given.out / f"{name}_{seed}"
    data = folder / "images.npz"
    if not data.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write_images(given, SETS[name], seed, data)
    teacher = given.weights / _file_of(given.weights, given.teacher)
    tuned = {"teacher.weights": teacher, "teacher.finetune": "true"}
    rows: dict[str, Row] = {}
    for kind in given.kinds:
        settings = {**_common(given, data, seed), **_space(kind, given), **tuned}
        rows[kind], run = _once(folder / f"{KINDS.index(kind)}.json", settings, folder)
        tuned = {"teacher.weights": Path(run) / "teacher" / "weights.safetensors"}
    return rows


def _once(record: Path, settings: Mapping[str, Any], folder: Path) -> tuple[Row, str]:
    """Make the run, unless its record is there; return its outcome and its folder."""
    if not record.exists():
        done = compress(settings=[f"{key}={value}" for key, value in settings.items()], out=folder)
        kept = {"row": _row(done)._asdict(), "run": str(done.run)}
        write_atomic(record, json.dumps(kept).encode())
    kept = json.loads(record.read_text(encoding="utf-8"))
    return Row(**kept["row"]), kept["run"]


def _row(done: Outcome) -> Row:
    assert done.profiled.default is not None
    shipped = done.profiled.formats[done.profiled.default]
    return Row(done.tested.shipped.accuracy, done.distilled.architecture, shipped.latency.p50_ms)


def _common(given: argparse.Namespace, data: Path, seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "data.name": "npz",
        "data.path": data,
        "data.augment": "{pad: 4, flip: true}",
        "teacher.name": "timm",
        "teacher.model": given.teacher,
        "teacher.size": given.teacher_size,
        "teacher.training": f"{{epochs: {given.teacher_epochs}, {_ADAMW}}}",
        "search.budget.max_latency_ms": given.latency_ms,
        "search.evaluations": given.evaluations,
        "search.tournament.epochs": given.tournament_epochs,
        "tune": f"{{trials: {given.trials}, epochs: {given.tournament_epochs}}}"
        if given.trials
        else "{enabled: false}",
        "distill.training": f"{{epochs: {given.epochs}, {_ADAMW}, views: {given.views}}}",
        "export.formats": "[fp32]",
        "baselines.enabled": "false",
    }


def _space(kind: str, given: argparse.Namespace) -> dict[str, Any]:
    if kind == "best random-born":
        return {"search.space": given.other}
    models = ", ".join(sorted({path.stem for path in given.weights.iterdir() if path.suffix in ENDINGS}))
    sides = ", ".join(map(str, given.resolution))
    space = f"{{name: backbones, models: [{models}], resolution: [{sides}], weights: {given.weights}}}"
    return {"search.space": space, "distill.start": "pretrained" if kind == "pretrained" else "random"}


def _write_images(given: argparse.Namespace, classes: Sequence[int], seed: int, path: Path) -> None:
    rng = np.random.default_rng(derive_seed(seed, "images"))
    with np.load(given.images_file) as whole:
        parts = {
            part: _drawn(whole[f"x_{part}"], whole[f"y_{part}"].ravel(), classes, count, given.side, rng)
            for part, count in (("train", given.images), ("test", given.tested))
        }
    np.savez(
        path, **{f"{key}_{part}": value for part, pair in parts.items() for key, value in zip("xy", pair, strict=True)}
    )


def _drawn(
    images: np.ndarray, targets: np.ndarray, classes: Sequence[int], count: int, side: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw images of these classes, numbered anew, and resize them."""
    chosen = rng.permutation(np.flatnonzero(np.isin(targets, classes)))[:count]
    pixels = torch.from_numpy(images[chosen]).permute(0, 3, 1, 2).float()
    larger = F.interpolate(pixels, (side, side), mode="bicubic", antialias=True).round().clamp(0, 255)
    return larger.to(torch.uint8).permute(0, 2, 3, 1).numpy(), np.searchsorted(classes, targets[chosen])


def _line(name: str, found: Sequence[Mapping[str, Row]], kinds: Sequence[str]) -> str:
    cells = []
    for kind in kinds:
        rows = [each[kind] for each in found]
        accuracy, latency = (statistics.fmean(getattr(row, key) for row in rows) for key in ("accuracy", "latency_ms"))
        cells.append(f"{accuracy:.2%} at {latency:.2f} ms ({statistics.mode(row.architecture for row in rows)})")
    for other in kinds[1:]:
        cells.append(_points([100 * (each[kinds[0]].accuracy - each[other].accuracy) for each in found]))
    return f"| {name} | " + " | ".join(cells) + " |"


def _points(differences: Sequence[float]) -> str:
    """Mean difference in points with its 95 % interval over seeds."""
    mean, n = statistics.fmean(differences), len(differences)
    if n < 2:
        return f"{mean:+.2f} points, 1 seed"
    half = float(student_t.ppf(0.975, n - 1)) * statistics.stdev(differences) / n**0.5
    return f"{mean:+.2f} points [{mean - half:+.2f}, {mean + half:+.2f}], {n} seeds"


def _file_of(folder: Path, model: str) -> str:
    found = next((f"{model}{ending}" for ending in ENDINGS if (folder / f"{model}{ending}").is_file()), None)
    if found is None:
        raise SystemExit(f"{folder} has no weights of the teacher {model}; name another by --teacher")
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images_file", type=Path, help=".npz of CIFAR-10, as Keras' has it")
    parser.add_argument("weights", type=Path, help="folder of published weights, MODEL.safetensors each")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="the first is compared")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=3000, help="training images of a set")
    parser.add_argument("--tested", type=int, default=2000, help="test images of a set")
    parser.add_argument("--side", type=int, default=64, help="of the images, in pixels")
    parser.add_argument("--resolution", type=int, nargs="+", default=[64, 96, 128], help="choices for backbones")
    parser.add_argument("--other", default="mobile", help="space of the random-born students")
    parser.add_argument("--teacher", default="tf_efficientnet_lite0", help="model of timm with weights in the folder")
    parser.add_argument("--teacher-size", default="data", help="side of the teacher's images; data: theirs")
    parser.add_argument("--latency-ms", type=float, default=5.0, help="budget of every student, on this machine")
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--tournament-epochs", type=int, default=3)
    parser.add_argument("--trials", type=int, default=0, help="trials of the tuning; 0 tunes nothing")
    parser.add_argument("--epochs", type=int, default=20, help="of the distillation")
    parser.add_argument("--views", type=int, default=4, help="fixed crops of each image, to keep the teacher's answers")
    parser.add_argument("--teacher-epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/pretrained"))
    given = parser.parse_args()
    given.weights, given.out = given.weights.absolute(), given.out.absolute()
    return given


if __name__ == "__main__":
    main()
