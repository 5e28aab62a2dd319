"""Scores of one candidate for each draw of its weights: builds it, runs it once, asks every scorer."""

import copy
import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Self

from torch import Tensor, nn

from edgestill.pipeline.data.splits import Batch, channels_last
from edgestill.pipeline.errors import CandidateError, first_line
from edgestill.pipeline.frozen import derive_seed, digest
from edgestill.pipeline.networks.network import Initialisation, initialise, uninitialised
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.task import Task
from edgestill.search.scorers import SCORERS, Scorer, ScoringContext, Student
from edgestill.search.scoring.conditions import Conditions
from edgestill.search.scoring.cost_table import CostTable
from edgestill.search.scoring.observe import Observation, observe
from edgestill.search.space import Architecture, SearchSpace


class Draws:
    """Scores by scorers without parts, one for each draw of a candidate's weights.

    A draw depends on the seed, the architecture and its own number. The teacher is run once.
    """

    def __init__(
        self, space: SearchSpace, task: Task, scorers: Sequence[str], conditions: Conditions, costs: CostTable
    ) -> None:
        self._space, self._task, self.cost = space, task, costs
        self._batch = conditions.batch._replace(inputs=channels_last(conditions.batch.inputs))
        self._seed, self.draws, self._guard = conditions.seed, conditions.draws, conditions.guard
        kinds = [SCORERS[name] for name in scorers]
        self._teacher = _teacher_seen(kinds, conditions, self._batch)
        context = ScoringContext(
            batch=self._batch,
            teacher=self._teacher.view if self._teacher else None,
            teacher_blocks=self._teacher.blocks if self._teacher else (),
            teacher_dims=space.embedding_dims() if conditions.comparable else frozenset(),
            seed=conditions.seed,
        )
        self.scorers = [kind(context, conditions.configs.get(kind.name)) for kind in kinds]

    @property
    def content(self) -> str:
        """Hash of all inputs to a score besides the architecture and the number of draws."""
        looks = [float(tensor.double().sum()) for tensor in self._teacher.view] if self._teacher else []
        names = [scorer.name for scorer in self.scorers]
        return content_of(self._batch, self._task, names, self._seed, looks)

    def portable(self) -> Self:
        """Return a copy to send to another process, with an empty cost table to count there."""
        portable = copy.copy(self)
        portable.cost = CostTable(self._space, self._task)
        return portable

    def times(self, draws: int) -> Self:
        """Return a copy with another number of draws."""
        changed = copy.copy(self)
        changed.draws = draws
        return changed

    def drawn(self, architecture: Architecture) -> dict[str, list[float]]:
        """Return every scorer's score of each draw, NaN or infinite if there is none.

        Raises:
            CandidateError: the network failed, or is dead (with `guard`).
        """
        drawn: dict[str, list[float]] = {scorer.name: [] for scorer in self.scorers}
        try:
            for how in dict.fromkeys(scorer.initialisation for scorer in self.scorers):
                for draw in range(self.draws):
                    for name, score in self._scored(architecture, how, draw):
                        drawn[name].append(score)
        except CandidateError:
            raise
        except (RuntimeError, ArithmeticError, MemoryError) as error:
            raise CandidateError(f"{type(error).__name__}: {first_line(error)}") from error
        return drawn

    def _scored(self, architecture: Architecture, how: Initialisation | None, draw: int) -> list[tuple[str, float]]:
        student, found = self._student(architecture, how, draw), []
        for scorer in self._asking(how):
            with drawn_from(derive_seed(self._seed, architecture.key, how, draw, scorer.name)):
                found.append((scorer.name, scorer(student)))
        return found

    def without_network(self, architecture: Architecture, parts: Mapping[str, float] = MappingProxyType({})) -> Student:
        """Return a student for scorers that look at no network."""
        return Student(architecture.key, functools.partial(self.cost, architecture), parts=parts)

    def _student(self, architecture: Architecture, how: Initialisation | None, draw: int) -> Student:
        if how is None:
            return self.without_network(architecture)
        seed = derive_seed(self._seed, architecture.key, how, draw)
        with uninitialised(seed):
            network = self._space.build_to_score(architecture, self._task)
        initialise(network, how, seed)
        with drawn_from(derive_seed(seed, "look")):
            seen = self._observe(network, how)
        if self._guard and _is_dead(seen.view.features):
            raise CandidateError("dead: its last features are the same for every input", "dead")
        return dataclasses.replace(
            self.without_network(architecture),
            view=seen.view,
            codes=seen.codes,
            blocks=seen.blocks,
            graph=seen.graph,
            network=network,
            seed=seed,
        )

    def _observe(self, network: nn.Module, how: Initialisation) -> Observation:
        asking = self._asking(how)
        return observe(
            network,
            self._batch.inputs,
            codes=any(scorer.needs_codes for scorer in asking),
            blocks=any(scorer.needs_blocks for scorer in asking),
            graph=any(scorer.needs_graph for scorer in asking),
        )

    def _asking(self, how: Initialisation | None) -> list[Scorer]:
        return [scorer for scorer in self.scorers if scorer.initialisation == how]


def _teacher_seen(kinds: Sequence[type[Scorer]], conditions: Conditions, batch: Batch) -> Observation | None:
    """Run the teacher once on the batch; None if no scorer needs it."""
    teacher, aware = conditions.teacher, [kind for kind in kinds if kind.needs_teacher]
    if teacher is None or not aware:
        return None
    if conditions.trained:
        teacher = copy.deepcopy(teacher)  # a pass in training mode moves its running statistics
    else:
        initialise(teacher, "gaussian", derive_seed(conditions.seed, "teacher"))
    with drawn_from(derive_seed(conditions.seed, "teacher", "look")):  # for the teacher's dropout, for one
        return observe(teacher, batch.inputs, blocks=any(kind.needs_blocks for kind in aware))


def content_of(batch: Batch, *rest: object) -> str:
    """Hash of the batch and `rest`."""
    tensors = hashlib.sha256()
    for tensor in batch[:3]:
        tensors.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest(tensors.hexdigest(), *rest)


def _is_dead(features: Tensor) -> bool:
    spread = (features - features[:1]).abs().max()
    return bool(spread <= 1e-6 * features.abs().max())
