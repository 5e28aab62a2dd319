"""The equation, assembled in one place; a recipe is the list of methods that fill its slots.

    L = mean_n [ a_n CE(head(x_n), y_n) + b_n D(target_n, s_n) ] + sum_j lambda_j R_j(features)

A slot that no method fills is plain KD's (target, divergence, weight) or does nothing (data, teacher, feature, head);
a method that fills `divergence`, plain KD among them, may say which weights it is usually given.
"""

# N examples, K classes

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.methods import KD, METHODS, Method
from distill.methods.base import SLOTS, Context, Exhibit, Slot
from distill.methods.none import NoDistillation
from pipeline.augmentation import Augmentation
from pipeline.data import Batch, ImageSplit
from pipeline.device import full_precision
from pipeline.errors import ConfigError
from pipeline.frozen import derive_seed
from pipeline.network import View, look
from pipeline.randomness import drawn_from
from pipeline.task import Task


def make_recipe(configs: Sequence[Any]) -> "Recipe":
    """The recipe of a list of method configurations."""
    return Recipe([METHODS[config.name](config) for config in configs])


_FOR_THE_DIVERGENCE: frozenset[Slot] = frozenset({"data", "target", "divergence", "head"})


def slot_conflicts(names: Sequence[str]) -> list[str]:
    """A sentence for each slot that two of the named methods fill, each method named twice, each that is in vain."""
    problems = [f"method {name!r} is listed twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    for slot in SLOTS:
        rivals = [name for name in dict.fromkeys(names) if slot in METHODS[name].fills]
        if len(rivals) > 1 and slot != "feature":  # feature losses add up
            problems.append(f"methods {' and '.join(map(repr, rivals))} both fill the slot {slot!r}; choose one")
    in_vain = [name for name in dict.fromkeys(names) if METHODS[name].fills & _FOR_THE_DIVERGENCE]
    if NoDistillation.name in names:
        problems += [
            f"method 'none' gives the divergence from the teacher no weight, which is what method {name!r} is there "
            "for; leave one of them out"
            for name in in_vain
        ]
    return problems


def _teacher_conflicts(methods: Sequence[Method]) -> list[str]:
    """A sentence for each method that looks at the given teacher by itself while another puts one in its place."""
    return [
        f"method {other.name!r} studies the given teacher, and {method.name!r} as configured trains another in its "
        "place; leave one out or let the teacher be"
        for method in methods
        if method.replaces_teacher
        for other in methods
        if other is not method and other.studies_teacher
    ]


class Recipe:
    """The objective of a distillation: what `pipeline.training.fit` minimises."""

    def __init__(self, methods: Sequence[Method]) -> None:
        problems = slot_conflicts([method.name for method in methods])
        problems += _teacher_conflicts(methods)
        if problems:
            raise ConfigError(problems)
        self.methods = list(methods)
        self._fallback = KD()
        self._teacher: nn.Module | None = None
        self._keeps: tuple[Context, Augmentation] | None = None  # the teacher's outputs, on these images
        self._kept: dict[int, View] = {}  # by view of the training images

    @property
    def varies_teacher(self) -> bool:
        """Whether a method changes the teacher as it trains, so that its outputs cannot be cached."""
        return any(method.varies_teacher for method in self._owners("teacher"))

    @property
    def reads_features(self) -> bool:
        """Whether a method reads the teacher's feature maps, which are large."""
        return any(method.reads_features for method in self.methods)

    def check(self, task: Task, train: ImageSplit) -> None:
        """Refuse what data and environment cannot serve, before anything is trained.

        Raises:
            ConfigError, MissingDependencyError: what a method's `check` found.
        """
        for method in self.methods:
            if task.num_classes < method.min_classes:
                raise ConfigError(
                    [f"method {method.name!r} needs {method.min_classes} classes; {task.num_classes} are given"]
                )
            method.check(task, train)

    def prepare(
        self, context: Context, cache: Augmentation | None = None, state: Mapping[str, Any] | None = None
    ) -> None:
        """Look at the data once. A method that fills the head is prepared first: others may ask what would ship.

        Args:
            cache: the teacher's outputs on all training images are kept, in each view that this makes of them.
            state: of an earlier training of the same student, which the methods go on from instead of looking.
        """
        self._teacher = context.teacher
        self.check(context.task, context.train)
        for method in sorted(self.methods, key=lambda method: "head" not in method.fills):
            method.prepare(context)
            if state is None:
                method.study(context)
            else:
                method.load_state_dict(state[method.name])
        if cache is not None and not self.varies_teacher:
            self._keeps = context, cache

    def prepare_batch(self, batch: Batch, generator: torch.Generator) -> Batch:
        for method in self._owners("data"):
            batch = method.data(batch, generator)
        return batch

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """The equation, term by term: `cross_entropy`, `distillation`, and each feature loss by name."""
        teacher = self.look_at_teacher(batch)
        student = look(network, batch.inputs)
        class_logits = student.logits
        for method in self._owners("head"):
            student = student._replace(logits=method.head(student.embedding))
            class_logits = method.class_logits(student.logits)
        with torch.autocast(batch.inputs.device.type, enabled=False):
            return self._terms(_in_float32(teacher), _in_float32(student), class_logits.float(), batch)

    def look_at_teacher(self, batch: Batch) -> View:
        """What of the batch is in the cache comes from there."""
        if self._keeps is None or batch.view is None:
            return self._look_at_inputs(batch.inputs)
        if batch.view not in self._kept:
            self._kept[batch.view] = self._teacher_outputs(batch.view)
        known = View(*(part[batch.index] if len(part) else part for part in self._kept[batch.view]))
        if batch.altered is None:
            return known
        fresh = self._look_at_inputs(batch.inputs[batch.altered])
        parts = zip(known, fresh, strict=True)
        return View(*(old.index_put((batch.altered,), new.to(old.dtype)) if len(old) else old for old, new in parts))

    def end_epoch(self, epoch: int, network: nn.Module) -> None:
        for method in self.methods:
            method.end_epoch(epoch, network)

    def deployable(self, network: nn.Module) -> nn.Module:
        for method in self._owners("head"):
            return method.deployable(network)
        return network

    def parameters(self) -> Iterable[nn.Parameter]:
        return [parameter for method in self.methods for parameter in method.trainable()]

    def measures(self) -> dict[str, float]:
        return {f"{method.name}.{name}": value for method in self.methods for name, value in method.measures().items()}

    def exhibits(self) -> tuple[Exhibit, ...]:
        return tuple(exhibit for method in self.methods for exhibit in method.exhibits())

    @property
    def keeps_state(self) -> tuple[str, ...]:
        """The methods that have a state."""
        return tuple(m.name for m in self.methods if type(m).state_dict is not Method.state_dict)

    def state_dict(self) -> dict[str, Any]:
        return {method.name: method.state_dict() for method in self.methods}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for method in self.methods:
            method.load_state_dict(state[method.name])
        if any(method.replaces_teacher for method in self.methods):
            self._kept = {}  # the teacher that the state holds says something else

    def _terms(self, teacher: View, student: View, class_logits: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        """In float32 whatever the networks computed in: losses take differences of products."""
        aiming, diverging = self._owner("target"), self._owner("divergence")
        a, b = self._weights(batch)
        target = aiming.target(teacher, batch).detach()
        terms = {
            "cross_entropy": a * F.cross_entropy(class_logits, batch.targets, reduction="none"),
            "distillation": b * diverging.divergence(target, student),
        }
        if batch.weight is not None:
            terms = {name: batch.weight * term for name, term in terms.items()}
        terms = {name: term.mean() for name, term in terms.items()}
        for method in self._owners("feature"):
            terms.update(method.feature(teacher, student._replace(logits=class_logits), batch))
        return terms

    def _weights(self, batch: Batch) -> tuple[Tensor | float, Tensor | float]:
        for method in self._owners("weight"):
            return method.weight(batch)
        return self._owner("divergence").usual_weight() or self._fallback.usual_weight()

    def _look_at_inputs(self, inputs: Tensor) -> View:
        for method in self._owners("teacher"):
            return method.teacher(inputs)
        assert self._teacher is not None, "prepare() comes before loss()"
        with torch.no_grad():
            return look(self._teacher, inputs)

    def _owners(self, slot: Slot) -> list[Method]:
        return [method for method in self.methods if slot in method.fills]

    def _owner(self, slot: Slot) -> Method:
        return next(iter(self._owners(slot)), self._fallback)

    def _teacher_outputs(self, number: int) -> View:
        """The teacher's outputs on every training image in a view, by index; features are kept only if read."""
        assert self._keeps is not None
        context, augmentation = self._keeps
        parts: list[View] = []
        seed = derive_seed(context.seed, "teacher", number)  # when the batch comes that asks first must not show
        # of what comes in every epoch exactly; of one crop among many as the step around it computes
        with drawn_from(seed), torch.no_grad(), nullcontext() if number else full_precision(context.device):
            for batch in context.train.batches(512, context.device):
                view = self._look_at_inputs(augmentation.view(batch, number).inputs)
                parts.append(view if self.reads_features else view._replace(features=view.features[:0]))
        return View(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _in_float32(view: View) -> View:
    return View(*(part.float() for part in view))
