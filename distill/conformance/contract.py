"""Checks of a method: it keeps the contract of `distill/methods/base.py`."""

import copy
import io
from collections.abc import Iterator
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from edgestill.distill.config import DistillConfig
from edgestill.distill.conformance.prepared import CPU, Kind, classes, network, own_task, prepared, prepared_on
from edgestill.distill.methods import METHODS
from edgestill.distill.methods.base import SLOTS, Method
from edgestill.distill.train import distill
from edgestill.distill.tunable import tuning_ranges
from edgestill.pipeline.conformance.samples import splits, text_task
from edgestill.pipeline.conformance.suite import Check, require
from edgestill.pipeline.errors import UserError, first_line
from edgestill.pipeline.runs.checkpoint import state_bytes
from edgestill.pipeline.task import Task
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Supervised

HOOKS = {slot: (slot,) for slot in SLOTS} | {"head": ("head", "class_logits", "deployable")}


def it_is_listed_under_its_own_name_which_alone_chooses_it(kind: Kind) -> None:
    require(METHODS.get(kind.name) is kind, f"the table has no method {kind.name!r}, or another")
    chosen = DistillConfig.model_validate({"methods": [kind.name]}).methods
    require(chosen == (kind.Config(),), f"distill.methods=[{kind.name}] is not its default configuration")


def it_names_its_source_with_a_year_and_says_what_it_computes(kind: Kind) -> None:
    words = kind.paper.replace(",", " ").split()
    require(any(word.isdigit() and len(word) == 4 for word in words), f"paper {kind.paper!r} names no year")
    require(kind.__doc__, "the class has no docstring with its loss")


def it_overrides_the_hooks_of_the_slots_that_it_fills_and_no_others(kind: Kind) -> None:
    require(kind.fills, "it fills no slot")
    require(kind.fills <= set(SLOTS), f"it fills {', '.join(set(kind.fills) - set(SLOTS))}; slots: {', '.join(SLOTS)}")
    for slot, hooks in HOOKS.items():
        for hook in hooks:
            overridden = getattr(kind, hook) is not getattr(Method, hook)
            require(overridden == (slot in kind.fills), f"fills and {hook}() of slot {slot!r} do not agree")


def its_hyperparameters_are_described_and_misspelt_ones_refused(kind: Kind) -> None:
    for field, declared in kind.Config.model_fields.items():
        require(field == "name" or declared.description, f"{field} has no description")
    require(_refused(kind, "misspelt_" + kind.name, 3), "an unknown key is taken")


def its_defaults_and_tuning_ranges_lie_in_the_legal_ranges(kind: Kind) -> None:
    for field, found in tuning_ranges(kind.Config).items():
        require(found.low < found.high, f"{field} is tuned from {found.low} to {found.high}")
        require(found.low > 0 or found.scale == "linear", f"{field} is tuned from {found.low} on a logarithmic scale")
        for value in (kind.Config.model_fields[field].default, found.low, found.high):
            require(getattr(kind.Config.model_validate({field: value}), field) == value, f"{field} {value} is changed")
        for outside in outside_bounds(kind.Config, field):
            require(_refused(kind, field, outside), f"{field} {outside} is taken, beyond its declared bound")


def its_loss_is_finite_and_reaches_all_that_ships_and_nothing_of_the_teacher(kind: Kind) -> None:
    recipe, teacher, student, batch = prepared(kind, teacher_trainable=True)
    terms = recipe.loss(student.train(), batch)
    for name, term in terms.items():
        require(term.shape == () and bool(term.isfinite()), f"the term {name} is {_shown(term)}")
    sum(terms.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
    shipped = [p for p in recipe.deployable(student).parameters() if p.requires_grad]
    gradients = [p.grad for p in shipped if p.grad is not None and bool(p.grad.isfinite().all())]
    require(len(gradients) == len(shipped), "a weight that ships has no finite gradient")
    require(sum(float(gradient.norm()) for gradient in gradients) > 0, "all gradients are 0")
    own = {id(parameter) for parameter in recipe.parameters()}
    require(all(p.grad is None for p in teacher.parameters() if id(p) not in own), "a gradient reaches the teacher")


def it_reads_no_more_of_its_teacher_than_it_says_in_needs(kind: Kind) -> None:
    """Give it a teacher without the parts that it does not name; reading one fails, or gives no finite loss."""
    try:
        recipe, _, student, batch = prepared_on(kind, own_task(kind), lacks=True)
        terms = recipe.loss(student.train(), batch)
    except (RuntimeError, AttributeError, TypeError, ValueError) as error:
        require(False, f"without the parts of the teacher beyond its `needs` it fails: {first_line(error)}")
        return
    for name, term in terms.items():
        require(bool(term.isfinite()), f"without the parts beyond its `needs`, the term {name} is {_shown(term)}")


def what_it_trains_beside_the_student_is_neither_the_students_nor_the_teachers(kind: Kind) -> None:
    recipe, teacher, student, _ = prepared(kind)
    networks = {id(p) for network in (teacher, student) for p in network.parameters()}
    require(not networks & {id(p) for p in recipe.parameters()}, "trainable() gives a parameter of either")


def what_ships_gives_logits_of_the_classes(kind: Kind) -> None:
    recipe, _, student, batch = prepared(kind)
    with torch.no_grad():
        logits = recipe.deployable(student).eval()(batch.inputs)
    expected = (len(batch.inputs), own_task(kind).num_classes)
    require(logits.shape == expected, f"logits are {list(logits.shape)}, not {list(expected)}")
    require(bool(logits.isfinite().all()), "logits are not finite")


def training_goes_on_from_a_saved_state_bit_for_bit(kind: Kind) -> None:
    data = splits(own_task(kind))
    config = DistillConfig.unchecked(kind, epochs=4, batch_size=16, patience=0)

    def run(student_seed: int, **options: Any) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
        student, teacher = network(data.task, student_seed), network(data.task, 1, (8, 12, 16))
        found = distill(student, teacher, data, config, seed=0, device=CPU, **options)
        return dict(found.student.state_dict()), [record.terms for record in found.fitted.curve]

    saved: list[bytes] = []
    expected, undisturbed = run(2, save=lambda state: saved.append(state_bytes(state)))
    found, resumed = run(77, resume=torch.load(io.BytesIO(saved[1]), weights_only=True))
    require(resumed == undisturbed, "the losses after a resume differ; state_dict() lacks something")
    require(all(torch.equal(value, found[name]) for name, value in expected.items()), "the weights differ")


def it_takes_text_or_refuses_it_in_one_sentence(kind: Kind) -> None:
    task = text_task(classes=classes(kind))
    try:
        recipe, _, student, batch = prepared_on(kind, task)
    except UserError as error:
        require(str(error) and "\n" not in str(error), f"the refusal is not one sentence: {error}")
        return
    for name, term in recipe.loss(student.train(), batch).items():
        require(bool(term.isfinite()), f"of a text, the term {name} is {_shown(term)}")


CONTRACT: tuple[Check, ...] = (
    it_is_listed_under_its_own_name_which_alone_chooses_it,
    it_names_its_source_with_a_year_and_says_what_it_computes,
    it_overrides_the_hooks_of_the_slots_that_it_fills_and_no_others,
    its_hyperparameters_are_described_and_misspelt_ones_refused,
    its_defaults_and_tuning_ranges_lie_in_the_legal_ranges,
    its_loss_is_finite_and_reaches_all_that_ships_and_nothing_of_the_teacher,
    it_reads_no_more_of_its_teacher_than_it_says_in_needs,
    what_it_trains_beside_the_student_is_neither_the_students_nor_the_teachers,
    what_ships_gives_logits_of_the_classes,
    training_goes_on_from_a_saved_state_bit_for_bit,
    it_takes_text_or_refuses_it_in_one_sentence,
)


def outside_bounds(config: Any, field: str) -> Iterator[float]:
    """Yield a value beyond each declared bound of a field."""
    for constraint in config.model_fields[field].metadata:
        for bound, beyond in (("ge", -1e-6), ("gt", 0.0), ("le", 1e-3)):
            if hasattr(constraint, bound):
                yield getattr(constraint, bound) + beyond


def _refused(kind: Kind, field: str, value: float) -> bool:
    try:
        kind.Config.model_validate({field: value})
    except ValidationError:
        return True
    return False


def _shown(term: Tensor) -> str:
    return f"{term.item():g}" if term.shape == () else f"of shape {list(term.shape)}"


def plain_and_shipped(kind: Kind) -> tuple[nn.Module, nn.Module, Task]:
    """Train one student on the labels alone and by the method; an exporter merges the equal weights of fresh ones."""
    data = splits(own_task(kind))
    plain = network(data.task, 2)
    config = DistillConfig.unchecked(kind, epochs=2)
    shipped = distill(copy.deepcopy(plain), network(data.task, 1), data, config, seed=0, device=CPU).student
    fit(plain, Supervised(), data.train, data.validation, config.training, seed=0, device=CPU)
    return plain, shipped, data.task
