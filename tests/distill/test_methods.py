"""Every method of the table keeps the contract of `distill.methods.base.Method`."""

import copy
import io
import re
from pathlib import Path

import annotated_types
import onnx
import pytest
import torch
from pydantic import ValidationError

from edgestill.distill.config import DistillConfig, StudentTrainingConfig
from edgestill.distill.methods import METHODS, Method
from edgestill.distill.methods.base import SLOTS
from edgestill.distill.recipe import make_recipe
from edgestill.distill.train import distill
from edgestill.distill.tunable import tuning_ranges
from edgestill.export.onnx.write import to_onnx
from edgestill.pipeline.networks.cifar_resnet import CifarResNet
from edgestill.pipeline.networks.network import initialise
from edgestill.pipeline.runs.checkpoint import state_bytes
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.training.fit import Supervised, fit

CPU = torch.device("cpu")
HOOKS = {slot: (slot,) for slot in SLOTS} | {"head": ("head", "class_logits", "deployable")}

every_method = pytest.mark.parametrize("name", METHODS)


@pytest.fixture
def task(make_task):
    return make_task(classes=max(3, *(method.min_classes for method in METHODS.values())))


@pytest.fixture
def make_network(task):
    def make(seed, widths=(4, 6, 8)):
        network = CifarResNet((1, 1, 1), widths, num_classes=task.num_classes, mean=task.mean, std=task.std)
        initialise(network, "kaiming", seed)
        return network

    return make


@pytest.fixture
def prepared(task, make_splits, make_network, make_context):
    def make(name, teacher_trainable=False):
        splits = make_splits(task)
        teacher, student = make_network(1, (8, 12, 16)), make_network(2)
        frozen(teacher).requires_grad_(teacher_trainable)
        recipe = make_recipe([METHODS[name].Config()])
        context = make_context(recipe, splits, teacher, student)
        recipe.prepare(context)
        batch = recipe.prepare_batch(splits.train.batch(torch.arange(24)), torch.Generator().manual_seed(0))
        return recipe, teacher, student, batch

    return make


@every_method
def test_it_is_listed_under_its_own_name_with_its_source(name):
    method = METHODS[name]
    assert method.name == name == method.Config().name
    assert any(year.isdigit() and len(year) == 4 for year in method.paper.replace(",", " ").split())
    assert method.__doc__


def test_the_page_on_methods_names_the_slots_that_each_fills():
    page = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)+) \|$", page, flags=re.MULTILINE)
    told = {name: set(re.findall(r"\w+", slots)) for name, slots in rows}
    assert told == {name: set(method.fills) for name, method in METHODS.items()}


@every_method
def test_it_overrides_the_hooks_of_the_slots_that_it_fills_and_no_others(name):
    method = METHODS[name]
    assert method.fills
    assert method.fills <= set(SLOTS)
    for slot, hooks in HOOKS.items():
        for hook in hooks:
            overridden = getattr(method, hook) is not getattr(Method, hook)
            assert overridden == (slot in method.fills), f"{hook} of slot {slot}"


@every_method
def test_the_loss_is_finite_and_reaches_every_weight_that_ships_and_none_of_the_teacher(name, prepared):
    recipe, teacher, student, batch = prepared(name, teacher_trainable=True)
    terms = recipe.loss(student.train(), batch)
    assert all(term.shape == () and term.isfinite() for term in terms.values())
    sum(terms.values()).backward()
    shipped = list(recipe.deployable(student).parameters())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in shipped)
    assert sum(float(p.grad.norm()) for p in shipped) > 0
    own = {id(parameter) for parameter in recipe.parameters()}
    assert all(p.grad is None for p in teacher.parameters() if id(p) not in own)


@every_method
def test_what_it_trains_beside_the_student_is_neither_students_nor_teachers(name, prepared):
    recipe, teacher, student, _ = prepared(name)
    networks = {id(p) for network in (teacher, student) for p in network.parameters()}
    assert not networks & {id(p) for p in recipe.parameters()}


@every_method
def test_training_goes_on_from_a_saved_state_bit_for_bit(name, task, make_splits, make_network):
    splits = make_splits(task)
    config = DistillConfig(
        methods=(METHODS[name].Config(),), training=StudentTrainingConfig(epochs=4, batch_size=16, patience=0)
    )

    def run(student_seed, **options):
        teacher = make_network(1, (8, 12, 16))
        return distill(make_network(student_seed), teacher, splits, config, seed=0, device=CPU, **options)

    saved = []
    expected, undisturbed, *_ = run(2, save=lambda state: saved.append(state_bytes(state)))
    resume = torch.load(io.BytesIO(saved[1]), weights_only=True)
    found, result, *_ = run(77, resume=resume)
    assert all(torch.equal(v, found.state_dict()[k]) for k, v in expected.state_dict().items())
    assert [r.terms for r in result.curve] == [r.terms for r in undisturbed.curve]


@every_method
def test_what_ships_gives_logits_of_the_classes(name, task, prepared):
    recipe, _, student, batch = prepared(name)
    shipped = recipe.deployable(student).eval()
    with torch.no_grad():
        logits = shipped(batch.inputs)
    assert logits.shape == (len(batch.targets), task.num_classes)
    assert logits.isfinite().all()


@every_method
def test_default_and_tuning_range_lie_in_the_legal_range(name):
    config = METHODS[name].Config
    ranges = tuning_ranges(config)
    assert ranges or name not in ("kd",)
    for field, found in ranges.items():
        assert found.low < found.high
        assert found.scale in ("linear", "log")
        assert found.low > 0 or found.scale == "linear"
        for value in (config.model_fields[field].default, found.low, found.high):
            assert getattr(config(**{field: value}), field) == value
        for bound, outside in legal_bounds(config, field):
            with pytest.raises(ValidationError, match=str(bound).removesuffix(".0")):
                config(**{field: outside})


def legal_bounds(config, field):
    """Each declared bound with a value that lies outside of it."""
    for constraint in config.model_fields[field].metadata:
        if isinstance(constraint, annotated_types.Ge):
            yield constraint.ge, constraint.ge - 1e-6
        elif isinstance(constraint, annotated_types.Gt):
            yield constraint.gt, constraint.gt
        elif isinstance(constraint, annotated_types.Le):
            yield constraint.le, constraint.le + 1e-3


def test_the_training_ranges_that_are_tuned_are_legal_too():
    ranges = tuning_ranges(StudentTrainingConfig)
    assert set(ranges) == {"learning_rate", "weight_decay"}
    for field, found in ranges.items():
        assert found.low <= StudentTrainingConfig.model_fields[field].default <= found.high
        assert list(legal_bounds(StudentTrainingConfig, field))


@every_method
def test_hyperparameters_are_described_and_misspelt_ones_refused(name):
    config = METHODS[name].Config
    for field, declared in config.model_fields.items():
        assert field == "name" or declared.description
    with pytest.raises(ValidationError):
        config(temprature=3)


def signature(data):
    """Operator types in order, and the shapes of all weights."""
    graph = onnx.load_from_string(data).graph
    return [node.op_type for node in graph.node], sorted(tuple(tensor.dims) for tensor in graph.initializer)


@pytest.mark.parametrize("name", [n for n in METHODS if "head" not in METHODS[n].fills])
def test_the_exported_graph_is_the_plain_students(name, task, make_splits, make_network):
    """Both trained, because the exporter merges weights that are equal, as those of a fresh network are."""
    plain, splits = make_network(2), make_splits(task)
    config = DistillConfig(methods=(METHODS[name].Config(),), training=StudentTrainingConfig(epochs=2))
    shipped = distill(copy.deepcopy(plain), make_network(1), splits, config, seed=0, device=CPU).student
    fit(plain, Supervised(), splits.train, splits.validation, config.training, seed=0, device=CPU)
    expected, found = (to_onnx(network, task.inputs, 20) for network in (plain, shipped))
    assert signature(found) == signature(expected)
    assert len(found) == len(expected)
    assert (found == expected) == (name == "none")  # other weights, but for the labels alone
