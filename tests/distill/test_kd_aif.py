"""KD-AIF as a method: what it weighs, when, for whom, and on what it may not look."""

import copy
import dataclasses
import functools
import io
import itertools
import random
import sys

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from edgestill.distill.config import DistillConfig, StudentTrainingConfig
from edgestill.distill.methods import METHODS
from edgestill.distill.methods.base import Context, Method, MethodConfig
from edgestill.distill.methods.kd import KDConfig
from edgestill.distill.methods.kd_aif.influence import BACKENDS
from edgestill.distill.methods.kd_aif.influence.teacher import WeightedLabels, train_weighted
from edgestill.distill.methods.kd_aif.method import KDAIF, KDAIFConfig
from edgestill.distill.recipe import Recipe, make_recipe
from edgestill.distill.train import caches_teacher, distill
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.datasets import DigitsConfig
from edgestill.pipeline.data.loading import load_splits, load_test
from edgestill.pipeline.data.splits import UNLABELLED, ImageSplit
from edgestill.pipeline.errors import ConfigError, DataError, MissingDependencyError
from edgestill.pipeline.runs.checkpoint import state_bytes
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.metrics import evaluate
from edgestill.pipeline.training.objective import Supervised

CPU = torch.device("cpu")
MECHANISMS = ("student_only", "teacher_only", "both_sequential", "simultaneous")


@pytest.fixture
def splits(make_task, make_splits):
    """Every sixth training label is wrong; the positions of those are what index modulo 6 says."""
    splits = make_splits(make_task())
    targets = splits.train.targets.clone()
    targets[::6] = (targets[::6] + 1) % 3
    return dataclasses.replace(splits, train=ImageSplit(splits.train.images, targets))


@pytest.fixture
def prepared(splits, make_network, make_context):
    def make(splits=splits, teacher=None, **settings):
        method = KDAIF(KDAIFConfig(**settings))
        recipe, student = Recipe([method]), make_network(2)
        teacher = frozen(teacher or make_network(1, (8, 12, 16)))
        context = make_context(recipe, splits, teacher, student)
        recipe.prepare(context, Augmentation() if caches_teacher(recipe, splits, 0) else None)
        return method, recipe, student.train(), context

    return make


def told(method, weight):
    method._student.weight = weight
    method._student.updates = 1


def config(*methods, epochs=5, **training):
    training = {"learning_rate": 0.02} | training
    return DistillConfig(
        methods=methods, training=StudentTrainingConfig(epochs=epochs, batch_size=16, patience=0, **training)
    )


# The weights in the equation


@pytest.mark.parametrize("apply_to", ["ce", "both"])
def test_each_examples_terms_count_by_its_weight_wherever_the_shuffle_put_it(prepared, splits, apply_to):
    method, recipe, student, _ = prepared(apply_to=apply_to, distill_weight=0.7)
    told(method, torch.arange(len(splits.train)).float())
    index = torch.randperm(len(splits.train))[:20]
    student.eval()
    with torch.no_grad():
        alone = []
        for n in index.tolist():
            told(method, torch.ones(len(splits.train)))
            alone.append(recipe.loss(student, splits.train.batch(torch.tensor([n]))))
        told(method, torch.arange(len(splits.train)).float())
        found = recipe.loss(student, splits.train.batch(index))
    for name, weighed in (("cross_entropy", True), ("distillation", apply_to == "both")):
        terms = [one[name].item() * (n if weighed else 1) for one, n in zip(alone, index.tolist(), strict=True)]
        assert found[name].item() == pytest.approx(sum(terms) / 20, rel=1e-4)


@pytest.mark.parametrize("apply_to", ["ce", "both"])
def test_without_sharpness_the_training_is_plain_kds_bit_for_bit(splits, make_network, apply_to):
    curves = []
    for method in (KDConfig(), KDAIFConfig(sharpness=0, apply_to=apply_to, warmup_epochs=1, every=1)):
        done = distill(make_network(2), make_network(1), splits, config(method), seed=0, device=CPU)
        curves.append([record.loss for record in done.fitted.curve])
    assert curves[0] == pytest.approx(curves[1], rel=1e-6)


def test_a_label_that_the_teacher_gives_too_is_spared_unless_the_teachers_answer_is_weighed_as_well(prepared, splits):
    weights = {}
    for apply_to, spare in (("ce", True), ("ce", False), ("both", True)):
        method, _, student, context = prepared(warmup_epochs=1, apply_to=apply_to, spare_agreed=spare)
        method.end_epoch(0, student)
        weights[apply_to, spare] = method._student.weight
    with torch.no_grad():
        answers = context.teacher(splits.train.batch(torch.arange(len(splits.train))).inputs).argmax(1)
    agreed = answers == splits.train.targets
    plain = weights["ce", False]
    assert 0 < int(agreed.sum()) < len(agreed)
    assert bool((plain[agreed] < 1).any())
    expected = torch.where(agreed, plain.clamp(min=1), plain)
    assert torch.allclose(weights["ce", True], expected / expected.mean())
    assert torch.equal(weights["both", True], plain)


def test_a_mistake_that_the_teacher_memorised_loses_weight_in_the_teachers_own_training(splits, make_network, prepared):
    """The teacher gives every label, the wrong ones too, so that by its answers all would be spared."""
    memorised = make_network(1, (16, 24, 32))
    config = TrainingConfig(epochs=20, learning_rate=0.1, batch_size=30, warmup_epochs=0)
    fit(memorised, Supervised(), splits.train, splits.train, config, seed=0, device=CPU)
    assert evaluate(memorised, splits.train, CPU).accuracy == 1
    wrong = torch.arange(len(splits.train)) % 6 == 0
    for mechanism in ("teacher_only", "both_sequential", "simultaneous"):
        method, _, student, _ = prepared(teacher=memorised, mechanism=mechanism, teacher_epochs=1, warmup_epochs=1)
        method.end_epoch(0, student)
        weight = method._teacher.weight
        assert weight[wrong].min() < 0.1
        assert weight[wrong].mean() < 0.8 * weight[~wrong].mean()


@pytest.mark.parametrize("mechanism", MECHANISMS[1:])
def test_a_teacher_is_weighed_by_its_labels_whatever_the_student_is_taught(prepared, mechanism):
    """By its own answers, which `training_loss: kd` teaches the student, its influence would be 0."""
    weights = []
    for loss in ("ce", "kd"):
        method, _, student, _ = prepared(
            mechanism=mechanism, training_loss=loss, training_temperature=2.0, teacher_epochs=1, warmup_epochs=1
        )
        method.end_epoch(0, student)
        weights.append(method._teacher.weight)
        assert method._teacher.updates == 1
    assert torch.equal(*weights)
    assert weights[0].std() > 0.1


def test_examples_without_labels_have_no_part_in_the_teachers_weights(prepared, splits):
    targets = splits.train.targets.clone()
    targets[::2] = UNLABELLED
    partly = dataclasses.replace(splits, train=ImageSplit(splits.train.images, targets))
    method, *_ = prepared(partly, mechanism="teacher_only", apply_to="both", teacher_epochs=1)
    weight = method._teacher.weight
    assert torch.equal(weight[::2], torch.ones(len(weight[::2])))
    assert weight[1::2].mean().item() == pytest.approx(1, abs=1e-5)
    nothing = dataclasses.replace(splits, train=ImageSplit(splits.train.images, torch.full_like(targets, UNLABELLED)))
    method, *_ = prepared(nothing, mechanism="teacher_only", teacher_epochs=1)
    assert method._teacher.updates == 0


@pytest.mark.parametrize("backend", ["last_layer", "identity"])
def test_influences_that_are_rounding_change_no_weight_and_are_not_reported(prepared, make_network, backend):
    """The student is the teacher: by the teacher's answers it has nothing to learn."""
    method, _, student, _ = prepared(teacher=make_network(2), training_loss="kd", warmup_epochs=1, backend=backend)
    method.end_epoch(0, student)
    assert torch.equal(method._student.weight, torch.ones(90))
    assert method.measures() == {"updates": 0, "effective_sample_size": 1}
    assert method.exhibits() == ()
    before = torch.rand(90)
    told(method, before)
    method.end_epoch(2, student)
    assert torch.equal(method._student.weight, before)
    with torch.no_grad():
        student.linear.weight.add_(1e-3 * torch.randn_like(student.linear.weight))
    method, _, _, context = prepared(teacher=make_network(2), training_loss="kd", warmup_epochs=1, backend=backend)
    context.student.load_state_dict(student.state_dict())
    method.end_epoch(0, context.student)
    assert method._student.updates == 1
    assert method._student.weight.std() > 1e-3


def test_weights_respect_their_bounds_where_none_is_spared(prepared):
    for settings in ({"spare_agreed": False}, {"apply_to": "both"}):
        method, _, student, _ = prepared(warmup_epochs=1, min_weight=0.4, max_weight=1.3, **settings)
        method.end_epoch(0, student)
        weight = method._student.weight
        assert weight.mean().item() == pytest.approx(1, abs=1e-4)
        assert weight.min() >= 0.4
        assert weight.max() <= 1.3
        assert weight.std() > 0.1


def test_sparing_keeps_the_order_of_agreed_and_other_examples_and_divides_all_by_the_mean(prepared):
    """So an example that is spared weighs less than 1 by what sparing adds to the mean, and min_weight too."""
    method, _, student, _ = prepared(warmup_epochs=1, min_weight=0.4)
    method.end_epoch(0, student)
    weight, agreed = method._student.weight, method._agreed()
    assert weight.mean().item() == pytest.approx(1, abs=1e-4)
    least = float(weight[agreed].min())
    assert 0.5 < least < 1
    assert float(weight[~agreed].min()) == pytest.approx(0.4 * least, rel=1e-4)


def test_weights_come_after_the_warm_up_and_again_as_often_as_asked(prepared):
    for updates, expected in (
        (1, [0, 0, 1, 1, 1, 1, 1, 1]),
        (2, [0, 0, 1, 1, 2, 2, 2, 2]),
        (0, [0, 0, 1, 1, 2, 2, 3, 3]),
    ):
        method, _, student, _ = prepared(warmup_epochs=3, updates=updates, every=2, momentum=0.5)
        seen = []
        for epoch in range(8):
            method.end_epoch(epoch, student)
            seen.append(method._student.updates)
            assert student.training
        assert seen == expected


def test_later_weights_move_the_first_ones_by_a_moving_average(prepared):
    method, _, student, _ = prepared(warmup_epochs=1, every=1, momentum=0.75)
    method.end_epoch(0, student)
    first = method._student.weight.clone()
    with torch.no_grad():
        student.linear.weight.add_(torch.randn_like(student.linear.weight))
    method.end_epoch(1, student)
    second = method._student.weight.clone()
    fresh, _, _, _ = prepared(warmup_epochs=1)
    fresh._context = dataclasses.replace(fresh._context, deployable=lambda: student)
    fresh.end_epoch(0, student)
    assert torch.allclose(second, 0.75 * first + 0.25 * fresh._student.weight, atol=1e-6)
    assert not torch.equal(first, second)


def test_wrong_labels_lose_weight_in_a_distillation(make_task, make_splits, make_split, make_network):
    splits = make_splits(make_task(), train=240)
    targets = splits.train.targets.clone()
    targets[::6] = (targets[::6] + 1) % 3
    reference = dataclasses.replace(make_split(splits.task, 150, 2), role="reference")
    splits = dataclasses.replace(splits, train=ImageSplit(splits.train.images, targets), reference=reference)
    recipe = config(KDAIFConfig(distill_weight=0.0, warmup_epochs=4, updates=1), epochs=6, learning_rate=0.1)
    done = distill(make_network(2, (8, 12, 16)), make_network(1), splits, recipe, seed=0, device=CPU)
    harmful, helpful = done.exhibits
    assert done.measures["kd_aif.updates"] == 1
    assert 0 < done.measures["kd_aif.effective_sample_size"] < 1
    assert len(harmful.items) == len(helpful.items) == 12
    captions = [item.caption for item in harmful.items]
    rows = {
        tuple((image * 255).round().to(torch.uint8).flatten().tolist()): n
        for n, image in enumerate(splits.train.images)
    }
    wrong = [rows[item.pixels] % 6 == 0 for item in harmful.items]
    assert sum(wrong) >= 6  # by chance a sixth of them
    assert sum(rows[item.pixels] % 6 == 0 for item in helpful.items) <= 2
    assert harmful.items[0].shape == (1, 8, 8)
    for item, caption in zip(harmful.items, captions, strict=True):
        assert caption.startswith(f"label class {int(splits.train.targets[rows[item.pixels]])}, teacher class ")
    weights = [float(item.caption.rsplit(" ", 1)[1]) for exhibit in done.exhibits for item in exhibit.items]
    assert max(weights[:12]) < min(weights[12:])


def test_shuffled_weights_are_the_same_ones_elsewhere(prepared):
    one, two = (prepared(warmup_epochs=1, control=control) for control in ("none", "shuffled"))
    for method, _, student, _ in (one, two):
        method.end_epoch(0, student)
    found = [method._student.weight for method, *_ in (one, two)]
    assert torch.equal(found[0].sort().values, found[1].sort().values)
    assert not torch.equal(*found)


@pytest.mark.filterwarnings("ignore:lissa left")
@pytest.mark.parametrize("backend", ["cg", "lissa", "ekfac", "identity"])
def test_every_backend_works_inside_a_distillation_and_leaves_the_random_numbers_alone(
    splits, make_network, backend, monkeypatch
):
    if backend == "ekfac":
        pytest.importorskip("kronfluence")
    monkeypatch.setitem(BACKENDS, "lissa", functools.partial(BACKENDS["lissa"], depth=30, repeats=1))
    recipe, student, teacher = (
        config(KDAIFConfig(backend=backend, warmup_epochs=1), epochs=2),
        make_network(2),
        make_network(1),
    )
    before = torch.get_rng_state()
    done = distill(student, teacher, splits, recipe, seed=0, device=CPU)
    assert done.measures["kd_aif.updates"] == 1
    assert torch.equal(torch.get_rng_state(), before)


# The teacher


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_each_mechanism_trains_whom_it_says_and_never_the_given_teacher(splits, make_network, mechanism):
    teacher, before = make_network(1), copy.deepcopy(make_network(1).state_dict())
    method = KDAIFConfig(mechanism=mechanism, warmup_epochs=2, teacher_epochs=2)
    done = distill(make_network(2), teacher, splits, config(method, epochs=4), seed=0, device=CPU)
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    assert done.measures["kd_aif.updates"] == (1 if mechanism == "teacher_only" else 2)
    assert len(done.exhibits) == 2


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_teachers_outputs_are_kept_unless_it_changes_while_the_student_learns(prepared, splits, mechanism):
    method, recipe, student, context = prepared(mechanism=mechanism, teacher_epochs=1, warmup_epochs=1)
    assert caches_teacher(recipe, splits, 0) == (mechanism != "simultaneous")
    batch = splits.train.batch(torch.arange(8))
    before = method.teacher(batch.inputs).logits
    given = context.teacher(batch.inputs)
    assert torch.equal(before, given) == (mechanism in ("student_only", "simultaneous"))
    method.end_epoch(0, student)
    changed = not torch.equal(method.teacher(batch.inputs).logits, before)
    assert changed == (mechanism == "simultaneous")
    unweighted = torch.equal(method._student.weight, torch.ones(len(splits.train)))
    assert unweighted == (mechanism == "teacher_only")


@pytest.mark.parametrize("settings", [{"mechanism": m} for m in MECHANISMS] + [{"every": 1, "apply_to": "both"}])
def test_every_mechanism_goes_on_from_a_saved_state_bit_for_bit(splits, make_network, settings):
    method = KDAIFConfig(warmup_epochs=1, teacher_epochs=1, **settings)

    def run(seed, **options):
        return distill(
            make_network(seed), make_network(1), splits, config(method, epochs=4), seed=0, device=CPU, **options
        )

    saved = []
    expected = run(2, save=lambda state: saved.append(state_bytes(state)))
    found = run(77, resume=torch.load(io.BytesIO(saved[1]), weights_only=True))
    assert all(torch.equal(v, found.student.state_dict()[k]) for k, v in expected.student.state_dict().items())
    assert [r.terms for r in found.fitted.curve] == [r.terms for r in expected.fitted.curve]
    assert found.measures == expected.measures
    assert found.exhibits == expected.exhibits


@pytest.mark.parametrize("mechanism", ["teacher_only", "both_sequential"])
def test_a_resumed_run_keeps_the_outputs_of_the_teacher_that_was_saved(prepared, splits, mechanism):
    """Trained anew it need not come out the same: on another machine, or with more threads."""
    method, recipe, *_ = prepared(mechanism=mechanism, teacher_epochs=1)
    state = copy.deepcopy(recipe.state_dict())
    state["kd_aif"]["network"]["linear.bias"] += 1.5 * torch.arange(3)
    batch = splits.train.batch(torch.arange(8))
    recipe.look_at_teacher(batch)  # of which what is kept is of the teacher before
    recipe.load_state_dict(state)
    assert torch.allclose(recipe.look_at_teacher(batch).logits, method.teacher(batch.inputs).logits, atol=1e-5)


def test_the_weighted_teacher_is_its_last_epochs_as_its_weights_were_fitted_to_reference(splits, make_network):
    """A training that reference would judge to be best after its first epoch."""
    train, targets = splits.train, splits.train.targets
    spoilt = dataclasses.replace(splits.reference, targets=(splits.reference.targets + 1) % 3)
    config, weight = TrainingConfig(epochs=6, learning_rate=0.1, warmup_epochs=0), torch.ones(len(targets))
    teacher = make_network(1)
    train_weighted(teacher, train, spoilt, weight, config, seed=0, device=CPU)
    plain, states = make_network(1), []
    fitted = fit(
        plain,
        WeightedLabels(weight),
        train,
        spoilt,
        config,
        seed=0,
        device=CPU,
        save=lambda state: states.append(copy.deepcopy(state["network"])),
    )
    assert fitted.best_epoch < 6
    assert all(torch.equal(states[-1][name], value) for name, value in teacher.state_dict().items())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_another_method_that_studies_the_teacher_cannot_have_it_replaced(monkeypatch):
    class StudiousConfig(MethodConfig):
        name: str = "studious"

    class Studious(Method):
        """Looks at the teacher."""

        name, paper, fills, Config = "studious", "none", frozenset({"target"}), StudiousConfig
        studies_teacher = True

        def target(self, teacher, student, batch):
            return F.softmax(teacher.logits, dim=1)

    monkeypatch.setitem(METHODS, "studious", Studious)
    studious = Studious(StudiousConfig())
    Recipe([KDAIF(), studious])
    for mechanism in MECHANISMS[1:]:
        with pytest.raises(
            ConfigError, match="method 'studious' studies the given teacher, and 'kd_aif' as configured trains another"
        ):
            Recipe([KDAIF(KDAIFConfig(mechanism=mechanism)), studious])


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_teacher_of_a_method_that_only_looks_through_the_recipe_can_be_replaced(mechanism):
    weighing = KDAIFConfig(mechanism=mechanism)
    for other in ("random_affine", "rkd", "diswot_plus", "kd"):
        make_recipe([METHODS[other].Config(), weighing])
    for other in ("hard", "lelp", "embedding_regression"):
        if mechanism == "student_only":
            make_recipe([METHODS[other].Config(), weighing])
        else:
            with pytest.raises(ConfigError, match=f"method '{other}' studies the given teacher"):
                make_recipe([METHODS[other].Config(), weighing])


def test_ekfac_without_kronfluence_is_refused_before_any_training(monkeypatch, splits):
    monkeypatch.setitem(sys.modules, "kronfluence", None)
    make_recipe([KDAIFConfig()]).check(splits.task, splits.train)
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgestill\[influence\]'"):
        make_recipe([KDAIFConfig(backend="ekfac")]).check(splits.task, splits.train)


# What it may look at


def test_it_sees_the_training_and_the_reference_split_and_no_other(prepared, splits):
    """Nothing but those two reaches a method, and another is refused even in reference's place."""
    assert {f.name for f in dataclasses.fields(Context) if "Split" in str(f.type)} == {"train", "reference"}
    for judging in (load_test(DigitsConfig(), 0), load_splits(DigitsConfig(), 0).validation, splits.train):
        held_out = dataclasses.replace(splits.reference, role=judging.role)
        method, _, student, _ = prepared(dataclasses.replace(splits, reference=held_out), warmup_epochs=1)
        with pytest.raises(DataError, match=f"this is the {judging.role} split"):
            method.end_epoch(0, student)


def test_other_reference_images_give_other_weights_and_other_validation_images_do_not(splits, make_network, make_split):
    def run(splits):
        return distill(make_network(2), make_network(1), splits, config(KDAIFConfig(), epochs=4), seed=0, device=CPU)

    one = run(splits).fitted.curve[-1].terms
    other = dataclasses.replace(make_split(splits.task, 18, 9), role="reference")
    assert run(dataclasses.replace(splits, validation=other)).fitted.curve[-1].terms == one
    assert run(dataclasses.replace(splits, reference=other)).fitted.curve[-1].terms != one


# Without labels


@pytest.mark.parametrize(("apply_to", "training_loss"), itertools.product(("ce", "both"), ("ce", "kd")))
def test_examples_without_a_label_learn_from_the_teacher(splits, make_network, apply_to, training_loss):
    targets = splits.train.targets.clone()
    targets[30:] = UNLABELLED
    partly = dataclasses.replace(splits, train=ImageSplit(splits.train.images, targets))
    method = KDAIFConfig(apply_to=apply_to, training_loss=training_loss, warmup_epochs=1)
    saved = []
    done = distill(
        make_network(2), make_network(1), partly, config(method, epochs=3), seed=0, device=CPU, save=saved.append
    )
    weight = saved[-1]["objective"]["kd_aif"]["student"]["weight"]
    assert weight.mean().item() == pytest.approx(1, abs=1e-4)
    assert weight[:30].std() > 0.01
    assert (weight[30:].std() > 0.01) == (apply_to == "both")
    assert all(torch.isfinite(torch.tensor(record.loss)) for record in done.fitted.curve)


def test_the_teacher_learns_from_the_labelled_examples_alone(splits, prepared):
    targets = splits.train.targets.clone()
    targets[30:] = UNLABELLED
    partly = dataclasses.replace(splits, train=ImageSplit(splits.train.images, targets))
    method, *_ = prepared(partly, mechanism="teacher_only", teacher_epochs=1)
    assert method._teacher.updates == 1
    assert torch.isfinite(method.teacher(splits.train.batch(torch.arange(4)).inputs).logits).all()


@pytest.mark.parametrize("backend", ["last_layer", "cg"])
def test_text_is_weighed_too_and_shown_as_text(make_token_task, make_splits, small_space, backend):
    task, space = make_token_task(), small_space("text_transformer")
    student, teacher = (space.build(space.sample(random.Random(seed)), task) for seed in (0, 1))
    method = KDAIFConfig(warmup_epochs=1, backend=backend)
    done = distill(student, teacher, make_splits(task), config(method, epochs=3), seed=0, device=CPU)
    item = done.exhibits[0].items[0]
    assert all(word.isdigit() for word in item.text.split())  # no tokenizer here, so ids
    assert not item.pixels
    assert item.caption.startswith("label class ")


def test_settings_out_of_range_are_refused():
    for wrong in ({"damping": 0}, {"clip": 0.5}, {"momentum": 1.0}, {"warmup_epochs": 0}, {"min_weight": 1.5}):
        with pytest.raises(ValidationError):
            KDAIFConfig(**wrong)
