"""Checks of what a method says of itself in its `facts`, each figure measured."""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgestill.distill.config import DistillConfig
from edgestill.distill.conformance.prepared import CPU, Kind, network, own_task, recipe_on
from edgestill.distill.methods import METHODS
from edgestill.distill.methods.base import Method
from edgestill.distill.methods.facts import Facts
from edgestill.distill.recipe import Recipe
from edgestill.distill.train import distill
from edgestill.pipeline.conformance.samples import image_task, splits
from edgestill.pipeline.conformance.suite import Check, NotHereError, require
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.networks.network import View, evaluating
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.teachers.teacher import frozen

_SAME = 1e-6
_ROUNDING = 1e-6  # of a gradient in float32
_STEPS = 5  # timed; the fastest counts
_TRIES = 3


def without_its_idea_it_is_the_recipe_that_it_names(kind: Kind) -> None:
    facts = _facts(kind)
    if facts.ablation is None or facts.reduces_to is None:
        raise NotHereError("no other recipe computes the same without its idea")
    ablated = _losses([{"name": kind.name, **facts.ablation}], kind)
    expected = _losses(facts.reduces_to, kind)
    difference = abs(sum(ablated.values()) - sum(expected.values()))
    require(difference <= _SAME * max(1.0, sum(expected.values())), f"the losses differ by {difference:.3g}")


def a_student_that_is_the_teacher_learns_nothing_from_it_where_it_says_so(kind: Kind) -> None:
    """Compare the gradient of the distillation terms at the teacher's own weights with that at others."""
    facts = _facts(kind)
    at_teacher, elsewhere = _distilling_gradient(kind, 1), _distilling_gradient(kind, 2)
    nothing_anywhere = max(at_teacher, elsewhere) <= _ROUNDING  # of a student that is its own teacher
    is_zero = nothing_anywhere or at_teacher <= 1e-4 * max(elsewhere, 1e-6)
    require(
        is_zero == facts.zero_at_teacher or elsewhere == 0,
        f"the gradient at the teacher's outputs is {at_teacher:.3g}, elsewhere {elsewhere:.3g}",
    )


def its_distillation_is_invariant_to_what_it_says_and_to_nothing_else(kind: Kind) -> None:
    if "head" in kind.fills:
        raise NotHereError("its head gives the logits")
    recipe, networks, batch = _prepared(kind)
    teacher, student, class_logits = _seen(recipe, networks[1], batch)

    def told(change: Callable[[Tensor], Tensor]) -> float:
        changed = change(class_logits)
        with drawn_from(0):
            terms = recipe.terms(teacher, student._replace(logits=changed), changed, batch)
        return float(sum(value.detach() for name, value in terms.items() if name != "cross_entropy"))

    plain = told(lambda logits: logits)
    changes = {"shift": lambda logits: logits + 1.5, "scale": lambda logits: 1.7 * logits}
    for name, change in changes.items():
        moved = abs(told(change) - plain) > 1e-4 * max(1e-3, abs(plain))
        said = name in _facts(kind).invariant_to
        require(moved != said, f"its terms {'change' if moved else 'do not change'} with a {name} of the logits")


def its_gradient_is_a_finite_difference_in_float64(kind: Kind) -> None:
    """Compare derivatives along a random direction of the student's outputs."""
    recipe, networks, batch = _prepared(kind)
    teacher, student, _ = _seen(recipe, networks[1], batch)
    if "head" in kind.fills:
        raise NotHereError("its head computes in float32")
    if kind.facts is not None and kind.facts.holds_constant:
        raise NotHereError("a term holds a function of the student constant")
    for module in (*networks, *recipe.methods[0].extras().values()):
        module.double()
    teacher, student = (View(*(part.detach().double() for part in view)) for view in (teacher, student))
    if batch.inputs.is_floating_point():
        batch = batch._replace(inputs=batch.inputs.double())
    generator = torch.Generator().manual_seed(0)
    direction = View(*(torch.randn(part.shape, generator=generator, dtype=torch.float64) for part in student))

    def loss(step: float | Tensor) -> Tensor:
        moved = View(*(part + step * along for part, along in zip(student, direction, strict=True)))
        with drawn_from(0):
            return torch.stack(list(recipe.terms(teacher, moved, moved.logits, batch, student).values())).sum()

    at = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(loss(at), at)
    with torch.no_grad():
        expected = (loss(1e-6) - loss(-1e-6)) / 2e-6
    difference = abs(float(found - expected)) / max(1.0, abs(float(expected)))
    require(difference < 1e-4, f"autograd gives {float(found):.6g} and a finite difference {float(expected):.6g}")


def all_that_it_trains_gets_a_gradient_and_moves(kind: Kind) -> None:
    recipe, _, student, batch = _ready([{"name": kind.name}], kind)
    method = recipe.methods[0]
    trained = [p for p in method.trainable() if p.requires_grad]
    own = {id(p) for module in method.extras().values() for p in module.parameters()}
    require({id(p) for p in trained} <= own, "trainable() gives parameters of no module in extras()")
    terms = recipe.loss(student.train(), batch)
    grown = (
        torch.autograd.grad(sum(terms.values(), torch.zeros(())), trained, allow_unused=True, materialize_grads=True)
        if trained
        else ()
    )
    for gradient in grown:
        require(bool(gradient.isfinite().all()), "a gradient of what it trains is not finite")
        require(bool(gradient.any()), "what it trains gets no gradient from its loss")
    _require_motion(kind)


def its_step_takes_no_longer_than_it_says(kind: Kind) -> None:
    """Compare processor time with plain KD's, on networks so small that a method's own arithmetic shows."""
    allowed, found = _facts(kind).cost, math.inf
    for _ in range(_TRIES):  # a busy machine slows steps down, and speeds none up
        if found > allowed:
            found = min(found, _step_s([{"name": kind.name}], kind) / _step_s([{"name": "kd"}], kind))
    require(found <= allowed, f"a step takes {found:.2f} times plain KD's; {allowed:g} is said")


def it_refuses_fewer_classes_than_it_needs(kind: Kind) -> None:
    if kind.min_classes <= 2:
        raise NotHereError("it takes two classes, the fewest that there are")
    task = image_task(classes=kind.min_classes - 1)
    try:
        recipe_on([kind.Config()], frozen(network(task, 1)), network(task, 2), splits(task))
    except ConfigError as error:
        require("classes" in str(error), f"the refusal does not name the classes: {error}")
        return
    require(False, f"{kind.min_classes - 1} classes are taken")


FACTS: tuple[Check, ...] = (
    without_its_idea_it_is_the_recipe_that_it_names,
    a_student_that_is_the_teacher_learns_nothing_from_it_where_it_says_so,
    its_distillation_is_invariant_to_what_it_says_and_to_nothing_else,
    its_gradient_is_a_finite_difference_in_float64,
    all_that_it_trains_gets_a_gradient_and_moves,
    its_step_takes_no_longer_than_it_says,
    it_refuses_fewer_classes_than_it_needs,
)


def _facts(kind: Kind) -> Facts:
    if kind.facts is None:
        raise NotHereError("it states no facts")
    return kind.facts


def _ready(
    methods: Sequence[Mapping[str, Any]], kind: Kind, student_seed: int = 2, teacher_like: bool = False
) -> tuple[Recipe, nn.Module, nn.Module, Batch]:
    """Prepare a recipe; with `teacher_like` the student has the teacher's widths."""
    task = own_task(kind)
    widths = (8, 12, 16)
    teacher = frozen(network(task, 1, widths))
    student = network(task, student_seed, widths if teacher_like else (4, 6, 8))
    own = {kind.name: kind}
    configs = [(own.get(one["name"]) or METHODS[one["name"]]).Config.model_validate(dict(one)) for one in methods]
    recipe, batch = recipe_on(configs, teacher, student, splits(task))
    return recipe, teacher, student, batch


def _losses(methods: Sequence[Mapping[str, Any]], kind: Kind) -> dict[str, float]:
    recipe, _, student, batch = _ready(methods, kind)
    with evaluating(student), torch.no_grad(), drawn_from(0):
        return {name: float(term) for name, term in recipe.loss(student, batch).items()}


def _prepared(kind: Kind) -> tuple[Recipe, tuple[nn.Module, nn.Module], Batch]:
    """Prepare the method alone: its recipe, teacher and student, and a batch."""
    if kind.watching is not Method.watching:
        raise NotHereError("its terms read more of the student than its outputs")
    recipe, teacher, student, batch = _ready([{"name": kind.name}], kind)
    return recipe, (teacher, student), batch


def _seen(recipe: Recipe, student: nn.Module, batch: Batch) -> tuple[View, View, Tensor]:
    with evaluating(student), torch.no_grad():
        teacher = recipe.look_at_teacher(batch)
        return teacher, *recipe.look_at_student(student, batch)


def _distilling_gradient(kind: Kind, student_seed: int) -> float:
    """Norm of the gradient of all terms but the labels', of a student of the teacher's shape."""
    recipe, _, student, batch = _ready([{"name": kind.name}], kind, student_seed, teacher_like=True)
    with evaluating(student), drawn_from(0):
        terms = recipe.loss(student, batch)
    told = [term for name, term in terms.items() if name != "cross_entropy" and term.requires_grad]
    if not told:
        return 0.0
    found = torch.autograd.grad(
        torch.stack(told).sum(), list(student.parameters()), allow_unused=True, materialize_grads=True
    )
    return float(torch.cat([gradient.flatten() for gradient in found]).norm())


def _require_motion(kind: Kind) -> None:
    """Train two epochs, ten steps, and see that every module of the method's moved."""
    data = splits(own_task(kind), train=80)
    student, teacher = network(data.task, 2), network(data.task, 1, (8, 12, 16))
    seen: dict[str, nn.Module] = {}
    before: dict[str, Tensor] = {}

    def spied(method: Any) -> None:
        seen.update(method.extras())
        before.update({name: _flat(module) for name, module in method.extras().items()})

    class Spied(kind):  # type: ignore[misc,valid-type]
        def prepare(self, context: Any) -> None:
            super().prepare(context)
            spied(self)

        def study(self, context: Any) -> None:
            super().study(context)
            spied(self)

    lively = kind.facts.lively if kind.facts else {}
    config = DistillConfig.unchecked(kind, lively, epochs=2, batch_size=16, patience=0)
    known = METHODS[kind.name]
    METHODS[kind.name] = Spied
    try:
        distill(student, teacher, data, config, seed=0, device=CPU)
    finally:
        METHODS[kind.name] = known
    for name, module in seen.items():
        after = _flat(module)
        require(bool(after.isfinite().all()), f"{name} is not finite after ten steps")
        require(not torch.equal(after, before[name]), f"{name} has not moved in ten steps")


def _flat(module: nn.Module) -> Tensor:
    found = [parameter.detach().flatten().clone() for parameter in module.parameters()]
    return torch.cat(found) if found else torch.zeros(0)


def _step_s(methods: Sequence[Mapping[str, Any]], kind: Kind) -> float:
    """Processor time of the fastest of some steps."""
    recipe, _, student, _ = _ready(methods, kind)
    student.train()
    batch, taken = splits(own_task(kind)).train.batch(torch.arange(24)), []
    for _ in range(_STEPS):
        start = time.process_time()
        given = recipe.prepare_batch(batch, torch.Generator().manual_seed(0))
        parameters = [*student.parameters(), *recipe.parameters()]
        recipe.backward(recipe.loss(copy.copy(student), given), lambda term: term, parameters)
        taken.append(time.process_time() - start)
    return min(taken)
