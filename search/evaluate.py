"""Scores one candidate: builds it, draws its weights from its own seed, runs it once, asks every scorer."""

import copy
import functools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pipeline.cost import Cost, measure_cost
from pipeline.data import Batch
from pipeline.errors import CandidateError
from pipeline.frozen import Frozen, derive_seed
from pipeline.network import Initialisation, View, initialise, look, uninitialised
from pipeline.task import Task
from search.scorers import SCORERS, ScoringContext, Student
from search.space import Architecture, SearchSpace


class Scores(Frozen):
    """A candidate's scores; each is the mean over draws of the weights."""

    values: dict[str, float]  # scorer -> score; a scorer that had none (NaN, infinite) is left out
    std: dict[str, float]  # over draws; 0 for one draw
    seconds: float


class CostTable:
    """Parameters and FLOPs of a space's members, counted once each."""

    def __init__(self, space: SearchSpace, task: Task) -> None:
        self._space, self._task = space, task
        self._known: dict[str, Cost] = {}

    def __call__(self, architecture: Architecture) -> Cost:
        key = architecture.key
        if key not in self._known:
            self._known[key] = measure_cost(lambda: self._space.build(architecture, self._task), self._task.input_shape)
        return self._known[key]


class Evaluator:
    """Scores candidates of one space on one batch against one look at the teacher.

    The result for an architecture depends on the seed and on that architecture, not on what else was scored,
    nor on the order.

    Args:
        teacher: randomly initialised here if `trained` is false (DisWOT's protocol), taken as it is otherwise.
        comparable: decide once for the whole space whether DisWOT's semantic metric applies, as a search must;
            otherwise for each candidate by its own width.
        costs: to share what was counted between the searches of one space.
        guard: refuse candidates whose last features are the same for every input.
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
    ) -> None:
        self._space, self._task, self._batch = space, task, batch
        self._seed, self._draws, self._guard = seed, draws, guard
        self.cost = costs or CostTable(space, task)
        kinds = [SCORERS[name] for name in scorers]
        view = None
        if teacher is not None and any(kind.needs_teacher for kind in kinds):
            if trained:
                teacher = copy.deepcopy(teacher)  # looking in training mode moves its running statistics
            else:
                initialise(teacher, "gaussian", derive_seed(seed, "teacher"))
            view = _look(teacher, batch.inputs)
        dims = space.embedding_dims() if comparable else frozenset()
        context = ScoringContext(batch=batch, teacher=view, teacher_dims=dims, seed=seed)
        self._scorers = [kind(context) for kind in kinds]

    def __call__(self, architecture: Architecture) -> Scores:
        """Every scorer's score, averaged over the draws.

        Raises:
            CandidateError: the network failed, is dead (with `guard`), or no scorer has a finite score.
        """
        start = time.perf_counter()
        drawn: dict[str, list[float]] = {scorer.name: [] for scorer in self._scorers}
        try:
            for how in dict.fromkeys(scorer.initialisation for scorer in self._scorers):
                for draw in range(self._draws if how else 1):
                    student = self._student(architecture, how, draw)
                    for scorer in self._scorers:
                        if scorer.initialisation == how:
                            drawn[scorer.name].append(scorer(student))
        except (RuntimeError, ArithmeticError, MemoryError) as error:
            if isinstance(error, CandidateError):
                raise
            reason = (str(error).splitlines() or [""])[0]
            raise CandidateError(f"{type(error).__name__}: {reason}") from error
        found = {name: taken for name, taken in drawn.items() if all(math.isfinite(value) for value in taken)}
        if not found:
            raise CandidateError(f"no finite score ({', '.join(f'{n} {v}' for n, v in drawn.items())})")
        return Scores(
            values={name: statistics.fmean(taken) for name, taken in found.items()},
            std={name: statistics.pstdev(taken) for name, taken in found.items()},
            seconds=time.perf_counter() - start,
        )

    def _student(self, architecture: Architecture, how: Initialisation | None, draw: int) -> Student:
        count_cost = functools.partial(self.cost, architecture)
        if how is None:
            return Student(architecture.key, count_cost)
        with uninitialised():
            network = self._space.build(architecture, self._task)
        initialise(network, how, derive_seed(self._seed, architecture.key, how, draw))
        wants_codes = any(scorer.needs_codes for scorer in self._scorers if scorer.initialisation == how)
        codes = _ReluCodes() if wants_codes else None
        if codes is None:
            view = _look(network, self._batch.inputs)
        else:
            with codes:
                view = _look(network, self._batch.inputs)
        if self._guard and _is_dead(view.features):
            raise CandidateError("dead: its last features are the same for every input")
        return Student(architecture.key, count_cost, view, tuple(codes.taken) if codes else ())


def _look(network: nn.Module, inputs: Tensor) -> View:
    """One forward pass with batch statistics: running statistics of a fresh network mean nothing."""
    network.train()
    with torch.no_grad():
        return look(network, inputs)


def _is_dead(features: Tensor) -> bool:
    spread = (features - features[:1]).abs().max()
    return bool(spread <= 1e-6 * features.abs().max())


class _ReluCodes(TorchFunctionMode):
    """Records which units of every ReLU are on, modules and functions alike."""

    _RELUS = frozenset({torch.relu, torch.relu_, torch.nn.functional.relu, Tensor.relu, Tensor.relu_})

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in self._RELUS:
            self.taken.append((output > 0).flatten(1))
        return output
