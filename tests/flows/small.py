"""A run of a few seconds, every part of it as small as it can be: three classes of 8-pixel images."""

from pathlib import Path

import numpy as np

from edgestill.flows.config import RunConfig, load_config

SETTINGS = (
    "name=small", "device.threads=1", "teacher.architecture=resnet8", "teacher.training.epochs=2",
    "teacher.training.batch_size=32", "search.space.widths=[[4],[4,6],[6,8]]", "search.space.blocks=[[1,2],[1,2],[1]]",
    "search.scorer=params", "search.baselines=[]", "search.shortlist=2", "search.workers=1", "search.draws=1",
    "search.evaluations=6", "search.tournament.epochs=1", "search.budget.max_params=20000", "tune.trials=2",
    "tune.epochs=1", "distill.methods=[{name: kd}]", "distill.training.epochs=2", "distill.training.batch_size=32",
    "export.formats=[fp32]", "profile.timing.duration_s=0.02", "profile.timing.min_samples=30",
    "baselines.enabled=false",
)  # fmt: skip


def data(path: Path, seed: int = 0) -> Path:
    """Write images that tell their class by the row that is bright."""
    rng = np.random.default_rng(seed)
    targets = np.arange(132) % 3
    images = rng.integers(0, 120, (132, 8, 8), dtype=np.uint8)
    images[np.arange(132), 2 * targets] += 120
    np.savez(path, x_train=images[:96], y_train=targets[:96], x_test=images[96:], y_test=targets[96:])
    return path


def config(path: Path, *settings: str) -> RunConfig:
    """The configuration of a small run of data at the path."""
    return load_config(settings=[*SETTINGS, f"data={{name: npz, path: {path}}}", *settings])
