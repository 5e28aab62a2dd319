"""FIRST: the teacher is recalibrated, and the student learns its likeliest classes and the mass of the rest.

After Shum et al., "FIRST: Teach A Reliable Large Language Model Through Efficient Trustworthy Distillation", EMNLP
2024, arXiv:2408.12168. The few classes and the smoothing follow the authors' code. The bucket of the rest is ours: the
released branch for it passes probabilities where logarithms are due. So is the temperature's search: the paper's text
could not be had, only that it lowers the teacher's expected calibration error.

For tens of classes the few save nothing; what is left is the calibration. `classes` above the task's with
`recalibration: none` is plain KD at temperature 1.
"""

# N examples, K classes, M likeliest classes

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from edgestill.distill.losses import precise, softened
from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.targets.top_file import TopFile
from edgestill.distill.tunable import distillation_share, tunable
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.networks.network import View, evaluating
from edgestill.pipeline.teachers.teacher import Part

_BINS = 15
_TEMPERATURES = tuple(2 ** (step / 8) for step in range(-16, 33))  # 0.25 to 16


class FIRSTConfig(MethodConfig):
    """The teacher's likeliest classes, recalibrated."""

    name: Literal["first"] = "first"
    classes: int = Field(5, ge=1, description="number (k) of the teacher's likeliest classes; the rest are one bucket")
    recalibration: Literal["temperature", "smoothing", "none"] = Field(
        "temperature",
        description="temperature: lowers the teacher's calibration error on reference; smoothing: of the likeliest",
    )
    smoothing: float = tunable(
        0.1,
        ge=0,
        le=0.5,
        tune=(0.02, 0.3),
        description="probability taken from the likeliest class for the others; recalibration smoothing",
    )
    offline: bool = Field(
        False,
        description="keep the likeliest classes alone, in a file, and train without the teacher, as the paper does",
    )
    distill_weight: float = distillation_share(1.0)

    def unread(self) -> frozenset[str]:
        return frozenset() if self.recalibration == "smoothing" else frozenset({"smoothing"})


class FIRST(Method):
    """Loss (1 - b) CE + b KL of k + 1 entries: the recalibrated teacher's k likeliest classes, and the rest together.

    By the data-processing inequality it is never more than the KL of all classes.
    """

    name: ClassVar[str] = "first"
    paper: ClassVar[str] = "after Shum et al. 2024, arXiv:2408.12168"
    fills: ClassVar[frozenset[Slot]] = frozenset({"target", "divergence"})
    takes_rows: ClassVar[bool] = True
    rows_alone: ClassVar[bool] = True
    studies_teacher: ClassVar[bool] = True
    facts: ClassVar[Facts | None] = Facts(
        evidence="ours",
        ablation={"classes": 1_000_000, "recalibration": "none"},
        reduces_to=({"name": "kd", "temperature": 1.0, "distill_weight": 1.0},),
        invariant_to=frozenset({"shift"}),
    )
    Config: ClassVar[type[MethodConfig]] = FIRSTConfig
    config: FIRSTConfig

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._temperature = 1.0
        self._errors: tuple[float, float] | None = None
        self._file: TopFile | None = None

    @property
    def spares_teacher(self) -> bool:
        return self.config.offline

    def conflicts(self, others: Sequence[Method]) -> Iterable[str]:
        for other in others:
            if self.config.offline and other.fills & {"data", "teacher", "logits"}:
                yield (
                    f"method {self.name!r} with offline keeps the given teacher's answers to the examples as they are, "
                    f"which method {other.name!r} may change; leave one of them out"
                )

    def prepare(self, context: Context) -> None:
        self._context = context

    @property
    def binds_rows(self) -> bool:
        return self.config.offline

    @property
    def needs(self) -> frozenset[Part]:
        return frozenset()  # logits alone

    def study(self, context: Context) -> None:
        """Find the temperature with the least calibration error of the teacher on the reference split."""
        if self.config.recalibration == "none":
            return
        logits, targets = _answers(context)
        if self.config.recalibration == "temperature":
            self._temperature = best_temperature(logits, targets)
        raw, made = logits.softmax(1), self._recalibrated(logits)
        self._errors = calibration_error(raw, targets), calibration_error(made, targets)

    def target(self, teacher: View, student: View, batch: Batch) -> Tensor:
        if not self.config.offline:
            return self._recalibrated(teacher.logits)
        if batch.view != 0 or batch.altered is not None or batch.mixed is not None:
            raise ConfigError(["first.offline keeps answers to the examples as they are; leave data.augment out"])
        if self._file is None:
            self._file = TopFile.of(self._context, self._recalibrated, self.config.classes, self._identity)
        return self._file.spread(batch.index, student.logits.shape[1])

    def divergence(self, target: Tensor, student: View) -> Tensor:
        return bucketed_kl(target, student.logits, self.config.classes)

    def usual_weight(self) -> tuple[float, float]:
        return 1 - self.config.distill_weight, self.config.distill_weight

    def measures(self) -> dict[str, float]:
        found = {"teacher_temperature": self._temperature}
        if self._errors is not None:
            found |= {"teacher_ece": self._errors[0], "recalibrated_ece": self._errors[1]}
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"temperature": self._temperature, "errors": None if self._errors is None else list(self._errors)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._temperature = state["temperature"]
        self._errors = None if state["errors"] is None else (state["errors"][0], state["errors"][1])

    @property
    def _identity(self) -> tuple[Any, ...]:
        """All but the teacher and the examples that decides what the file holds."""
        config = self.config
        return config.recalibration, config.smoothing, self._temperature

    def _recalibrated(self, logits: Tensor) -> Tensor:
        if self.config.recalibration == "smoothing":
            return smoothed(softened(logits, 1.0), self.config.smoothing)
        return softened(logits, self._temperature)


def _answers(context: Context) -> tuple[Tensor, Tensor]:
    """Return the teacher's logits [N, K] and the labels [N] on the labelled reference examples."""
    network: nn.Module = context.teacher
    with evaluating(network), torch.no_grad():
        pairs = [
            (network(batch.inputs).float(), batch.targets)
            for batch in context.reference.labelled().batches(512, context.device)
        ]
    logits, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return logits, targets


def best_temperature(logits: Tensor, targets: Tensor) -> float:
    """Temperature of 0.25 to 16 with the least calibration error; among equals, the nearest to 1."""
    nearest_first = sorted(_TEMPERATURES, key=lambda value: abs(torch.log2(torch.tensor(value)).item()))
    return min(nearest_first, key=lambda value: calibration_error(softened(logits, value), targets))


def calibration_error(probabilities: Tensor, targets: Tensor) -> float:
    """Expected calibration error in 15 equal bins of confidence (Guo et al. 2017, arXiv:1706.04599, equation 3)."""
    confidence, answers = probabilities.max(1)
    bins = (confidence * _BINS).ceil().long().clamp(1, _BINS) - 1
    gaps = torch.zeros(_BINS, dtype=torch.float64, device=confidence.device)
    gaps.index_add_(0, bins, (answers == targets).double() - confidence.double())
    return float(gaps.abs().sum()) / len(targets)


def smoothed(probabilities: Tensor, amount: float) -> Tensor:
    """Move probability from the likeliest class to the others in equal parts, as far as it stays the likeliest."""
    others = probabilities.shape[1] - 1
    best = probabilities.topk(2, dim=1)
    moved = ((best.values[:, 0] - best.values[:, 1]) * others / (others + 1)).clamp_max(amount)[:, None]
    return (probabilities + moved / others).scatter(1, best.indices[:, :1], best.values[:, :1] - moved)


def bucketed_kl(target: Tensor, student_logits: Tensor, classes: int) -> Tensor:
    """KL(target || softmax(student)), [N], over the target's likeliest classes and a bucket of the others."""
    log_s = precise(student_logits).log_softmax(1)
    if classes >= target.shape[1]:
        return _kl(target, log_s)
    p, places = target.sort(dim=1, descending=True, stable=True)
    log_s = log_s.gather(1, places)
    rest = log_s[:, classes:].logsumexp(1, keepdim=True)
    p = torch.cat([p[:, :classes], p[:, classes:].sum(1, keepdim=True)], 1)
    return _kl(p, torch.cat([log_s[:, :classes], rest], 1))


def _kl(p: Tensor, log_q: Tensor) -> Tensor:
    found: Tensor = (torch.special.xlogy(p, p) - p * log_q).sum(1)
    return found
