"""Sequence-level distillation: the teacher writes the answers, and the student learns what was written.

Kim and Rush, "Sequence-Level Knowledge Distillation", EMNLP 2016, arXiv:1606.07947, section 3.2: the mode of the
teacher's distribution over whole sequences stands for all of it. The paper finds the mode by beam search; here it is
approximated greedily, or samples of the teacher take its place (`temperature` above 0).

The teacher is asked once: what it wrote is kept, also between runs. The data's own answers are not learnt.
"""

# N texts, S answers a text, T tokens, R rows of a batch

from typing import Any, ClassVar, Literal

from edgestill.distill.methods.base import Context
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.language.writing import Library, WritingConfig, WritingMethod, same_answers, taught_texts
from edgestill.pipeline.teachers.teacher import Part


class SequenceKDConfig(WritingConfig):
    """Answers that the teacher writes, in the place of the data's own."""

    name: Literal["sequence_kd"] = "sequence_kd"


class SequenceKD(WritingMethod):
    """Loss (1 - b) CE(written) + b D, on texts whose answers the teacher wrote; b is 0 as in the paper.

    Of several answers to a prompt, each epoch draws one.
    """

    name: ClassVar[str] = "sequence_kd"
    paper: ClassVar[str] = "Kim, Rush 2016, arXiv:1606.07947"
    facts: ClassVar[Facts | None] = Facts(
        evidence="paper",
        elicitation=("expansion",),
        algorithm="fine-tuning",
        feedback="outcome",
        access="black-box",
        granularity="sequence",
        zero_at_teacher=True,
        invariant_to=frozenset({"shift", "scale"}),
    )
    Config: ClassVar[type[WritingConfig]] = SequenceKDConfig
    config: WritingConfig

    @property
    def needs(self) -> frozenset[Part]:
        return frozenset({"inputs"})

    def study(self, context: Context) -> None:
        self._library = Library.whole(taught_texts(context, self.config.writing))

    def measures(self) -> dict[str, float]:
        """Share of the teacher's answers that are the data's own."""
        return {"same_answers": float(same_answers(self._library, self._train).float().mean())}

    def state_dict(self) -> dict[str, Any]:
        return self._library.state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._library = Library.restored(state, self._train.targets.device)
