"""Pairs with torchdistill's losses."""

import sys
from pathlib import Path
from typing import Any

import torch
from drawn import Pair, Sides, recipe_of, terms_of
from released import NotHere
from torch import Tensor

from edgestill.pipeline.torchvision_compat import repair


def _torchdistill(folder: Path) -> Any:
    if not (folder / "torchdistill").is_dir():
        raise NotHere(str(folder / "torchdistill"))
    repair()
    sys.path.append(str(folder))
    from torchdistill.losses import mid_level

    return mid_level


def _io(logits: Tensor) -> dict[str, dict[str, Tensor]]:
    return {".": {"output": logits}}


def _torchdistill_kd(folder: Path, dtype: torch.dtype) -> Sides:
    theirs = _torchdistill(folder).KDLoss(".", "output", ".", "output", temperature=4.0, alpha=0.1)
    recipe = recipe_of({"name": "kd", "temperature": 4.0, "distill_weight": 0.9})
    return Sides(lambda x: terms_of(recipe, x), lambda x: theirs(_io(x.student), _io(x.teacher), x.targets))


def _torchdistill_z(folder: Path, dtype: torch.dtype) -> Sides:
    kind = _torchdistill(folder).LogitStdKDLoss
    theirs = kind(".", "output", ".", "output", temperature=2.0, alpha=0.1, beta=9.0)
    recipe = recipe_of({"name": "logit_standardisation"})
    return Sides(lambda x: terms_of(recipe, x), lambda x: theirs(_io(x.student), _io(x.teacher), x.targets))


def _torchdistill_rkd(folder: Path, dtype: torch.dtype) -> Sides:
    theirs = _torchdistill(folder).RKDLoss(".", ".", dist_factor=25.0, angle_factor=50.0, reduction="mean")
    recipe = recipe_of({"name": "rkd"})
    return Sides(
        lambda x: torch.stack([*recipe.methods[0].feature(*x.views(), x.batch()).values()]).sum(),
        lambda x: theirs(_io(x.own), _io(x.given)),
    )


PAIRS = (
    Pair("`kd`", "torchdistill, KDLoss", "torchdistill", _torchdistill_kd),
    Pair("`logit_standardisation`", "torchdistill, LogitStdKDLoss", "torchdistill", _torchdistill_z),
    Pair("`rkd`", "torchdistill, RKDLoss", "torchdistill", _torchdistill_rkd),
)
