"""One distillation: a fresh student, a recipe, the shared loop."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edgestill.distill.config import DistillConfig
from edgestill.distill.distilled import Distilled
from edgestill.distill.methods.base import Context, Exhibit
from edgestill.distill.recipe import Recipe
from edgestill.pipeline.cache import cache_folder
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.device import FP32, Compute
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.nicety import nicety
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.state import EpochRecord


def distill(
    student: nn.Module,
    teacher: nn.Module,
    splits: Splits,
    config: DistillConfig,
    *,
    seed: int,
    device: torch.device,
    observe: Callable[[EpochRecord], None] = lambda record: None,
    save: Callable[[dict[str, Any]], None] = lambda state: None,
    resume: dict[str, Any] | None = None,
    compute: Compute = FP32,
    start: Mapping[str, Tensor] | None = None,
    state: Mapping[str, Any] | None = None,
    views_seed: int | None = None,
) -> Distilled:
    """Train the student in place.

    The teacher's outputs are cached where `caches_teacher` allows it.

    Args:
        start: weights to begin from, of the student as it ships, a method's head included.
        state: of the recipe, from an earlier training of this student; None if there was none. The methods keep their
            preparations of that time: the student's weights were trained with them.
        views_seed: of the images' fixed views; None: `seed`. Trainings by several seeds share the teacher's kept
            outputs if they share it.
    """
    recipe = config.recipe()
    student.to(device)
    context = Context(
        task=splits.task,
        teacher=frozen(teacher).to(device),
        student=student,
        train=splits.train.to(device),
        reference=splits.reference.to(device),
        device=device,
        seed=seed,
        deployable=lambda: recipe.deployable(student),
        teacher_view=recipe.look_at_teacher,
        decode=splits.coder.decode if splits.coder is not None else None,
        outputs_folder=cache_folder() / "teacher" if splits.digests else None,
        is_taught=state is not None,
    )
    views = config.training.views
    seen_by = seed if views_seed is None else views_seed
    augmentation = Augmentation(splits.augment, views=views, images=len(splits.train), seed=seen_by)
    known = resume["objective"] if resume is not None else state
    with drawn_from(derive_seed(seed, "prepare")):
        recipe.prepare(context, augmentation if caches_teacher(recipe, splits, views) else None, known)
    if start is not None:
        recipe.deployable(student).load_state_dict(start)  # shares its tensors with student and head
    result = fit(
        student,
        recipe,
        splits.train,
        splits.validation,
        config.training,
        seed=seed,
        device=device,
        augmentation=augmentation,
        observe=observe,
        save=save,
        resume=resume,
        compute=compute,
    )
    measures: dict[str, float] = {}
    exhibits: tuple[Exhibit, ...] = ()
    cautions = recipe.cautions()
    with drawn_from(derive_seed(seed, "told")):
        with nicety("the figures of the distillation's methods were not taken", cautions):
            measures = recipe.measures()
        with nicety("the examples that the distillation's methods show were not made", cautions):
            exhibits = recipe.exhibits()
    return Distilled(recipe.deployable(student), result, measures, exhibits, recipe.state_dict(), tuple(cautions))


def caches_teacher(recipe: Recipe, splits: Splits, views: int) -> bool:
    """True if the teacher's outputs can be cached: it does not change, and it sees the same inputs again.

    Feature maps of several views are too large for a cache.
    """
    if recipe.varies_teacher:
        return False
    return not splits.augment.is_random or (views > 0 and not recipe.reads_features)
