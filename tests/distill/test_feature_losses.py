"""RKD, embedding regression and DisWOT+ against brute force, and all of them together with LELP."""

import itertools

import numpy as np
import pytest
import torch

from edgestill.distill.config import DistillConfig, StudentTrainingConfig
from edgestill.distill.methods.diswot_plus import DiswotPlusConfig
from edgestill.distill.methods.lelp.embedding_regression import EmbeddingRegressionConfig
from edgestill.distill.methods.rkd import RKDConfig, angles, distances
from edgestill.distill.recipe import make_recipe
from edgestill.distill.train import distill
from edgestill.pipeline.data.splits import UNLABELLED
from edgestill.pipeline.networks.network import View, look
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.training.metrics import evaluate

CPU = torch.device("cpu")


@pytest.fixture
def prepared(make_task, make_splits, make_network, make_context):
    """(method, teacher's view, student's view, batch), for a teacher of the given widths."""

    def make(config, widths=(8, 12, 16)):
        splits = make_splits(make_task())
        teacher, student = frozen(make_network(1, widths)), make_network(2).eval()
        recipe = make_recipe([config])
        context = make_context(recipe, splits, teacher, student)
        recipe.prepare(context)
        batch = splits.train.batch(torch.arange(7))
        return recipe.methods[0], look(teacher, batch.inputs), look(student, batch.inputs), batch

    return make


def huber(difference):
    return np.where(np.abs(difference) < 1, 0.5 * difference**2, np.abs(difference) - 0.5)


def test_distances_and_angles_are_those_of_every_pair_and_triplet():
    points = torch.randn(6, 3, dtype=torch.float64)
    one_by_one = np.array([[np.linalg.norm(a - b) for b in points.numpy()] for a in points.numpy()])
    mean = one_by_one[one_by_one > 0].mean()
    assert np.allclose(distances(points).numpy(), one_by_one / mean, atol=1e-6)
    found = angles(points)
    for i, j, k in itertools.product(range(6), repeat=3):
        a, b = points[j] - points[i], points[k] - points[i]
        expected = 0.0 if i in (j, k) else float(a @ b / (a.norm() * b.norm()))
        assert found[i, j, k].item() == pytest.approx(expected, abs=1e-9)


def test_angles_far_from_the_origin_and_between_near_examples_stay_cosines():
    """In float32 a direction is lost where two examples are near each other and far from all others."""
    points = torch.randn(8, 4)
    points[3] = points[5] + 1e-2
    points[6] = points[7] + 1e-6
    points += 100
    towards = torch.nn.functional.normalize(points.double()[None] - points.double()[:, None], dim=2)
    expected = (towards @ towards.transpose(1, 2)).float()
    near = torch.zeros(8, 8, 8, dtype=torch.bool)
    near[6, 7], near[7, 6], near[6, :, 7], near[7, :, 6] = True, True, True, True
    points.requires_grad_()
    found = angles(points)
    assert torch.allclose(found[~near], expected[~near], atol=2e-3)
    assert (found[near] == 0).all()
    found.square().sum().backward()
    assert points.grad.isfinite().all()
    assert points.grad.abs().max() < 1e3


def test_rkd_is_the_weighted_huber_loss_of_both():
    teacher, student = torch.randn(6, 3), torch.randn(6, 5)
    method = make_recipe([RKDConfig(distance_weight=2.0, angle_weight=3.0)]).methods[0]
    terms = method.feature(*(View(torch.empty(0), e, torch.empty(0)) for e in (teacher, student)), None)
    for name, weight, relate in (("rkd_distance", 2, distances), ("rkd_angle", 3, angles)):
        expected = weight * huber(relate(student).numpy() - relate(teacher).numpy()).mean()
        assert terms[name].item() == pytest.approx(expected, rel=1e-5)


def test_rkd_does_not_see_scale_rotation_or_shift_and_equal_examples_do_no_harm():
    teacher = torch.randn(8, 4)
    teacher[3] = teacher[5]
    moved = (3 * teacher @ torch.linalg.qr(torch.randn(4, 4)).Q + 7).requires_grad_()
    method = make_recipe([RKDConfig()]).methods[0]
    terms = method.feature(*(View(torch.empty(0), e, torch.empty(0)) for e in (teacher, moved)), None)
    assert all(term.item() < 1e-4 for term in terms.values())
    other = torch.randn(8, 4)
    other[3] = other[5]
    other.requires_grad_()
    sum(method.feature(*(View(torch.empty(0), e, torch.empty(0)) for e in (teacher, other)), None).values()).backward()
    assert other.grad.isfinite().all()


def test_the_best_linear_map_of_the_students_embedding_is_what_regression_ends_at(prepared):
    """Least squares on one batch, to which many steps of the method's own parameters come down."""
    method, teacher, student, batch = prepared(EmbeddingRegressionConfig(regression_weight=1.0))
    fixed = student._replace(embedding=(student.embedding.detach() - 0.5) * 3)
    target = ((teacher.embedding - method._mean) / method._scale).double().numpy()
    inputs = np.c_[fixed.embedding.double().numpy(), np.ones(7)]
    optimizer = torch.optim.LBFGS(method.trainable(), max_iter=300, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = method.feature(teacher, fixed, batch)["embedding_regression"]
        loss.backward()
        return loss

    optimizer.step(closure)
    best = np.linalg.lstsq(inputs, target, rcond=None)[0]
    expected = np.square(inputs @ best - target).mean()
    assert closure().item() == pytest.approx(expected, abs=1e-3)


def test_the_regressions_target_is_standardised(prepared, make_task, make_splits, make_network):
    method, *_ = prepared(EmbeddingRegressionConfig())
    train = make_splits(make_task()).train
    with torch.no_grad():
        seen = look(frozen(make_network(1, (8, 12, 16))), train.batch(torch.arange(90)).inputs).embedding
    scaled = (seen - method._mean) / method._scale
    assert scaled.mean(0).abs().max() < 1e-4
    assert scaled.var(0, correction=0).mean().item() == pytest.approx(1, rel=1e-4)


def test_diswot_plus_is_its_two_equations_written_out(prepared):
    config = DiswotPlusConfig(relation_weight=5.0, semantic_weight=7.0)
    method, teacher, student, batch = prepared(config, widths=(4, 6, 8))
    relations, maps = [], []
    for view in (teacher, student):
        flat = view.features.detach().double().flatten(1).numpy()
        relation = flat @ flat.T
        relations.append(relation / np.linalg.norm(relation, axis=1, keepdims=True))
        logits, embedding = view.logits.detach().double().requires_grad_(), view.embedding.detach().double()
        torch.nn.functional.cross_entropy(logits, batch.targets).backward()
        gradient = (logits.grad.T @ embedding).numpy()
        outer = [np.outer(g, g) for g in gradient]
        maps.append(np.stack([e / np.maximum(np.linalg.norm(e, axis=1, keepdims=True), 1e-12) for e in outer]))
    terms = method.feature(teacher, student, batch)
    expected = 5 * np.square(relations[0] - relations[1]).sum() / 7**2
    assert terms["diswot_relation"].item() == pytest.approx(expected, rel=1e-4)
    assert terms["diswot_semantic"].item() == pytest.approx(7 * np.square(maps[0] - maps[1]).sum() / (3 * 8), rel=1e-3)
    assert method.measures() == {"semantic_applies": 1.0}


def test_diswot_plus_leaves_out_what_cannot_be_compared_and_says_so(prepared):
    method, teacher, student, batch = prepared(DiswotPlusConfig())
    assert set(method.feature(teacher, student, batch)) == {"diswot_relation"}
    assert method.measures() == {"semantic_applies": 0.0}
    method, teacher, student, batch = prepared(DiswotPlusConfig(), widths=(4, 6, 8))
    some = batch._replace(targets=batch.targets.index_fill(0, torch.tensor([2, 4]), UNLABELLED))
    one = method.feature(teacher, student, some)
    kept = torch.tensor([0, 1, 3, 5, 6])
    few = [View(*(part[kept] for part in view)) for view in (teacher, student)]
    other = method.feature(*few, batch._replace(targets=batch.targets[kept]))
    assert one["diswot_semantic"].item() == pytest.approx(other["diswot_semantic"].item(), rel=1e-4)
    none = method.feature(teacher, student, batch._replace(targets=torch.full((7,), UNLABELLED)))
    assert set(none) == {"diswot_relation"}


def test_they_compose_with_lelp(make_task, make_splits, make_network):
    splits, names = make_splits(make_task()), ("lelp", "rkd", "embedding_regression", "diswot_plus")
    config = DistillConfig(methods=names, training=StudentTrainingConfig(epochs=3, batch_size=16, learning_rate=0.01))
    found = distill(make_network(2), make_network(1, (8, 12, 16)), splits, config, seed=0, device=CPU)
    assert set(found.fitted.curve[-1].terms) == {
        "cross_entropy",
        "distillation",
        "rkd_distance",
        "rkd_angle",
        "embedding_regression",
        "diswot_relation",
    }
    assert found.student.eval()(splits.train.batch(torch.arange(4)).inputs).shape == (4, 3)
    assert found.fitted.curve[-1].loss < found.fitted.curve[0].loss
    assert found.measures == {"diswot_plus.semantic_applies": 0.0}


def test_a_methods_own_weights_go_back_to_the_best_epoch_with_the_students(make_task, make_splits, make_network):
    """What ships scores on validation what the record of the best epoch says."""
    splits = make_splits(make_task())
    config = DistillConfig(
        methods=("lelp",), training=StudentTrainingConfig(epochs=6, batch_size=16, patience=0, learning_rate=1.0)
    )
    found = distill(make_network(2), make_network(1, (8, 12, 16)), splits, config, seed=0, device=CPU)
    assert found.fitted.best_epoch < 6
    assert evaluate(found.student, splits.validation, CPU) == found.fitted.best
