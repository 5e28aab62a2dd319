"""The mean of several teachers, weighted if so configured."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationInfo, model_validator
from torch import Tensor, nn

from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.networks.cost import measure_cost
from edgestill.pipeline.networks.network import View, look
from edgestill.pipeline.runs.checkpoint import read_weights
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.teacher import PARTS, FamilyConfig, FileTeacher, Part, Teacher


def _member(value: Any, info: ValidationInfo) -> Any:
    return EnsembleConfig.read_member(value, info.context)


class EnsembleConfig(FamilyConfig):
    read_member: ClassVar[Callable[[Any, Any], Any]]  # (given, context) to a configuration; set beside the table

    name: Literal["ensemble"] = "ensemble"
    members: tuple[SerializeAsAny[Annotated[Any, BeforeValidator(_member)]], ...] = Field(
        min_length=1, description="teachers, each as `teacher` is written: timm:resnet50, or a mapping"
    )
    weights: tuple[float, ...] | None = Field(None, description="weight of each member; null: all alike")
    mean_of: Literal["probabilities", "logits"] = Field("probabilities", description="what is averaged")

    @model_validator(mode="after")
    def _a_weight_each(self) -> "EnsembleConfig":
        if getattr(self, "order", None) is not None:
            raise ValueError("order belongs to a member; set it there")
        given = self.weights
        if given is not None and (len(given) != len(self.members) or min(given) < 0 or sum(given) <= 0):
            raise ValueError(f"weights are {list(given)}; give {len(self.members)} that are not negative, one a member")
        return self


class EnsembleNetwork(nn.Module):
    """Mean of networks; its embedding is theirs, side by side."""

    def __init__(self, members: list[nn.Module], weights: tuple[float, ...], mean_of: str) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        total = sum(weights)
        self._shares = [weight / total for weight in weights]
        self._of_logits = mean_of == "logits"
        self.num_classes: int = members[0].num_classes  # type: ignore[assignment]
        widths = [getattr(member, "embedding_dim", None) for member in members]
        self.embedding_dim = None if None in widths else sum(w for w in widths if w is not None)
        self.cautions = tuple(caution for member in members for caution in getattr(member, "cautions", ()))

    @property
    def gives(self) -> frozenset[str]:
        each = [getattr(member, "gives", PARTS) for member in self.members]
        return frozenset.intersection(*each) - {"features", "classifier"}

    def forward(self, inputs: Tensor) -> Tensor:
        return self._mean([member(inputs) for member in self.members])

    def look(self, inputs: Tensor) -> View:
        views = [look(member, inputs) for member in self.members]
        logits = self._mean([view.logits for view in views])
        nothing = logits.new_empty(len(logits), 0)
        embedding = torch.cat([view.embedding for view in views], 1) if "embedding" in self.gives else nothing
        return View(nothing, embedding, logits)

    def forward_features(self, inputs: Tensor) -> Tensor:
        return self.look(inputs).features

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        raise NotImplementedError("an ensemble cannot go on from features; use look()")

    def get_classifier(self) -> nn.Module:
        return nn.Identity()

    def _mean(self, logits: list[Tensor]) -> Tensor:
        parts = logits if self._of_logits else [one.log_softmax(1) for one in logits]
        if self._of_logits:
            return torch.stack([share * part for share, part in zip(self._shares, parts, strict=True)]).sum(0)
        mean = torch.stack([share * part.exp() for share, part in zip(self._shares, parts, strict=True)]).sum(0)
        return mean.clamp_min(torch.finfo(mean.dtype).tiny).log()


class EnsembleTeacher(Teacher):
    make: ClassVar[Callable[[Any], Teacher]]  # of a member's configuration; set beside the table
    name: ClassVar[str] = "ensemble"
    kinds: ClassVar[frozenset[str]] = frozenset({"image", "text"})
    Config: ClassVar[type[Frozen]] = EnsembleConfig
    config: EnsembleConfig

    @property
    def _members(self) -> list[Teacher]:
        return [type(self).make(member) for member in self.config.members]

    @property
    def title(self) -> str:
        return f"mean of {', '.join(member.title for member in self._members)}"

    @property
    def source(self) -> Path | None:
        return None

    @property
    def source_name(self) -> str:
        return ", ".join(member.source_name for member in self._members)

    @property
    def is_trained(self) -> bool:
        return True

    @property
    def tokenizer(self) -> Path | None:
        return next((member.tokenizer for member in self._members if member.tokenizer is not None), None)

    @property
    def is_network(self) -> bool:
        return all(member.is_network for member in self._members)

    @property
    def exports(self) -> bool:
        """False with a file among the members: torch's exporter cannot join it with the others."""
        return self.is_network and not any(isinstance(member, FileTeacher) for member in self._members)

    @property
    def gives(self) -> frozenset[Part]:
        return frozenset.intersection(*(member.gives for member in self._members)) - {"features", "classifier"}

    def build(self, task: Task) -> nn.Module:
        return self._joined([member.build(task) for member in self._fitting(task)])

    def read(self, task: Task) -> nn.Module:
        return self._joined([member.read(task) for member in self._fitting(task)])

    def load(self, task: Task, path: Path) -> nn.Module:
        held = read_weights(path)
        members = self._fitting(task)
        own = [_below(held, f"members.{number}.") for number in range(len(members))]
        return self._joined([member.restored(task, part, path) for member, part in zip(members, own, strict=True)])

    def meet(self, network: nn.Module, splits: Iterable[Any]) -> None:
        assert isinstance(network, EnsembleNetwork)
        every = list(splits)
        for member, part in zip(self._members, network.members, strict=True):
            member.meet(part, every)

    def count(self, task: Task) -> tuple[int, int] | None:
        counts = [_count(member, task) for member in self._members]
        return sum(params for params, _ in counts), sum(flops for _, flops in counts)

    def _fitting(self, task: Task) -> list[Teacher]:
        for member in self._members:
            if not member.is_trained:
                raise ConfigError([f"teacher.members: {member.title} has no weights, and an ensemble trains none"])
            if task.kind not in member.kinds:
                raise ConfigError([f"teacher.members: {member.refusal(task, ())}"])
        return self._members

    def _joined(self, members: list[nn.Module]) -> EnsembleNetwork:
        weights = self.config.weights or (1.0,) * len(members)
        return EnsembleNetwork(members, weights, self.config.mean_of)


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _count(member: Teacher, task: Task) -> tuple[int, int]:
    counted = member.count(task)
    if counted is not None:
        return counted
    cost = measure_cost(lambda: member.build(task), task.input_shape, task.input_dtype)
    return cost.params, cost.flops
