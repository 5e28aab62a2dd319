"""ADPA: the student learns by how much an aligned teacher prefers each token over the teacher before its alignment.

Gao et al., "Advantage-Guided Distillation for Preference Alignment in Small Language Models", ICLR 2025,
arXiv:2502.17927, after the authors' code. On answers that the initial student drew,

    A(a | state) = log pi_aligned(a | state) - log pi_reference(a | state)
    L = CE(chosen) - w mean_tokens sum_a pi_S(a | state) A(a | state)

The reference is the run's teacher; the aligned one is a copy of it, trained here by DPO on the pairs of preferences,
which the paper is given. The paper's initial student has been fine-tuned, or distilled by DCKD (ADPA+): set
`distill.start` to such a run, as an untrained student draws nonsense. Left out are its optional KL penalty and
importance weight. The whole vocabulary is used, where the code keeps the largest entries.

The advantage term is linear in pi_S: without the labels it ends in the token of the largest advantage alone.
"""

# N texts, T tokens, R rows, V token ids

import copy
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from edgestill.distill.losses import precise
from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.language.alignment import aligned
from edgestill.distill.methods.language.preferences import joined, rejected_of, shares
from edgestill.distill.methods.language.writing import Writing, written
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.sequences import Sequences
from edgestill.pipeline.data.splits import Batch, ImageSplit
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import View, look
from edgestill.pipeline.task import KindName, Task
from edgestill.pipeline.teachers.teacher import Part
from edgestill.pipeline.training.label_loss import label_loss

_BATCH = 64  # pairs of a step of the alignment


class ADPAConfig(MethodConfig):
    """The aligned teacher, the student's own answers, and the weight of the advantage."""

    name: Literal["adpa"] = "adpa"
    label_weight: float = Field(1.0, ge=0, le=100, description="weight of the cross-entropy on the better answers")
    advantage_weight: float = tunable(
        0.5,
        ge=0,
        le=100,
        tune=(0.05, 5.0),
        log=True,
        description="weight (w) of the advantage on the student's answers",
    )
    beta: float = Field(0.1, gt=0, le=100, description="strength of the teacher's alignment (beta of DPO)")
    align_epochs: int = Field(1, ge=0, le=1000, description="epochs of the teacher's alignment; 0 aligns nothing")
    align_learning_rate: float = Field(1e-4, gt=0, le=1, description="learning rate of the teacher's alignment")
    temperature: float = Field(1.0, ge=0, le=100, description="temperature of the student's answers; 0: greedy")


class ADPA(Method):
    """Loss CE(chosen) - w mean sum_a pi_S(a) A(a) on answers of the student's first weights.

    A is the log-ratio of the aligned teacher to the given one; where they are one, the term is 0.
    """

    name: ClassVar[str] = "adpa"
    paper: ClassVar[str] = "Gao et al. 2025, arXiv:2502.17927"
    fills: ClassVar[frozenset[Slot]] = frozenset({"data", "objective"})
    inputs: ClassVar[KindName | None] = "lm"
    takes_rows: ClassVar[bool] = True
    studies_teacher: ClassVar[bool] = True
    facts: ClassVar[Facts | None] = Facts(
        evidence="code",
        elicitation=("feedback",),
        algorithm="reinforcement",
        granularity="token",
        ablation={"align_epochs": 0},
        reduces_to=({"name": "none"},),
        invariant_to=frozenset({"shift"}),
        cost=5.0,
    )
    Config: ClassVar[type[MethodConfig]] = ADPAConfig
    config: ADPAConfig
    _answers: Tensor  # [N, T], drawn by the initial student
    _aligned: nn.Module

    @property
    def binds_rows(self) -> bool:
        return True

    @property
    def needs(self) -> frozenset[Part]:
        return frozenset({"inputs", "gradients"})

    def check(self, task: Task, train: ImageSplit) -> None:
        rejected_of(train, self.name)

    def prepare(self, context: Context) -> None:
        assert isinstance(context.train, Sequences)
        self._train = context.train
        self._aligned = copy.deepcopy(context.teacher)

    def study(self, context: Context) -> None:
        config, seed = self.config, derive_seed(context.seed, self.name)
        how = Writing(temperature=config.temperature, draw=seed % 2**31)
        self._answers = written(context.student, self._train.prompts(), how)[:, 0]
        texts, rejected = self._train.images, rejected_of(self._train, self.name)
        assert isinstance(texts, Tensor)
        self._aligned = aligned(
            context.teacher, texts, rejected, beta=config.beta, epochs=config.align_epochs,
            learning_rate=config.align_learning_rate, batch_size=_BATCH, seed=seed,
        )  # fmt: skip

    def data(self, batch: Batch, generator: torch.Generator) -> Batch:
        return joined(batch, self._answers[self._train.texts_of(batch.index)])

    def advantage(self, teacher: View, batch: Batch) -> Tensor:
        """Return A of every token at every row, [R, V]."""
        with torch.no_grad():
            preferred = look(self._aligned, batch.inputs, batch.rows).logits
        return precise(preferred).log_softmax(1) - precise(teacher.logits).log_softmax(1)

    def objective(self, teacher: View, student: View, batch: Batch) -> Tensor:
        gained = expected_advantage(student.logits, self.advantage(teacher, batch))
        chosen, own = shares(batch)
        labels = self.config.label_weight * chosen * label_loss(student.logits, batch)
        return labels - self.config.advantage_weight * own * gained

    def measures(self) -> dict[str, float]:
        """Share of the student's first answers that were the data's own."""
        own = self._train.images
        assert isinstance(own, Tensor)
        return {"same_answers": float((self._answers == own).all(1).float().mean())}

    def state_dict(self) -> dict[str, Any]:
        return {"answers": self._answers, "aligned": self._aligned.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._answers = state["answers"].to(self._train.images.device)
        self._aligned.load_state_dict(state["aligned"])


def expected_advantage(student_logits: Tensor, advantage: Tensor) -> Tensor:
    """sum_a pi_S(a) A(a), [R]; a constant added to A moves no gradient."""
    return (precise(student_logits).softmax(1) * advantage).sum(1)
