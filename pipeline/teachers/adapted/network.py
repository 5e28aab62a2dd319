"""A foreign network as a teacher of a task: raw inputs in, logits of the data's classes out, seen at three depths."""

# B batch, K classes, D embedding width

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from edgestill.pipeline.networks.network import View, evaluating
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.adapted.labels import Matched
from edgestill.pipeline.teachers.adapted.tracing import Call, answers_of, find_parts, taking

Answers = Literal["auto", "logits", "probabilities"]


def plainly(network: nn.Module, inputs: Tensor) -> Tensor:
    """Call a network with its inputs alone."""
    answers: Tensor = network(inputs)
    return answers


class Adapted(nn.Module):
    """Classifier made of a foreign network. It gives its view in one pass; its features cannot be passed on alone."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        before: nn.Module | None = None,
        call: Call = plainly,
        *,
        answers: Answers = "auto",
        classifier: str | None = None,
        features: str | None = None,
    ) -> None:
        """Run the network once, to find its parts.

        Args:
            before: turns the task's inputs into the network's own.
            answers: what the network gives; `auto`: probabilities if they are that on a random input.
            classifier, features: names of modules, in place of the ones found.

        Raises:
            CheckpointError: it is no classifier, or has no such modules.
        """
        super().__init__()
        self.before = nn.Identity() if before is None else before
        self.model = model
        self._call = call
        with torch.no_grad(), evaluating(model):
            self.parts, found = find_parts(model, call, self.before(_example(task)), classifier, features)
        self.outputs = self.num_classes = found.shape[1]
        self.gives_probabilities = answers == "probabilities" or (answers == "auto" and are_probabilities(found))
        self.order: tuple[int, ...] | None = None
        self.cautions: tuple[str, ...] = ()
        self.embedding_dim: int | None = self._width()

    def map_classes(self, matched: Matched) -> "Adapted":
        """Give the logits of the data's classes, in their order."""
        if matched.order is not None:
            self.order, self.num_classes = matched.order, len(matched.order)
        if matched.caution:
            self.cautions = (*self.cautions, matched.caution)
        return self

    @property
    def gives(self) -> frozenset[str]:
        """Parts of the teacher that this network has (`pipeline/teachers/teacher.py`)."""
        linear = None if self.parts.classifier is None else self.model.get_submodule(self.parts.classifier)
        found = {"logits", "gradients", "inputs"}
        found |= {"embedding"} if linear is not None else set()
        found |= {"classifier"} if isinstance(linear, nn.Linear) else set()
        return frozenset(found | ({"features"} if self.parts.features is not None else set()))

    def forward(self, inputs: Tensor) -> Tensor:
        found = answers_of(self._call(self.model, self.before(inputs)))
        logits = found.clamp_min(torch.finfo(found.dtype).tiny).log() if self.gives_probabilities else found
        return logits if self.order is None else logits[:, list(self.order)]

    def look(self, inputs: Tensor) -> View:
        """Run the network once; a part that it does not have is empty."""
        with taking(self.model, self.parts) as taken:
            logits = self(inputs)
        nothing = logits.new_empty(len(logits), 0)
        return View(taken.get("features", nothing), taken.get("embedding", nothing), logits)

    def forward_features(self, inputs: Tensor) -> Tensor:
        return self.look(inputs).features

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        raise NotImplementedError("a foreign network cannot go on from its features; use look()")

    def get_classifier(self) -> nn.Module:
        """Return the last Linear, its rows in the order of the data's classes; an Identity if there is none."""
        if self.parts.classifier is None:
            return nn.Identity()
        found = self.model.get_submodule(self.parts.classifier)
        if self.order is None or not isinstance(found, nn.Linear):
            return found
        return _chosen(found, self.order)

    def _width(self) -> int | None:
        if self.parts.classifier is None:
            return None
        weight = getattr(self.model.get_submodule(self.parts.classifier), "weight", None)
        return int(weight.shape[1]) if isinstance(weight, Tensor) and weight.dim() == 2 else None


def _example(task: Task) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if task.vocab_size is not None:
        return torch.randint(1, task.vocab_size, (2, *task.input_shape), generator=generator)
    return torch.rand(2, *task.input_shape, generator=generator)


def are_probabilities(answers: Tensor) -> bool:
    """True if each row is not negative and sums to 1."""
    sums = answers.sum(1)
    return bool((answers >= 0).all()) and bool(((sums - 1).abs() < 1e-3).all())


def _chosen(linear: nn.Linear, order: Sequence[int]) -> nn.Linear:
    chosen = nn.Linear(linear.in_features, len(order), bias=linear.bias is not None)
    chosen.weight = nn.Parameter(linear.weight[list(order)].detach(), requires_grad=False)
    if linear.bias is not None:
        chosen.bias = nn.Parameter(linear.bias[list(order)].detach(), requires_grad=False)
    return chosen
