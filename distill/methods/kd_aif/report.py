"""Report of KD-AIF's weights: figures, and the most harmful and most helpful examples."""

# N training examples

from typing import Protocol

import torch
from torch import Tensor

from edgestill.distill.methods.base import Context, Exhibit, ExhibitItem
from edgestill.distill.methods.kd_aif.influence import effective_share
from edgestill.pipeline.data.splits import UNLABELLED

SHOWN = 12  # examples an exhibit


class Told(Protocol):
    influence: Tensor  # [N], positive is harmful
    weight: Tensor  # [N]
    updates: int


def measures_of(told: Told, context: Context) -> dict[str, float]:
    """Figures by name; `effective_sample_size` is a share of the training examples."""
    found = {"updates": float(told.updates), "effective_sample_size": effective_share(told.weight)}
    if told.updates == 0:
        return found
    targets = context.train.targets.to(context.device)
    answers = torch.cat([context.teacher_view(b).logits.argmax(1) for b in context.train.batches(512, context.device)])
    labelled = targets != UNLABELLED
    doubted = labelled & (answers != targets)
    found["harmful_share"] = float((told.influence[labelled] > 0).float().mean())
    if bool(doubted.any()) and not bool(doubted[labelled].all()):
        found["weight_where_teacher_disagrees"] = float(told.weight[doubted].mean())
        found["weight_where_teacher_agrees"] = float(told.weight[labelled & ~doubted].mean())
        pair = torch.stack([told.influence[labelled].double(), doubted[labelled].double()])
        found["correlation_of_influence_with_disagreement"] = float(torch.corrcoef(pair)[0, 1].nan_to_num())
    return found


def exhibits_of(influence: Tensor, weight: Tensor, context: Context) -> tuple[Exhibit, ...]:
    """Show the examples at both ends of the influence."""
    order = influence.argsort(descending=True, stable=True).cpu()
    return (
        Exhibit(
            title="Most harmful training examples",
            note="Learning these raises the loss on the reference split most; look for wrong labels.",
            items=_items(order[:SHOWN], weight, context),
        ),
        Exhibit(
            title="Most helpful training examples",
            note="Learning these lowers the loss on the reference split most.",
            items=_items(order.flip(0)[:SHOWN], weight, context),
        ),
    )


def _items(index: Tensor, weight: Tensor, context: Context) -> tuple[ExhibitItem, ...]:
    labels = context.task.labels
    batch = context.train.batch(index.to(context.train.images.device), context.device)
    answers = context.teacher_view(batch).logits.argmax(1)
    items = []
    for inputs, target, answer, w in zip(batch.inputs, batch.targets, answers, weight[batch.index], strict=True):
        label = "none" if int(target) == UNLABELLED else labels[int(target)]
        caption = f"label {label}, teacher {labels[int(answer)]}, weight {float(w):.2f}"
        items.append(context.show(inputs, caption))
    return tuple(items)
