"""Scores one candidate: builds it, draws its weights from its own seed, runs it once, asks every scorer."""

import copy
import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

from torch import Tensor, nn

from edgestill.pipeline.data.splits import Batch, channels_last
from edgestill.pipeline.errors import CandidateError, first_line
from edgestill.pipeline.frozen import Frozen, derive_seed
from edgestill.pipeline.networks.cost import Cost, measure_cost
from edgestill.pipeline.networks.network import Initialisation, initialise, uninitialised
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.task import Task
from edgestill.search.scorers import SCORERS, Scorer, ScoringContext, Student
from edgestill.search.scoring.ensemble_scale import Calibrated, Each, calibrate, content_of, each_here
from edgestill.search.scoring.observe import Observation, observe
from edgestill.search.space import Architecture, SearchSpace

Shipped = Callable[[nn.Module], nn.Module]  # maps a student to its shipped network
Apart = Callable[[Callable[[Architecture], Any]], Callable[[Architecture], Any]]


class Scores(Frozen):
    """Scores of a candidate, each the mean over draws of the weights."""

    values: dict[str, float]  # scorer -> score; a scorer that had none (NaN, infinite) is left out
    std: dict[str, float]  # over draws; 0 for one draw
    seconds: float


class CostTable:
    """Parameters and FLOPs of a space's members, counted once each.

    Args:
        shipped: maps a student to its shipped network, for counting; None: the student itself.
        apart: wraps a function of an architecture so that it runs in a process of its own.

    Raises:
        ConfigError: the space's students take other inputs than the task's.
    """

    def __init__(
        self,
        space: SearchSpace,
        task: Task,
        shipped: Shipped | None = None,
        apart: Apart = lambda function: function,
    ) -> None:
        space.require(task)
        self._count = apart(functools.partial(_count, space, task, shipped))
        self._known: dict[str, Cost] = {}

    def __call__(self, architecture: Architecture) -> Cost:
        key = architecture.key
        if key not in self._known:
            self._known[key] = self._count(architecture)
        return self._known[key]


def _count(space: SearchSpace, task: Task, shipped: Shipped | None, architecture: Architecture) -> Cost:
    def build() -> nn.Module:
        student = space.build(architecture, task)
        return student if shipped is None else shipped(student)

    return measure_cost(build, task.input_shape, task.input_dtype)


class Evaluator:
    """Scorer of candidates of one space on one batch, against one forward pass of the teacher.

    The result for an architecture depends on the seed and the architecture, not on other candidates or their order.

    Args:
        teacher: re-initialised in place if `trained` is false (DisWOT's protocol), used as it is otherwise.
        comparable: decide on DisWOT's semantic metric once for the whole space, as a search must; otherwise for each
            candidate by its own width.
        costs: table of costs to share between the searches of one space.
        guard: refuse candidates with the same last features for every input.
        calibrated: returns the ensemble's calibration, given its content name and a function to compute it; lets a
            caller keep calibrations.
        each: yields a function's outcome for each architecture; scores the architectures of the calibration.
    """

    def __init__(
        self,
        space: SearchSpace,
        task: Task,
        batch: Batch,
        scorers: Sequence[str],
        *,
        teacher: nn.Module | None,
        seed: int,
        draws: int = 1,
        trained: bool = False,
        comparable: bool = False,
        guard: bool = False,
        costs: CostTable | None = None,
        calibrated: Calibrated = lambda key, compute: compute(),
        each: Each = each_here,
    ) -> None:
        batch = batch._replace(inputs=channels_last(batch.inputs))
        self._space, self._task, self._batch = space, task, batch
        self._seed, self._draws, self._guard = seed, draws, guard
        self.cost = costs or CostTable(space, task)
        kinds = [SCORERS[name] for name in scorers if not SCORERS[name].parts]
        seen = None
        if teacher is not None and any(kind.needs_teacher for kind in kinds):
            if trained:
                teacher = copy.deepcopy(teacher)  # a pass in training mode moves its running statistics
            else:
                initialise(teacher, "gaussian", derive_seed(seed, "teacher"))
            blocks = any(kind.needs_blocks for kind in kinds if kind.needs_teacher)
            with drawn_from(derive_seed(seed, "teacher", "look")):  # for the teacher's dropout, for one
                seen = observe(teacher, batch.inputs, blocks=blocks)
        dims = space.embedding_dims() if comparable else frozenset()
        context = ScoringContext(
            batch=batch,
            teacher=seen.view if seen else None,
            teacher_blocks=seen.blocks if seen else (),
            teacher_dims=dims,
            seed=seed,
        )
        self._scorers = [kind(context) for kind in kinds]
        looks = [float(tensor.double().sum()) for tensor in seen.view] if seen else []
        self.content = content_of(batch, task, list(scorers), seed, looks)
        self.missing: dict[str, tuple[str, ...]] = {}  # parts that a scorer lacks in this space
        self.wholes: list[tuple[Scorer, Evaluator]] = []
        for whole in (SCORERS[name] for name in scorers if SCORERS[name].parts):
            shown = batch if whole.images is None else batch.first(whole.images)
            parts = [name for name in whole.parts if teacher is not None or not SCORERS[name].needs_teacher]
            over = functools.partial(Evaluator, space, task, shown, parts, teacher=teacher, seed=seed, trained=trained)
            over = functools.partial(over, comparable=True, guard=True, costs=self.cost)
            calibration = calibrate(space, over(draws=1), seed, calibrated, each)
            context = ScoringContext(shown, None, dims, seed, calibration=calibration)
            self.wholes.append((whole(context), over(draws=draws)))
            self.missing[whole.name] = calibration.missing

    def __call__(self, architecture: Architecture) -> Scores:
        """Return every scorer's score, averaged over the draws.

        Raises:
            CandidateError: the network failed, is dead (with `guard`), or no scorer has a finite score.
        """
        start = time.perf_counter()
        drawn = self.drawn(architecture)
        found = {name: taken for name, taken in drawn.items() if all(math.isfinite(value) for value in taken)}
        if not found:
            raise CandidateError(f"no finite score ({', '.join(f'{n} {v}' for n, v in drawn.items())})", "not_finite")
        return Scores(
            values={name: statistics.fmean(taken) for name, taken in found.items()},
            std={name: statistics.pstdev(taken) for name, taken in found.items()},
            seconds=time.perf_counter() - start,
        )

    def portable(self) -> Self:
        """Return a copy to send to another process, with an empty cost table to count there."""
        portable = copy.copy(self)
        portable.cost = CostTable(self._space, self._task)
        portable.wholes = [(whole, parts.portable()) for whole, parts in self.wholes]
        return portable

    def drawn(self, architecture: Architecture) -> dict[str, list[float]]:
        """Return every scorer's score of each draw, NaN or infinite if there is none.

        Raises:
            CandidateError: the network failed, or is dead (with `guard`).
        """
        drawn: dict[str, list[float]] = {scorer.name: [] for scorer in self._scorers}
        try:
            for how in dict.fromkeys(scorer.initialisation for scorer in self._scorers):
                for draw in range(self._draws):
                    student = self._student(architecture, how, draw)
                    for scorer in self._scorers:
                        if scorer.initialisation == how:
                            with drawn_from(derive_seed(self._seed, architecture.key, how, draw, scorer.name)):
                                drawn[scorer.name].append(scorer(student))
        except (RuntimeError, ArithmeticError, MemoryError) as error:
            if isinstance(error, CandidateError):
                raise
            reason = first_line(error)
            raise CandidateError(f"{type(error).__name__}: {reason}") from error
        for whole, parts in self.wholes:
            try:
                taken = parts.drawn(architecture)
            except CandidateError:
                if self._guard or not self._scorers:
                    raise
                drawn[whole.name] = [math.nan] * self._draws
                continue
            draws = [{name: values[draw] for name, values in taken.items()} for draw in range(self._draws)]
            drawn[whole.name] = [whole(self._without_network(architecture, values)) for values in draws]
        return drawn

    def _without_network(
        self, architecture: Architecture, parts: Mapping[str, float] = MappingProxyType({})
    ) -> Student:
        return Student(architecture.key, functools.partial(self.cost, architecture), parts=parts)

    def _student(self, architecture: Architecture, how: Initialisation | None, draw: int) -> Student:
        if how is None:
            return self._without_network(architecture)
        seed = derive_seed(self._seed, architecture.key, how, draw)
        with uninitialised(seed):
            network = self._space.build(architecture, self._task)
        initialise(network, how, seed)
        with drawn_from(derive_seed(seed, "look")):
            seen = self._observe(network, how)
        if self._guard and _is_dead(seen.view.features):
            raise CandidateError("dead: its last features are the same for every input", "dead")
        return dataclasses.replace(
            self._without_network(architecture),
            view=seen.view,
            codes=seen.codes,
            blocks=seen.blocks,
            graph=seen.graph,
            network=network,
            seed=seed,
        )

    def _observe(self, network: nn.Module, how: Initialisation) -> Observation:
        asking = [scorer for scorer in self._scorers if scorer.initialisation == how]
        return observe(
            network,
            self._batch.inputs,
            codes=any(scorer.needs_codes for scorer in asking),
            blocks=any(scorer.needs_blocks for scorer in asking),
            graph=any(scorer.needs_graph for scorer in asking),
        )


def _is_dead(features: Tensor) -> bool:
    spread = (features - features[:1]).abs().max()
    return bool(spread <= 1e-6 * features.abs().max())
