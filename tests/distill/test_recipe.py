"""The equation against a hand computation, its slots, and what of the teacher is cached."""

import copy
import io
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.special
import torch
import torch.nn.functional as F

from edgestill.distill.config import DistillConfig, StudentTrainingConfig
from edgestill.distill.conflicts import conflicts
from edgestill.distill.methods import KD, METHODS, Method, MethodConfig
from edgestill.distill.methods.base import SLOTS
from edgestill.distill.methods.kd import KDConfig
from edgestill.distill.recipe import Recipe, make_recipe
from edgestill.distill.train import caches_teacher, distill
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.datasets import DigitsConfig
from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.data.splits import UNLABELLED, Batch
from edgestill.pipeline.device import Compute
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.networks.cifar_resnet import CifarResNet
from edgestill.pipeline.networks.network import initialise
from edgestill.pipeline.runs.checkpoint import state_bytes
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Supervised

CPU = torch.device("cpu")


@pytest.fixture
def prepared(make_task, make_splits, make_network, make_context):
    """A recipe that has looked at data and teacher, a student, and a batch of the training images."""

    def make(methods, cache=False, augment=None):
        splits = make_splits(make_task(), augment)
        teacher, student = frozen(make_network(1, (8, 12, 16))), make_network(2)
        recipe = make_recipe(methods) if isinstance(methods[0], MethodConfig) else Recipe(methods)
        context = make_context(recipe, splits, teacher, student)
        recipe.prepare(context, Augmentation() if cache else None)
        return recipe, student, splits.train.batch(torch.arange(4, 20)), teacher

    return make


@pytest.mark.parametrize(("temperature", "weight"), [(4.0, 0.9), (1.0, 0.5), (10.0, 1.0), (2.0, 0.0)])
def test_the_loss_equals_the_equation_by_hand(prepared, temperature, weight):
    recipe, student, batch, teacher = prepared([KDConfig(temperature=temperature, distill_weight=weight)])
    student.eval()
    with torch.no_grad():
        terms = recipe.loss(student, batch)
        s, t = (network(batch.inputs).double().numpy() for network in (student, teacher))
    log_p = scipy.special.log_softmax(s, axis=1)
    cross_entropy = -np.mean([log_p[n, y] for n, y in enumerate(batch.targets.tolist())])
    q = scipy.special.softmax(t / temperature, axis=1)
    kl = np.mean(np.sum(scipy.special.rel_entr(q, scipy.special.softmax(s / temperature, axis=1)), axis=1))
    assert terms["cross_entropy"].item() == pytest.approx((1 - weight) * cross_entropy, rel=1e-5, abs=1e-7)
    assert terms["distillation"].item() == pytest.approx(weight * temperature**2 * kl, rel=1e-4, abs=1e-7)
    assert set(terms) == {"cross_entropy", "distillation"}


def test_without_weight_on_the_teacher_the_gradients_are_plain_cross_entropys(prepared):
    recipe, student, batch, _ = prepared([KDConfig(distill_weight=0.0)])
    plain = copy.deepcopy(student)
    sum(recipe.loss(student, batch).values()).backward()
    F.cross_entropy(plain(batch.inputs), batch.targets).backward()
    for one, other in zip(student.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-7)


def test_with_all_weight_on_the_teacher_the_labels_do_not_matter(prepared):
    recipe, student, batch, _ = prepared([KDConfig(distill_weight=1.0)])
    other = batch._replace(targets=(batch.targets + 1) % 3)
    one, two = (sum(recipe.loss(student, b).values()).item() for b in (batch, other))
    assert one == two


# Slots


def second_method(name, slot):
    """A method of a third party that fills one slot."""

    class Config(MethodConfig):
        name: str = "unset"

    hooks = {
        "weight": lambda self, teacher, student, batch: (torch.zeros(len(batch.targets)), (batch.index % 2).float()),
        "data": lambda self, batch, generator: batch._replace(inputs=1 - batch.inputs),
        "feature": lambda self, teacher, student, batch: {
            "mean": (student.embedding - teacher.embedding.mean()).mean()
        },
        "target": lambda self, teacher, student, batch: F.one_hot(batch.targets, 3).float(),
        "divergence": lambda self, target, student: (student.logits - target).abs().sum(1),
        "teacher": lambda self, inputs: None,
        "logits": lambda self, logits: 2 * logits,
        "objective": lambda self, teacher, student, batch: student.logits.square().sum(1),
    }
    members = {"name": name, "paper": "none", "fills": frozenset({slot}), "Config": Config, slot: hooks[slot]}
    return type(name.title(), (Method,), members)


def test_two_methods_for_one_slot_are_refused_by_name(monkeypatch):
    monkeypatch.setitem(METHODS, "rival", second_method("rival", "target"))
    rival = METHODS["rival"]()
    assert conflicts([KD(), rival]) == ["methods 'kd' and 'rival' both fill the slot 'target'; choose one"]
    with pytest.raises(ConfigError, match="methods 'kd' and 'rival' both fill the slot 'target'"):
        Recipe([KD(), rival])


def test_a_method_listed_twice_is_refused():
    assert conflicts([KD(), KD()]) == ["method 'kd' is listed twice"]
    with pytest.raises(ValueError, match="method 'kd' is listed twice"):
        DistillConfig(methods=("kd", "kd"))
    with pytest.raises(ValueError, match="no method"):
        DistillConfig(methods=())


def test_several_feature_losses_add_up(monkeypatch, prepared):
    for name in ("one", "two"):
        monkeypatch.setitem(METHODS, name, second_method(name, "feature"))
    assert conflicts([KD(), METHODS["one"](), METHODS["two"]()]) == []
    recipe, student, batch, _ = prepared([KD(), METHODS["one"]()])
    terms = recipe.loss(student, batch)
    assert set(terms) == {"cross_entropy", "distillation", "mean"}
    assert terms["mean"].requires_grad


def test_slots_that_nobody_fills_are_plain_kds(monkeypatch, prepared):
    """With the weight slot alone filled, target and divergence are KD's at its default temperature of 4."""
    monkeypatch.setitem(METHODS, "odd", second_method("odd", "weight"))
    recipe, student, batch, teacher = prepared([METHODS["odd"]()])
    student.eval()
    terms = recipe.loss(student, batch)
    with torch.no_grad():
        s, t = (F.log_softmax(network(batch.inputs) / 4, dim=1) for network in (student, teacher))
    kl = 16 * (t.exp() * (t - s)).sum(1)
    assert terms["cross_entropy"].item() == 0
    assert terms["distillation"].item() == pytest.approx((kl * (batch.index % 2)).mean().item(), rel=1e-4)


def test_losses_are_in_float32_where_the_networks_are_not(monkeypatch, prepared):
    method, seen = second_method("wary", "feature"), []
    method.feature = lambda self, teacher, student, batch: (
        seen.extend([torch.is_autocast_enabled("cpu"), *(part.dtype for part in (*teacher, *student))]) or {}
    )
    monkeypatch.setitem(METHODS, "wary", method)
    recipe, student, batch, _ = prepared([KD(), method()])
    exact = recipe.loss(student.eval(), batch)["distillation"].item()
    with torch.autocast("cpu", torch.bfloat16):
        assert student(batch.inputs).dtype == torch.bfloat16
        rough = recipe.loss(student, batch)["distillation"].item()
    assert rough != exact
    assert rough == pytest.approx(exact, rel=0.1)
    assert seen == [False, *[torch.float32] * 6] * 2


def test_a_method_that_needs_more_classes_is_refused(monkeypatch, prepared):
    method = second_method("many", "weight")
    method.min_classes = 5
    monkeypatch.setitem(METHODS, "many", method)
    with pytest.raises(ConfigError, match="method 'many' needs 5 classes; 3 are given"):
        prepared([method()])


# The teacher's outputs


class Counting(torch.nn.Module):
    """A teacher that counts the images it is shown."""

    def __init__(self, network):
        super().__init__()
        self.network, self.shown = network, 0

    def forward_features(self, inputs):
        self.shown += len(inputs)
        return self.network.forward_features(inputs)

    def forward_head(self, features, pre_logits=False):
        return self.network.forward_head(features, pre_logits)

    def get_classifier(self):
        return self.network.get_classifier()


def test_cached_teacher_outputs_equal_fresh_ones(prepared):
    methods = [KDConfig()]
    (cached, student, batch, _), (fresh, _, _, _) = prepared(methods, cache=True), prepared(methods)
    student.eval()
    order = torch.randperm(len(batch.targets))
    shuffled = type(batch)(*(part[order] for part in batch[:3]))
    for given in (batch, shuffled):
        one, other = cached.loss(student, given), fresh.loss(student, given)
        for name in one:
            assert one[name].item() == pytest.approx(other[name].item(), rel=1e-6)


@pytest.mark.parametrize(
    ("augment", "views", "looks"),
    [
        (None, 0, 1),
        (None, 3, 1),
        (AugmentConfig(pad=1), 0, 4),
        (AugmentConfig(flip=True), 0, 4),
        (AugmentConfig(pad=1, flip=True), 1, 1),
        (AugmentConfig(pad=1, flip=True), 3, 3),
    ],
)
def test_the_teacher_looks_once_at_each_view_of_an_image(make_network, make_task, make_splits, augment, views, looks):
    splits = make_splits(make_task(), augment, train=64)
    teacher = Counting(make_network(1))
    config = DistillConfig(training=StudentTrainingConfig(epochs=4, batch_size=16, views=views))
    assert caches_teacher(make_recipe(config.methods), splits, views) == (looks < 4)
    distill(make_network(2), teacher, splits, config, seed=0, device=CPU)
    assert teacher.shown == 64 * looks


@pytest.mark.parametrize("slot", SLOTS)
def test_only_methods_that_change_the_teacher_forbid_the_cache(monkeypatch, make_task, make_splits, slot):
    if slot == "head":
        method = type("Headed", (Method,), {"name": "other", "fills": frozenset({"head"}), "Config": SimpleNamespace})
    else:
        method = second_method("other", slot)
    monkeypatch.setitem(METHODS, "other", method)
    recipe = Recipe([method()])
    assert caches_teacher(recipe, make_splits(make_task()), 0) == (slot != "teacher")


def test_a_method_of_the_data_slot_changes_what_student_and_teacher_see(monkeypatch, prepared):
    monkeypatch.setitem(METHODS, "negative", second_method("negative", "data"))
    recipe, _, batch, _ = prepared([KD(), METHODS["negative"]()])
    seen = recipe.prepare_batch(batch, torch.Generator())
    assert torch.equal(seen.inputs, 1 - batch.inputs)
    assert torch.equal(seen.targets, batch.targets)


def test_the_teacher_looks_again_at_what_a_method_altered_and_only_at_that(monkeypatch, prepared):
    def half_negative(self, batch, generator):
        altered = torch.arange(len(batch.targets)) % 2 == 1
        inputs = torch.where(altered[:, None, None, None], 1 - batch.inputs, batch.inputs)
        return batch._replace(inputs=inputs, altered=altered)

    method = second_method("negative", "data")
    method.data = half_negative
    monkeypatch.setitem(METHODS, "negative", method)
    cached, student, batch, _ = prepared([KD(), method()], cache=True)
    fresh = prepared([KD(), method()])[0]
    given = cached.prepare_batch(batch, torch.Generator())
    student.eval()
    one, other = (recipe.loss(student, given)["distillation"].item() for recipe in (cached, fresh))
    assert one == pytest.approx(other, rel=1e-6)
    assert one != pytest.approx(cached.loss(student, batch)["distillation"].item(), rel=1e-3)


def test_examples_count_by_their_weight_and_without_a_label_in_the_divergence_alone(prepared):
    recipe, student, batch, _ = prepared([KDConfig()])
    student.eval()
    alone = [recipe.loss(student, Batch(*(part[n : n + 1] for part in batch[:3]))) for n in range(4)]
    weight = torch.tensor([0.0, 2.0, 1.0, 0.5])
    four = Batch(*(part[:4].clone() for part in batch[:3]), weight=weight)
    four.targets[1] = UNLABELLED
    found = recipe.loss(student, four)
    labelled = torch.tensor([1.0, 0.0, 1.0, 1.0])
    for name, counted in (("cross_entropy", weight * labelled), ("distillation", weight)):
        expected = sum(float(w) * terms[name].item() for w, terms in zip(counted, alone, strict=True)) / 4
        assert found[name].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("augment", "views", "methods"),
    [(None, 0, ["kd"]), (AugmentConfig(pad=1, flip=True), 2, ["kd", {"name": "random_affine"}])],
    ids=["images as they are", "views, and copies beside them"],
)
def test_distilling_with_and_without_the_cache_ends_with_the_same_student(
    monkeypatch, make_network, make_task, make_splits, augment, views, methods
):
    splits = make_splits(make_task(), augment)
    config = DistillConfig(methods=methods, training=StudentTrainingConfig(epochs=5, batch_size=16, views=views))
    runs = []
    for cached in (True, False):
        monkeypatch.setattr("edgestill.distill.train.caches_teacher", lambda *_, cached=cached: cached)
        result = distill(make_network(2), make_network(1), splits, config, seed=0, device=CPU).fitted
        runs.append([record.loss for record in result.curve])
    assert runs[0] == pytest.approx(runs[1], rel=1e-3)


@pytest.mark.parametrize("epoch", [0, 2])
def test_views_go_on_from_a_saved_state_bit_for_bit(make_network, make_task, make_splits, epoch):
    splits = make_splits(make_task(), AugmentConfig(pad=1, flip=True))
    config = DistillConfig(training=StudentTrainingConfig(epochs=5, batch_size=16, views=2))
    saved = []

    def run(seed, **options):
        given = make_network(seed), make_network(1), splits, config
        return distill(*given, seed=0, device=CPU, compute=Compute("bf16"), **options)

    expected = run(2, save=lambda state: saved.append(state_bytes(state)))
    found = run(77, resume=torch.load(io.BytesIO(saved[epoch]), weights_only=True))
    assert all(torch.equal(v, found.student.state_dict()[k]) for k, v in expected.student.state_dict().items())
    assert [r.terms for r in found.fitted.curve] == [r.terms for r in expected.fitted.curve]


def test_what_is_kept_of_the_teacher_is_of_full_precision(prepared):
    recipe, _, batch, teacher = prepared([KDConfig()], cache=True)
    with Compute("bf16").autocast(CPU):
        kept = recipe.look_at_teacher(batch)
    torch.testing.assert_close(kept.logits, teacher(batch.inputs), rtol=1e-5, atol=1e-6)


def test_feature_maps_of_several_views_are_not_kept(make_network, make_task, make_splits):
    splits = make_splits(make_task(), AugmentConfig(flip=True), train=64)
    config = DistillConfig(methods=["kd", "diswot_plus"], training=StudentTrainingConfig(epochs=4, views=2))
    assert not caches_teacher(make_recipe(config.methods), splits, 2)
    assert caches_teacher(make_recipe(config.methods), make_splits(make_task()), 2)
    teacher = Counting(make_network(1))
    distill(make_network(2), teacher, splits, config, seed=0, device=CPU)
    assert teacher.shown >= 64 * 4


def test_the_teacher_is_used_in_evaluation_mode_and_does_not_change(make_network, make_task, make_splits):
    teacher = make_network(1).train()
    before = copy.deepcopy(teacher.state_dict())
    config = DistillConfig(training=StudentTrainingConfig(epochs=2, batch_size=16))
    distill(make_network(2), teacher, make_splits(make_task(), AugmentConfig(flip=True)), config, seed=0, device=CPU)
    assert not teacher.training
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_distillation_on_the_bundled_digits_beats_chance_by_far():
    splits = load_splits(DigitsConfig(), seed=0)
    task = splits.task
    teacher, student = (
        CifarResNet((1, 1, 1), widths, num_classes=10, mean=task.mean, std=task.std)
        for widths in ((8, 16, 32), (4, 8, 16))
    )
    initialise(student, "kaiming", 0)
    fit(teacher, Supervised(), splits.train, splits.validation, TrainingConfig(epochs=4), seed=0, device=CPU)
    config = DistillConfig(training=StudentTrainingConfig(epochs=4))
    shipped, result, *_ = distill(student, teacher, splits, config, seed=0, device=CPU)
    assert shipped is student
    assert result.best.accuracy > 0.7


class Recording(Counting):
    """A teacher that keeps what it is shown."""

    def __init__(self, network):
        super().__init__(network)
        self.seen = []

    def forward_features(self, inputs):
        self.seen.append(inputs.clone())
        return super().forward_features(inputs)


def test_teacher_and_student_see_the_same_mixed_images_and_labels_weigh_by_share(prepared):
    recipe, student, batch, teacher = prepared([KDConfig(distill_weight=0.5)])
    student.eval()
    recipe._teacher, seen = Recording(teacher), []
    student.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    mixing = Augmentation(AugmentConfig(pad=1, crop=(0.5, 1.0), mixup=1.0))
    given = mixing(batch, 0, torch.Generator().manual_seed(0))
    terms = recipe.loss(student, recipe.prepare_batch(given, torch.Generator()))
    assert torch.equal(recipe._teacher.seen[0], given.inputs)
    with torch.no_grad():
        s = F.log_softmax(student(given.inputs).double(), 1)
        softened = [F.log_softmax(network(given.inputs).double() / 4, 1) for network in (student, teacher)]
    share, (own, other) = given.mixed.share.double(), given.mixed.targets
    rows = torch.arange(len(own))
    expected = -(share * s[rows, own] + (1 - share) * s[rows, other]).mean() / 2
    assert terms["cross_entropy"].item() == pytest.approx(expected.item(), rel=1e-5)
    kl = (softened[1].exp() * (softened[1] - softened[0])).sum(1).mean() * 16 / 2
    assert terms["distillation"].item() == pytest.approx(kl.item(), rel=1e-4)


@pytest.mark.parametrize(
    "methods", [["kd"], ["kd", "hard"], ["lelp"], ["kd", "kd_aif"], ["kd", "diswot_plus"], ["kd", "rkd"]]
)
def test_every_method_learns_from_mixed_images_and_goes_on_bit_for_bit(make_network, make_task, make_splits, methods):
    splits = make_splits(make_task(), AugmentConfig(mixup=1.0, cutmix=1.0, erase=0.3))
    chosen = [{"name": "hard", "warmup_steps": 2} if name == "hard" else name for name in methods]
    config = DistillConfig(methods=chosen, training=StudentTrainingConfig(epochs=3, batch_size=16))
    saved = []

    def run(seed, **options):
        return distill(make_network(seed), make_network(1, (8, 12, 16)), splits, config, seed=0, device=CPU, **options)

    expected = run(2, save=lambda state: saved.append(state_bytes(state)))
    found = run(77, resume=torch.load(io.BytesIO(saved[0]), weights_only=True))
    assert all(torch.equal(v, found.student.state_dict()[k]) for k, v in expected.student.state_dict().items())


def test_the_logits_slot_transforms_what_target_and_divergence_read_and_not_what_the_labels_do(monkeypatch, prepared):
    monkeypatch.setitem(METHODS, "double", second_method("double", "logits"))
    plain, student, batch, _ = prepared([KD(KDConfig(temperature=2.0))])
    doubled = prepared([KD(KDConfig(temperature=4.0)), METHODS["double"]()])[0]
    expected, found = plain.loss(student.eval(), batch), doubled.loss(student, batch)
    assert found["cross_entropy"].item() == pytest.approx(expected["cross_entropy"].item(), rel=1e-6)
    assert found["distillation"].item() == pytest.approx(4 * expected["distillation"].item(), rel=1e-4)


def test_an_objective_takes_the_place_of_labels_and_teacher_and_weighs_examples(monkeypatch, prepared):
    monkeypatch.setitem(METHODS, "whole", second_method("whole", "objective"))
    recipe, student, batch, _ = prepared([METHODS["whole"]()])
    student.eval()
    losses = student(batch.inputs).square().sum(1).detach()
    found = {name: term.item() for name, term in recipe.loss(student, batch).items()}
    assert found == {"whole": pytest.approx(losses.mean().item(), rel=1e-5)}
    weighted = batch._replace(weight=torch.arange(len(losses)).float())
    expected = (weighted.weight * losses).mean().item()
    assert recipe.loss(student, weighted)["whole"].item() == pytest.approx(expected, rel=1e-5)


def test_the_divergence_compares_at_the_temperature_of_the_target(monkeypatch):
    class Config(MethodConfig):
        name: str = "warm"
        temperature: float = 7.0

    kind = second_method("warm", "target")
    kind.Config = Config
    monkeypatch.setitem(METHODS, "warm", kind)
    recipe = Recipe([kind(), METHODS["divergence"]()])
    assert recipe.methods[1].config.temperature == 7.0
    assert METHODS["divergence"]().config.temperature == 4.0


def test_gradients_of_the_terms_are_combined_as_a_method_says(monkeypatch, prepared):
    """With the sum of the terms the step is the plain one's; with one term alone it is that term's."""
    student, batch = prepared([KD()])[1:3]
    parameters = list(student.eval().parameters())

    def gradients(combine):
        kind = second_method("combining", "feature")
        if combine is not None:
            kind.combine_gradients = combine
        monkeypatch.setitem(METHODS, "combining", kind)
        recipe = prepared([KD(), kind()])[0]
        student.zero_grad(set_to_none=True)
        recipe.backward(recipe.loss(student, batch), lambda term: 2 * term, parameters)
        return [parameter.grad.clone() for parameter in parameters]

    plain = gradients(None)
    summed = gradients(lambda self, found: sum(found.values()))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(plain, summed, strict=True))
    alone = gradients(lambda self, found: found["cross_entropy"])
    expected = torch.autograd.grad(2 * 0.1 * F.cross_entropy(student(batch.inputs), batch.targets), parameters)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(alone, expected, strict=True))


def test_methods_are_told_of_each_step_and_choose_the_order_of_an_epoch(
    monkeypatch, make_network, make_task, make_splits
):
    moments = []
    kind = second_method("timed", "data")
    kind.data = lambda self, batch, generator: batch
    kind.order = lambda self, epoch, generator: torch.arange(8) if epoch else None
    kind.tick = lambda self, moment: moments.append(moment)
    monkeypatch.setitem(METHODS, "timed", kind)
    splits = make_splits(make_task(), train=16)
    config = DistillConfig.model_construct(
        methods=(KDConfig(), kind.Config(name="timed")), training=StudentTrainingConfig(epochs=2, batch_size=8)
    )
    distill(make_network(2), make_network(1), splits, config, seed=0, device=CPU)
    assert [moment.step for moment in moments] == [1, 2, 3]
    assert [moment.progress for moment in moments] == [0.25, 0.5, 1.0]  # the second epoch has one step
    assert torch.equal(moments[-1].batch.index, torch.arange(8))
    assert all(not term.requires_grad for term in moments[0].terms.values())
