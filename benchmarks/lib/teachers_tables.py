"""What benchmarks/teachers.py prints: is there a teacher-specific part, and what predicts it."""

# R seeds, S students, T teachers

import itertools
from collections.abc import Mapping

import numpy as np
from scipy.stats import kendalltau

from lib.interaction import (
    bootstrap,
    ceiling,
    correlation,
    interaction,
    interaction_share,
    permutation_p,
    reliability,
    spearman,
)

TARGETS = {"accuracy": "accuracy", "agreement": "agreement with the teacher", "closeness": "minus KL to the teacher"}

Scores = Mapping[tuple[str, str], np.ndarray]  # (scorer, teacher's weights) to [R, S, T], T = 1 without a teacher


def print_reliability(targets: Mapping[str, np.ndarray], seed: int) -> None:
    """How far the seeds agree, [R, S, T] each, and so how much there is to predict."""
    heads = ("of one seed with another", "student's mean", "teacher-specific", "plain differences", "share", "ceiling")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for target, values in targets.items():
        main = reliability(values.mean(2, keepdims=True), seed)
        ranked, plain = (
            reliability(np.stack([interaction(each, standardise=flag) for each in values]), seed)
            for flag in (True, False)
        )
        share, most = interaction_share(values.mean(0)), ceiling(ranked.value, len(values))
        print(f"| {TARGETS[target]} | {main} | {ranked} | {plain} | {share:.0%} | {most:.2f} |")


def print_interactions(scores: Scores, targets: Mapping[str, np.ndarray], seed: int) -> None:
    """A line for each score that looks at a teacher, where every student has it; against the mean of the seeds."""
    own = {key: interaction(table.mean(0), standardise=True) for key, table in _aware(scores).items()}
    columns, heads = [], []
    for target, values in targets.items():
        mean = interaction(values.mean(0), standardise=True)
        alone, among = permutation_p(list(own.values()), mean, seed)
        found = [correlation(score, mean, seed) for score in own.values()]
        columns.append([f"{rho} | {p:.2f}, {q:.2f}" for rho, p, q in zip(found, alone, among, strict=True)])
        heads.append(f"{TARGETS[target]} | p, among all")
    print(f"\nTeacher-specific parts, Spearman:\n\n| score | teacher | {' | '.join(heads)} | of itself |")
    print(f"|{'---|' * (3 + 2 * len(heads))}")
    for (name, weights), *parts in zip(own, *columns, strict=True):
        apart = [interaction(each, standardise=True) for each in scores[name, weights]]
        itself = np.mean([spearman(one, other) for one, other in itertools.combinations(apart, 2)])
        print(f"| `{name}` | {weights} | {' | '.join(parts)} | {itself:.2f} |")


def print_seeds(scores: Scores, values: np.ndarray, target: str) -> None:
    """The same for one target, [R, S, T], seed by seed; Kendall's tau; and on the plain differences."""
    wanted = [interaction(each, standardise=True) for each in values]
    mean, plain = (interaction(values.mean(0), standardise=flag) for flag in (True, False))
    heads = [*(f"seed {k}" for k in range(len(values))), "Kendall, mean", "plain differences, mean"]
    print(f"\nTeacher-specific part of {TARGETS[target]}, seed by seed:\n")
    print(f"| score | teacher | {' | '.join(heads)} |\n|{'---|' * (2 + len(heads))}")
    for (name, weights), table in _aware(scores).items():
        score, raw = (interaction(table.mean(0), standardise=flag) for flag in (True, False))
        found = [spearman(score, each) for each in wanted]
        found += [float(kendalltau(score.ravel(), mean.ravel()).statistic), spearman(raw, plain)]
        print(f"| `{name}` | {weights} | {' | '.join(f'{value:.2f}' for value in found)} |")


def _aware(scores: Scores) -> Scores:
    return {key: table for key, table in scores.items() if table.shape[2] > 1 and np.isfinite(table).all()}


def print_main_effects(scores: Scores, targets: Mapping[str, np.ndarray], seed: int) -> None:
    """Means over teachers and seeds, of scores and targets; a student without a score ranks last."""
    print("\nRanking of the students' means over teachers, Kendall tau:\n")
    print(f"| score | teacher | {' | '.join(TARGETS.values())} | no score |\n|{'---|' * (len(targets) + 3)}")
    for (name, weights), table in scores.items():
        found = table.mean((0, 2))
        ranked = np.where(np.isnan(found), np.nanmin(found) - 1, found)
        parts = []
        for values in targets.values():
            mean = values.mean((0, 2))

            def tau(chosen: np.ndarray, mean: np.ndarray = mean, ranked: np.ndarray = ranked) -> float:
                return float(kendalltau(ranked[chosen], mean[chosen]).statistic)

            parts.append(str(bootstrap(tau, len(mean), seed)))
        print(f"| `{name}` | {weights} | {' | '.join(parts)} | {np.isnan(found).sum()} |")
