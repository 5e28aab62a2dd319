"""OPSD: a model teaches itself, being shown the right answer.

On-policy self-distillation, 2026, arXiv:2601.18734, version 3, and the authors' code, siyan-zhao/OPSD. The student
continues a prompt x by itself (driver `rollout`); the teacher is the same network with the prompt and the right answer
behind it, read at the same tokens y. Loss: the mean over tokens of

    sum_v min(p_T(v) log(p_T(v) / p_S(v)), tau),  p_T = p(. | x, answer, y_<t),  p_S = p(. | x, y_<t).

The teacher has the weights that the student begins with (`frozen`, the paper's advice), their moving average (`ema`),
or the student's own (`live`). The student must begin with weights: `distill.start` names the run that trained it.

Only large positive terms are clipped, so the sum can be below 0, and equality is not its least value, though its
gradient is 0 there. The paper prints no tau: ours is a guess. A hint is of use to a model that was taught to read one.
"""

# B texts, T tokens, R rows of logits, V token ids

import copy
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from edgestill.distill.losses import precise
from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.language.hints import hinted
from edgestill.distill.tunable import distillation_share, tunable
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.networks.network import View, evaluating, look
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.training.objective import Moment


class OPSDConfig(MethodConfig):
    """The student itself, shown the right answer, takes the teacher's place."""

    name: Literal["opsd"] = "opsd"
    hint: Literal["answer", "other", "none"] = Field(
        "answer",
        description="text behind the teacher's prompt: the right answer, another prompt's as a control, or none",
    )
    teacher: Literal["frozen", "ema", "live"] = Field(
        "frozen", description="weights of the teacher: those of the start, their moving average, or the student's own"
    )
    decay: float = Field(
        0.999, ge=0, lt=1, description="share of the moving average that stays in a step, of ema alone"
    )
    clip: float | None = tunable(
        0.5,
        gt=0,
        le=1000,
        tune=(0.05, 2.0),
        log=True,
        description="most (tau) that an entry adds, in nats; null: no limit",
    )
    distill_weight: float = distillation_share(1.0)


class OPSD(Method):
    """Loss (1 - b) CE + b sum_v min(t_v log(t_v / s_v), tau), t by the student itself with the answer in its prompt."""

    name: ClassVar[str] = "opsd"
    paper: ClassVar[str] = "OPSD 2026, arXiv:2601.18734"
    fills: ClassVar[frozenset[Slot]] = frozenset({"teacher", "target", "divergence"})
    takes_rows: ClassVar[bool] = True
    own_samples: ClassVar[int] = 1
    is_of_itself: ClassVar[bool] = True
    facts: ClassVar[Facts | None] = Facts(
        evidence="paper",
        elicitation=("self-knowledge",),
        feedback="self-play",
        access="teacher-free",
        granularity="token",
        ablation={"distill_weight": 0.0},
        reduces_to=({"name": "none"},),
        zero_at_teacher=True,
        invariant_to=frozenset({"shift"}),
    )
    Config: ClassVar[type[MethodConfig]] = OPSDConfig
    config: OPSDConfig

    def prepare(self, context: Context) -> None:
        self._student = context.student
        self._own = None if self.config.teacher == "live" else frozen(copy.deepcopy(context.student))

    @property
    def _network(self) -> nn.Module:
        return self._student if self._own is None else self._own

    def teacher(self, inputs: Tensor) -> View:
        return self._look(inputs)

    def teacher_on(self, batch: Batch) -> View:
        if batch.rows is None or self.config.hint == "none":
            return self._look(batch.inputs, batch.rows)
        given = batch.inputs if batch.own is None else batch.own.given
        if self.config.hint == "other":
            given = given.roll(1, 0) if batch.own is None else given.roll(_copies(batch.own.group), 0)
        return self._look(*hinted(batch.inputs, batch.rows, given))

    def target(self, teacher: View, student: View, batch: Batch) -> Tensor:
        return precise(teacher.logits).softmax(1)

    def divergence(self, target: Tensor, student: View) -> Tensor:
        return clipped_kl(target, precise(student.logits).log_softmax(1), self.config.clip)

    def usual_weight(self) -> tuple[float, float]:
        return 1 - self.config.distill_weight, self.config.distill_weight

    def tick(self, moment: Moment) -> None:
        if self.config.teacher != "ema":
            return
        assert self._own is not None
        with torch.no_grad():
            for own, new in zip(self._own.parameters(), moment.network.parameters(), strict=True):
                own.lerp_(new, 1 - self.config.decay)

    def state_dict(self) -> dict[str, Any]:
        return {} if self._own is None else {"teacher": copy.deepcopy(self._own.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self._own is not None:
            self._own.load_state_dict(state["teacher"])

    def _look(self, inputs: Tensor, rows: Tensor | None = None) -> View:
        with evaluating(self._network), torch.no_grad():
            return look(self._network, inputs, rows)


def clipped_kl(target: Tensor, log_student: Tensor, most: float | None) -> Tensor:
    """KL(t || s), [R], with each entry t_v log(t_v / s_v) at most `most`; None: KL itself."""
    terms = torch.special.xlogy(target, target) - target * log_student
    found: Tensor = (terms if most is None else terms.clamp_max(most)).sum(1)
    return found


def _copies(group: Tensor) -> int:
    """Number of samples of each prompt."""
    return int((group == group[0]).sum())
