"""Assembly of the distillation equation; a recipe is the list of methods that fill its slots.

    L = mean_n [ a_n CE(head(x_n), y_n) + b_n D(target_n, s_n) ] + sum_j lambda_j R_j(features)

An unfilled slot takes plain KD's default (target, divergence, weight) or does nothing (the others).
A method that fills `divergence`, such as plain KD, may give default weights, used if no method fills `weight`.
"""

# N examples, K classes

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from edgestill.distill.answers import TeacherAnswers
from edgestill.distill.conflicts import conflicts
from edgestill.distill.in_parts import loss_in_parts
from edgestill.distill.methods import KD, METHODS, Method
from edgestill.distill.methods.base import Context, Exhibit, Slot
from edgestill.distill.own_samples import Sampler, Sampling
from edgestill.distill.views import detached, flat_gradient, in_float32, nothing, put
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.splits import Batch, ImageSplit
from edgestill.pipeline.device import FeaturesElsewhere
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.networks.network import View, look
from edgestill.pipeline.task import Task
from edgestill.pipeline.training.label_loss import label_loss
from edgestill.pipeline.training.objective import Moment, Objective

_READ_TEACHER: frozenset[Slot] = frozenset(
    {"teacher", "logits", "target", "divergence", "weight", "feature", "head", "objective"}
)


def make_recipe(configs: Sequence[Any], sampling: Sampling | None = None, rows_at_once: int | None = None) -> "Recipe":
    """Make the recipe of a list of method configurations; the rest is as `DistillConfig` says."""
    return Recipe([METHODS[config.name](config) for config in configs], sampling, rows_at_once)


class Recipe(Objective):
    """Objective of a distillation, minimised by `pipeline.training.fit`."""

    def __init__(
        self, methods: Sequence[Method], sampling: Sampling | None = None, rows_at_once: int | None = None
    ) -> None:
        problems = conflicts(methods)
        if problems:
            raise ConfigError(problems)
        self.methods = list(methods)
        self._fallback = self._for_unfilled_slots()
        self._share_temperature()
        self._teacher: nn.Module | None = None
        self._sampler = None if sampling is None else Sampler(sampling)
        self._rows_at_once = rows_at_once
        self._student: nn.Module | None = None
        self._answers: TeacherAnswers | None = None  # set: the teacher's outputs on the training images are kept

    def _for_unfilled_slots(self) -> Method:
        """Return the method for what is left of target, divergence and weight."""
        slots: tuple[Slot, ...] = ("divergence", "target", "logits")
        found = (method.fallback() for slot in slots for method in self._owners(slot))
        return next((method for method in found if method is not None), KD())

    def _share_temperature(self) -> None:
        """Have the divergence compare at the target's temperature, where two methods fill them."""
        target, divergence = self._owner("target"), self._owner("divergence")
        temperature = getattr(target.config, "temperature", None)
        if target is not divergence and temperature and hasattr(divergence.config, "temperature"):
            divergence.config = divergence.config.model_copy(update={"temperature": temperature})

    @property
    def varies_teacher(self) -> bool:
        """True if the teacher's outputs are not kept: a method changes it, or a step has other inputs or few rows."""
        if self._rows_at_once is not None or (self._sampler is not None and self._sampler.is_always):
            return True
        return any(method.varies_teacher for method in self._owners("teacher"))

    @property
    def reads_features(self) -> bool:
        """True if a method reads the teacher's feature maps, which are large."""
        return any(method.reads_features for method in self.methods)

    def cautions(self) -> list[str]:
        """Describe in a sentence each pair of methods that is no gain."""
        return [
            caution
            for method in self.methods
            for caution in method.cautions([other for other in self.methods if other is not method])
        ]

    def check(self, task: Task, train: ImageSplit) -> None:
        """Refuse methods unfit for the task, the data or the environment, before anything is trained.

        Raises:
            ConfigError: the task has too few classes for a method, or a method's `check` refuses task or data.
            MissingDependencyError: an optional library is not installed.
        """
        for method in self.methods:
            if method.inputs not in (None, task.kind):
                raise ConfigError(
                    [f"method {method.name!r} is for data of kind {method.inputs!r}, and these are {task.kind!r}"]
                )
            if task.num_classes < method.min_classes:
                raise ConfigError(
                    [f"method {method.name!r} needs {method.min_classes} classes; {task.num_classes} are given"]
                )
            method.check(task, train)

    def prepare(
        self, context: Context, cache: Augmentation | None = None, state: Mapping[str, Any] | None = None
    ) -> None:
        """Prepare all methods, the head's and the teacher's first: others may ask for what ships, and for its answers.

        Args:
            cache: if given, the teacher's outputs on all training images are kept, for each view made by it.
            state: of an earlier training of the same student; methods load it instead of studying teacher and data.
        """
        self._teacher, self._student = context.teacher, context.student
        self.check(context.task, context.train)
        for method in sorted(
            self.methods, key=lambda method: ("head" not in method.fills, "teacher" not in method.fills)
        ):
            method.prepare(context)
            if state is None:
                method.study(context)
            else:
                method.load_state_dict(state[method.name])
        if cache is not None and not self.varies_teacher:
            is_given = not any(method.replaces_teacher for method in self.methods)
            self._answers = TeacherAnswers(self._look_at_inputs, context, cache, self.reads_features, is_given)

    def prepare_batch(self, batch: Batch, generator: torch.Generator) -> Batch:
        if self._sampler is not None:
            assert self._student is not None, "prepare() comes before a step"
            batch = self._sampler(batch, self._student, generator)
        for method in self._owners("data"):
            batch = method.data(batch, generator)
        return batch

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Return the equation's terms by name: `cross_entropy`, `distillation`, and each feature loss."""
        if self._rows_at_once is not None and batch.rows is not None:
            assert self._teacher is not None, "prepare() comes before loss()"
            return loss_in_parts(self.terms, self._teacher, network, batch, self._rows_at_once)
        teacher = nothing(batch) if self._spares_teacher else self.look_at_teacher(batch)
        student, class_logits = self.look_at_student(network, batch)
        with torch.autocast(batch.inputs.device.type, enabled=False):
            return self.terms(in_float32(teacher), in_float32(student), class_logits.float(), batch)

    @property
    def _spares_teacher(self) -> bool:
        """True if nothing in the training reads the teacher's outputs."""
        readers = (m for m in self.methods if m.fills & _READ_TEACHER)
        return any(m.spares_teacher for m in self.methods) and all(m.spares_teacher for m in readers)

    def look_at_student(self, network: nn.Module, batch: Batch) -> tuple[View, Tensor]:
        """Return the student's outputs, with its head's logits, and these folded to the classes."""
        student = self._watched(network, batch)
        for method in self._owners("head"):
            student = student._replace(logits=method.head_of(student))
            return student, method.class_logits(student.logits)
        return student, student.logits

    def terms(
        self, teacher: View, student: View, class_logits: Tensor, batch: Batch, seen: View | None = None
    ) -> Mapping[str, Tensor]:
        """Compute the terms from both networks' outputs, in float32 or finer: losses take differences of products.

        Args:
            seen: the student's outputs as target and weights see them, without gradients; None: `student`.
        """
        classes = student._replace(logits=class_logits)
        terms = self._bracket(teacher, student, classes, batch, seen)
        if batch.weight is not None:
            terms = {name: batch.weight * term for name, term in terms.items()}
        means = {name: term.mean() for name, term in terms.items()}
        for method in self._owners("feature"):
            means.update(method.feature(teacher, classes, batch))
        return means

    def _watched(self, network: nn.Module, batch: Batch) -> View:
        watching = [m for m in self._owners("feature") if type(m).watching is not Method.watching]
        while watching and isinstance(network, FeaturesElsewhere):
            network = network.network
        with ExitStack() as stack:
            for method in watching:
                stack.enter_context(method.watching(network))
            return look(network, batch.inputs, batch.rows)

    def look_at_teacher(self, batch: Batch) -> View:
        """Return the teacher's outputs on a batch, from those kept if possible; altered inputs are computed afresh."""
        if self._answers is not None:
            return self._answers.on(batch)
        for method in self._owners("teacher"):
            return method.teacher_on(batch)
        return self._look_at_inputs(batch.inputs, batch.rows)

    def order(self, epoch: int, generator: torch.Generator) -> Tensor | None:
        if self._sampler is not None:
            self._sampler.begin()
        found = (method.order(epoch, generator) for method in self._owners("data"))
        return next((order for order in found if order is not None), None)

    def backward(
        self, terms: Mapping[str, Tensor], scaled: Callable[[Tensor], Tensor], parameters: list[nn.Parameter]
    ) -> None:
        combining = [m for m in self.methods if type(m).combine_gradients is not Method.combine_gradients]
        if not combining:
            super().backward(terms, scaled, parameters)
            return
        gradients = {name: flat_gradient(scaled(term.float()), parameters) for name, term in terms.items()}
        put(combining[0].combine_gradients(gradients), parameters)

    def tick(self, moment: Moment) -> None:
        for method in self.methods:
            method.tick(moment)

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
        """Names of the methods with a state."""
        return tuple(m.name for m in self.methods if type(m).state_dict is not Method.state_dict)

    def state_dict(self) -> dict[str, Any]:
        return {method.name: method.state_dict() for method in self.methods}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for method in self.methods:
            method.load_state_dict(state[method.name])
        if self._answers is not None:
            self._answers.forget_of_others()  # the loaded state may hold another teacher

    def _bracket(
        self, teacher: View, student: View, classes: View, batch: Batch, seen: View | None
    ) -> Mapping[str, Tensor]:
        """Compute what stands in the equation's brackets, each term [N]."""
        told, heard = self._transformed(teacher), self._transformed(student)
        for method in self._owners("objective"):
            return {method.name: method.objective(told, self._transformed(classes), batch)}
        if self._spares_teacher and not self._owners("target"):
            a, _ = self._weights(detached(teacher), detached(classes if seen is None else seen), batch)
            losses = a * label_loss(classes.logits, batch)
            return {"cross_entropy": losses, "distillation": torch.zeros_like(losses)}
        target = (
            self._owner("target")
            .target(told, detached(heard if seen is None else self._transformed(seen)), batch)
            .detach()
        )
        a, b = self._weights(detached(teacher), detached(classes if seen is None else seen), batch)
        return {
            "cross_entropy": a * label_loss(classes.logits, batch),
            "distillation": b * self._owner("divergence").divergence(target, heard),
        }

    def _transformed(self, view: View) -> View:
        for method in self._owners("logits"):
            view = view._replace(logits=method.logits(view.logits))
        return view

    def _weights(self, teacher: View, student: View, batch: Batch) -> tuple[Tensor | float, Tensor | float]:
        for method in self._owners("weight"):
            return method.weight(teacher, student, batch)
        usual = self._owner("divergence").usual_weight() or self._fallback.usual_weight()
        return usual or KD().usual_weight()

    def _look_at_inputs(self, inputs: Tensor, rows: Tensor | None) -> View:
        for method in self._owners("teacher"):
            return method.teacher(inputs)
        assert self._teacher is not None, "prepare() comes before loss()"
        with torch.no_grad():
            return look(self._teacher, inputs, rows)

    def _owners(self, slot: Slot) -> list[Method]:
        return [method for method in self.methods if slot in method.fills]

    def _owner(self, slot: Slot) -> Method:
        return next(iter(self._owners(slot)), self._fallback)
