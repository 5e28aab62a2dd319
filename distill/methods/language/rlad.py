"""RLAD / TRRD: a reward says which way a student's own samples pull, and the teacher how far.

"Reinforcement-aware distillation", 2026, arXiv:2602.22495, version 2; no code was found. Of several samples of a prompt
(driver `rollout`), each has the advantage A = (reward - mean) / deviation in its group, and the mean over tokens of

    min(r A, clip(r, 1 - e, 1 + e') A) - beta KL(s || start),   r = s / (old^a teacher^(1 - a)),

is raised, with s, old and teacher the probabilities of the sampled token, and log(s / teacher) held within [-1, 1]
before it enters r. a = 1 is GRPO (Shao et al. 2024, arXiv:2402.03300), a = 0 is anchored to the teacher alone; the
paper's main text names these ends the other way round, and its appendix is as here. 1 - a is `distill_weight`.

`reward` is 1 for the right answer, or the share of it that a sample begins with, which is ours, for models that are not
yet right. On the data's texts the loss is plain KD's: with `on_policy` below 1 both are learnt in turn.
"""

# B texts, T tokens, R rows of logits, V token ids

import copy
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from edgestill.distill.losses import kl, precise
from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.kd import KD, KDConfig
from edgestill.distill.own_samples import tokens_of
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.splits import Batch, ImageSplit
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.input_kind.lm import prompt_ends
from edgestill.pipeline.networks.network import View, evaluating, look
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.training.label_loss import label_loss
from edgestill.pipeline.training.objective import Moment

_BAND = 1.0  # of log(s / teacher)
_LEAST_DEVIATION = 1e-4  # added to the rewards' deviation


class RLADConfig(MethodConfig):
    """A policy gradient whose trust region is around a mixture of the old student and the teacher."""

    name: Literal["rlad"] = "rlad"
    distill_weight: float = tunable(
        0.5,
        ge=0,
        le=1,
        tune=(0.1, 0.9),
        description="teacher's share (1 - a) of what a sample's probability is compared with; 0: GRPO",
    )
    clip_low: float = Field(0.2, gt=0, lt=1, description="how far below 1 the ratio still counts (e)")
    clip_high: float = Field(0.28, gt=0, le=100, description="how far above 1 the ratio still counts (e')")
    reward: Literal["exact", "begun"] = Field(
        "exact", description="reward of a sample: 1 if it is the right answer, or the share of that it begins with"
    )
    start_weight: float = Field(
        0.0, ge=0, le=100, description="weight (beta) of KL(student || student at the start) on its own samples"
    )
    temperature: float = Field(1.0, gt=0, le=100, description="temperature of plain KD on the data's texts")


class RLAD(Method):
    """Loss -mean min(r A, clip(r) A) + beta KL(s || start) on own samples; (1 - b) CE + b KL on the data."""

    name: ClassVar[str] = "rlad"
    paper: ClassVar[str] = "RLAD 2026, arXiv:2602.22495"
    fills: ClassVar[frozenset[Slot]] = frozenset({"objective"})
    takes_rows: ClassVar[bool] = True
    own_samples: ClassVar[int] = 2
    facts: ClassVar[Facts | None] = Facts(
        evidence="paper",
        elicitation=("feedback",),
        algorithm="reinforcement",
        feedback="outcome",
        granularity="token",
        ablation={"distill_weight": 0.0},
        invariant_to=frozenset({"shift"}),
    )
    Config: ClassVar[type[MethodConfig]] = RLADConfig
    config: RLADConfig

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._plain = KD(KDConfig(temperature=self.config.temperature, distill_weight=self.config.distill_weight))
        self._told: float | None = None  # mean reward of the last epoch
        self._reward, self._seen = 0.0, 0

    def check(self, task: Task, train: ImageSplit) -> None:
        if task.inputs.continues and not bool((prompt_ends(_ids(train)) > 1).any()):
            raise ConfigError(
                [f"method {self.name!r} rewards right answers, and these texts have no prompts to answer"]
            )

    def prepare(self, context: Context) -> None:
        self._start = frozen(copy.deepcopy(context.student)) if self.config.start_weight else None

    def objective(self, teacher: View, student: View, batch: Batch) -> Tensor:
        if batch.own is None:
            return self._on_data(teacher, student, batch)
        config, tokens = self.config, tokens_of(batch)[:, None]
        assert batch.rows is not None
        log_s, log_t = (precise(view.logits).log_softmax(1).gather(1, tokens)[:, 0] for view in (student, teacher))
        advantage = advantages(self._rewards(batch), batch.own.group)[batch.rows[:, 0]].to(log_s.dtype)
        log_r = log_ratio(log_s, batch.own.log_probs, log_t.detach(), config.distill_weight)
        gain = clipped_gain(log_r, advantage, config.clip_low, config.clip_high)
        return config.start_weight * self._from_start(student, batch) - gain if self._start is not None else -gain

    def tick(self, moment: Moment) -> None:
        if moment.batch.own is not None:
            found = self._rewards(moment.batch)
            self._reward, self._seen = self._reward + float(found.sum()), self._seen + len(found)

    def end_epoch(self, epoch: int, student: nn.Module) -> None:
        self._told, self._reward, self._seen = (self._reward / self._seen if self._seen else None), 0.0, 0

    def measures(self) -> dict[str, float]:
        return {} if self._told is None else {"reward": self._told}

    def state_dict(self) -> dict[str, Any]:
        return {"told": self._told, "start": None if self._start is None else copy.deepcopy(self._start.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._told = state["told"]
        if self._start is not None:
            self._start.load_state_dict(state["start"])

    def _on_data(self, teacher: View, student: View, batch: Batch) -> Tensor:
        share, target = self.config.distill_weight, self._plain.target(teacher, student, batch).detach()
        return (1 - share) * label_loss(student.logits, batch) + share * self._plain.divergence(target, student)

    def _rewards(self, batch: Batch) -> Tensor:
        assert batch.own is not None
        return REWARDS[self.config.reward](batch.inputs, batch.own.given)

    def _from_start(self, student: View, batch: Batch) -> Tensor:
        assert self._start is not None
        with evaluating(self._start), torch.no_grad():
            start = look(self._start, batch.inputs, batch.rows).logits
        return kl(*(precise(logits).log_softmax(1) for logits in (student.logits, start)))


def log_ratio(log_s: Tensor, log_old: Tensor, log_teacher: Tensor, teacher_share: float) -> Tensor:
    """Log of r, [R], with the part of the teacher held within the band; at a share of 0 the teacher is not read."""
    old = log_s - log_old.to(log_s.dtype)
    if not teacher_share:
        return old
    return (1 - teacher_share) * old + teacher_share * (log_s - log_teacher).clamp(-_BAND, _BAND)


def clipped_gain(log_r: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """min(r A, clip(r, 1 - low, 1 + high) A), [R]: nothing is gained by a ratio beyond the clip."""
    r = log_r.exp()
    return torch.minimum(r * advantage, r.clamp(1 - low, 1 + high) * advantage)


def advantages(rewards: Tensor, group: Tensor) -> Tensor:
    """(reward - mean) / deviation of each text [B] in its group; 0 where all of a group are alike."""
    same = (group[:, None] == group[None]).double()
    count, rewards = same.sum(1), rewards.double()
    apart = rewards - same @ rewards / count
    deviation = (same @ apart.square() / (count - 1).clamp_min(1)).sqrt()
    return apart / (deviation + _LEAST_DEVIATION)


def exact(texts: Tensor, given: Tensor) -> Tensor:
    """Return 1 for each text that is the given one, [B]."""
    return (texts == given).all(1).double()


def begun(texts: Tensor, given: Tensor) -> Tensor:
    """Share of the given answer, END included, that each text's answer begins with, [B]."""
    places = torch.arange(given.shape[1], device=given.device)
    is_answer = (places >= prompt_ends(given)[:, None]) & (given != PADDING)
    agreed = ((texts == given) | ~is_answer).long().cumprod(1) * is_answer
    return agreed.sum(1) / is_answer.sum(1).clamp_min(1).double()


REWARDS = {"exact": exact, "begun": begun}


def _ids(train: ImageSplit) -> Tensor:
    assert isinstance(train.images, Tensor)
    return train.images
