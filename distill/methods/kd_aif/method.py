"""KD-AIF: examples that raise the loss on clean reference data lose weight, helpful ones gain."""

# N training examples, K classes, B batch

import copy
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from edgestill.distill.methods.base import Context, Exhibit, Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.kd_aif.influence import (
    BACKENDS,
    Question,
    ReferenceLoss,
    WeightMap,
    influence_range,
    to_weights,
)
from edgestill.distill.methods.kd_aif.influence.ekfac import require_kronfluence
from edgestill.distill.methods.kd_aif.influence.teacher import train_weighted
from edgestill.distill.methods.kd_aif.report import exhibits_of, measures_of
from edgestill.distill.methods.kd_aif.weighing import Weighing
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.splits import UNLABELLED, Batch, ImageSplit
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import View, evaluating, look
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.teacher import Part
from edgestill.pipeline.training.config import TrainingConfig

Mechanism = Literal["student_only", "teacher_only", "both_sequential", "simultaneous"]


class KDAIFConfig(MethodConfig):
    """Weights from influence on the reference split; no epoch, trial or model is chosen by that split."""

    name: Literal["kd_aif"] = "kd_aif"
    distill_weight: float = tunable(
        0.9, ge=0, le=1, tune=(0.1, 1.0), description="weight (b) of distillation; the labels weigh a = 1 - b"
    )
    backend: Literal["last_layer", "cg", "lissa", "ekfac", "identity"] = Field(
        "last_layer",
        description="solver of the influence; last_layer: closed form, that layer only; ekfac needs kronfluence",
    )
    reference_loss: ReferenceLoss = Field(
        "margin",
        description="loss on reference examples; ce can reverse the sign if the teacher memorised wrong labels",
    )
    training_loss: Literal["ce", "kd"] = Field(
        "ce", description="loss on the student's training examples in influence; ce: to labels; kd: to the teacher"
    )
    training_temperature: float = Field(4.0, gt=0, le=100, description="temperature (T) of training_loss kd")
    damping: float = tunable(
        1.0, gt=0, le=1000, tune=(0.1, 3.0), log=True, description="curvature damping, in units of its mean diagonal"
    )
    weight_map: WeightMap = Field("sigmoid", description="decreasing map from influence to weight; drop gives 0 or 1")
    sharpness: float = tunable(
        50.0, ge=0, le=1000, tune=(1.0, 100.0), log=True, description="weight_map sharpness; 0: uniform; 2 suits exp"
    )
    clip: float = Field(0.01, ge=0, lt=0.5, description="share of influences clipped at each end before the map")
    min_weight: float = Field(0.0, ge=0, le=1, description="least weight of an example before spare_agreed; mean 1")
    max_weight: float = Field(10.0, ge=1, description="largest weight of an example; the mean is 1")
    apply_to: Literal["ce", "both"] = Field(
        "ce", description="loss terms to weigh; both only if the teacher learnt the same wrong labels, else it harms"
    )
    spare_agreed: bool = Field(
        True,
        description="raise student weights below 1 to 1 where teacher and label agree, then rescale; apply_to ce",
    )
    mechanism: Mechanism = Field(
        "student_only", description="networks trained with weights; all but student_only train a copy of the teacher"
    )
    warmup_epochs: int = Field(
        2, ge=1, description="student epochs before the first weights; influence fades once wrong labels are fitted"
    )
    updates: int = Field(
        3, ge=0, description="number of updates of the weights; 1 keeps the first, 0 updates to the end of training"
    )
    every: int = Field(2, ge=1, description="number of epochs between updates of the weights")
    momentum: float = Field(
        0.0, ge=0, lt=1, description="decay of the moving average of the weights over updates; 0 keeps only the newest"
    )
    teacher_epochs: int = Field(
        5, ge=1, description="epochs of the teacher's weighted training; mechanism teacher_only or both_sequential"
    )
    teacher_learning_rate: float = Field(
        0.01, gt=0, le=100, description="learning rate of the teacher's weighted training"
    )
    teacher_batch_size: int = Field(64, ge=2, description="batch size of the teacher's weighted training")
    control: Literal["none", "shuffled"] = Field(
        "none", description="control experiment; shuffled gives each weight to another example"
    )

    def unread(self) -> frozenset[str]:
        found = {"damping"} if self.backend in ("ekfac", "identity") else set()
        return frozenset(found | ({"sharpness"} if self.weight_map == "drop" else set()))


class KDAIF(Method):
    """Weights a_i = (1 - b) w_i and b_i = b (or b w_i); w_i decreases in example i's influence on reference data.

    The paper's equations are not public. Its published code computes influence on the test set, with one step of LiSSA
    and a sign that strengthens harmful examples. Here influence is computed on the reference split, by a true inverse,
    and always positive for harm. The defaults of loss, map, damping and schedule were measured
    (docs/explanation/methods.md).
    """

    name: ClassVar[str] = "kd_aif"
    paper: ClassVar[str] = "Wu, Luo, Liu, Deng 2025, arXiv:2501.02705"
    fills: ClassVar[frozenset[Slot]] = frozenset({"weight", "teacher"})
    facts: ClassVar[Facts | None] = Facts(
        evidence="code",
        elicitation=("curation",),
        zero_at_teacher=True,
        invariant_to=frozenset({"shift"}),
        cost=4.0,
        suits=lambda about: about.label_noise > 0.05,
    )
    Config: ClassVar[type[MethodConfig]] = KDAIFConfig
    config: KDAIFConfig

    @property
    def replaces_teacher(self) -> bool:
        return self.config.mechanism != "student_only"

    @property
    def varies_teacher(self) -> bool:
        return self.config.mechanism == "simultaneous"

    @property
    def needs(self) -> frozenset[Part]:
        return frozenset({"embedding", "gradients"} if self.replaces_teacher else ())

    def check(self, task: Task, train: ImageSplit) -> None:
        if self.config.backend == "ekfac":
            require_kronfluence()

    def prepare(self, context: Context) -> None:
        self._context = context
        self._student = self._unweighted()
        self._teacher = self._unweighted()
        self._network = copy.deepcopy(context.teacher) if self.replaces_teacher else context.teacher
        self._epochs = 0

    def study(self, context: Context) -> None:
        """Train the teacher's copy, if the mechanism does so before the student."""
        if self.config.mechanism in ("teacher_only", "both_sequential"):
            self._update(self._teacher, self._network, self._network)
            self._train_teacher(self.config.teacher_epochs, "teacher")

    def teacher(self, inputs: Tensor) -> View:
        with torch.no_grad():
            return look(self._network, inputs)

    def weight(self, teacher: View, student: View, batch: Batch) -> tuple[Tensor | float, Tensor | float]:
        share, w = self.config.distill_weight, batch.of_examples(self._student.weight)
        return (1 - share) * w, share * w if self.config.apply_to == "both" else share

    def end_epoch(self, epoch: int, student: nn.Module) -> None:
        """Update the weights on schedule, by epochs of distillation; never in the fine-tuning of a taught student."""
        self._epochs += 1
        if self.config.mechanism == "teacher_only" or self._context.is_taught:
            return
        since, rounds = self._epochs - self.config.warmup_epochs, self.config.updates
        if since >= 0 and since % self.config.every == 0 and (rounds == 0 or since // self.config.every < rounds):
            self._update(self._student, student, self._context.deployable())
            if self.config.mechanism == "simultaneous":
                self._update(self._teacher, self._network, self._network)
        if self.config.mechanism == "simultaneous" and since >= 0:
            self._train_teacher(1, "teacher", self._epochs - 1)

    def measures(self) -> dict[str, float]:
        return measures_of(self._told(), self._context)

    def exhibits(self) -> tuple[Exhibit, ...]:
        told = self._told()
        return exhibits_of(told.influence, told.weight, self._context) if told.updates else ()

    def state_dict(self) -> dict[str, Any]:
        weighings = {"student": dict(vars(self._student)), "teacher": dict(vars(self._teacher))}
        state: dict[str, Any] = weighings | {"epochs": self._epochs}
        if self.replaces_teacher:
            state["network"] = {name: value.clone() for name, value in self._network.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._student, self._teacher = (self._read(state[who]) for who in ("student", "teacher"))
        self._epochs = state.get("epochs", 0)  # states of earlier versions have none
        if self.replaces_teacher:
            self._network.load_state_dict(state["network"])

    def _told(self) -> Weighing:
        """Weighing for the report: the student's, or the teacher's if the student has none."""
        return self._teacher if self.config.mechanism == "teacher_only" else self._student

    def _unweighted(self) -> Weighing:
        size, device = len(self._context.train), self._context.device
        return Weighing(torch.zeros(size, device=device), torch.ones(size, device=device))

    def _read(self, state: dict[str, Any]) -> Weighing:
        device = self._context.device
        return Weighing(state["influence"].to(device), state["weight"].to(device), state["updates"])

    def _update(self, weighing: Weighing, network: nn.Module, deployable: nn.Module) -> None:
        """Compute new influences and weights, from the network as it is now.

        Influences that differ by no more than rounding say nothing, and leave the weights as they are. Sparing raises
        weights below 1 to 1 where teacher and label agree, and then divides all by their mean. The teacher's own
        weighing has no sparing: it would spare everything that the teacher memorised.
        """
        config, context, of_teacher = self.config, self._context, weighing is self._teacher
        with evaluating(network, deployable):
            question = self._question(network, deployable, of_teacher)
            influence = BACKENDS[config.backend](question).float()
        counted = torch.ones_like(context.train.targets, dtype=torch.bool)
        if config.apply_to == "ce" or of_teacher:  # the others have no cross-entropy to weigh
            counted = context.train.targets != UNLABELLED
        if influence_range(influence[counted], config.clip) is None:
            return
        weighing.influence = influence
        fresh = torch.ones_like(weighing.weight)
        fresh[counted] = to_weights(
            weighing.influence[counted],
            config.weight_map,
            sharpness=config.sharpness,
            clip=config.clip,
            bounds=(config.min_weight, config.max_weight),
        ).to(fresh)
        if config.apply_to == "ce" and config.spare_agreed and not of_teacher:
            fresh = torch.where(self._agreed(), fresh.clamp(min=1), fresh)
            fresh[counted] /= fresh[counted].mean()
        if config.control == "shuffled":
            generator = torch.Generator().manual_seed(derive_seed(context.seed, "kd_aif control"))
            places = counted.cpu().nonzero().flatten()
            fresh[places] = fresh[places[torch.randperm(len(places), generator=generator)]]
        keep = config.momentum if weighing.updates else 0.0
        weighing.weight = keep * weighing.weight + (1 - keep) * fresh
        weighing.updates += 1

    def _agreed(self) -> Tensor:
        """Mask [N] of agreement between teacher and label: with hard, right examples, on which influence is unsure."""
        answers = torch.cat([logits.argmax(1) for logits in self._teacher_logits()])
        return answers == self._context.train.targets.to(answers)

    def _teacher_logits(self) -> Iterator[Tensor]:
        context = self._context
        return (context.teacher_view(batch).logits for batch in context.train.batches(512, context.device))

    def _question(self, network: nn.Module, deployable: nn.Module, of_teacher: bool) -> Question:
        """Make the backend's question. A teacher is asked by labels: from its own answers it has nothing to learn."""
        config, context = self.config, self._context
        by_labels = of_teacher or config.training_loss == "ce"
        temperature = 1.0 if by_labels else config.training_temperature
        return Question(
            network=network,
            deployable=deployable,
            train=context.train,
            answers=self._answers(temperature, by_labels),
            reference=context.reference,
            reference_loss=config.reference_loss,
            damping=config.damping,
            temperature=temperature,
            seed=derive_seed(context.seed, "kd_aif"),
            device=context.device,
        )

    def _answers(self, temperature: float, by_labels: bool) -> Tensor:
        """Targets [N, K]: an example's label, if `by_labels` and it has one, else the teacher's softened answer."""
        context = self._context
        targets, classes = context.train.targets.to(context.device), context.task.num_classes
        labelled = (targets != UNLABELLED) & by_labels
        answers = torch.nn.functional.one_hot(targets.clamp(min=0), classes).float()
        if not bool(labelled.all()):
            soft = torch.cat([torch.softmax(logits.float() / temperature, dim=1) for logits in self._teacher_logits()])
            answers = torch.where(labelled[:, None], answers, soft)
        return answers

    def _train_teacher(self, epochs: int, *seed: object) -> None:
        config, context = self.config, self._context
        training = TrainingConfig(
            epochs=epochs,
            batch_size=config.teacher_batch_size,
            learning_rate=config.teacher_learning_rate,
            warmup_epochs=0,
        )
        train_weighted(
            self._network,
            context.train,
            context.reference,
            self._teacher.weight,
            training,
            seed=derive_seed(context.seed, "kd_aif", *seed),
            device=context.device,
        )
