"""Batches of a training epoch, whose images are read from files while the batch before is computed on."""

import queue
import threading
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from edgestill.pipeline.data.splits import Batch, ImageSplit
from edgestill.pipeline.data.stored import StoredImages
from edgestill.pipeline.errors import DataError

PATIENCE_S = 600.0  # for a batch; a file system that is lost answers no read, and raises no error either
_AHEAD = 2


def batches_ahead(split: ImageSplit, chosen: Sequence[Tensor], device: torch.device) -> Iterator[Batch]:
    """Yield a batch for each index, in order. Images in files are read by a thread, two batches ahead.

    Only bytes are read there: it draws nothing and computes nothing, so results are those of reading at once.

    Raises:
        DataError: a batch was not read within PATIENCE_S.
    """
    if not isinstance(split.images, StoredImages):
        yield from (split.batch(index.to(split.images.device), device) for index in chosen)
        return
    read: queue.Queue[Tensor | BaseException] = queue.Queue()
    room, ended = threading.Semaphore(_AHEAD), threading.Event()
    reader = (split.images, list(chosen), read, room, ended)
    threading.Thread(target=_read, args=reader, name="read-ahead", daemon=True).start()  # one that hangs is left behind
    try:
        for index in chosen:
            stored = _next(read, split.images)
            room.release()
            yield split.batch_of(stored, index, device)
    finally:
        ended.set()
        room.release()


def _read(
    images: StoredImages,
    chosen: Sequence[Tensor],
    read: "queue.Queue[Tensor | BaseException]",
    room: threading.Semaphore,
    ended: threading.Event,
) -> None:
    for index in chosen:
        room.acquire()
        if ended.is_set():
            return
        try:
            read.put(images[index])
        except BaseException as error:  # raised where the batch is asked for
            read.put(error)
            return


def _next(read: "queue.Queue[Tensor | BaseException]", images: StoredImages) -> Tensor:
    try:
        found = read.get(timeout=PATIENCE_S)
    except queue.Empty:
        raise DataError(
            f"{images.place} gave no batch for {PATIENCE_S:g} s: its disk or its network mount hangs; mend that, then "
            "resume the run"
        ) from None
    if isinstance(found, BaseException):
        raise found
    return found
