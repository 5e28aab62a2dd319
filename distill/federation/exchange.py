"""The two messages of a round as Flower's records, their bytes, and the server's look at what a client sent."""

# M examples of the public pool, S of them answered, K classes

from typing import Any, NamedTuple

import numpy as np
import torch

from edgestill.distill.federation.flower import flower
from edgestill.distill.federation.strategies.base import Answers
from edgestill.pipeline.errors import first_line, printable

ANSWERS, ORDER = "answers", "order"
STUDENT = "student"  # record of a client's weights in its own state, which does not leave it
_SLACK = 4096  # bytes of the headers of two arrays


class Order(NamedTuple):
    """The server's part of a round, beside the answers to learn from."""

    round: int
    strategy: str  # JSON of its settings
    training: str  # JSON of ClientTraining
    pool: str  # digest of the pool, which both must have alike
    answers: bool  # False: the client trains, and answers nothing


class Asked(NamedTuple):
    """Limits on a client's answers."""

    pool: int  # M
    classes: int  # K
    whole: bool  # True: of the whole pool
    largest_logit: float


def packed_order(order: Order, taught: Answers | None) -> Any:
    app = flower()
    records = {ORDER: app.ConfigRecord(order._asdict())}
    return app.RecordDict(records if taught is None else records | {ANSWERS: _packed(taught)})


def unpacked_order(content: Any) -> tuple[Order, Answers | None]:
    order = Order(**content[ORDER])
    if ANSWERS not in content:
        return order, None
    arrays = content[ANSWERS]
    index, logits = (torch.from_numpy(arrays[name].numpy().copy()) for name in Answers._fields)
    return order, Answers(index.long(), logits.float())


def packed_answers(answers: Answers | None) -> Any:
    app = flower()
    return app.RecordDict({} if answers is None else {ANSWERS: _packed(answers)})


def size_bytes(content: Any) -> int:
    """Bytes of a message's records, as Flower counts them: contents and names, without its envelope."""
    return sum(record.count_bytes() for record in content.values())


def screened(content: Any, asked: Asked) -> Answers | str:
    """Return a client's answers in the pool's order, or the reason why they are left out, as the end of a sentence.

    Nothing of it is trusted: bytes are counted before an array is read.
    """
    if ANSWERS not in content.array_records:
        return "sent no answers"
    record = content.array_records[ANSWERS]
    most = asked.pool * (8 + 8 * asked.classes) + _SLACK
    if record.count_bytes() > most:
        return f"sent {record.count_bytes():,} bytes, above the {most:,} of answers to the whole pool"
    if set(record) != set(Answers._fields):
        return f"sent {printable(', '.join(sorted(record)))[:80]!r} in the place of index and logits"
    try:
        index, logits = (record[name].numpy() for name in Answers._fields)
    except Exception as error:  # it is a client's, and numpy raises many kinds
        return f"sent answers that cannot be read ({first_line(error)[:80]})"
    return _wrong(index, logits, asked) or _in_order(index, logits)


def _packed(answers: Answers) -> Any:
    app = flower()
    index, logits = answers.index.to(torch.int32), answers.logits.to(torch.float32)
    return app.ArrayRecord({"index": app.Array(index.numpy()), "logits": app.Array(logits.numpy())})


def _in_order(index: np.ndarray, logits: np.ndarray) -> Answers:
    order = np.argsort(index)
    return Answers(torch.from_numpy(index[order].astype(np.int64)), torch.from_numpy(logits[order].astype(np.float32)))


def _wrong(index: np.ndarray, logits: np.ndarray, asked: Asked) -> str:
    """Reason to leave answers out; "" if there is none."""
    shape = (len(index), asked.classes) if index.ndim == 1 else None
    if index.dtype.kind != "i" or logits.dtype.kind != "f" or logits.shape != shape:
        return (
            f"sent answers of shape {list(logits.shape)} ({logits.dtype}) to examples of shape {list(index.shape)} "
            f"({index.dtype}); {asked.classes} logits an example are asked for"
        )
    if len(index) and (index.min() < 0 or index.max() >= asked.pool or len(np.unique(index)) < len(index)):
        return f"answered examples that the pool of {asked.pool:,} does not have, or one twice"
    if asked.whole and len(index) != asked.pool:
        return f"answered {len(index):,} of the pool's {asked.pool:,} examples, of which all are asked for"
    if not np.isfinite(logits).all():
        return "sent answers that are not finite"
    if len(logits) and np.abs(logits).max() > asked.largest_logit:
        return f"sent logits up to {np.abs(logits).max():.3g}, above {asked.largest_logit:g}"
    return ""
