"""A method prepared on small networks and data, for its checks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgestill.distill.methods import Method
from edgestill.distill.methods.base import Context, MethodConfig
from edgestill.distill.recipe import Recipe, make_recipe
from edgestill.pipeline.conformance.samples import image_task, language_task, splits
from edgestill.pipeline.data.splits import Batch, Splits
from edgestill.pipeline.networks.causal_transformer import CausalTransformer
from edgestill.pipeline.networks.cifar_resnet import CifarResNet
from edgestill.pipeline.networks.network import View, initialise, look
from edgestill.pipeline.networks.text_transformer import TextTransformer
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.teacher import frozen

Kind = type[Method]
CPU = torch.device("cpu")


def prepared(kind: Kind, teacher_trainable: bool = False) -> tuple[Recipe, nn.Module, nn.Module, Batch]:
    """Prepare a recipe of the method alone: recipe, teacher, student and a batch of its own kind of input."""
    return prepared_on(kind, own_task(kind), teacher_trainable)


class _Partial(nn.Module):
    """Teacher whose embedding, features and last layer are of no use, unless it gives them."""

    def __init__(self, network: nn.Module, gives: frozenset[str]) -> None:
        super().__init__()
        self.network, self._gives = network, gives

    def look(self, inputs: Tensor, rows: Tensor | None = None) -> View:
        view = look(self.network, inputs, rows)
        features, embedding = (
            part if name in self._gives else torch.full_like(part, torch.nan)
            for name, part in (("features", view.features), ("embedding", view.embedding))
        )
        return View(features, embedding, view.logits)

    def get_classifier(self) -> nn.Module:
        own: nn.Module = self.network.get_classifier()  # type: ignore[operator]
        return own if "classifier" in self._gives else nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.look(inputs).logits


def prepared_on(
    kind: Kind, task: Task, teacher_trainable: bool = False, lacks: bool = False
) -> tuple[Recipe, nn.Module, nn.Module, Batch]:
    """Prepare a recipe of the method alone on a task, with a teacher that lacks what the method does not need."""
    teacher, student = network(task, 1, (8, 12, 16)), network(task, 2)
    frozen(teacher).requires_grad_(teacher_trainable)
    if lacks:
        teacher = _Partial(teacher, kind().needs)
    recipe, batch = recipe_on([kind.Config()], teacher, student, splits(task))
    return recipe, teacher, student, batch


def recipe_on(
    configs: Sequence[MethodConfig], teacher: nn.Module, student: nn.Module, data: Splits
) -> tuple[Recipe, Batch]:
    """Prepare a recipe for a teacher and a student, and a batch for it."""
    recipe = make_recipe(configs)
    context = Context(
        task=data.task,
        teacher=teacher,
        student=student,
        train=data.train,
        reference=data.reference,
        device=CPU,
        seed=0,
        deployable=lambda: recipe.deployable(student),
        teacher_view=recipe.look_at_teacher,
    )
    with drawn_from(0):
        recipe.prepare(context)
    return recipe, recipe.prepare_batch(data.train.batch(torch.arange(24)), torch.Generator().manual_seed(0))


def network(task: Task, seed: int, widths: tuple[int, int, int] = (4, 6, 8)) -> nn.Module:
    network: nn.Module
    if task.kind == "lm":
        network = CausalTransformer(task, depth=1, heads=2, head_width=widths[0], feed_forward=1)
    elif task.kind == "text":
        network = TextTransformer(task, depth=1, heads=2, head_width=widths[0], feed_forward=1)
    else:
        network = CifarResNet((1, 1, 1), widths, num_classes=task.num_classes, mean=task.mean, std=task.std)
    initialise(network, "kaiming", seed)
    return network


def own_task(kind: Kind) -> Task:
    """Make a task that the method works on: images, unless it is for language models alone."""
    return language_task() if kind.inputs == "lm" else image_task(classes=classes(kind))


def classes(kind: Kind) -> int:
    return max(3, kind.min_classes)
