"""OFA: exits on the student's stages learn the teacher's answers, whatever the teacher's architecture.

Hao et al., "One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge Distillation", NeurIPS 2023,
arXiv:2310.19444. The loss follows the authors' code. Their exits are stacks of separable convolutions or transformer
blocks; here each is the mean over positions and a Linear (ours), as the deep ones cost more than a small student.

The paper's whole loss is `[none, {name: ofa, final_weight: 1}]`: the labels, the last layer and the exits, each once.

Trap: the value is a cross-entropy with a target that does not sum to 1, not comparable with a KL.
"""

# N examples, K classes

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from edgestill.distill.losses import precise
from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.features.tokens import pooled
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.splits import UNLABELLED, Batch
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.encoder_layers import find_layers, spread
from edgestill.pipeline.networks.network import BlockClassifier, View, evaluating, look
from edgestill.pipeline.randomness import drawn_from


class OFAConfig(MethodConfig):
    """Exits of the student that learn the teacher's logits."""

    name: Literal["ofa"] = "ofa"
    ofa_weight: float = tunable(
        1.0, ge=0, le=1e4, tune=(0.1, 10.0), log=True, description="weight (w_ofa) of the exits' losses, summed"
    )
    final_weight: float = tunable(
        0.0,
        ge=0,
        le=1e4,
        tune=(0.0, 4.0),
        description="weight (w_kd) of the same loss at the last layer; the paper's 1",
    )
    exits: int = Field(4, ge=1, le=64, description="exits at most, evenly over the student's blocks, one at the last")
    epsilon: float = tunable(
        1.0, gt=0, le=10, tune=(0.8, 2.0), description="power (epsilon) of the target; 1: the teacher's probabilities"
    )
    epsilons: tuple[float, ...] = Field(
        (), description="epsilon of each exit, the first block's first; empty: `epsilon`"
    )


class OFA(Method):
    """Loss w sum_exits l(s_h) + w' l(s), l(s) = -sum_c [(p_c + 1[c = y])^epsilon - 1[c = y]] log softmax(s)_c.

    p is softmax(t). With epsilon 1 the gradient is that of KL(p || softmax(s)); above, the label gains and the other
    classes lose. Without a label, l has no 1[c = y]. Exits stand behind the blocks of a student of ours, or the equal
    encoder layers of another; where it has neither, one exit reads its features. They are thrown away after training.
    """

    name: ClassVar[str] = "ofa"
    paper: ClassVar[str] = "Hao et al. 2023, arXiv:2310.19444"
    fills: ClassVar[frozenset[Slot]] = frozenset({"feature"})
    facts: ClassVar[Facts | None] = Facts(
        evidence="code", ablation={"ofa_weight": 0.0, "final_weight": 0.0}, reduces_to=({"name": "kd"},)
    )
    Config: ClassVar[type[MethodConfig]] = OFAConfig
    config: OFAConfig

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._exits = nn.ModuleList()
        self._stages: list[str] = []  # paths of the student's modules that exits stand behind; none: its features
        self._seen: list[Tensor] = []

    def prepare(self, context: Context) -> None:
        self._stages = stage_paths(context.student, self.config.exits)
        few = context.train.batch(torch.zeros(1, dtype=torch.int64), context.device)
        with evaluating(context.student), torch.no_grad(), self.watching(context.student):
            features = look(context.student, few.inputs).features
        outputs, self._seen = self._seen or [features], []
        with drawn_from(derive_seed(context.seed, self.name)):
            linears = [nn.Linear(pooled(output, few).shape[1], context.task.num_classes) for output in outputs]
        self._exits = nn.ModuleList(linears).to(context.device)

    @contextmanager
    def watching(self, student: nn.Module) -> Iterator[None]:
        self._seen = []
        modules = [student.get_submodule(path) for path in self._stages]
        hooks = [module.register_forward_hook(self._keep) for module in modules]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _keep(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._seen.append(output[0] if isinstance(output, tuple) else output)

    def feature(self, teacher: View, student: View, batch: Batch) -> Mapping[str, Tensor]:
        outputs, self._seen = (self._seen if self._stages else [student.features]), []
        epsilons = self.config.epsilons or (self.config.epsilon,)
        terms = {}
        if self.config.ofa_weight:
            losses = [
                self._loss(leave(pooled(precise(output), batch)), teacher, batch, epsilons[min(i, len(epsilons) - 1)])
                for i, (output, leave) in enumerate(zip(outputs, self._exits, strict=True))
            ]
            terms["ofa"] = self.config.ofa_weight * torch.stack(losses).sum()
        if self.config.final_weight:
            final = self._loss(student.logits, teacher, batch, epsilons[-1])
            terms["ofa_final"] = self.config.final_weight * final
        return terms

    def _loss(self, logits: Tensor, teacher: View, batch: Batch, epsilon: float) -> Tensor:
        if batch.mixed is None:
            losses = ofa_loss(logits, teacher.logits, batch.targets, epsilon)
        else:
            first, second = (ofa_loss(logits, teacher.logits, targets, epsilon) for targets in batch.mixed.targets)
            losses = batch.mixed.blended(first, second)
        return (losses if batch.weight is None else batch.weight * losses).mean()

    def trainable(self) -> Iterable[nn.Parameter]:
        return self._exits.parameters() if self.config.ofa_weight else ()

    def extras(self) -> Mapping[str, nn.Module]:
        return {"exits": self._exits} if len(self._exits) and self.config.ofa_weight else {}

    def measures(self) -> dict[str, float]:
        return {"exits": float(len(self._exits))}

    def state_dict(self) -> dict[str, Any]:
        return {"exits": self._exits.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._exits.load_state_dict(state["exits"])


def stage_paths(student: nn.Module, most: int) -> list[str]:
    """Paths of the modules that exits stand behind, evenly spread, the last block among them; none if none is known."""
    blocks = _blocks(student)
    count = min(most, len(blocks))
    chosen = [blocks[place] for place in spread(len(blocks), count)] if count > 1 else blocks[-1:]
    paths = {id(module): path for path, module in student.named_modules()}
    return [paths[id(module)] for module in chosen]


def _blocks(student: nn.Module) -> list[nn.Module]:
    if isinstance(student, BlockClassifier):
        return student.blocks()
    found = find_layers(student)
    return [] if found is None else list(student.get_submodule(found.path).children())


def ofa_loss(logits: Tensor, teacher_logits: Tensor, targets: Tensor, epsilon: float) -> Tensor:
    """-sum_c [(p_c + 1[c = y])^epsilon - 1[c = y]] log softmax(s)_c, [N]; all computed in float32 or better."""
    logits = precise(logits)
    p = teacher_logits.detach().to(logits.dtype).softmax(1)
    label = F.one_hot(targets.clamp_min(0), p.shape[1]) * (targets != UNLABELLED)[:, None]
    return -(((p + label) ** epsilon - label) * logits.log_softmax(1)).sum(1)
