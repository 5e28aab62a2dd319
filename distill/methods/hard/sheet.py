"""A sheet of augmented images, with the teacher's and the student's answers under each."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from edgestill.distill.methods.base import Context, Exhibit

_IMAGES = 24


def sheet(
    change: Callable[[Tensor], Tensor], context: Context, student: nn.Module, generator: torch.Generator
) -> Exhibit:
    """Make the sheet from reference images, drawn by the generator; both networks must be in evaluation mode."""
    split, labels = context.reference, context.task.labels
    chosen = torch.randperm(len(split), generator=generator)[:_IMAGES].to(split.targets.device)
    batch = split.batch(chosen, context.device)
    images = change(batch.inputs)
    answers = zip(*((network(images).argmax(1).tolist()) for network in (context.teacher, student)), strict=True)
    items, same = [], 0
    for image, truth, (teacher, own) in zip(images, batch.targets.tolist(), answers, strict=True):
        same += teacher == own
        items.append(context.show(image, f"{labels[truth]}; teacher: {labels[teacher]}, student: {labels[own]}"))
    return Exhibit(
        title="What the augmentor came to make",
        note=f"Reference images as it changes them, with the label, the teacher's answer and the student's; "
        f"they agree on {same} of {len(items)}.",
        items=tuple(items),
    )
