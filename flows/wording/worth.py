"""Sentences on the worth of teacher, recipe, start and search, no bolder than their intervals allow."""

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from edgestill.distill.result import PruneResult
from edgestill.flows.stages.results import ArmName, BaselinesResult, LatencyRatio, Results, Worth
from edgestill.flows.wording.words import speed_claim
from edgestill.pipeline.figures import duration, listing, milliseconds, points, points_interval
from edgestill.pipeline.training.difference import Difference

_ARMS: dict[ArmName, str] = {
    "recipe": "the student as taught",
    "no_teacher": "without a teacher",
    "plain_kd": "by plain KD",
    "random_start": "from random weights",
    "largest": "the largest student that fits",
}
_STARTS = {"pretrained": "pretrained weights", "teacher": "the teacher's layers"}


def worth_sentences(results: Results, worth: Worth | None) -> tuple[str, ...]:
    """The sentence on the worth of teacher and search, and those on its conditions; none without baselines."""
    found = results.get(BaselinesResult)
    if found is None or worth is None:
        return ()
    return worth_sentence(found, worth), *_conditions(found, worth, results.get(PruneResult))


def worth_lines(found: BaselinesResult | None, worth: Worth | None) -> list[str]:
    """The sentence on the worth of teacher and search; none without baselines."""
    return [] if found is None or worth is None else [worth_sentence(found, worth)]


def worth_sentence(found: BaselinesResult, worth: Worth) -> str:
    """The worth of teacher, recipe, start and search, such as `The teacher added 1.3 points [0.8, 1.9]; …`."""
    said = "; ".join(_clauses(found, worth))
    return f"{said[:1].upper()}{said[1:]}{_seeds(worth)}."


def worth_rows(found: BaselinesResult, worth: Worth) -> list[dict[str, Any]]:
    """Rows of a table: an arm, its student, its figures over the seeds, and what the recipe has more."""
    architectures = {arm.name: arm.architecture for arm in found.arms}
    return [
        {
            "arm": _ARMS[figures.name],
            "architecture": architectures[figures.name],
            "accuracy": _mean(figures.accuracies),
            "balanced": _mean(figures.balanced),
            "seeds": len(figures.accuracies),
            "difference": _signed(worth.gains.get(figures.name)),
        }
        for figures in worth.arms
    ]


def trainings_clause(found: BaselinesResult) -> str:
    """The number of trainings by arm and their time: `8 trainings in 2 min 3 s: without a teacher 3 of 3 seeds, …`."""
    counts = [f"{_ARMS[name]} {found.seeds_of(name)}" for name in found.arm_names]
    count = len(found.trainings) - 1
    spent = f"{duration(found.seconds)} of {duration(found.allowed_s)} allowed"
    return f"{count} training{'' if count == 1 else 's'}, {spent}; of {found.seeds} seeds: {', '.join(counts)}"


def _clauses(found: BaselinesResult, worth: Worth) -> Iterator[str]:
    unit = "points of mean recall" if worth.metric == "balanced_accuracy" else "points"
    start = f"starting from {_STARTS.get(found.start, 'another run')}"
    asked: tuple[tuple[ArmName, str, str], ...] = (
        ("no_teacher", "the teacher", ""),
        ("plain_kd", "the recipe", " over plain KD"),
        ("random_start", start, " over random weights"),
        ("largest", "the search", " over the largest student that fits"),
    )
    for name, who, over in asked:
        if name in worth.gains:
            yield _gain(who, over, worth.gains[name], unit)
        elif name in found.arm_names:
            yield f"the worth of {who.removeprefix('starting from ')} is not known"
    if found.largest == found.chosen:
        yield "the search chose the largest student that fits, so it could add nothing"
    elif found.latency is not None:
        yield _speed(found.latency)


def _gain(who: str, over: str, gain: Difference, unit: str) -> str:
    if not gain.sign:
        return f"{who} added nothing measurable{over} {points_interval(*gain.interval)}"
    shown = gain if gain.sign > 0 else gain.reversed
    size = points(shown.value).replace("points", unit)
    return f"{who} {'added' if gain.sign > 0 else 'cost'} {size}{over} {points_interval(*shown.interval)}"


def _speed(latency: LatencyRatio) -> str:
    claim = speed_claim(latency.ratio, latency.interval).words
    return f"its student takes {milliseconds(latency.chosen_ms)} against {milliseconds(latency.largest_ms)}, {claim}"


def _seeds(worth: Worth) -> str:
    """The number of seeds, or of each comparison if they differ."""
    counts = {name: gain.seeds for name, gain in worth.gains.items()}
    if not counts:
        return ""
    if len(set(counts.values())) == 1:
        return f" ({_count(next(iter(counts.values())))})"
    return f" ({', '.join(f'{_ARMS[name]}: {_count(count)}' for name, count in counts.items())})"


def _count(seeds: int) -> str:
    return "one seed" if seeds == 1 else f"{seeds} seeds"


def _conditions(found: BaselinesResult, worth: Worth, pruned: PruneResult | None) -> Iterator[str]:
    if not worth.gains:
        return
    yield (
        f"By seed all began with the same weights and saw the same examples in the same order, for as many epochs; "
        f"accuracy on {worth.n:,} test examples, 95% intervals."
    )
    alone = [_ARMS[name] for name, gain in worth.gains.items() if gain.seeds == 1]
    if alone:
        yield f"A single seed ({listing(alone)}): its interval counts the test examples, and no chance of the training."
    yield _TUNED[found.tuned]
    short = [name for name in found.arm_names if found.seeds_of(name) < found.seeds]
    failed = {arm.name: arm.failure for arm in found.arms if arm.failure is not None}
    trained = [f"{_ARMS[name]} {found.seeds_of(name)}" for name in short if name not in failed]
    if trained:
        allowed = f"the time allowed by baselines.budget, {duration(found.allowed_s)}, was used up"
        yield f"Seeds trained of {found.seeds}: {listing(trained)}; {allowed}."
    yield from (f"Failed: {_ARMS[name]} ({reason})." for name, reason in failed.items())
    if "plain_kd" not in found.arm_names:
        yield "The recipe is plain KD."
    if pruned is not None and pruned.refused is None:
        yield "The student is compared as it was before pruning."


_TUNED = {
    "each": "Each was tuned by as many trials as the recipe, the largest student not at all.",
    "recipe": "All have the learning rate and the weight decay tuned for the recipe, which favours it; the largest "
    "student has the configured ones.",
    "none": "Nothing was tuned.",
}


def _mean(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.2f}{spread}%"


def _signed(gain: Difference | None) -> str:
    if gain is None:
        return ""
    return f"{100 * gain.value:+.1f} {points_interval(*gain.interval)}".replace("-", "−")
