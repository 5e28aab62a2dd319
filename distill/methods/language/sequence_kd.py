"""Sequence-level distillation: the teacher writes the answers, and the student learns what was written.

Kim and Rush, "Sequence-Level Knowledge Distillation", EMNLP 2016, arXiv:1606.07947, section 3.2: the mode of the
teacher's distribution over whole sequences stands for all of it. The paper finds the mode by beam search; here it is
approximated greedily, or samples of the teacher take its place (`temperature` above 0).

The teacher is asked once: what it wrote is kept, also between runs. The data's own answers are not learnt.
"""

# N texts, S answers a text, T tokens, R rows of a batch

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

import torch

from edgestill.distill.methods.base import Context, Method, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.language.writing import Library, WritingConfig, in_vain, same_answers, taught_texts
from edgestill.pipeline.data.sequences import Sequences, batch_of_texts
from edgestill.pipeline.data.splits import Batch, ImageSplit
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.networks.network import View
from edgestill.pipeline.task import KindName, Task
from edgestill.pipeline.teachers.teacher import Part


class SequenceKDConfig(WritingConfig):
    """Answers that the teacher writes, in the place of the data's own."""

    name: Literal["sequence_kd"] = "sequence_kd"


class SequenceKD(Method):
    """Loss (1 - b) CE(written) + b D, on texts whose answers the teacher wrote; b is 0 as in the paper.

    Of several answers to a prompt, each epoch draws one.
    """

    name: ClassVar[str] = "sequence_kd"
    paper: ClassVar[str] = "Kim, Rush 2016, arXiv:1606.07947"
    fills: ClassVar[frozenset[Slot]] = frozenset({"data", "weight"})
    inputs: ClassVar[KindName | None] = "lm"
    takes_rows: ClassVar[bool] = True
    studies_teacher: ClassVar[bool] = True
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
    _library: Library

    @property
    def binds_rows(self) -> bool:
        return True

    @property
    def needs(self) -> frozenset[Part]:
        return frozenset({"inputs"})

    @property
    def spares_teacher(self) -> bool:
        return self.config.distill_weight == 0

    def conflicts(self, others: Sequence[Method]) -> Iterable[str]:
        return in_vain(self, others)

    def check(self, task: Task, train: ImageSplit) -> None:
        if isinstance(train, Sequences) and self.config.temperature == 0:
            if not bool(train.prompted().any()):
                raise ConfigError(
                    [f"{self.name}.temperature 0 writes one and the same answer to texts without prompts; set it to 1"]
                )
            if self.config.samples > 1:
                raise ConfigError(
                    [f"{self.name}.samples: greedy answers are all the same; set {self.name}.temperature above 0"]
                )

    def prepare(self, context: Context) -> None:
        assert isinstance(context.train, Sequences)
        self._train = context.train

    def study(self, context: Context) -> None:
        self._library = Library.whole(taught_texts(context, self.config.writing))

    def data(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Replace the batch's texts by ones with the teacher's answers, which are no rows of the split."""
        return batch_of_texts(self._library.drawn(self._train.texts_of(batch.index), generator))

    def weight(self, teacher: View, student: View, batch: Batch) -> tuple[float, float]:
        return 1 - self.config.distill_weight, self.config.distill_weight

    def measures(self) -> dict[str, float]:
        """Share of the teacher's answers that are the data's own."""
        return {"same_answers": float(same_answers(self._library, self._train).float().mean())}

    def state_dict(self) -> dict[str, Any]:
        return self._library.state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._library = Library.restored(state, self._train.targets.device)
