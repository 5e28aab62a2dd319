"""Batches of a training epoch, whose images are read from files while the batch before is computed on."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from edgestill.pipeline.data.splits import Batch, ImageSplit
from edgestill.pipeline.data.stored import StoredImages


def batches_ahead(split: ImageSplit, chosen: Sequence[Tensor], device: torch.device) -> Iterator[Batch]:
    """Yield a batch for each index, in order. Images in files are read by a thread, two batches ahead.

    Only bytes are read there: it draws nothing and computes nothing, so results are those of reading at once.
    """
    if not isinstance(split.images, StoredImages):
        yield from (split.batch(index.to(split.images.device), device) for index in chosen)
        return
    with ThreadPoolExecutor(1, "read-ahead") as reader:
        waiting: list[Future[Tensor]] = [reader.submit(split.images.__getitem__, index) for index in chosen[:2]]
        for number, index in enumerate(chosen):
            stored = waiting.pop(0).result()
            if number + 2 < len(chosen):
                waiting.append(reader.submit(split.images.__getitem__, chosen[number + 2]))
            yield split.batch_of(stored, index, device)
