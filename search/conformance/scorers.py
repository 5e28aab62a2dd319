"""Checks of a scorer: it keeps the contract of `search/scorers/base.py`. Higher is better; no check can tell."""

import random

import torch

from edgestill.pipeline.conformance.samples import batch, image_task
from edgestill.pipeline.conformance.suite import Check, require
from edgestill.pipeline.errors import CandidateError
from edgestill.search.config import SearchConfig
from edgestill.search.scorers import SCORERS, Scorer
from edgestill.search.scoring.conditions import Conditions
from edgestill.search.scoring.evaluator import Evaluator
from edgestill.search.spaces import ResNetConfig, ResNetSpace

Kind = type[Scorer]
_SPACE = ResNetConfig(blocks=((1, 2), (1, 2), (1,)), widths=((4, 6), (6, 8), (8,)))


def it_is_listed_under_its_own_name_which_alone_chooses_it(kind: Kind) -> None:
    require(SCORERS.get(kind.name) is kind, f"the table has no scorer {kind.name!r}, or another")
    chosen = SearchConfig.model_validate({"scorer": kind.name}).scorer
    require(chosen == kind.name, f"search.scorer={kind.name} chooses {chosen!r}")


def it_scores_students_with_finite_numbers(kind: Kind) -> None:
    found = scores(kind.name)
    require(any(kind.name in student for student in found), f"none of {len(found)} small ResNets has a finite score")


def a_seed_repeats_its_scores_whatever_memory_held(kind: Kind) -> None:
    require(scores(kind.name, junk=1) == scores(kind.name, junk=2), "the same students have other scores")


def it_leaves_student_and_batch_as_they_were_for_the_next_scorer(kind: Kind) -> None:
    others = [name for name in ("nwot", "synflow") if name != kind.name]
    alone = scores(*others)
    together = [{name: student[name] for name in others} for student in scores(kind.name, *others)]
    require(together == alone, f"beside it, {' and '.join(others)} have other scores")


CHECKS: tuple[Check, ...] = (
    it_is_listed_under_its_own_name_which_alone_chooses_it,
    it_scores_students_with_finite_numbers,
    a_seed_repeats_its_scores_whatever_memory_held,
    it_leaves_student_and_batch_as_they_were_for_the_next_scorer,
)


def scores(*names: str, junk: int = 0) -> list[dict[str, float]]:
    """Score a few small ResNets, in fresh memory that held other numbers before; no score is left out."""
    torch.manual_seed(junk)
    held = [torch.full((size,), 7.0 * (junk + 1)) for size in (64, 256, 1024, 4096)]
    del held
    space, task = ResNetSpace(_SPACE), image_task(side=16)
    teacher = ResNetSpace().build(ResNetSpace().parse("1-2-1/4-6-8"), task)
    evaluator = Evaluator(space, task, names, Conditions(batch(task), teacher, seed=0))
    rng = random.Random(0)
    found = []
    for architecture in (space.sample(rng) for _ in range(4)):
        try:
            found.append(dict(evaluator(architecture).values))
        except CandidateError:  # it has none
            found.append({})
    return found
