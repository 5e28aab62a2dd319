"""Trials of a study by the workers: each stretch of a trial goes on from the state that the run keeps of it."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from edgestill.distill.elsewhere.stretch import Reached, Stretch, TrainAtOnce
from edgestill.distill.elsewhere.training import Done, TeachAtOnce, Training
from edgestill.flows.stages.elsewhere.surroundings import Surroundings
from edgestill.pipeline.runs.checkpoint import read_state, state_bytes


def trials_at_once(
    context: Surroundings,
    stage: str,
    teach: TeachAtOnce,
    training: Callable[[Stretch], Training],
    file: Callable[[int], str],
) -> TrainAtOnce:
    """Train trials at once and keep their states.

    Args:
        training: of a trial, from its start.
        file: of a trial's state, among the stage's files.
    """

    def begun(stretch: Stretch) -> Training:
        state = context.saved(stage, file(stretch.trial))
        given = None if state is None else state_bytes(state)
        return training(stretch)._replace(state=given, until=stretch.until)

    def reached(trial: int, done: Callable[[], Done]) -> Reached:
        found = done()
        if found.state is not None:
            context.saver(stage, file(trial))(read_state(found.state))
        scores = tuple(record.validation_score for record in found.curve)
        return Reached(scores, None if found.fitted is None else found.fitted.best.score)

    def train(stretches: Sequence[Stretch]) -> Iterator[Callable[[], Reached]]:
        for stretch, done in zip(stretches, teach([begun(stretch) for stretch in stretches]), strict=True):
            yield partial(reached, stretch.trial, done)

    return train
