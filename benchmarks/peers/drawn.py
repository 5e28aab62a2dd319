"""What is compared: draws of what networks give, pairs of losses of one draw, and our recipes on them."""

# N examples, K classes, D embedding width

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from edgestill.distill.config import DistillConfig
from edgestill.distill.conformance.prepared import network, recipe_on
from edgestill.distill.recipe import Recipe, make_recipe
from edgestill.pipeline.conformance.samples import image_task, splits
from edgestill.pipeline.data.splits import Batch, Mixed
from edgestill.pipeline.networks.network import View


class Draw(NamedTuple):
    """What the networks of one batch might have given."""

    student: Tensor  # logits [N, K], with a gradient
    teacher: Tensor  # logits [N, K]
    own: Tensor  # the student's embedding [N, D], with a gradient
    given: Tensor  # the teacher's [N, D]
    means: Tensor  # of each class, in the teacher's space [K, D]
    targets: Tensor  # [N]

    def batch(self, targets: Tensor | None = None, mix: Mixed | None = None) -> Batch:
        targets = self.targets if targets is None else targets
        return Batch(torch.zeros(len(targets), 1, 8, 8), targets, torch.arange(len(targets)), mixed=mix)

    def views(self, logits: Tensor | None = None) -> tuple[View, View]:
        """Teacher's view, and the student's."""
        nothing = self.own.new_zeros(len(self.own), 1, 1, 1)
        own = View(nothing, self.own, self.student if logits is None else logits)
        return View(nothing, self.given, self.teacher), own


Loss = Callable[[Draw], Tensor]


class Sides(NamedTuple):
    ours: Loss
    theirs: Loss
    apart: Loss | None = None  # added to ours: what we leave out on purpose, without a gradient


class Pair(NamedTuple):
    ours: str
    theirs: str
    folder: str  # the option that names the folder of their code
    make: Callable[[Path, torch.dtype], Sides]
    note: str = ""
    dtype: torch.dtype = torch.float64
    is_timed: bool = True  # False: no loss, but a part of the method beside it


def draw(n: int, k: int, d: int, dtype: torch.dtype, seed: int) -> Draw:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, times: float = 1.0) -> Tensor:
        return times * torch.randn(*shape, generator=generator, dtype=dtype)

    targets = torch.randint(k, (n,), generator=generator)
    student, own = normal(n, k, times=3.0).requires_grad_(), normal(n, d).requires_grad_()
    return Draw(student, normal(n, k, times=4.0), own, normal(n, d, times=1.2), normal(k, d), targets)


def recipe_of(*methods: Mapping[str, Any]) -> Recipe:
    return make_recipe(DistillConfig.model_validate({"methods": list(methods)}).methods)


def prepared(d: int, k: int, *methods: Mapping[str, Any]) -> Recipe:
    """Prepare a recipe for networks of these widths, whose outputs are then drawn."""
    task = image_task(classes=k)
    told = DistillConfig.model_validate({"methods": list(methods)}).methods
    return recipe_on(told, network(task, 1, (4, 6, d)), network(task, 2, (4, 6, d)), splits(task))[0]


def terms_of(recipe: Recipe, drawn: Draw, names: Sequence[str] = ("cross_entropy", "distillation")) -> Tensor:
    teacher, student = drawn.views()
    terms = recipe.terms(teacher, student, student.logits, drawn.batch())
    return torch.stack([terms[name] for name in names]).sum()
