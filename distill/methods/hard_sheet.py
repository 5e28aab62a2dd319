"""A sheet of augmented images, with the teacher's and the student's answers under each."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from distill.methods.base import Context, Exhibit, ExhibitItem

_IMAGES = 24


def sheet(
    change: Callable[[Tensor], Tensor], context: Context, student: nn.Module, generator: torch.Generator
) -> Exhibit:
    """Images of the reference split, drawn by the generator; both networks in evaluation mode."""
    split, labels = context.reference, context.task.labels
    chosen = torch.randperm(len(split), generator=generator)[:_IMAGES].to(split.targets.device)
    batch = split.batch(chosen, context.device)
    images = change(batch.inputs)
    answers = zip(*((network(images).argmax(1).tolist()) for network in (context.teacher, student)), strict=True)
    pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8).flatten(1).tolist()
    items, same = [], 0
    for truth, (teacher, own), values in zip(batch.targets.tolist(), answers, pixels, strict=True):
        same += teacher == own
        items.append(
            ExhibitItem(
                caption=f"{labels[truth]}; teacher: {labels[teacher]}, student: {labels[own]}",
                pixels=tuple(values),
                shape=tuple(images.shape[1:]),
            )
        )
    return Exhibit(
        title="What the augmentor came to make",
        note=f"Reference images as it changes them, with the label, the teacher's answer and the student's; "
        f"they agree on {same} of {len(items)}.",
        items=tuple(items),
    )
