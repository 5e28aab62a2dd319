"""Pairs with the losses that the papers' authors released."""

# N examples, K classes, D embedding width

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from drawn import Draw, Pair, Sides, prepared, recipe_of, terms_of
from released import assignments, definitions
from torch import Tensor

from edgestill.distill.methods.heads.dho import log_shares, mixed
from edgestill.distill.recipe import Recipe
from edgestill.pipeline.data.splits import UNLABELLED, Mixed
from edgestill.pipeline.training.objective import Moment

_OFA_EPSILON, _TAID_SHARE, _MIX = 1.5, 0.4, (0.3, 1.5)
_STEPS, _OF_STEPS = 200, 20_000  # of TAID's clock: those taken, of a long training, where the clock is ahead of linear


def _z(folder: Path, dtype: torch.dtype) -> Sides:
    path = folder / "logit-standardization-KD/mdistiller/distillers/KD.py"
    kd_loss = definitions(path, "normalize", "kd_loss")["kd_loss"]
    recipe = recipe_of({"name": "logit_standardisation"})
    return Sides(
        lambda x: terms_of(recipe, x),
        lambda x: 0.1 * F.cross_entropy(x.student, x.targets) + 9.0 * kd_loss(x.student, x.teacher, 2.0, True),
    )


def _dhkd(folder: Path, dtype: torch.dtype) -> Sides:
    theirs = definitions(folder / "DHKD/distiller_zoo/BinaryKLNorm.py", "BinaryKLNorm")["BinaryKLNorm"](temperature=2)
    known: dict[tuple[int, int], Recipe] = {}

    def recipe(x: Draw) -> Recipe:
        sizes = x.own.shape[1], x.student.shape[1]
        if sizes not in known:
            known[sizes] = prepared(*sizes, {"name": "dhkd", "distill_weight": 1.0})
            known[sizes].methods[0].extras()["head"].to(dtype)
        return known[sizes]

    def released(x: Draw) -> Tensor:
        second = recipe(x).methods[0].extras()["head"](x.own)
        found: Tensor = F.cross_entropy(x.student, x.targets) + theirs(second, x.teacher)
        return found

    return Sides(lambda x: terms_of(recipe(x), x), released)


def _alignment(folder: Path, dtype: torch.dtype) -> Sides:
    path = folder / "DHKD/helper/optimizer.py"
    theirs = definitions(path, "OptimGradAlign")["OptimGradAlign"](None)
    method = recipe_of({"name": "dhkd"}).methods[0]

    def gradients(x: Draw) -> tuple[Tensor, Tensor]:
        labels = x.student.detach().flatten()
        return labels, x.teacher.flatten() - labels  # they oppose each other

    def ours(x: Draw) -> Tensor:
        return method.combine_gradients(dict(zip(("cross_entropy", "distillation"), gradients(x), strict=True)))

    def released(x: Draw) -> Tensor:
        both = [*gradients(x)]
        found: Tensor = theirs._project_conflicting(both, [torch.ones_like(part) for part in both])
        return found

    return Sides(ours, released)


def _nd(folder: Path, dtype: torch.dtype) -> Sides:
    path = folder / "Knowledge-Distillation-via-ND/CIFAR/utils.py"
    theirs = definitions(path, "DirectNormLoss")["DirectNormLoss"](nd_loss_factor=2.0)
    known: list[tuple[Tensor, Recipe, dict[str, list[float]]]] = []  # of the last draw's means

    def of(x: Draw) -> tuple[Tensor, Recipe, dict[str, list[float]]]:
        if not known or known[0][0] is not x.means:
            recipe = prepared(x.own.shape[1], x.student.shape[1], {"name": "nd", "nd_weight": 2.0})
            recipe.methods[0].load_state_dict({"projection": {}, "centres": F.normalize(x.means, dim=1)})
            known[:] = [(x.means, recipe, {str(k): row for k, row in enumerate(x.means.tolist())})]
        return known[0]

    def released(x: Draw) -> Tensor:
        with _default(dtype):
            found: Tensor = theirs(s_emb=x.own, t_emb=x.given, T_EMB=of(x)[2], labels=x.targets)
        return found

    return Sides(lambda x: of(x)[1].methods[0].feature(*x.views(), x.batch())["nd"], released)


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _ofa(folder: Path, dtype: torch.dtype) -> Sides:
    theirs = definitions(folder / "OFAKD/distillers/ofa.py", "ofa_loss")["ofa_loss"]
    told = {"name": "ofa", "ofa_weight": 0.0, "final_weight": 1.0, "epsilon": _OFA_EPSILON}
    recipe = recipe_of({"name": "none"}, told)

    def released(x: Draw) -> Tensor:
        mask = F.one_hot(x.targets, x.student.shape[1])
        found: Tensor = F.cross_entropy(x.student, x.targets) + theirs(x.student, x.teacher, mask, _OFA_EPSILON)
        return found

    return Sides(lambda x: terms_of(recipe, x, ("cross_entropy", "ofa_final")), released)


def _taid_of(folder: Path) -> Any:
    at = folder / "TAID/src/distil_losses"
    forward_kl = definitions(at / "fkl.py", "forward_kl")["forward_kl"]
    return definitions(at / "taid.py", "TAID", forward_kl=forward_kl)["TAID"](t_start=_TAID_SHARE)


def _taid(folder: Path, dtype: torch.dtype) -> Sides:
    theirs, recipe = _taid_of(folder), recipe_of({"name": "taid", "start": _TAID_SHARE})

    def entropy(x: Draw) -> Tensor:
        p = ((1 - _TAID_SHARE) * x.student.detach() + _TAID_SHARE * x.teacher).softmax(1)
        return -(p * p.log()).sum(1).mean()

    def released(x: Draw) -> Tensor:
        found: Tensor = theirs.compute_loss(x.student, x.teacher, torch.ones(len(x.targets)))
        return found

    return Sides(lambda x: terms_of(recipe, x), released, entropy)


def _clock(folder: Path, dtype: torch.dtype) -> Sides:
    """The teacher's share after each step, while the student's logits go to the teacher's and back."""

    def on_its_way(x: Draw, step: int) -> Draw:
        return x._replace(student=torch.lerp(x.student.detach(), x.teacher, abs((step % 100) - 50) / 50))

    def ours(x: Draw) -> Tensor:
        recipe, shares = recipe_of({"name": "taid", "start": _TAID_SHARE}), []
        for step in range(_STEPS):
            moved = on_its_way(x, step)
            terms_of(recipe, moved)
            recipe.tick(Moment(step, step / _OF_STEPS, 0, {}, moved.batch(), torch.nn.Identity()))
            shares.append(recipe.measures()["taid.teacher_share"])
        return torch.tensor(shares)

    def released(x: Draw) -> Tensor:
        clock, shares = _taid_of(folder).double(), []
        for step in range(_STEPS):
            moved = on_its_way(x, step)
            trainer = SimpleNamespace(global_step=step, estimated_stepping_batches=_OF_STEPS)
            mask = torch.ones(len(x.targets))
            clock(SimpleNamespace(trainer=trainer), moved.student, moved.teacher, mask)
            shares.append(float(clock.t))
        return torch.tensor(shares)

    return Sides(ours, released)


def _dho(folder: Path, dtype: torch.dtype) -> Sides:
    names = ("ce_loss", "distill_loss_labeled", "distill_loss_unlabeled", "loss")
    theirs = assignments(folder / "DHO/train_others.py", "train_student", *names)
    recipe = recipe_of({"name": "dho"})

    def ours(x: Draw) -> Tensor:
        labelled = torch.arange(len(x.targets)) < len(x.targets) // 2
        teacher, student = x.views(torch.cat([x.student, x.student.flip(1)], 1))
        batch = x.batch(torch.where(labelled, x.targets, UNLABELLED))
        terms = recipe.terms(teacher, student, recipe.methods[0].class_logits(student.logits), batch)
        return terms["cross_entropy"] + terms["distillation"]

    def released(x: Draw) -> Tensor:
        half = len(x.targets) // 2
        found: Tensor = theirs(
            temperature=2.0,
            labels=x.targets[:half],
            student_logits_labeled_ce=x.student[:half],
            student_logits_labeled_kd=x.student.flip(1)[:half],
            student_logits_unlabeled_kd=x.student.flip(1)[half:],
            teacher_logits_labeled=x.teacher[:half],
            teacher_logits_unlabeled=x.teacher[half:],
        )
        return found

    return Sides(ours, released)


def _dho_mix(folder: Path, dtype: torch.dtype) -> Sides:
    theirs = assignments(folder / "DHO/train_others.py", "evaluate", "probs_ce", "probs_kd", "probs")
    share, temperature = _MIX
    return Sides(
        lambda x: mixed(x.student, x.teacher, log_shares(share).to(dtype), temperature).exp(),
        lambda x: theirs(alpha=1 - share, beta=temperature, outputs_ce=x.student, outputs_kd=x.teacher),
    )


def _mixstd(folder: Path, dtype: torch.dtype) -> Sides:
    kind = definitions(folder / "MIX-KD/distiller_zoo/MIXSTD.py", "MIXSTDLoss")["MIXSTDLoss"]
    theirs, recipe = kind(SimpleNamespace(gamma=0.1, alpha=0.9)), recipe_of({"name": "mixstd"})

    def mix(x: Draw) -> Mixed:
        places = torch.arange(len(x.targets))
        share = torch.linspace(0.05, 0.95, len(places), dtype=dtype)
        return Mixed(torch.stack([x.targets, x.targets.flip(0)]), torch.stack([places, places.flip(0)]), share)

    def ours(x: Draw) -> Tensor:
        teacher, student = x.views()
        batch = x.batch(torch.full_like(x.targets, UNLABELLED), mix(x))
        return recipe.terms(teacher, student, student.logits, batch)["mixstd"]

    def released(x: Draw) -> Tensor:
        whose = mix(x)
        one, other = (F.one_hot(part, x.student.shape[1]) for part in whose.targets)
        found: Tensor = sum(
            theirs(x.student, x.teacher, whose.share[:, None] * one + (1 - whose.share[:, None]) * other)
        )
        return found

    return Sides(ours, released)


def _bild(folder: Path, dtype: torch.dtype) -> Sides:
    theirs = definitions(folder / "BiLD/distil_losses/BILD.py", "bild_loss")["bild_loss"]
    told = {"name": "dbild", "top": 8, "direction": "forward", "temperature": 3.0, "distill_weight": 1.0}
    recipe = recipe_of(told)

    def released(x: Draw) -> Tensor:
        s, t = x.student[None], x.teacher[None]
        found: Tensor = (theirs(s, t) + theirs(s, t, student_led=True)).mean()
        return found

    return Sides(lambda x: terms_of(recipe, x, ("distillation",)), released)


PAIRS = (
    Pair("`logit_standardisation`", "logit-standardization-KD", "released", _z),
    Pair("`dhkd`", "DHKD", "released", _dhkd),
    Pair("`dhkd`, gradients aligned", "DHKD", "released", _alignment, is_timed=False),
    Pair("`nd`", "Knowledge-Distillation-via-ND", "released", _nd),
    Pair(
        "`taid`", "TAID", "released", _taid, "a KL: the target's entropy, a constant, is left out", dtype=torch.float32
    ),
    Pair("`taid`, its clock", "TAID", "released", _clock, dtype=torch.float32, is_timed=False),
    Pair("`ofa`", "OFAKD", "released", _ofa),
    Pair("`dho`", "DHO", "released", _dho),
    Pair("`dho`, mixed heads", "DHO", "released", _dho_mix, is_timed=False),
    Pair("`mixstd`", "MIX-KD", "released", _mixstd),
    Pair("`dbild`, as BiLD", "BiLD", "released", _bild),
)
