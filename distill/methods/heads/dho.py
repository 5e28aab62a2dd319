"""DHO: one head learns the labels, another the teacher, and their probabilities are mixed.

Kang, Lee and others, "Simple Semi-supervised Knowledge Distillation via Dual-Head Optimization", 2025,
arXiv:2505.07675. Follows the authors' code: the loss for few labels and many examples without, and the grid of the mix.
That is tuned on the reference split after every epoch, so that the best epoch has its own.

Both heads ship, with two softmaxes and their weighted sum, computed by logarithms: an operator Softmax would keep INT8
files from integer sums and pools. A sum of softmaxes is no softmax of a Linear, so the heads cannot be merged into one.
"""

# N examples, K classes, D embedding width

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from edgestill.distill.losses import softened, softened_kl
from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.lelp.head import subclass_linear, with_classifier
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.splits import UNLABELLED, Batch, ImageSplit
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import View, evaluating, look

_SHARES = tuple(step / 20 for step in range(21))  # a, of the labels' head
_TEMPERATURES = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 4.0)  # b, of the teacher's head
_LEAST = 1e-6  # weight of a head, for a finite logarithm


class DHOConfig(MethodConfig):
    """Two heads on one student."""

    name: Literal["dho"] = "dho"
    temperature: float = tunable(
        2.0, gt=0, le=100, tune=(1.0, 8.0), log=True, description="temperature (T) of the teacher and its head"
    )
    distill_weight: float = tunable(
        0.5, ge=0, le=1, tune=(0.1, 0.9), description="weight (b) of distillation; labels weigh a = 1 - b"
    )


class DHO(Method):
    """Loss (1 - b) CE(h_1(labelled), y) + b [KD_T(h_2(labelled)) + KD_T(h_2(unlabelled))], each a mean of its own.

    What ships gives log(a softmax(h_1) + (1 - a) softmax(h_2 / b)), with a and b of the grid that are right most often
    on the reference split.
    """

    name: ClassVar[str] = "dho"
    paper: ClassVar[str] = "Kang et al. 2025, arXiv:2505.07675"
    fills: ClassVar[frozenset[Slot]] = frozenset({"target", "divergence", "weight", "head"})
    facts: ClassVar[Facts | None] = Facts(evidence="code", changes_graph=True, suits=lambda about: about.pool > 0)
    to_shrink: ClassVar[str] = "choose a narrower space of students"
    Config: ClassVar[type[MethodConfig]] = DHOConfig
    config: DHOConfig
    _head: "MixedHead | None" = None

    def prepare(self, context: Context) -> None:
        self._context = context
        self._head = MixedHead(two_linears(context.student, derive_seed(context.seed, self.name, "heads")))
        self._head.to(context.device)

    def head(self, embedding: Tensor) -> Tensor:
        logits: Tensor = self._own().linear(embedding)
        return logits

    def class_logits(self, logits: Tensor) -> Tensor:
        return logits.chunk(2, dim=1)[0]

    def target(self, teacher: View, student: View, batch: Batch) -> Tensor:
        return softened(teacher.logits, self.config.temperature)

    def divergence(self, target: Tensor, student: View) -> Tensor:
        return softened_kl(student.logits.chunk(2, dim=1)[1], target, self.config.temperature)

    def weight(self, teacher: View, student: View, batch: Batch) -> tuple[Tensor, Tensor]:
        """Turn the loop's mean over all examples into a mean over those with a label, and one over those without."""
        share = self.config.distill_weight
        labelled = (batch.targets if batch.mixed is None else batch.mixed.targets[0]) != UNLABELLED
        ours, theirs = _mean_weights(labelled), _mean_weights(~labelled)
        return (1 - share) * ours, share * (ours + theirs)

    def deployable(self, student: nn.Module) -> nn.Module:
        return with_classifier(student, self._head or MixedHead(two_linears(student)))

    def end_epoch(self, epoch: int, student: nn.Module) -> None:
        """Choose the mix that is right most often on the reference split."""
        with evaluating(student), torch.no_grad():
            logits, targets = _answers(student, self._own().linear, self._context.reference, self._context.device)
        labels, teachers = logits.chunk(2, dim=1)
        self._own().mix(*best_mix(labels, teachers, targets))

    def trainable(self) -> Iterable[nn.Parameter]:
        return () if self._head is None else self._head.parameters()

    def extras(self) -> Mapping[str, nn.Module]:
        return {} if self._head is None else {"heads": self._head}

    def measures(self) -> dict[str, float]:
        return {
            "share_of_labels_head": float(self._own().log_shares[0].exp()),
            "temperature": float(self._own().temperature),
        }

    def state_dict(self) -> dict[str, Any]:
        return dict(self._own().state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._own().load_state_dict(state)

    def _own(self) -> "MixedHead":
        assert self._head is not None, "prepare() comes first"
        return self._head


class MixedHead(nn.Module):
    """Two heads whose probabilities are mixed; the logits are the logarithm of the mix."""

    log_shares: Tensor  # log a, log(1 - a)
    temperature: Tensor  # b

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear  # D to 2 K: the labels' head, then the teacher's
        self.register_buffer("log_shares", log_shares(0.5))
        self.register_buffer("temperature", torch.tensor(1.0))

    def forward(self, embedding: Tensor) -> Tensor:
        logits, classes = self.linear(embedding), self.linear.out_features // 2
        return mixed(logits[:, :classes], logits[:, classes:], self.log_shares, self.temperature)

    def mix(self, share: float, temperature: float) -> None:
        self.log_shares.copy_(log_shares(share))
        self.temperature.fill_(temperature)


def log_shares(share: float) -> Tensor:
    """Logarithms of a and 1 - a, [2]; an a of 0 or 1 is so up to 1e-6."""
    return torch.tensor([share, 1 - share]).clamp_min(_LEAST).log()


def mixed(labels: Tensor, teachers: Tensor, shares: Tensor, temperature: Tensor | float) -> Tensor:
    """log(a softmax(labels) + (1 - a) softmax(teachers / b)), [N, K], from the logarithms of a and 1 - a."""
    parts = torch.stack([labels.log_softmax(1), (teachers / temperature).log_softmax(1)], 2)
    return (parts + shares).logsumexp(2)


def best_mix(labels: Tensor, teachers: Tensor, targets: Tensor) -> tuple[float, float]:
    """Return (a, b) of the grid, right most often; among equals the nearest to (0.5, 1)."""
    grid = [(a, b) for a in _SHARES for b in _TEMPERATURES]
    grid.sort(key=lambda pair: (abs(pair[0] - 0.5), abs(pair[1] - 1)))

    def right(pair: tuple[float, float]) -> int:
        shares = log_shares(pair[0]).to(labels.device)
        return int((mixed(labels, teachers, shares, pair[1]).argmax(1) == targets).sum())

    return max(grid, key=right)


def two_linears(student: nn.Module, seed: int = 0) -> nn.Linear:
    """Make a Linear from the student's embedding to both heads' logits."""
    return subclass_linear(student, 2, seed)


def _mean_weights(chosen: Tensor) -> Tensor:
    """Weights [N] that make a mean over all of a mean over the chosen; 0 for all if none is."""
    return chosen.float() * len(chosen) / chosen.sum().clamp_min(1)


def _answers(student: nn.Module, linear: nn.Linear, split: ImageSplit, device: torch.device) -> tuple[Tensor, Tensor]:
    pairs = [
        (linear(look(student, batch.inputs).embedding).float(), batch.targets)
        for batch in split.labelled().batches(512, device)
    ]
    logits, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return logits, targets
