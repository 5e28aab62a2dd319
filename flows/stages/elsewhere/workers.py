"""Trainings of a stage by the workers of `device.engine`; what they give back is kept by the process of the run."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import nn

from edgestill.distill.elsewhere.training import Done, TeachAtOnce, Teaching, Training, done
from edgestill.flows.stages.elsewhere.surroundings import Surroundings
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.device import Compute
from edgestill.pipeline.engines import LOCAL, Answer
from edgestill.pipeline.engines.pool import cores
from edgestill.pipeline.engines.workers import UNSENDABLE, Workers
from edgestill.pipeline.errors import EngineError, FailedError, first_line

Attempting = Callable[[str], contextlib.AbstractContextManager[None]]  # `flows.supervise.attempting`


@contextlib.contextmanager
def by_workers(context: Surroundings, lesson: Callable[[], tuple[nn.Module, Splits]]) -> Iterator[TeachAtOnce | None]:
    """Give a function that does trainings by the workers; None where each is done in this process, from epoch to epoch.

    That is so with the engine `local`, where several GPUs or processes share each batch, and, with a caution, where the
    teacher or the data cannot be sent.

    Args:
        lesson: makes the teacher and the splits, if workers are to have them.
    """
    device = context.config.device
    if device.engine == LOCAL or device.processes > 1 or device.gpus != 1:
        yield None
        return
    teaching, count = _teaching(context, *lesson()), context.config.search.workers
    workers = Workers(device.engine, count if isinstance(count, int) else cores(), teaching.threads)
    try:
        workers.require_sendable(teaching)
    except UNSENDABLE as error:
        context.cautions.append(
            f"trainings stayed in the process of the run: teacher or data cannot be sent ({first_line(error)})"
        )
        yield None
        return
    with workers:
        yield partial(_sent, context, workers, teaching)


def in_turn(context: Surroundings, teacher: nn.Module, splits: Splits, attempting: Attempting) -> TeachAtOnce:
    """Return a function that does trainings in this process, one after another, as a worker does each."""
    teaching = _teaching(context, teacher, splits)

    def do(training: Training) -> Done:
        with attempting(training.name):
            return _told(context, training, Answer(teaching(training), 0))

    return lambda trainings: (partial(do, training) for training in trainings)


def _teaching(context: Surroundings, teacher: nn.Module, splits: Splits) -> Teaching:
    compute = dataclasses.replace(context.compute, tell=Compute.tell)
    return Teaching(teacher, splits, context.device, compute, torch.get_num_threads())


def _sent(
    context: Surroundings, workers: Workers, teaching: Teaching, trainings: Sequence[Training]
) -> Iterator[Callable[[], Done]]:
    try:
        for training, answer in zip(trainings, workers.answers(teaching, trainings), strict=True):
            yield partial(_told, context, training, answer)
    except FailedError as error:  # of the engine: a training's own is in its answer
        raise EngineError(*error.args) from error


def _told(context: Surroundings, training: Training, answer: Answer) -> Done:
    if answer.retried and not answer.lost:
        context.say(f"{training.name} was trained again, as the worker that had it was lost")
    found = done(answer)
    context.cautions.extend(sentence for sentence in found.cautions if sentence not in context.cautions)
    return found
