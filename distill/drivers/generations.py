"""Generations: each student teaches the next, mixed with labels and with the first teacher.

The target of generation k + 1 is alpha y + (1 - alpha) [(1 - a) f_k(x) + a f_0(x)], f_0 the run's teacher.
Without labels and anchor, what is taught drifts from generation to generation.

- Labels: Borup and Andersen, "Even your Teacher Needs Guidance", NeurIPS 2021, arXiv:2102.13088, equation 3; their
  alpha weighs the labels. `label_weight: closed_form` finds it as they do for kernel ridge regression, where the fit is
  linear in its target: with A fitted to the labels and B to the student before, alpha = <y - B, A - B> / |A - B|^2 on
  the reference split, held between 0 and 1. For networks this is an estimate.
- Anchor: recursive meta-distillation, arXiv:2601.13100, after its abstract. For exact mixtures
  KL(f_0 || q_k+1) <= (1 - a) KL(f_0 || q_k); the measures tell the ratio of real students.
"""

# N examples, K classes

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from edgestill.distill.distilled import Distilled
from edgestill.distill.drivers.base import Driver, DriverConfig, Learn, Lesson
from edgestill.pipeline.data.splits import ImageSplit, Splits
from edgestill.pipeline.networks.network import View, evaluating, look

Mix = Literal["arithmetic", "geometric"]


class GenerationsConfig(DriverConfig):
    """Students that teach the next one."""

    name: Literal["generations"] = "generations"
    generations: int = Field(3, ge=1, le=100, description="number of students, one after the other; the last ships")
    label_weight: float | Literal["closed_form", "methods"] = Field(
        "methods",
        description="share (alpha) of the labels in the target, from 0 to 1; closed_form: estimated in each "
        "generation; methods: as the methods weigh them",
    )
    anchor: float = Field(0.0, ge=0, le=1, description="share (a) of the first teacher in the teacher's part")
    mix: Mix = Field("arithmetic", description="mean of the two teachers' probabilities, or of their logarithms")

    @property
    def trainings(self) -> int:
        return self.generations

    @property
    def can_be_repeated(self) -> bool:
        return self.generations == 1


class Generations(Driver):
    """One lesson for each generation, from fresh weights; with `closed_form` two more, to find the labels' share."""

    name: ClassVar[str] = "generations"
    paper: ClassVar[str] = "Borup, Andersen 2021, arXiv:2102.13088"
    Config: ClassVar[type[DriverConfig]] = GenerationsConfig
    config: GenerationsConfig

    def run(self, learn: Learn, teacher: nn.Module, splits: Splits) -> Distilled:
        measures: dict[str, float] = {}
        first = _probabilities(teacher, splits.reference)
        drift: list[float] = []
        previous: nn.Module | None = None
        for number in range(1, self.config.generations + 1):
            taught_by = self._teacher(teacher, previous)
            weight = self._label_weight(learn, number, taught_by, splits)
            found = learn(Lesson(_name(number), taught_by, _weighing(weight)))
            drift.append(_kl(first, _probabilities(found.student, splits.reference)))
            told = {"validation": found.fitted.best.accuracy, "kl_from_teacher": drift[-1]}
            told |= {} if weight is None else {"label_weight": weight}
            told |= {} if number == 1 else {"kl_ratio": drift[-1] / max(drift[-2], 1e-12)}
            measures |= {f"generation_{number}.{name}": value for name, value in told.items()}
            previous = found.student
        return found._replace(measures=found.measures | measures)

    def _teacher(self, teacher: nn.Module, previous: nn.Module | None) -> nn.Module | None:
        """Network that teaches a generation; None is the run's own teacher."""
        if previous is None:
            return None
        share = self.config.anchor
        return MixedTeacher(teacher, previous, share, self.config.mix) if share else previous

    def _label_weight(self, learn: Learn, number: int, teacher: nn.Module | None, splits: Splits) -> float | None:
        given = self.config.label_weight
        if given == "methods":
            return None
        if given != "closed_form":
            return given
        by_labels = learn(Lesson("labels", None, instead=({"name": "none"},)))
        by_teacher = learn(Lesson(f"{_name(number) or 'generation_1'}_unlabelled", teacher, _weighing(0.0)))
        split = splits.reference.labelled()
        found = (_probabilities(one.student, split) for one in (by_labels, by_teacher))
        return optimal_label_weight(F.one_hot(split.targets, splits.task.num_classes).double(), *found)


class MixedTeacher(nn.Module):
    """Mixture of two teachers' probabilities; embedding and features are the first's."""

    def __init__(self, first: nn.Module, second: nn.Module, share: float, mix: Mix) -> None:
        super().__init__()
        self.first, self.second, self._mix = first, second, mix
        self.register_buffer("share", torch.tensor([share, mix == "geometric"]))  # its outputs are kept by its state

    def look(self, inputs: Tensor) -> View:
        view = look(self.first, inputs)
        return view._replace(
            logits=mixed_logits(view.logits, self.second(inputs), float(self.get_buffer("share")[0]), self._mix)
        )

    def get_classifier(self) -> nn.Module:
        return cast(nn.Module, self.first.get_classifier())  # type: ignore[operator]

    def forward(self, inputs: Tensor) -> Tensor:
        return self.look(inputs).logits


def mixed_logits(first: Tensor, second: Tensor, share: float, mix: Mix) -> Tensor:
    """Return log-probabilities of share p_1 + (1 - share) p_2, or of the normalised p_1^share p_2^(1 - share)."""
    parts = torch.stack([first.float().log_softmax(1), second.float().log_softmax(1)])
    shares = torch.tensor([share, 1 - share], device=parts.device).view(2, 1, 1)
    if mix == "geometric":
        return (shares * parts).sum(0).log_softmax(1)
    return (parts + shares.log()).logsumexp(0)


def optimal_label_weight(targets: Tensor, by_labels: Tensor, by_teacher: Tensor) -> float:
    """Return alpha in [0, 1] of least |targets - alpha A - (1 - alpha) B|^2, all of one shape."""
    apart = by_labels - by_teacher
    size = float(apart.square().sum())
    return min(1.0, max(0.0, float(((targets - by_teacher) * apart).sum()) / size)) if size else 0.0


def _name(number: int) -> str:
    """Name of a generation's lesson; the first is a run's without a driver."""
    return f"generation_{number}" if number > 1 else ""


def _weighing(label_weight: float | None) -> tuple[dict[str, Any], ...]:
    if label_weight is None:
        return ()
    return ({"name": "fixed_weights", "label_weight": label_weight, "distill_weight": 1 - label_weight},)


def _probabilities(network: nn.Module, split: ImageSplit) -> Tensor:
    """Probabilities [N, K] in float64 on the CPU."""
    device = next(network.parameters()).device

    def parts() -> Iterator[Tensor]:
        for batch in split.batches(512, device):
            yield network(batch.inputs).double().softmax(1).cpu()

    with evaluating(network), torch.no_grad():
        return torch.cat(list(parts()))


def _kl(p: Tensor, q: Tensor) -> float:
    return float((torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum(1).mean())
