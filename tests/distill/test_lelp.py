"""LELP's statistics, targets, losses and folded head, each against an independent derivation."""

import copy
import random
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import scipy.linalg
import scipy.special
import torch
import torch.nn.functional as F
from torch import nn

from edgestill.distill.config import DistillConfig, StudentTrainingConfig
from edgestill.distill.methods import METHODS
from edgestill.distill.methods.base import Method
from edgestill.distill.methods.kd import KDConfig
from edgestill.distill.methods.lelp.head import FoldedHead, fold, with_classifier
from edgestill.distill.methods.lelp.method import LELP, LELPConfig
from edgestill.distill.methods.lelp.subclasses import (
    ClassMoments,
    class_embeddings,
    haar_rotation,
    null_space_projector,
)
from edgestill.distill.recipe import Recipe, make_recipe
from edgestill.distill.train import distill
from edgestill.export.onnx.write import to_onnx
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.splits import UNLABELLED, ImageSplit
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.networks.cost import measure_cost
from edgestill.pipeline.networks.network import View, look
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.search.hardware_costs import size_bound
from edgestill.search.latency.model import trace_student

CPU = torch.device("cpu")
LOSSES = ("decomposed", "tempered_classes", "tempered_product")


@pytest.fixture
def prepared(make_task, make_splits, make_network, make_context):
    """(method, recipe, teacher, student, a batch) after one look at the data."""

    def make(seed=0, targets=None, images=None, others=(), **settings):
        splits = make_splits(make_task())
        teacher, student = frozen(make_network(1, (8, 12, 16))), make_network(2)
        given = splits.train.images if images is None else images
        train = ImageSplit(given, splits.train.targets if targets is None else targets)
        recipe = make_recipe([LELPConfig(**settings), *others])
        context = make_context(recipe, splits, teacher, student, train=train, seed=seed)
        recipe.prepare(context)
        return recipe.methods[0], recipe, teacher, student, train.batch(torch.arange(30))

    return make


@pytest.fixture
def train(make_task, make_splits):
    return make_splits(make_task()).train


def q_of(method, teacher, batch):
    return method.target(look(teacher, batch.inputs), None, batch)[:, :, 1:]


def random_logits(subclasses, classes=3, count=30, seed=5):
    return 2 * torch.randn(count, classes * subclasses, generator=torch.Generator().manual_seed(seed))


def as_view(logits):
    return View(torch.empty(0), torch.empty(0), logits)


# Targets


@pytest.mark.parametrize("directions", ["pca", "random", "kmeans"])
@pytest.mark.parametrize("loss", LOSSES)
def test_subclasses_sum_to_the_class(prepared, directions, loss):
    method, _, teacher, _, batch = prepared(directions=directions, loss=loss, temperature=3.0)
    target = method.target(look(teacher, batch.inputs), None, batch)
    at = 1.0 if loss == "tempered_product" else 3.0
    expected = scipy.special.softmax(teacher(batch.inputs).double().numpy() / at, axis=1)
    summed = (target[:, :, :1] * target[:, :, 1:]).sum(2)
    assert np.allclose(summed.numpy(), expected, atol=1e-6)
    assert target.shape == (30, 3, 9)


@pytest.mark.parametrize("directions", ["pca", "random", "kmeans"])
def test_what_the_logits_see_does_not_move_the_subclasses(prepared, directions):
    method, _, teacher, _, batch = prepared(directions=directions)
    weight = teacher.linear.weight.detach()
    projector, rank = null_space_projector(weight.double())
    assert rank == 3
    assert (weight.double() @ projector).abs().max() < 1e-6
    view = look(teacher, batch.inputs)
    moved = view._replace(embedding=view.embedding + torch.randn(30, 3) @ weight)
    aside = view._replace(embedding=view.embedding + torch.randn(30, 16))
    own, same, other = (method.target(each, None, batch)[:, :, 1:] for each in (view, moved, aside))
    assert torch.allclose(own, same, atol=1e-4)
    assert not torch.allclose(own, other, atol=1e-2)


@pytest.mark.parametrize("directions", ["pca", "random"])
def test_directions_are_orthonormal_and_rotations_are_too(prepared, directions):
    method, *_ = prepared(directions=directions, standardise=False)
    for weights in method._projections.weights:
        assert torch.allclose(weights.T @ weights, torch.eye(8), atol=1e-5)
    rotation = haar_rotation(8, torch.Generator().manual_seed(0))
    assert torch.allclose(rotation.T @ rotation, torch.eye(8, dtype=torch.float64), atol=1e-12)


def test_rotations_give_all_directions_the_same_variance_on_average():
    variances = torch.diag(torch.tensor([8.0, 4, 2, 1, 0.5, 0.25, 0.1, 0.01], dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    rotations = [haar_rotation(8, generator) for _ in range(200)]
    mean = torch.stack([(q.T @ variances @ q).diagonal() for q in rotations]).mean(0)
    assert mean.max() / mean.min() < 1.2
    assert sum(float(q.det()) > 0 for q in rotations) in range(70, 131)  # reflections too


def test_standardised_projections_have_mean_0_and_variance_1_in_their_class(prepared, train):
    method, _, teacher, _, _ = prepared()
    [(embeddings, classes)] = class_embeddings(teacher, train, CPU)
    for c in range(3):
        u = embeddings[classes == c].float() @ method._projections.weights[c] + method._projections.offsets[c]
        assert torch.allclose(u.mean(0), torch.zeros(8), atol=1e-4)
        assert torch.allclose(u.var(0, correction=0), torch.ones(8), atol=1e-4)


def test_streamed_statistics_give_the_principal_axes_of_all_embeddings_at_once(prepared, train):
    method, _, teacher, _, _ = prepared(subclasses=4, standardise=False)
    with torch.no_grad():
        embeddings = look(teacher, train.batch(torch.arange(len(train))).inputs).embedding.double().numpy()
    weight = teacher.linear.weight.detach().double().numpy()
    projector = np.eye(16) - np.linalg.pinv(weight) @ weight
    for c in range(3):
        own = embeddings[train.targets.numpy() == c] @ projector
        expected = np.linalg.svd(own - own.mean(0))[2][:4].T
        found = method._projections.weights[c].double().numpy()
        assert scipy.linalg.subspace_angles(expected, found).max() < 1e-4


def test_moments_do_not_depend_on_how_the_examples_are_cut_into_batches():
    points, classes = 100 + torch.randn(60, 5, dtype=torch.float64), torch.arange(60) % 2
    moments = ClassMoments(2, 5)
    for cut in ([0, 1], [1, 2], [2, 31], [31, 60]):
        moments.add(points[slice(*cut)], classes[slice(*cut)])
    for c in range(2):
        expected = np.cov(points[classes == c].numpy().T, bias=True)
        assert np.allclose(moments.covariance(c).numpy(), expected, atol=1e-10)
    assert moments.count.tolist() == [30, 30]


@pytest.mark.parametrize("directions", ["pca", "kmeans"])
def test_a_hot_softmax_is_uniform_and_a_cold_one_points_at_the_largest_projection(prepared, directions):
    method, _, teacher, _, batch = prepared(directions=directions, subclass_temperature=1e-2)
    embedding = look(teacher, batch.inputs).embedding
    u = torch.einsum("nd,cds->ncs", embedding, method._projections.weights) + method._projections.offsets
    cold = method._projections.probabilities(embedding, 1e-6)
    assert torch.equal(cold.argmax(2), u.argmax(2))
    assert cold.max(2).values.min() > 0.99
    assert torch.allclose(method._projections.probabilities(embedding, 1e6), torch.full((30, 3, 8), 1 / 8), atol=1e-4)


def test_a_cold_softmax_over_centres_is_the_nearest_centre(prepared, train):
    from sklearn.cluster import KMeans

    from edgestill.pipeline.frozen import derive_seed

    method, _, teacher, _, _ = prepared(directions="kmeans", subclasses=4, null_space=False)
    [(embeddings, classes)] = class_embeddings(teacher, train, CPU)
    q = method._projections.probabilities(embeddings, 1e-6)
    for c in range(3):
        seed = derive_seed(derive_seed(0, "lelp"), "kmeans", c) % 2**32
        expected = KMeans(4, n_init=4, random_state=seed).fit_predict(embeddings[classes == c].numpy())
        assert q[classes == c][:, c].argmax(1).tolist() == expected.tolist()


# Losses


def test_with_one_subclass_it_is_plain_kd_gradients_and_all(prepared):
    method, recipe, teacher, student, batch = prepared(subclasses=1, temperature=3.0)
    method._linear.load_state_dict(student.linear.state_dict())
    plain = copy.deepcopy(student)
    kd = make_recipe([KDConfig(temperature=3.0, distill_weight=1.0)])
    kd._teacher = teacher
    found, expected = recipe.loss(student, batch), kd.loss(plain, batch)
    for name in expected:
        assert found[name].item() == pytest.approx(expected[name].item(), rel=1e-5, abs=1e-9)
    sum(found.values()).backward()
    sum(expected.values()).backward()
    shipped = dict(recipe.deployable(student).named_parameters())
    for name, parameter in plain.named_parameters():
        own = shipped[name.replace("linear.", "linear.linear.")]
        assert torch.allclose(own.grad, parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", ["decomposed", "tempered_classes"])
def test_with_uniform_targets_a_head_without_preferences_learns_what_plain_kd_teaches(prepared, loss):
    method, _, teacher, _, batch = prepared(subclass_temperature=100.0, loss=loss, temperature=1.0)
    method.config = method.config.model_copy(update={"subclass_temperature": 1e9})
    classes = random_logits(1)
    target = method.target(look(teacher, batch.inputs), None, batch)
    found = method.divergence(target, as_view(classes.repeat_interleave(8, 1)))
    expected = F.kl_div(classes.log_softmax(1), teacher(batch.inputs).softmax(1), reduction="none").sum(1)
    assert torch.allclose(found, expected, atol=1e-4)


def test_decomposed_is_the_joint_divergence_by_the_chain_rule(prepared):
    """At T = 1 and lambda = 1; lambda = 0 leaves plain KD, and T then tempers the classes alone."""
    method, _, teacher, _, batch = prepared(temperature=1.0, subclass_weight=1.0)
    target, view = method.target(look(teacher, batch.inputs), None, batch), as_view(random_logits(8))
    joint = (target[:, :, :1] * target[:, :, 1:]).flatten(1).double().numpy()
    student = scipy.special.softmax(view.logits.double().numpy(), axis=1)
    expected = scipy.special.rel_entr(joint, student).sum(1)
    assert np.allclose(method.divergence(target, view).numpy(), expected, rtol=1e-4)
    method.config = method.config.model_copy(update={"temperature": 3.0, "subclass_weight": 0.0})
    target = method.target(look(teacher, batch.inputs), None, batch)
    log_s = F.log_softmax(fold(view.logits, 8) / 3, 1)
    kd = 9 * F.kl_div(log_s, F.softmax(teacher(batch.inputs) / 3, 1), reduction="none").sum(1)
    assert torch.allclose(method.divergence(target, view), kd, rtol=1e-4)


@pytest.mark.parametrize("loss", ["tempered_classes", "tempered_product"])
def test_the_joint_readings_equal_their_equations_and_agree_where_nothing_is_tempered(prepared, loss):
    found = {}
    for temperature in (1.0, 2.5):
        method, _, teacher, _, batch = prepared(loss=loss, temperature=temperature)
        target, view = method.target(look(teacher, batch.inputs), None, batch), as_view(random_logits(8))
        found[temperature] = method.divergence(target, view).numpy()
        z = teacher(batch.inputs).double().numpy()
        q = target[:, :, 1:].double().numpy()
        if loss == "tempered_classes":
            joint = scipy.special.softmax(z / temperature, axis=1)[:, :, None] * q
        else:
            product = scipy.special.softmax(z, axis=1)[:, :, None] * q
            joint = product ** (1 / temperature)
            joint /= joint.sum((1, 2), keepdims=True)
        student = scipy.special.softmax(view.logits.double().numpy() / temperature, axis=1)
        expected = temperature**2 * scipy.special.rel_entr(joint.reshape(30, -1), student).sum(1)
        assert np.allclose(found[temperature], expected, rtol=1e-3)
    method, _, teacher, _, batch = prepared(temperature=1.0, subclass_weight=1.0)
    same = method.divergence(method.target(look(teacher, batch.inputs), None, batch), as_view(random_logits(8)))
    assert np.allclose(found[1.0], same.numpy(), rtol=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_student_that_says_the_target_has_no_divergence_and_another_has(prepared, loss):
    method, _, teacher, _, batch = prepared(loss=loss, temperature=2.0)
    target = method.target(look(teacher, batch.inputs), None, batch)
    p, q = target[:, :, :1], target[:, :, 1:]
    says = {
        "decomposed": 2 * p.log() + q.log(),
        "tempered_classes": 2 * (p * q).log(),
        "tempered_product": (p * q).log(),
    }[loss]
    perfect = method.divergence(target, as_view(says.flatten(1)))
    assert perfect.abs().max() < 1e-5
    assert method.divergence(target, as_view(random_logits(8))).min() > 1e-2


def test_labels_enter_by_the_summed_probability_and_only_if_asked_for(prepared):
    _, recipe, _, student, batch = prepared()
    assert recipe.loss(student.eval(), batch)["cross_entropy"].item() == 0
    method, recipe, _, student, batch = prepared(distill_weight=0.75)
    terms = recipe.loss(student.eval(), batch)
    with torch.no_grad():
        joint = method.head(look(student, batch.inputs).embedding).double().softmax(1)
    summed = joint.reshape(30, 3, 8).sum(2)
    expected = -np.mean([np.log(summed[n, y]) for n, y in enumerate(batch.targets.tolist())])
    assert terms["cross_entropy"].item() == pytest.approx(0.25 * expected, rel=1e-5)


class Halves(Method):
    """Stands for a method of the weight slot."""

    name, fills, Config = "halves", frozenset({"weight"}), SimpleNamespace

    def weight(self, teacher, student, batch):
        return torch.full((len(batch.targets),), 0.5), (batch.index % 2).float()


class Negative(Method):
    """Stands for a method of the data slot: every other image as its negative."""

    name, fills, Config = "negative", frozenset({"data"}), SimpleNamespace

    def data(self, batch, generator):
        altered = batch.index % 2 == 0
        inputs = torch.where(altered[:, None, None, None], 1 - batch.inputs, batch.inputs)
        return batch._replace(inputs=inputs, altered=altered)


def test_other_methods_weigh_and_alter_and_altered_inputs_get_a_target_of_their_own(
    monkeypatch, make_task, make_splits, make_network, make_context
):
    monkeypatch.setitem(METHODS, "halves", Halves)
    monkeypatch.setitem(METHODS, "negative", Negative)
    splits, terms = make_splits(make_task()), []
    teacher, student = frozen(make_network(1, (8, 12, 16))), make_network(2).eval()
    for cache in (True, False):
        recipe = Recipe([Negative(), LELP(), Halves()])
        context = make_context(recipe, splits, teacher, student)
        recipe.prepare(context, Augmentation() if cache else None)
        batch = recipe.prepare_batch(splits.train.batch(torch.arange(12)), torch.Generator())
        terms.append({name: term.item() for name, term in recipe.loss(student, batch).items()})
    assert terms[0] == pytest.approx(terms[1], rel=1e-4)
    with torch.no_grad():
        view, method = look(student, batch.inputs), recipe.methods[1]
        target = method.target(look(teacher, batch.inputs), None, batch)
        logits = method.head(view.embedding)
        each = method.divergence(target, as_view(logits))
        labels = F.cross_entropy(fold(logits, 8), batch.targets)
    assert terms[0]["distillation"] == pytest.approx(float((each * (batch.index % 2)).mean()), rel=1e-4)
    assert terms[0]["cross_entropy"] == pytest.approx(0.5 * labels.item(), rel=1e-4)


# The head


def test_the_folded_logits_are_the_log_of_summed_probabilities_and_subclasses_have_no_order():
    logits = random_logits(8).double()
    expected = logits.softmax(1).reshape(30, 3, 8).sum(2).log() + logits.logsumexp(1, keepdim=True)
    assert torch.allclose(fold(logits, 8), expected)
    order = torch.cat([8 * c + torch.randperm(8) for c in range(3)])
    assert torch.allclose(fold(logits[:, order], 8), fold(logits, 8))


def test_what_ships_is_the_student_with_one_linear_and_nothing_copied(prepared):
    _, recipe, _, student, _ = prepared(subclasses=5)
    shipped = recipe.deployable(student)
    counts = [sum(p.numel() for p in network.parameters()) for network in (student, shipped)]
    assert counts[1] - counts[0] == (8 + 1) * 3 * (5 - 1)
    assert shipped.layer1 is student.layer1
    assert isinstance(student.linear, nn.Linear)
    assert isinstance(shipped.get_classifier(), FoldedHead)


def test_a_classifier_deeper_in_the_network_is_replaced_too(make_network):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = make_network(0)

        def get_classifier(self):
            return self.inner.linear

        def forward(self, inputs):
            return self.inner(inputs)

    network, inputs = Wrapped().eval(), torch.rand(2, 1, 8, 8)
    replaced = with_classifier(network, nn.Identity())
    assert replaced(inputs).shape == (2, 8)
    assert network(inputs).shape == (2, 3)


def test_the_exported_file_answers_as_the_student_does_also_when_built_from_its_weights(
    make_task, make_splits, make_network, tmp_path
):
    task, config = make_task(), DistillConfig(methods=("lelp",), training=StudentTrainingConfig(epochs=2))
    student = distill(
        make_network(2), make_network(1, (8, 12, 16)), make_splits(task), config, seed=0, device=CPU
    ).student
    rebuilt = make_recipe(config.methods).deployable(make_network(3))
    rebuilt.load_state_dict(student.state_dict())
    images = torch.rand(7, *task.input_shape)
    with torch.no_grad():
        expected = student.eval()(images).numpy()
    for network in (student, rebuilt):
        session = onnxruntime.InferenceSession(to_onnx(network, task.inputs, 20))
        [found] = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        assert found.shape == (7, 3)
        assert np.abs(found - expected).max() < 1e-4


# What it refuses, and whose class counts


def test_classes_with_too_few_examples_are_refused_with_their_counts(prepared):
    few = torch.tensor([0] * 4 + [1] * 8 + [2] * 78)
    with pytest.raises(ConfigError) as caught:
        prepared(targets=few)
    assert "class 0 has 4 of the 90 training examples, and 8 subclasses need 9 or more" in str(caught.value)
    assert "class 1 has 8" in str(caught.value)
    assert "class 2" not in str(caught.value)


def test_too_few_examples_show_before_any_training_unless_the_teacher_has_to_say_their_class(make_task, make_split):
    recipe, task = make_recipe([LELPConfig()]), make_task()
    for count, refused in ((24, True), (27, False)):
        split = make_split(task, count)
        unlabelled = ImageSplit(split.images, torch.full_like(split.targets, UNLABELLED))
        recipe.check(task, unlabelled)
        if refused:
            with pytest.raises(ConfigError, match="class 2 has 8 of the 24 training examples"):
                recipe.check(task, split)
        else:
            recipe.check(task, split)


@pytest.mark.parametrize("different", [1, 5, 8, 9])
def test_kmeans_needs_more_different_embeddings_than_subclasses(prepared, make_task, make_splits, different):
    """Else every example is its own centre, and the distance that is the unit is 0."""
    train = make_splits(make_task()).train
    images = train.images.clone()
    own = torch.nonzero(train.targets == 1).flatten()
    images[own] = images[own[torch.arange(len(own)) % different]].clone()
    settings = {"images": images, "directions": "kmeans"}
    if different > 8:
        method, _, teacher, _, batch = prepared(**settings)
        assert q_of(method, teacher, batch).isfinite().all()
        return
    with pytest.raises(ConfigError, match="30 training examples of class 1 have no more than 8 different embeddings"):
        prepared(**settings)


def test_more_subclasses_than_unseen_directions_are_refused(prepared):
    with pytest.raises(ConfigError, match=r"of the 16 .* 3 are its logits' own; lower lelp.subclasses to 13"):
        prepared(subclasses=14)
    prepared(subclasses=14, directions="kmeans")


def test_a_class_without_variance_is_refused(prepared, make_network, make_task, make_splits, make_context):
    splits = make_splits(make_task())
    images = splits.train.images.clone()
    images[splits.train.targets == 1] = images[1].clone()
    recipe = make_recipe([LELPConfig()])
    student = make_network(2)
    teacher, train = frozen(make_network(1, (8, 12, 16))), ImageSplit(images, splits.train.targets)
    context = make_context(recipe, splits, teacher, student, train=train)
    with pytest.raises(ConfigError, match="class 1 vary in 0 directions"):
        recipe.prepare(context)


def test_examples_without_a_label_belong_to_the_class_that_the_teacher_says(make_network, train):
    teacher = frozen(make_network(1, (8, 12, 16)))
    targets = torch.where(torch.arange(90) < 45, train.targets, UNLABELLED)
    [(_, classes)] = class_embeddings(teacher, ImageSplit(train.images, targets), CPU)
    answers = teacher(train.batch(torch.arange(90)).inputs).argmax(1)
    assert torch.equal(classes[:45], train.targets[:45])
    assert torch.equal(classes[45:], answers[45:])


# Controls


def test_shuffled_targets_are_those_of_another_example_of_the_class(prepared, train):
    method, _, teacher, _, _ = prepared()
    shuffled = prepared(control="shuffled")[0]
    batch = train.batch(torch.arange(90))
    view = look(teacher, batch.inputs)
    own, other = method.target(view, None, batch), shuffled.target(view, None, batch)
    assert torch.equal(own[:, :, 0], other[:, :, 0])
    donors = torch.cdist(own[:, :, 1:].flatten(1), other[:, :, 1:].flatten(1)).argmin(0)
    assert sorted(donors.tolist()) == list(range(90))
    assert torch.equal(train.targets[donors], train.targets)
    assert (donors == torch.arange(90)).sum() < 15


def test_a_random_partition_belongs_to_the_example_and_not_to_what_it_looks_like(prepared):
    method, _, teacher, _, batch = prepared(control="random_partition")
    q = q_of(method, teacher, batch)
    assert set(q.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(q, q_of(method, teacher, batch._replace(inputs=1 - batch.inputs)))
    for loss in LOSSES:
        method.config = method.config.model_copy(update={"loss": loss})
        target = method.target(look(teacher, batch.inputs), None, batch)
        assert method.divergence(target, as_view(random_logits(8))).isfinite().all()


@pytest.mark.parametrize("name", ["resnet", "nb201", "mobile", "vit", "text_transformer", "nni"])
def test_students_of_every_space_take_the_head_at_its_own_cost_and_no_more(name, small_space, make_task_for):
    space = small_space(name)
    task = make_task_for(space, side=16, classes=2)
    architecture = space.sample(random.Random(0))
    recipe = make_recipe([LELPConfig(subclasses=4)])
    plain, shipped = space.build(architecture, task), recipe.deployable(space.build(architecture, task))
    width = plain.get_classifier().in_features
    found, own = (measure_cost(lambda n=n: n, task.input_shape, task.input_dtype) for n in (shipped, plain))
    assert found.params - own.params == (width + 1) * 2 * 3
    assert found.flops - own.flops == width * 2 * 3


def test_the_size_bound_holds_with_the_head(small_space, make_task):
    space, task = small_space("resnet"), make_task(classes=10)
    architecture = space.sample(random.Random(0))
    shipped = make_recipe([LELPConfig()]).deployable(space.build(architecture, task))
    assert len(to_onnx(shipped, task.inputs, 20)) <= size_bound(shipped, trace_student(space, architecture, task))
