"""Talking models: student and teacher exchange messages, and the student hears how the teacher takes its own.

After Wang et al., "Talking Models: Distill Knowledge to Pre-trained Models via Interactive Communication", 2023,
arXiv:2310.03188. Code and paper were not at hand: the codecs, the two consistencies and the interaction are the
paper's, and where the networks are split (the embedding), the exact terms and their weights are ours.

Of the paper's gain over training alone, 1.99 % come without any interaction, and 2.4 to 2.5 % with it: most of it is
the codecs', and `rounds: 0` keeps those.
"""

# N examples, K classes, D_S, D_T and D_m widths of the student's and teacher's embedding and of a message

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from edgestill.distill.losses import softened, softened_kl
from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot, embedding_width
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.lelp.subclasses import class_embeddings
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import Classifier, View
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.teachers.teacher import Part

_CODECS = ("student_encoder", "student_decoder", "teacher_encoder", "teacher_decoder")


class TalkingConfig(MethodConfig):
    """Messages between student and teacher."""

    name: Literal["talking"] = "talking"
    interaction_weight: float = tunable(
        1.0, ge=0, le=1e4, tune=(0.05, 5.0), log=True, description="weight (w1) of the teacher's answers to messages"
    )
    message_weight: float = tunable(
        1.0, ge=0, le=1e4, tune=(0.05, 5.0), log=True, description="weight (w2) of both models' messages being the same"
    )
    state_weight: float = tunable(
        1.0, ge=0, le=1e4, tune=(0.05, 5.0), log=True, description="weight (w3) of decoded states being the receiver's"
    )
    rounds: int = Field(
        1, ge=0, le=16, description="times that the student talks and the teacher answers; 0: codecs only"
    )
    message_width: int = Field(64, ge=1, le=65536, description="width of a message (D_m)")
    codec: Literal["linear", "dense"] = Field("linear", description="codecs: a Linear, or Linear, ReLU, Linear")
    temperature: float = tunable(
        4.0, gt=0, le=100, tune=(1.0, 16.0), log=True, description="temperature (T) of the teacher's answers"
    )


class Talking(Method):
    """Loss w1 L_interact + w2 L_MC + w3 L_SC on the embeddings h_S and h_T, after the paper.

    - The student says m = E_S(h_S); the teacher takes it as h' = D_T(m) and answers by its own classifier, frozen.
      L_interact = T^2 KL(teacher's answer to the input || its answer to h'), whose gradient reaches the student through
      the classifier. It replies E_T(h'), which the student decodes, and talks again; the mean over the rounds counts.
    - L_MC = |E_S(h_S) - E_T(h_T)|^2, the mean over the message.
    - L_SC: D_S(E_T(h_T)) against h_S and D_T(E_S(h_S)) against h_T, and each model's own D(E(h)) against h, which keeps
      the messages from saying nothing.

    The codecs see the teacher's embedding at mean 0 and mean variance 1. They are thrown away after training.
    """

    name: ClassVar[str] = "talking"
    paper: ClassVar[str] = "after Wang et al. 2023, arXiv:2310.03188"
    fills: ClassVar[frozenset[Slot]] = frozenset({"feature"})
    studies_teacher: ClassVar[bool] = True
    facts: ClassVar[Facts | None] = Facts(
        evidence="ours",
        elicitation=("feature", "feedback"),
        ablation={"interaction_weight": 0.0, "message_weight": 0.0, "state_weight": 0.0},
        reduces_to=({"name": "kd"},),
        invariant_to=frozenset({"shift"}),
    )
    Config: ClassVar[type[MethodConfig]] = TalkingConfig
    config: TalkingConfig

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self._codecs = nn.ModuleDict()
        self._mean, self._scale = torch.zeros(()), torch.ones(())

    @property
    def needs(self) -> frozenset[Part]:
        return frozenset({"embedding", "classifier"})

    def prepare(self, context: Context) -> None:
        self._teacher = context.teacher
        own, given = (embedding_width(network, context) for network in (context.student, context.teacher))
        middle = self.config.message_width
        sizes = ((own, middle), (middle, own), (given, middle), (middle, given))
        with drawn_from(derive_seed(context.seed, self.name)):
            made = {name: self._codec(*size) for name, size in zip(_CODECS, sizes, strict=True)}
        self._codecs = nn.ModuleDict(made).to(context.device)
        self._mean, self._scale = (part.to(context.device) for part in (torch.zeros(given), torch.ones(())))

    def _codec(self, into: int, out: int) -> nn.Module:
        if self.config.codec == "linear":
            return nn.Linear(into, out)
        width = max(into, out)
        return nn.Sequential(nn.Linear(into, width), nn.ReLU(), nn.Linear(width, out))

    def study(self, context: Context) -> None:
        total, squares, count = torch.zeros(len(self._mean)).double(), torch.zeros(len(self._mean)).double(), 0
        for embedding, _ in class_embeddings(context.teacher, context.train, context.device):
            total += embedding.sum(0)
            squares += embedding.square().sum(0)
            count += len(embedding)
        mean = total / count
        variance = (squares / count - mean.square()).mean().clamp_min(1e-12)
        self._mean, self._scale = (part.float().to(context.device) for part in (mean, variance.sqrt()))

    def feature(self, teacher: View, student: View, batch: Batch) -> Mapping[str, Tensor]:
        config = self.config
        h_s, h_t = student.embedding, (teacher.embedding.detach() - self._mean) / self._scale
        said, told = self._call("student_encoder", h_s), self._call("teacher_encoder", h_t)
        terms = {}
        if config.interaction_weight and config.rounds:
            terms["talking_interaction"] = config.interaction_weight * self._interaction(said, teacher, batch)
        if config.message_weight:
            terms["talking_messages"] = config.message_weight * F.mse_loss(said, told)
        if config.state_weight:
            pairs = [
                (self._call("student_decoder", told), h_s),
                (self._call("teacher_decoder", said), h_t),
                (self._call("student_decoder", said), h_s),
                (self._call("teacher_decoder", told), h_t),
            ]
            terms["talking_states"] = config.state_weight * torch.stack([F.mse_loss(*pair) for pair in pairs]).sum()
        return terms

    def _interaction(self, message: Tensor, teacher: View, batch: Batch) -> Tensor:
        """Mean over rounds and examples of the divergence of the teacher's answers to what the student says."""
        target, losses = softened(teacher.logits, self.config.temperature), []
        classifier = cast(nn.Linear, cast(Classifier, self._teacher).get_classifier())
        weight, bias = (None if part is None else part.detach() for part in (classifier.weight, classifier.bias))
        assert weight is not None
        for _ in range(self.config.rounds):
            taken = self._call("teacher_decoder", message)
            answer = F.linear(taken * self._scale + self._mean, weight, bias)
            losses.append(softened_kl(answer, target, self.config.temperature))
            reply = self._call("teacher_encoder", taken)
            message = self._call("student_encoder", self._call("student_decoder", reply))
        found = torch.stack(losses).mean(0)
        return (found if batch.weight is None else batch.weight * found).mean()

    def _call(self, name: str, values: Tensor) -> Tensor:
        return cast(Tensor, self._codecs[name](values))

    def trainable(self) -> Iterable[nn.Parameter]:
        return self._codecs.parameters()

    def extras(self) -> Mapping[str, nn.Module]:
        return dict(self._codecs.items())

    def state_dict(self) -> dict[str, Any]:
        return {"codecs": self._codecs.state_dict(), "mean": self._mean, "scale": self._scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._codecs.load_state_dict(state["codecs"])
        self._mean, self._scale = (state[name].to(self._mean.device) for name in ("mean", "scale"))
