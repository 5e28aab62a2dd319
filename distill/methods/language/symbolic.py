"""Symbolic distillation: the teacher writes, a critic throws out what looks wrong, and the student learns the rest.

West et al., "Symbolic Knowledge Distillation: from General Language Models to Commonsense Models", NAACL 2022,
arXiv:2110.07178, after the authors' notes on their code: the threshold is chosen by the expected recall of right items,
0.8 for a medium filter and 0.5 for a strict one. There the critic is RoBERTa, trained on labels of people; here it is a
copy of the teacher, trained on its answers to the reference prompts, which are right if they are the data's own. A
third of these is held out and chooses the threshold. `critic: exact` compares every answer with the data's own: a
perfect critic, where prompts have one right answer.
"""

# N prompts, M texts, T tokens

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from edgestill.distill.methods.base import Context
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.language.critic import scores, threshold_for, trained_critic
from edgestill.distill.methods.language.writing import (
    Library,
    WritingConfig,
    WritingMethod,
    same_answers,
    taught_texts,
    written,
)
from edgestill.pipeline.data.sequences import PromptSplit, Sequences
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.teachers.teacher import Part

_HELD_OUT = 3  # of so many reference prompts, one is held out


class SymbolicConfig(WritingConfig):
    """The teacher's answers and their critic."""

    name: Literal["symbolic"] = "symbolic"
    samples: int = Field(4, ge=1, le=1000, description="answers that the teacher writes to a prompt")
    temperature: float = Field(1.0, ge=0, le=100, description="temperature that they are drawn at; 0: greedy")
    critic: Literal["trained", "exact"] = Field(
        "trained", description="judge of the answers; exact: right is the data's own answer alone"
    )
    recall: float = Field(
        0.8, gt=0, le=1, description="expected share of the right answers that the critic keeps; 1 keeps all answers"
    )
    critic_epochs: int = Field(10, ge=1, le=1000, description="epochs of the critic's training")
    critic_learning_rate: float = Field(5e-4, gt=0, le=1, description="learning rate of the critic's training")


class Symbolic(WritingMethod):
    """Loss (1 - b) CE(written) + b D on the written texts that the critic keeps; with `recall` 1 it is `sequence_kd`.

    The measures tell how many texts are kept, how many differ, and the critic's precision and recall on the training
    prompts by the exact comparison. An epoch has each prompt with a kept answer once.
    """

    name: ClassVar[str] = "symbolic"
    paper: ClassVar[str] = "West et al. 2022, arXiv:2110.07178"
    facts: ClassVar[Facts | None] = Facts(
        evidence="code",
        elicitation=("expansion", "curation", "feedback"),
        algorithm="fine-tuning",
        feedback="outcome",
        access="black-box",
        granularity="sequence",
        ablation={"recall": 1.0},
        reduces_to=({"name": "sequence_kd", "samples": 4, "temperature": 1.0},),
        zero_at_teacher=True,
        invariant_to=frozenset({"shift", "scale"}),
    )
    Config: ClassVar[type[SymbolicConfig]] = SymbolicConfig
    config: SymbolicConfig

    @property
    def needs(self) -> frozenset[Part]:
        return frozenset({"inputs", "embedding", "gradients"} if self.config.critic == "trained" else {"inputs"})

    def study(self, context: Context) -> None:
        whole = Library.whole(taught_texts(context, self.config.writing))
        kept, self._found = self._judged(context, whole)
        if not bool(kept.any()):
            raise ConfigError(
                [f"{self.name}: the critic keeps none of {len(kept):,} answers; train the teacher longer"]
            )
        self._found |= _figures(whole, kept, same_answers(whole, self._train))
        self._library = whole.select(kept)

    def _judged(self, context: Context, whole: Library) -> tuple[Tensor, dict[str, float]]:
        """Say which texts are kept, [M], with figures of the critic."""
        if self.config.critic == "exact":
            return same_answers(whole, self._train), {}
        all_kept = torch.ones(len(whole.texts), dtype=torch.bool, device=whole.texts.device)
        if self.config.recall == 1:
            return all_kept, {"threshold": 0.0}
        texts, is_right, is_held_out = self._labelled(context)
        learnt = is_right[~is_held_out]
        if bool(learnt.all()) or not bool(learnt.any()):
            return all_kept, {"threshold": 0.0}  # nothing to tell apart
        critic = trained_critic(
            context.teacher, texts[~is_held_out], learnt, self.config.critic_epochs, self.config.critic_learning_rate,
            derive_seed(self.config.draw, self.name),
        )  # fmt: skip
        threshold = threshold_for(self.config.recall, scores(critic, texts[is_held_out]), is_right[is_held_out])
        return scores(critic, whole.texts) >= threshold, {"threshold": threshold}

    def _labelled(self, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Return the teacher's answers to the reference prompts [M, T], which are right and which are held out, [M]."""
        assert isinstance(context.reference, PromptSplit)
        assert context.reference.texts is not None
        own = Sequences(context.reference.texts, torch.zeros(len(context.reference.texts), dtype=torch.int64))
        answers = Library.whole(written(context.teacher, own.prompts(), self.config.writing))
        return answers.texts, same_answers(answers, own), answers.of % _HELD_OUT == 0

    def order(self, epoch: int, generator: torch.Generator) -> Tensor:
        prompts: Tensor = self._library.of.cpu().unique()  # type: ignore[no-untyped-call]
        return prompts[torch.randperm(len(prompts), generator=generator)]

    def measures(self) -> dict[str, float]:
        return self._found

    def state_dict(self) -> dict[str, Any]:
        return {"library": self._library.state(), "found": self._found}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._library = Library.restored(state["library"], self._train.targets.device)
        self._found = state["found"]


def _figures(whole: Library, kept: Tensor, is_right: Tensor) -> dict[str, float]:
    """Quantity, diversity and validity of what is kept."""
    right_kept, survivors = float((kept & is_right).sum()), whole.select(kept)
    unique = len(torch.cat([survivors.of[:, None], survivors.texts], 1).unique(dim=0))  # type: ignore[no-untyped-call]
    return {
        "kept": float(kept.float().mean()),
        "unique": unique / len(survivors.of),
        "precision": right_kept / float(kept.sum()),
        "recall": right_kept / max(1.0, float(is_right.sum())),
    }
