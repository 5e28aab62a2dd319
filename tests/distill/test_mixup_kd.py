"""Mixup in KD: mixes, the unmixed share, what the teacher sees, MIXSTD and the smoothness measures."""

import pytest
import torch
import torch.nn.functional as F

from edgestill.distill.config import DistillConfig
from edgestill.distill.methods import METHODS
from edgestill.distill.methods.data.mixup_kd import MixupKD, MixupKDConfig, dispersion
from edgestill.distill.recipe import make_recipe
from edgestill.distill.train import distill
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.mixing import mixed
from edgestill.pipeline.data.splits import Batch, Mixed
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.networks.network import View, look
from edgestill.pipeline.teachers.teacher import frozen

CPU = torch.device("cpu")


@pytest.fixture
def batch(make_task, make_split):
    return make_split(make_task(), 40).batch(torch.arange(20, 40))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_each_image_is_mixed_by_a_share_of_its_own_and_the_labels_likewise(batch, make_split, make_task):
    split = make_split(make_task(), 40)
    found = MixupKD().data(batch, generator())
    share, (first, second) = found.mixed.share, found.mixed.index
    assert len(share.unique()) == 20
    expected = (
        share[:, None, None, None] * split.images[first] + (1 - share[:, None, None, None]) * split.images[second]
    )
    torch.testing.assert_close(found.inputs, expected)
    assert torch.equal(found.mixed.targets, torch.stack([split.targets[first], split.targets[second]]))


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.25, 5), (0.9, 18), (1.0, 20)])
def test_exactly_the_unmixed_share_is_left_as_it_is(batch, share, count):
    found = MixupKD(MixupKDConfig(unmixed=share)).data(batch, generator(3))
    if count == 20:
        assert found is batch
        return
    left = found.mixed.share == 1
    assert int(left.sum()) == count
    assert torch.equal(left, ~found.altered)
    assert torch.equal(found.inputs[left], batch.inputs[left])
    assert torch.equal(found.mixed.targets[:, left], batch.targets[left].expand(2, -1))
    assert torch.equal(found.mixed.index[:, left], batch.index[left].expand(2, -1))


def test_the_teacher_answers_to_the_mixes_and_its_kept_answers_serve_the_rest(
    make_task, make_splits, make_network, make_context
):
    splits = make_splits(make_task())
    teacher = frozen(make_network(1)).eval()
    recipe = make_recipe([MixupKDConfig(unmixed=0.5)])
    recipe.prepare(make_context(recipe, splits, teacher, make_network(2)), Augmentation())
    plain = splits.train.batch(torch.arange(30, 54))
    found = recipe.prepare_batch(plain, generator())
    view = recipe.look_at_teacher(found)
    with torch.no_grad():
        torch.testing.assert_close(view.logits, look(teacher, found.inputs).logits, atol=1e-5, rtol=1e-4)
    kept = recipe._answers._kept
    kept[0] = type(kept[0])(View(*(part + 7 for part in kept[0].rows(torch.arange(90)))), CPU)
    moved = recipe.look_at_teacher(found).logits - view.logits
    torch.testing.assert_close(moved, 7.0 * (~found.altered).float()[:, None].expand_as(moved), atol=1e-4, rtol=0)


def test_images_that_were_mixed_before_are_refused_and_so_is_text(batch, make_token_task, make_split):
    twice = mixed(batch, AugmentConfig(mixup=1.0), generator())
    with pytest.raises(ConfigError, match=r"data\.augment\.mixup"):
        MixupKD().data(twice, generator())
    task = make_token_task()
    with pytest.raises(ConfigError, match="transforms images"):
        MixupKD().check(task, make_split(task, 9))


def views(classes, n=6):
    logits = [2 * torch.randn(n, classes, generator=generator(i)) for i in (1, 2)]
    return [View(torch.zeros(n, 2, 1, 1), torch.zeros(n, 2), one) for one in logits]


def test_mixstd_is_the_papers_loss_on_mixed_labels():
    teacher, student = views(5)
    first, second, share = torch.arange(6) % 5, (torch.arange(6) + 2) % 5, torch.rand(6)
    whose = Mixed(torch.stack([first, second]), torch.zeros(2, 6, dtype=torch.int64), share)
    batch = Batch(torch.zeros(6, 1, 2, 2), torch.full((6,), -100), torch.arange(6), mixed=whose)
    found = METHODS["mixstd"]().objective(teacher, student, batch)
    t, s = (view.logits / view.logits.std(1, keepdim=True) for view in (teacher, student))
    labels = share[:, None] * F.one_hot(first, 5) + (1 - share[:, None]) * F.one_hot(second, 5)
    cross_entropy = -(labels * s.log_softmax(1)).sum(1)
    kl = (t.softmax(1) * (t.log_softmax(1) - s.log_softmax(1))).sum(1)
    torch.testing.assert_close(found, 0.1 * cross_entropy + 0.9 * kl, atol=1e-5, rtol=1e-4)


def test_mixstd_of_an_unmixed_batch_is_kd_at_the_temperature_of_the_deviation_and_unmoved_by_scale():
    teacher, student = views(4)
    batch = Batch(torch.zeros(6, 1, 2, 2), torch.arange(6) % 4, torch.arange(6))
    method = METHODS["mixstd"]()
    plain = method.objective(teacher, student, batch)
    scaled = method.objective(
        teacher._replace(logits=3 * teacher.logits), student._replace(logits=5 * student.logits), batch
    )
    torch.testing.assert_close(plain, scaled, atol=1e-5, rtol=1e-4)
    for n in range(6):
        t, s = teacher.logits[n] / teacher.logits[n].std(), student.logits[n] / student.logits[n].std()
        expected = 0.1 * F.cross_entropy(s, batch.targets[n]) + 0.9 * F.kl_div(
            s.log_softmax(0), t.softmax(0), reduction="sum"
        )
        assert float(plain[n]) == pytest.approx(float(expected), rel=1e-4)


def test_mixstd_refuses_two_classes_where_no_term_has_a_gradient(make_task, make_splits):
    teacher, student = views(2)
    logits = student.logits.requires_grad_()
    batch = Batch(torch.zeros(6, 1, 2, 2), torch.arange(6) % 2, torch.arange(6))
    METHODS["mixstd"]().objective(teacher, student._replace(logits=logits), batch).sum().backward()
    assert logits.grad.abs().max() < 1e-3
    data = make_splits(make_task(classes=2))
    with pytest.raises(ConfigError, match="needs 3 classes"):
        make_recipe([METHODS["mixstd"].Config()]).check(data.task, data.train)


def test_dispersion_is_the_distance_to_the_classes_mean_at_length_1():
    angles = torch.tensor([0.0, 0.2, 1.0, 1.6])
    points = torch.stack([angles.cos(), angles.sin()], 1) * torch.tensor([[1.0], [5.0], [2.0], [3.0]])
    expected = (torch.tensor([0.1, 0.1, 0.3, 0.3]).double().sin()).mean()
    # two unit vectors at an angle 2 a are sin a from their mean
    assert dispersion(points, torch.tensor([0, 0, 1, 1])) == pytest.approx(float(expected), rel=1e-6)
    assert dispersion(7 * points, torch.tensor([0, 0, 1, 1])) == pytest.approx(float(expected), rel=1e-6)


def test_the_papers_recipe_trains_and_tells_how_smooth_both_networks_are(make_task, make_splits, make_network):
    told = {"methods": ["mixup_kd", "mixstd"], "training": {"epochs": 2, "batch_size": 32, "patience": 0}}
    splits = make_splits(make_task())
    config = DistillConfig.model_validate(told)
    done = distill(make_network(2), make_network(1), splits, config, seed=0, device=CPU)
    assert set(done.fitted.curve[-1].terms) == {"mixstd"}
    with torch.no_grad():
        logits = done.student.eval()(splits.reference.batch(torch.arange(18)).inputs)
    assert done.measures["mixup_kd.student_max_prob"] == pytest.approx(
        float(logits.softmax(1).amax(1).mean()), rel=1e-4
    )
    assert done.measures["mixup_kd.student_dispersion"] > 0
    assert {"mixup_kd.teacher_max_prob", "mixup_kd.teacher_dispersion"} <= set(done.measures)
