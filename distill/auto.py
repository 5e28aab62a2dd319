"""Choice of the recipe by short trainings: `distill.methods: auto`.

Every method that suits the task trains the student with its default settings, beside plain KD and no teacher. After
each rung the best by validation go on, from their own weights, for a longer one (successive halving: Jamieson and
Talwalkar 2016, arXiv:1502.07943); plain KD and no teacher always go on. A method is chosen over plain KD only if its
lead over it on the same validation examples exceeds one standard error of that difference (the one-standard-error rule
of Breiman et al. 1984, Classification and Regression Trees, section 3.4.3), because the best of many is partly luck.

The caller decides how a recipe is trained and passes in `train`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from edgestill.distill.conflicts import conflicts
from edgestill.distill.methods import KD, METHODS, Method
from edgestill.distill.methods.facts import About
from edgestill.distill.methods.none import NoDistillation
from edgestill.pipeline.errors import CandidateError, first_line
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.training.metrics import right_alone, tells_apart

AUTO = "auto"
PLAIN = KD.name
KEPT = (PLAIN, NoDistillation.name)  # in every rung


class AutoConfig(Frozen):
    """Choice of the recipe by short trainings."""

    methods: tuple[str, ...] | None = Field(
        None, description="names of methods to choose from, beside kd and none; null: those that suit the task"
    )
    epochs: int = Field(2, ge=1, le=100_000, description="epochs of the first rung; each later rung has `reduction` x")
    reduction: int = Field(3, ge=2, le=10, description="one in so many methods goes on to the next rung")
    train_images: int | None = Field(None, ge=1, description="training examples of an epoch; null: all")


class Trained(NamedTuple):
    accuracy: float  # on validation, in [0, 1]; the balanced accuracy where that chooses
    right: str  # validation examples that it answers right, `packed`
    seconds: float


# (method's name, rung from 0, epochs) -> result; training continues from the weights of the rung before.
Train = Callable[[str, int, int], Trained]


class Tried(Frozen):
    """One method in the halving."""

    method: str
    accuracies: tuple[float, ...] = ()  # on validation, after each finished rung
    seconds: float = 0.0
    failure: str | None = None


class Lead(Frozen):
    """Lead over plain KD after the last rung that both finished."""

    method: str
    accuracy: float  # difference on validation, as a share
    won: int  # validation examples that only the method gets right
    lost: int  # validation examples that only plain KD gets right
    validation_examples: int
    comparisons: int  # methods that it is the best of

    @property
    def standard_error(self) -> float:
        """Of the difference of two accuracies on the same examples."""
        n = self.validation_examples
        return math.sqrt(max(self.won + self.lost - (self.won - self.lost) ** 2 / n, 0.0)) / n

    @property
    def is_worth_it(self) -> bool:
        return self.accuracy > self.standard_error

    @property
    def is_noise(self) -> bool:
        return not tells_apart(self.lost, self.won, self.comparisons)


class RecipeResult(Frozen):
    """Outcome of the halving."""

    chosen: str  # method's name
    tried: tuple[Tried, ...]
    rungs: tuple[tuple[int, int], ...]  # epochs and methods of each
    lead: Lead | None = None  # of the best other method over plain KD; None: none finished
    label_noise: float | None = None  # estimated share of wrong labels
    left_out: Mapping[str, str] = {}  # method -> why it was not tried


def suiting(
    about: About, gives: frozenset[str], named: Sequence[str] | None = None
) -> tuple[list[str], dict[str, str]]:
    """Return the methods to try, plain KD and no teacher first, and those left out with the reason.

    Args:
        about: facts of the task.
        gives: parts of the teacher.
        named: methods to choose from, whether they suit or not; None: those that suit.
    """
    chosen, left_out = list(KEPT), dict[str, str]()
    for name, kind in METHODS.items():
        if name in KEPT or (named is not None and name not in named):
            continue
        why = _unfit(kind(), about, gives, named is not None)
        if why is None:
            chosen.append(name)
        else:
            left_out[name] = why
    return chosen, left_out


def _unfit(method: Method, about: About, gives: frozenset[str], is_named: bool) -> str | None:
    if about.classes < method.min_classes:
        return f"needs {method.min_classes} classes"
    if not method.needs <= gives:
        return "needs more than the teacher gives"
    if conflicts([method]):
        return conflicts([method])[0]
    is_suited = method.facts is not None and method.facts.suits(about)
    return None if is_named or is_suited else "does not suit this task"


def halve(
    methods: Sequence[str],
    config: AutoConfig,
    train: Train,
    *,
    longest: int,
    validation_examples: int,
    known: Sequence[Mapping[str, Any]] = (),
    record: Callable[[Mapping[str, Any]], None] = lambda entry: None,
    tick: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> RecipeResult:
    """Train the methods in rungs and choose one; equal accuracies go to the one listed first.

    A method that fails is out, with its reason; if plain KD itself fails, the best of the others is chosen.

    Args:
        longest: epochs of the distillation itself, which no rung exceeds.
        known: entries given to `record` before a kill; those trainings are not repeated.
    """
    tried = {name: Tried(method=name) for name in methods}
    done, right = {(entry["method"], entry["rung"]): entry for entry in known}, dict[tuple[str, int], str]()
    plan, played = rungs(len(methods), config, longest), list[tuple[int, int]]()
    alive, count, total = list(methods), 0, sum(entrants for _, entrants in plan)
    for number, (epochs, entrants) in enumerate(plan):
        alive = _going_on(alive, tried, entrants)
        played.append((epochs, len(alive)))
        for name in alive:
            tick(count, total, f"rung {number + 1} of {len(plan)}: {name}")
            entry = done.get((name, number))
            if entry is None:
                entry = {"method": name, "rung": number, **_outcome(train, name, number, epochs)}
                record(entry)
            tried[name] = _with(tried[name], entry)
            right[name, number] = entry.get("right", "")
            count += 1
    tick(total, total, "")
    lead = _lead(tried, right, validation_examples)
    return RecipeResult(chosen=_chosen(tried, lead), tried=tuple(tried.values()), rungs=tuple(played), lead=lead)


def rungs(methods: int, config: AutoConfig, longest: int) -> list[tuple[int, int]]:
    """Plan the rungs, epochs and methods of each, until one method is left beside plain KD and no teacher."""
    others, epochs, plan = max(methods - len(KEPT), 0), config.epochs, list[tuple[int, int]]()
    while others or not plan:
        plan.append((min(epochs, longest), others + len(KEPT)))
        others = 0 if others == 1 else max(1, others // config.reduction) if others else 0
        epochs *= config.reduction
    return plan


def label_noise(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Estimate the share of wrong labels from a teacher's answers to examples that it was not trained on.

    An example counts if the teacher is as sure of another class as it is, on average, of that class's own examples
    (confident learning: Northcutt et al. 2021, arXiv:1911.00068, equations 1 and 2).

    Args:
        probabilities: [N, K].
        targets: [N].
    """
    classes = probabilities.shape[1]
    sure = np.array([probabilities[targets == k, k].mean() if (targets == k).any() else np.inf for k in range(classes)])
    above = np.where(probabilities >= sure, probabilities, -1.0)
    best = above.argmax(1)
    counted = above.max(1) >= 0
    return float((counted & (best != targets)).sum() / max(counted.sum(), 1))


def _going_on(alive: Sequence[str], tried: Mapping[str, Tried], count: int) -> list[str]:
    sound = [name for name in alive if tried[name].failure is None]
    others = sorted((name for name in sound if name not in KEPT), key=lambda name: -_last(tried[name]))
    best = others[: max(count - len(KEPT), 0)]
    return [name for name in sound if name in KEPT or name in best]


def _last(one: Tried) -> float:
    return one.accuracies[-1] if one.accuracies else 0.0


def _with(one: Tried, entry: Mapping[str, Any]) -> Tried:
    seconds = one.seconds + entry["seconds"]
    if "failure" in entry:
        return one.model_copy(update={"failure": entry["failure"], "seconds": seconds})
    return one.model_copy(update={"accuracies": (*one.accuracies, entry["accuracy"]), "seconds": seconds})


def _outcome(train: Train, name: str, rung: int, epochs: int) -> dict[str, Any]:
    try:
        found = train(name, rung, epochs)
    except (RuntimeError, ArithmeticError, MemoryError) as error:  # NaN or out of memory: only this method fails
        reason = first_line(error)
        named = reason if isinstance(error, CandidateError) else f"{type(error).__name__}: {reason}"
        return {"failure": named, "seconds": 0.0}
    return {"accuracy": found.accuracy, "right": found.right, "seconds": round(found.seconds, 3)}


def _lead(tried: Mapping[str, Tried], right: Mapping[tuple[str, int], str], examples: int) -> Lead | None:
    """Lead of the best other method over plain KD; without plain KD there is none."""
    rivals = [one for one in tried.values() if one.method != PLAIN and one.failure is None and one.accuracies]
    plain = tried[PLAIN]
    if not rivals or plain.failure is not None:
        return None
    best = max(rivals, key=lambda one: (len(one.accuracies), one.accuracies[-1]))
    rung = min(len(best.accuracies), len(plain.accuracies)) - 1
    won, lost = right_alone(right[best.method, rung], right[PLAIN, rung])
    return Lead(
        method=best.method,
        accuracy=best.accuracies[rung] - plain.accuracies[rung],
        won=won,
        lost=lost,
        validation_examples=examples,
        comparisons=len(rivals),
    )


def _chosen(tried: Mapping[str, Tried], lead: Lead | None) -> str:
    if lead is not None:
        return lead.method if lead.is_worth_it else PLAIN
    sound = [one for one in tried.values() if one.failure is None and one.accuracies]
    if not sound:
        reasons = "; ".join(f"{one.method}: {one.failure}" for one in tried.values())
        raise CandidateError(f"no method could be trained: {reasons}")
    return max(sound, key=lambda one: (len(one.accuracies), one.accuracies[-1])).method
