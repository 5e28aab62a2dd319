"""What benchmarks/teachers.py prints: is there a teacher-specific part, and what predicts it."""

# R seeds, S students, T teachers

import itertools
from collections.abc import Mapping

import numpy as np
from interaction import (
    bootstrap,
    ceiling,
    correlation,
    interaction,
    interaction_share,
    permutation_p,
    reliability,
    spearman,
)
from scipy.stats import kendalltau

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


def print_interactions(scores: Scores, values: np.ndarray, target: str, seed: int) -> None:
    """A line for each score that looks at a teacher, where every student has it.

    Args:
        values: of the target, [R, S, T].
    """
    aware = {key: table for key, table in scores.items() if table.shape[2] > 1 and np.isfinite(table).all()}
    own = {key: interaction(table.mean(0), standardise=True) for key, table in aware.items()}
    wanted = [interaction(each, standardise=True) for each in values]
    mean, plain = (interaction(values.mean(0), standardise=flag) for flag in (True, False))
    alone, among = permutation_p(list(own.values()), mean, seed)
    heads = [f"seed {k}" for k in range(len(values))]
    print(f"\nTeacher-specific part of {TARGETS[target]}, Spearman:\n")
    print(
        f"| score | teacher | mean of seeds | p | p among all | {' | '.join(heads)} | Kendall | plain | score's own |"
    )
    print(f"|{'---|' * (8 + len(heads))}")
    for (name, weights), p, q in zip(own, alone, among, strict=True):
        score, table = own[name, weights], aware[name, weights]
        seeds = [f"{spearman(score, part):.2f}" for part in wanted]
        tau = kendalltau(score.ravel(), mean.ravel()).statistic
        raw = spearman(interaction(table.mean(0), standardise=False), plain)
        own_pairs = itertools.combinations((interaction(each, standardise=True) for each in table), 2)
        itself = np.mean([spearman(one, other) for one, other in own_pairs])
        print(
            f"| `{name}` | {weights} | {correlation(score, mean, seed)} | {p:.3f} | {q:.3f} | {' | '.join(seeds)} "
            f"| {tau:.2f} | {raw:.2f} | {itself:.2f} |"
        )


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
