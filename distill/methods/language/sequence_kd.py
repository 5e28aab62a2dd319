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
from pydantic import Field
from torch import Tensor

from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.language.writing import Library, Writing, taught_texts
from edgestill.pipeline.data.sequences import Sequences
from edgestill.pipeline.data.splits import Batch, ImageSplit
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.networks.network import View
from edgestill.pipeline.task import KindName, Task
from edgestill.pipeline.teachers.teacher import Part


class WritingConfig(MethodConfig):
    """How the teacher writes."""

    samples: int = Field(1, ge=1, le=1000, description="answers that the teacher writes to a prompt")
    temperature: float = Field(
        0.0, ge=0, le=100, description="temperature that they are drawn at; 0: the likeliest token, always the same"
    )
    top_p: float = Field(1.0, gt=0, le=1, description="mass of the likeliest tokens that are drawn from")
    draw: int = Field(0, ge=0, lt=2**31, description="seed that the answers are drawn from")
    distill_weight: float = Field(
        0.0, ge=0, le=1, description="weight of the teacher's logits on its answers; the answers weigh 1 less it"
    )

    @property
    def writing(self) -> Writing:
        return Writing(self.samples, self.temperature, self.top_p, self.draw)


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
    Config: ClassVar[type[MethodConfig]] = SequenceKDConfig
    config: WritingConfig
    _library: Library

    @property
    def needs(self) -> frozenset[Part]:
        return frozenset({"inputs"})

    @property
    def spares_teacher(self) -> bool:
        return self.config.distill_weight == 0

    def conflicts(self, others: Sequence[Method]) -> Iterable[str]:
        if self.spares_teacher:
            for other in others:
                if other.fills & {"target", "divergence"}:
                    yield (
                        f"method {self.name!r} with distill_weight 0 gives the teacher's logits no weight, which is "
                        f"what method {other.name!r} is there for; set {self.name}.distill_weight, or leave it out"
                    )

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
        return rows_of(self._library.drawn(self._train.texts_of(batch.index), generator))

    def weight(self, teacher: View, student: View, batch: Batch) -> tuple[float, float]:
        return 1 - self.config.distill_weight, self.config.distill_weight

    def measures(self) -> dict[str, float]:
        """Share of the teacher's answers that are the data's own."""
        return {"same_answers": float(same_answers(self._library, self._train).float().mean())}

    def state_dict(self) -> dict[str, Any]:
        return self._library._asdict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._library = Library(**state).to(self._train.targets.device)


def same_answers(library: Library, train: Sequences) -> Tensor:
    """True of the written texts that are the data's own, [M]."""
    own = train.images
    assert isinstance(own, Tensor)
    return (library.texts == own[library.of]).all(1)


def rows_of(texts: Tensor) -> Batch:
    """Make the batch of texts [B, T] that are not in the split: the teacher's kept answers are none to them."""
    split = Sequences(texts, torch.zeros(len(texts), dtype=torch.int64, device=texts.device), "train")
    return split.batch(torch.arange(len(texts), device=texts.device), texts.device)._replace(view=None)
