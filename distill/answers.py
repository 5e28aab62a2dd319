"""Teacher's outputs on the training images, looked at once and kept, also between runs."""

# N examples

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from edgestill.distill.methods.base import Context
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.data.teacher_cache import Outputs, content_key, kept_outputs
from edgestill.pipeline.device import full_precision
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import View
from edgestill.pipeline.randomness import drawn_from

_PROBED = 4  # examples that show whether kept outputs are this teacher's


class TeacherAnswers:
    """Outputs on every training image, for each fixed view of the images.

    Args:
        look: from inputs, and rows where there are several answers an input, to the teacher's outputs.
        with_features: keep feature maps too, which are large.
        is_given: True of the run's teacher, whose outputs are kept between runs; False of one that a method made.
    """

    def __init__(
        self,
        look: Callable[[Tensor, Tensor | None], View],
        context: Context,
        augmentation: Augmentation,
        with_features: bool,
        is_given: bool,
    ) -> None:
        self._look, self._context, self._augmentation = look, context, augmentation
        self._with_features, self._is_given = with_features, is_given
        self._kept: dict[int, Outputs] = {}  # by view

    def on(self, batch: Batch) -> View:
        """Return the outputs on a batch; of images drawn afresh, and of altered ones, they are computed."""
        if batch.view is None:
            return self._look(batch.inputs, batch.rows)
        if batch.view not in self._kept:
            self._kept[batch.view] = self._of_view(batch.view)
        known = self._kept[batch.view].rows(batch.index)
        if batch.altered is None:
            return known
        fresh = self._look(batch.inputs[batch.altered], None)
        parts = zip(known, fresh, strict=True)
        return View(*(old.index_put((batch.altered,), new.to(old.dtype)) if len(old) else old for old, new in parts))

    def forget_of_others(self) -> None:
        """Forget the outputs of a teacher that a method made."""
        if not self._is_given:
            self._kept = {}

    def _of_view(self, number: int) -> Outputs:
        """Return the outputs on every training image in a view, by index."""
        context = self._context
        seed = derive_seed(context.seed, "teacher", number)  # the outputs are the same whichever batch asks first
        # full precision for view 0, seen in every epoch; the step's own precision for one crop among many
        with drawn_from(seed), torch.no_grad(), nullcontext() if number else full_precision(context.device):
            return self._between_runs(number) or Outputs(_joined(self._made(number)), context.device)

    def _between_runs(self, number: int) -> Outputs | None:
        """Return the outputs kept between runs; None if they are not to be kept."""
        context = self._context
        if context.outputs_folder is None or not self._is_given:
            return None
        key = content_key(context.teacher, context.train, *self._computed(number))
        few = context.train.batch(torch.arange(min(_PROBED, len(context.train))), context.device)
        return kept_outputs(
            context.outputs_folder,
            key,
            lambda: self._made(number),
            lambda: self._look(few.inputs, few.rows),
            context.device,
        )

    def _made(self, number: int) -> Iterator[View]:
        """Look at all training images in a view, batch by batch."""
        for batch in self._context.train.batches(512, self._context.device):
            view = self._look(self._augmentation.view(batch, number).inputs, batch.rows)
            yield view if self._with_features else view._replace(features=view.features[:0])

    def _computed(self, number: int) -> tuple[Any, ...]:
        """All but the teacher and the images that decides the outputs in a view."""
        kind = self._context.device.type
        precision = str(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else "float32"
        return kind, precision, self._with_features, self._augmentation.identity(number)


def _joined(parts: Iterable[View]) -> View:
    return View(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
