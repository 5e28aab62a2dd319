"""KD^3: the selection, the mixed moments and the contrast by hand, and what ships."""

import dataclasses
import math

import pytest
import torch

from edgestill.distill.config import DistillConfig
from edgestill.distill.methods.data.kd3.method import KD3, KD3Config
from edgestill.distill.methods.data.kd3.pool import mixed_moments, nt_xent, selected, teachers_share
from edgestill.distill.methods.data.kd3.transfer import Transferred
from edgestill.distill.recipe import make_recipe
from edgestill.distill.train import distill
from edgestill.flows.config import load_config
from edgestill.pipeline.data.splits import UNLABELLED
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.networks.network import look
from edgestill.pipeline.teachers.teacher import frozen

CPU = torch.device("cpu")


@pytest.fixture
def prepared(make_task, make_splits, make_network, make_context):
    def make(labelled=90, **settings):
        splits = make_splits(make_task())
        hidden = splits.train.targets.clone()
        hidden[labelled:] = UNLABELLED
        splits = dataclasses.replace(splits, train=dataclasses.replace(splits.train, targets=hidden))
        teacher, student = frozen(make_network(1, (8, 12, 16))), make_network(2).eval()
        recipe = make_recipe([KD3Config(**settings)])
        recipe.prepare(make_context(recipe, splits, teacher, student))
        return recipe, recipe.methods[0], splits, teacher, student

    return make


def test_the_teachers_vote_fades_out_by_the_papers_clock():
    for epoch, expected in ((0, 0.993), (60, 0.853), (119, 0.268)):
        assert 1 - math.exp(-5 * ((epoch + 1) / 160 - 1) ** 2) == pytest.approx(expected, abs=1e-3)
        assert teachers_share((epoch + 1) / 160 - 1e-9) == pytest.approx(expected, abs=1e-3)
    assert teachers_share(0.75) == 0


def test_a_class_with_fewer_votes_has_a_lower_threshold_and_equal_votes_have_095():
    p = torch.tensor([[0.96, 0.04], [0.94, 0.06], [0.90, 0.10], [0.97, 0.03], [0.3, 0.7], [0.45, 0.55]])
    beta = 2 / 4  # of class 1
    expected = [row.max() > 0.95 * (1.0 if row.argmax() == 0 else beta / (2 - beta)) for row in p]
    assert selected(p.log()).tolist() == [bool(e) for e in expected]
    assert selected(p.log()).tolist() == [True, False, False, True, True, True]
    even = torch.tensor([[0.96, 0.04], [0.94, 0.06], [0.04, 0.96], [0.06, 0.94]])
    assert selected(even.log()).tolist() == [True, False, True, False]


def test_an_epoch_shows_all_labelled_examples_and_those_of_the_pool_that_are_sure(prepared):
    _, method, *_ = prepared(labelled=40)
    with torch.no_grad():
        votes = method._votes()
    shown = method.order(0, torch.Generator().manual_seed(0)).sort().values
    kept = torch.arange(40, 90)[selected(votes)]
    assert torch.equal(shown, torch.cat([torch.arange(40), kept]))
    assert method.measures()["kept"] == pytest.approx(len(kept) / 50)
    assert len(prepared(labelled=40, selects=False)[1].order(0, torch.Generator())) == 90


def test_the_votes_are_the_teachers_and_the_students_by_the_share(prepared):
    _, method, splits, teacher, student = prepared()
    method._progress = 0.5
    share = 1 - math.exp(-1.25)
    images = splits.train.batch(torch.arange(90)).inputs
    with torch.no_grad():
        expected = share * teacher(images) + (1 - share) * method.deployable(student).eval()(images)
    torch.testing.assert_close(method._votes(), expected, atol=1e-4, rtol=1e-4)


def test_mixed_moments_lie_between_both_images_and_equal_moments_change_nothing():
    images = torch.rand(6, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    found = mixed_moments(images, 0.1, torch.Generator().manual_seed(1))
    partner = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    own, others = images.mean((2, 3)), images.mean((2, 3))[partner]
    mixed = found.mean((2, 3))
    low, high = torch.minimum(own, others) - 1e-5, torch.maximum(own, others) + 1e-5
    assert bool(((mixed >= low) & (mixed <= high)).all())
    assert not torch.allclose(found, images, atol=1e-3)
    same = images[:1].flatten(2)[:, :, torch.randperm(25)].view(1, 2, 5, 5)
    pair = torch.cat([images[:1], same])
    torch.testing.assert_close(mixed_moments(pair, 0.1, torch.Generator().manual_seed(1)), pair, atol=1e-5, rtol=1e-4)


def test_the_contrast_is_its_sum_over_pairs():
    one, other = torch.randn(4, 3), torch.randn(4, 3)
    views = torch.nn.functional.normalize(torch.cat([one, other]), dim=1)
    total = 0.0
    for i in range(8):
        scores = [math.exp(float(views[i] @ views[j]) / 0.3) for j in range(8)]
        total -= math.log(scores[(i + 4) % 8] / (sum(scores) - scores[i])) / 8
    assert float(nt_xent(one, other, 0.3)) == pytest.approx(total, rel=1e-5)


def test_the_loss_is_the_weighted_distance_of_clean_maps_alone(prepared):
    recipe, method, splits, teacher, student = prepared()
    plain = splits.train.batch(torch.arange(9))
    batch = recipe.prepare_batch(plain, torch.Generator().manual_seed(0))
    assert len(batch.targets) == 18
    head = method._head.eval()
    with torch.no_grad():
        found = recipe.loss(student, batch)
        s, t = look(student, plain.inputs), look(teacher, plain.inputs)
        z = head.transfer(s.features)
        w = (head.answer(z) - t.logits).norm(dim=1).sigmoid()
        expected = (w[:, None, None, None] * (z - t.features) ** 2).mean()
    assert set(found) == {"kd3", "kd3_contrast"}
    assert float(found["kd3"]) == pytest.approx(float(expected), rel=1e-4)


def test_what_ships_has_the_teachers_classifier_which_stays_as_it_is(prepared, make_network):
    recipe, method, splits, teacher, student = prepared()
    batch = recipe.prepare_batch(splits.train.batch(torch.arange(9)), torch.Generator().manual_seed(0))
    sum(recipe.loss(student.train(), batch).values()).backward()
    shipped = recipe.deployable(student)
    assert torch.equal(shipped.get_classifier().weight, teacher.get_classifier().weight)
    assert shipped.get_classifier().weight.grad is None
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in method._head.transfer.parameters())
    assert all(float(p.weight.grad.abs().sum()) > 0 for p in method._codecs.values())
    fresh = KD3(KD3Config(teacher_width=16)).deployable(make_network(5))
    fresh.load_state_dict(shipped.state_dict())
    images = splits.validation.batch(torch.arange(5)).inputs
    with torch.no_grad():
        torch.testing.assert_close(fresh.eval()(images), shipped.eval()(images))
    assert isinstance(fresh, Transferred)


def test_another_teachers_width_is_refused_and_none_without_a_teacher(prepared, make_network):
    with pytest.raises(ConfigError, match="this teacher's is 16"):
        prepared(teacher_width=12)
    with pytest.raises(ConfigError, match="teacher_width is not set"):
        KD3().deployable(make_network(2))


def test_a_training_with_a_pool_ends_in_a_student_of_the_tasks_classes(make_task, make_splits, make_network):
    splits = make_splits(make_task())
    hidden = splits.train.targets.clone()
    hidden[30:] = UNLABELLED
    splits = dataclasses.replace(splits, train=dataclasses.replace(splits.train, targets=hidden))
    config = DistillConfig.model_validate({"methods": ["kd3"], "training": {"epochs": 3, "batch_size": 16}})
    done = distill(make_network(2), make_network(1, (8, 12, 16)), splits, config, seed=0, device=CPU)
    assert 0 <= done.measures["kd3.kept"] <= 1
    with torch.no_grad():
        assert done.student.eval()(splits.validation.batch(torch.arange(5)).inputs).shape == (5, 3)


@pytest.mark.parametrize("setting", ["prune.method=l1", "qat.mode=always"])
def test_fine_tuning_of_what_it_ships_is_refused_before_anything_is_trained(setting):
    with pytest.raises(ConfigError, match=f"{setting.partition('=')[0]} fine-tunes a student, and one taught by 'kd3'"):
        load_config(preset="digits", settings=["distill.methods=[kd3]", setting])
