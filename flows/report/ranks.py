"""The report's sections on short trainings: the tournament, and how scores rank students on this task."""

import math
from typing import Any

from edgestill.distill.auto import RecipeResult, Tried
from edgestill.flows.stages.results import RankCheckResult, Results
from edgestill.flows.wording.verdicts import conditions, lead_words, rank_cells, verdict
from edgestill.pipeline.figures import duration
from edgestill.search.tournament import Entrant, Rung, TournamentResult


def tournament(played: TournamentResult) -> dict[str, Any]:
    """The entrants with their accuracy by rung, the winner first, and sentences on the outcome and the cost."""
    if not played.enabled:
        return {"enabled": False}
    entrants = sorted(played.entrants, key=lambda e: e.candidate.architecture != played.winner.architecture)
    entrants[1:] = sorted(entrants[1:], key=_from_the_top)
    return {
        "enabled": True,
        "changed": played.changed,
        "outcome": _outcome(played),
        "lead": _leads(played),
        "cost": _cost(played),
        "rungs": [f"{'+' if place else ''}{_epochs(rung)}" for place, rung in enumerate(played.rungs)],
        "rows": [_row(entrant, played) for entrant in entrants],
        "failures": [(e.candidate.architecture, e.failure) for e in entrants if e.failure is not None],
        "notes": played.notes,
    }


def recipe(result: RecipeResult | None, results: Results) -> dict[str, Any] | None:
    """The methods tried, the chosen one first, and why others were left out; None if the method was configured."""
    if result is None:
        return None
    tried = sorted(result.tried, key=lambda one: (one.method != result.chosen, -len(one.accuracies), -_last(one)))
    lengths = max(len(one.accuracies) for one in tried)
    noise = result.label_noise
    return {
        "outcome": _sentence(results.sentence(RecipeResult)),
        "noise": "" if noise is None else f"By the teacher's answers, some {noise:.1%} of the labels are wrong.",
        "rungs": [f"{'+' if place else ''}{epochs} epochs" for place, (epochs, _) in enumerate(result.rungs)],
        "rows": [
            {
                "method": one.method,
                "won": one.method == result.chosen,
                "accuracies": [f"{a:.2%}" for a in one.accuracies] + [""] * (lengths - len(one.accuracies)),
                "seconds": duration(one.seconds),
            }
            for one in tried
        ],
        "failures": [(one.method, one.failure) for one in tried if one.failure is not None],
        "left_out": [f"{name}: {why}" for name, why in result.left_out.items()],
    }


def _last(one: Tried) -> float:
    return one.accuracies[-1] if one.accuracies else 0.0


def _sentence(said: str) -> str:
    return f"{said[:1].upper()}{said[1:]}."


def rank_check(result: RankCheckResult | None) -> dict[str, Any] | None:
    """Each scorer's rank correlation, the verdict, and the students behind it."""
    if result is None:
        return None
    return {
        "verdict": verdict(result),
        "conditions": conditions(result),
        "rows": [
            {"scorer": row.scorer, "cells": rank_cells(row), "configured": row.scorer == result.configured}
            for row in result.rows
        ],
        "students": [
            (s.architecture, f"{s.cost.params:,}", f"{s.accuracy:.2%}" if s.accuracy is not None else "failed")
            for s in sorted(result.students, key=lambda s: -(s.accuracy if s.accuracy is not None else -1.0))
        ],
        "notes": result.notes,
    }


def _outcome(played: TournamentResult) -> str:
    if not played.rungs:
        return "The shortlist held one student, so there was nothing to decide."
    if played.changed:
        return f"It changed the student {played.change}."
    return f"It kept the search's winner, {played.winner.architecture}."


def _leads(played: TournamentResult) -> str:
    winner, n = played.winner.architecture, played.validation_images
    return " ".join(
        f"{winner} finished {lead_words(lead)}: of {n:,} validation examples it alone is right on {lead.won:,}, "
        f"{lead.over} alone on {lead.lost:,}."
        for lead in played.leads
    )


def _cost(played: TournamentResult) -> str:
    plan = ", then ".join(f"{r.entrants} student{'s' if r.entrants > 1 else ''} for {_epochs(r)}" for r in played.rungs)
    return (
        f"{plan}, on {played.train_images:,} examples an epoch: {played.epochs} epochs, {duration(played.seconds)}. "
        "One seed; the same examples in the same order for all."
    )


def _row(entrant: Entrant, played: TournamentResult) -> dict[str, Any]:
    missing = len(played.rungs) - len(entrant.accuracies)
    out = ["failed", *["–"] * (missing - 1)] if entrant.failure is not None else ["–"] * missing
    return {
        "candidate": entrant.candidate,
        "won": entrant.candidate.architecture == played.winner.architecture,
        "rank": str(entrant.rank) if entrant.rank is not None else "–",
        "by": "most parameters" if entrant.most_params else "",
        "accuracies": [*(f"{accuracy:.2%}" for accuracy in entrant.accuracies), *out],
        "seconds": duration(entrant.seconds),
    }


def _from_the_top(entrant: Entrant) -> tuple[bool, int, float, float]:
    last = entrant.accuracies[-1] if entrant.accuracies else 0.0
    rank = entrant.rank if entrant.rank is not None else math.inf
    return entrant.failure is not None, -len(entrant.accuracies), -last, rank


def _epochs(rung: Rung) -> str:
    return f"{rung.epochs} epoch{'s' if rung.epochs > 1 else ''}"
