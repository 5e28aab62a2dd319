"""ND against a loop over examples, its limits, and KD++ made of three methods."""

import pytest
import torch

from edgestill.distill.config import DistillConfig
from edgestill.distill.methods.features.nd import NDConfig, norm_and_direction
from edgestill.distill.methods.weights.fixed import FixedWeights, FixedWeightsConfig
from edgestill.distill.recipe import make_recipe
from edgestill.distill.train import distill
from edgestill.pipeline.data.splits import UNLABELLED
from edgestill.pipeline.networks.network import look
from edgestill.pipeline.teachers.teacher import frozen

CPU = torch.device("cpu")


@pytest.fixture
def prepared(make_task, make_splits, make_network, make_context):
    def make(widths=(4, 6, 8)):
        splits = make_splits(make_task())
        teacher, student = frozen(make_network(1, widths)), make_network(2).eval()
        recipe = make_recipe([NDConfig(nd_weight=1.0)])
        recipe.prepare(make_context(recipe, splits, teacher, student))
        batch = splits.train.batch(torch.arange(9))
        return recipe.methods[0], look(teacher, batch.inputs), look(student, batch.inputs), batch, splits, teacher

    return make


def test_nd_is_its_formula_example_by_example(prepared):
    method, teacher, student, batch, splits, network = prepared()
    everything = splits.train.batch(torch.arange(len(splits.train)))
    with torch.no_grad():
        embeddings = look(network, everything.inputs).embedding
    total = 0.0
    for n, y in enumerate(batch.targets.tolist()):
        c = embeddings[everything.targets == y].mean(0)
        s, t = student.embedding[n].detach(), teacher.embedding[n].detach()
        total += 1 - float(s @ (c / c.norm())) / max(float(s.norm()), float(t.norm()))
    assert float(method.feature(teacher, student, batch)["nd"]) == pytest.approx(total / 9, rel=1e-5)


def test_an_unlabelled_example_takes_the_teachers_class(prepared):
    method, teacher, student, batch, *_ = prepared()
    nobody = batch._replace(targets=torch.full_like(batch.targets, UNLABELLED))
    said = batch._replace(targets=teacher.logits.argmax(1))
    assert torch.equal(method.feature(teacher, student, nobody)["nd"], method.feature(teacher, student, said)["nd"])


def test_above_the_teachers_norm_it_is_one_minus_the_cosine_and_below_linear_and_longer_is_never_worse():
    torch.manual_seed(0)
    s, t, c = torch.randn(5, 4), torch.randn(5, 4), torch.nn.functional.normalize(torch.randn(5, 4), dim=1)
    s = s * (s * c).sum(1, keepdim=True).sign()  # towards the centre
    longest = norm_and_direction(100 * s, t, c)
    torch.testing.assert_close(longest, 1 - torch.cosine_similarity(s, c), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(norm_and_direction(200 * s, t, c), longest)
    small = 1e-3 * s
    torch.testing.assert_close(1 - norm_and_direction(2 * small, t, c), 2 * (1 - norm_and_direction(small, t, c)))
    values = torch.stack([norm_and_direction(k * s, t, c) for k in (0.1, 0.5, 1.0, 2.0, 8.0)])
    assert bool((values.diff(dim=0) <= 1e-6).all())
    assert 0 <= float(values.min()) <= float(values.max()) <= 2
    assert norm_and_direction(3 * c, c, c).abs().max() < 1e-6


def test_the_gradient_of_nd_is_a_finite_difference():
    torch.manual_seed(0)
    s, t = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    c = torch.nn.functional.normalize(torch.randn(4, 3, dtype=torch.float64), dim=1)
    torch.autograd.gradcheck(lambda own: norm_and_direction(own, t, c), s.requires_grad_())


def test_only_other_widths_get_a_projection_and_it_learns(prepared):
    assert not list(prepared()[0].trainable())
    method, teacher, student, batch, *_ = prepared((8, 12, 16))
    own = student._replace(embedding=student.embedding.detach())
    method.feature(teacher, own, batch)["nd"].backward()
    gradients = [parameter.grad for parameter in method.trainable()]
    assert set(method.extras()) == {"projection"}
    assert all(bool(grad.isfinite().all()) and float(grad.abs().sum()) > 0 for grad in gradients[-2:])


def test_fixed_weights_warm_up_by_the_epoch_and_go_on_from_a_state():
    method = FixedWeights(FixedWeightsConfig(label_weight=1.0, distill_weight=3.0, warmup_epochs=4))
    seen = []
    for epoch in range(6):
        seen.append(method.weight(None, None, None)[1])
        method.end_epoch(epoch, None)
    assert seen == pytest.approx([0.75, 1.5, 2.25, 3.0, 3.0, 3.0])
    other = FixedWeights(method.config)
    other.load_state_dict({"epoch": 1})
    assert other.weight(None, None, None) == (1.0, 1.5)


def test_kd_plus_plus_is_kd_with_both_and_without_norm_and_direction_it_is_kd(make_task, make_splits, make_network):
    def curve(*methods):
        told = {"methods": methods, "training": {"epochs": 2, "batch_size": 32, "patience": 0}}
        config = DistillConfig.model_validate(told)
        splits = make_splits(make_task())
        done = distill(make_network(2), make_network(1), splits, config, seed=0, device=CPU)
        return [record.terms for record in done.fitted.curve]

    whole = curve("kd", {"name": "nd", "nd_weight": 2.0}, {"name": "fixed_weights", "warmup_epochs": 2})
    assert set(whole[0]) == {"cross_entropy", "distillation", "nd"}
    bare = curve("kd", {"name": "nd", "nd_weight": 0.0})
    plain = curve("kd")
    assert [r["distillation"] for r in bare] == pytest.approx([r["distillation"] for r in plain], rel=1e-6)
