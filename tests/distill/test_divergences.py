"""The menu of divergences, logit standardisation and PLD, against closed forms and brute force."""

import math

import pytest
import torch
import torch.nn.functional as F

from edgestill.distill.config import DistillConfig, StudentTrainingConfig
from edgestill.distill.conflicts import conflicts
from edgestill.distill.methods import METHODS
from edgestill.distill.methods.targets.divergence import _MENU, DivergenceConfig, between
from edgestill.distill.methods.targets.logit_standardisation import z_scores
from edgestill.distill.methods.targets.pld import order, plackett_luce
from edgestill.distill.recipe import make_recipe
from edgestill.distill.train import distill
from edgestill.pipeline.conformance.samples import image_task, splits
from edgestill.pipeline.data.splits import UNLABELLED, Batch
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.networks.network import View

KINDS = list(_MENU)


def drawn(seed, n=6, classes=5, scale=2.0):
    return scale * torch.randn(n, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def settings(kind, **changes):
    return DivergenceConfig(kind=kind, **changes)


F_OF = {  # D = sum_k s_k f(t_k / s_k), straight from the definition
    "forward_kl": lambda u, c: u * u.log(),
    "reverse_kl": lambda u, c: -u.log(),
    "jeffreys": lambda u, c: (u - 1) * u.log(),
    "js": lambda u, c: (
        c.beta * u * (u / (c.beta * u + 1 - c.beta)).log() - (1 - c.beta) * (c.beta * u + 1 - c.beta).log()
    ),
    "total_variation": lambda u, c: (u - 1).abs() / 2,
    "skew_kl": lambda u, c: u * (u / (c.skew * u + 1 - c.skew)).log(),
    "skew_reverse_kl": lambda u, c: -((1 - c.skew) * u + c.skew).log(),
    "chi_squared": lambda u, c: (u - 1) ** 2,
    "hellinger": lambda u, c: (u.sqrt() - 1) ** 2 / 2,
    "alpha": lambda u, c: (1 - u**c.alpha) / (c.alpha * (1 - c.alpha)),
}


@pytest.mark.parametrize("kind", F_OF)
@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_a_kind_is_the_f_divergence_of_its_definition(kind, share):
    config = settings(kind, beta=share, skew=share, alpha=share)
    t, s = drawn(0).log_softmax(1), drawn(1).log_softmax(1)
    expected = (s.exp() * F_OF[kind]((t - s).exp(), config)).sum(1)
    torch.testing.assert_close(between(t, s, config), expected, atol=1e-9, rtol=1e-9)


def test_adaptive_kl_weighs_both_directions_by_the_gaps_in_head_and_tail():
    t, s = drawn(0).softmax(1), drawn(1).softmax(1)
    found = between(t.log(), s.log(), settings("adaptive_kl"))
    for p, q, value in zip(t, s, found, strict=True):
        head, mass = [], 0.0
        for place in p.argsort(descending=True).tolist():
            if mass < 0.5:
                head.append(place)
            mass += float(p[place])
        gaps = (p - q).abs()
        share = gaps[head].sum() / gaps.sum()
        expected = share * (p * (p / q).log()).sum() + (1 - share) * (q * (q / p).log()).sum()
        assert float(value) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_zero_with_no_gradient_where_both_are_equal_and_positive_elsewhere(kind):
    logits = drawn(3).requires_grad_()
    found = between(logits.detach().log_softmax(1), logits.log_softmax(1), settings(kind))
    found.sum().backward()
    assert found.detach().abs().max() < 1e-9
    assert logits.grad.abs().max() < 1e-9
    assert bool((between(drawn(1).log_softmax(1), drawn(2).log_softmax(1), settings(kind)) > 1e-3).all())


@pytest.mark.parametrize("kind", F_OF)
def test_the_gradient_of_a_kind_is_a_finite_difference(kind):
    t = drawn(1).log_softmax(1)
    torch.autograd.gradcheck(lambda s: between(t, s.log_softmax(1), settings(kind)), drawn(2).requires_grad_())


BOUNDS = {"js": math.log(2), "total_variation": 1.0, "hellinger": 1.0, "skew_kl": math.log(10), "alpha": 4.0}
BOUNDS |= {"skew_reverse_kl": math.log(10)}


@pytest.mark.parametrize("kind", BOUNDS)
def test_a_bounded_kind_stays_finite_where_the_supports_differ_and_forward_kl_does_not(kind):
    t, s = torch.tensor([[0.0, -400.0]]), torch.tensor([[-400.0, 0.0]])
    value = float(between(t.log_softmax(1), s.log_softmax(1), settings(kind)))
    assert value == pytest.approx(BOUNDS[kind], rel=1e-5)
    assert float(between(t.log_softmax(1), s.log_softmax(1), settings("forward_kl"))) > 300


def test_a_class_without_probability_at_the_teacher_leaves_every_kind_finite():
    t = torch.tensor([[1.0, 0.0, 0.0]]).log()
    s = torch.tensor([[0.2, 0.3, 0.5]]).log()
    for kind in ("forward_kl", "js", "total_variation", "skew_kl", "chi_squared", "hellinger", "alpha"):
        assert bool(between(t, s, settings(kind)).isfinite().all()), kind


def test_forward_kl_of_the_menu_is_plain_kd():
    batch, teacher, student = views()
    for recipe in (make("kd", temperature=3.0), make("divergence", kind="forward_kl", temperature=3.0)):
        terms = recipe.terms(teacher, student, student.logits, batch)
        total = float(sum(terms.values()))
    assert total == pytest.approx(float(sum(make("kd", temperature=3.0).terms(
        teacher, student, student.logits, batch).values())), abs=1e-6)  # fmt: skip


def make(name, *others, **settings_of):
    return make_recipe(DistillConfig.model_validate({"methods": [{"name": name, **settings_of}, *others]}).methods)


def views(classes=5, n=6):
    targets = torch.arange(n) % classes
    batch = Batch(torch.zeros(n, 1, 4, 4), targets, torch.arange(n))
    teacher, student = (View(torch.zeros(n, 2, 1, 1), torch.zeros(n, 2), drawn(i, n, classes).float()) for i in (1, 2))
    return batch, teacher, student


def test_z_scores_are_the_same_for_scaled_and_shifted_logits_and_a_negative_factor_turns_them_around():
    x = drawn(0)
    torch.testing.assert_close(z_scores(3 * x + 2), z_scores(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(z_scores(-x), -z_scores(x), atol=1e-6, rtol=1e-6)


def test_the_gradient_of_standardised_kd_is_orthogonal_to_the_logits_and_to_a_shift():
    batch, teacher, student = views()
    logits = student.logits.requires_grad_()
    recipe = make("logit_standardisation")
    recipe.terms(teacher, student._replace(logits=logits), logits, batch)["distillation"].backward()
    assert logits.grad.sum(1).abs().max() < 1e-6
    assert (logits.grad * logits).sum(1).abs().max() < 1e-5


def test_standardised_kd_has_the_papers_loss():
    batch, teacher, student = views()
    terms = make("logit_standardisation").terms(teacher, student, student.logits, batch)
    z = [(v - v.mean(1, keepdim=True)) / (v.std(1, keepdim=True) + 1e-7) for v in (teacher.logits, student.logits)]
    expected = 9 * 4 * F.kl_div(F.log_softmax(z[1] / 2, 1), F.softmax(z[0] / 2, 1), reduction="batchmean")
    assert float(terms["distillation"]) == pytest.approx(float(expected), rel=1e-5)
    assert float(terms["cross_entropy"]) == pytest.approx(0.1 * float(F.cross_entropy(student.logits, batch.targets)))


def test_another_divergence_compares_standardised_logits_at_its_own_temperature():
    batch, teacher, student = views()
    both = make("logit_standardisation", {"name": "divergence", "kind": "total_variation", "temperature": 1.0})
    found = both.terms(teacher, student, student.logits, batch)["distillation"]
    p, q = z_scores(teacher.logits).softmax(1), z_scores(student.logits).softmax(1)
    assert float(found) == pytest.approx(0.9 * float((p - q).abs().sum(1).mean() / 2), rel=1e-5)


class _Scaled(torch.nn.Module):
    """A teacher whose logits are a t + b."""

    def __init__(self, network, factor):
        super().__init__()
        self.network, self.factor = network, factor

    def look(self, inputs):
        features = self.network.forward_features(inputs)
        embedding = self.network.forward_head(features, pre_logits=True)
        return View(features, embedding, self.factor * self.network.get_classifier()(embedding) + 1)

    def forward(self, inputs):
        return self.look(inputs).logits


def test_a_whole_training_is_the_same_for_a_teacher_of_larger_logits_and_plain_kds_is_not(make_network):
    data = splits(image_task(classes=4))

    def curve(name, factor):
        config = DistillConfig.model_validate(
            {"methods": [name], "training": StudentTrainingConfig(epochs=3, batch_size=16, patience=0)}
        )
        teacher = _Scaled(make_network(1, task=data.task), factor)
        done = distill(make_network(2, task=data.task), teacher, data, config, seed=0, device=torch.device("cpu"))
        return [record.loss for record in done.fitted.curve]

    assert curve("logit_standardisation", 3.0) == pytest.approx(curve("logit_standardisation", 1.0), rel=1e-4)
    assert curve("kd", 3.0) != pytest.approx(curve("kd", 1.0), rel=1e-2)


def test_two_classes_are_refused_as_two_z_scores_are_always_the_same():
    data = splits(image_task(classes=2))
    with pytest.raises(ConfigError, match="needs 3 classes"):
        make("logit_standardisation").check(data.task, data.train)


def pld_by_loop(s, q, t, y):
    total = torch.zeros(len(s), dtype=s.dtype)
    for n in range(len(s)):
        rest = [k for k in t[n].argsort(descending=True).tolist() if k != int(y[n])]
        ranked = [int(y[n]), *rest]
        for place, k in enumerate(ranked):
            total[n] += q[n, k] * (torch.logsumexp(s[n, ranked[place:]], 0) - s[n, k])
    return total


def test_pld_is_its_sum_over_ranks():
    s, t, y = drawn(1), drawn(2), torch.tensor([0, 1, 2, 3, 4, 0])
    q = (t / 2).softmax(1)
    torch.testing.assert_close(plackett_luce(s, q, order(t, y)), pld_by_loop(s, q, t, y))


def test_pld_of_a_teacher_that_is_sure_of_the_label_is_cross_entropy():
    s, y = drawn(1), torch.tensor([0, 1, 2, 3, 4, 0])
    sure = F.one_hot(y, 5).double()
    torch.testing.assert_close(plackett_luce(s, sure, order(drawn(2), y)), F.cross_entropy(s, y, reduction="none"))


def test_pld_is_convex_and_unmoved_by_a_shift_and_falls_to_zero_along_an_ordered_ray():
    s, other, t, y = drawn(1), drawn(4), drawn(2), torch.tensor([0, 1, 2, 3, 4, 0])
    q = t.softmax(1)
    pi = order(t, y)

    def loss(logits):
        return plackett_luce(logits, q, pi)

    torch.testing.assert_close(loss(s + 7), loss(s))
    assert bool((loss((s + other) / 2) <= (loss(s) + loss(other)) / 2 + 1e-12).all())
    ray = torch.zeros_like(s).scatter(1, pi, torch.arange(5, 0, -1, dtype=s.dtype).expand(6, 5))
    falling = [float(loss(c * ray).sum()) for c in (1, 4, 16, 64)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] < 1e-9


def test_pld_goes_on_at_the_teachers_own_logits_which_a_kl_in_disguise_does_not():
    t = drawn(2).requires_grad_()
    plackett_luce(t, t.detach().softmax(1), order(t.detach(), t.argmax(1))).sum().backward()
    assert t.grad.abs().max() > 1e-2


def test_pld_of_two_classes_is_cross_entropy_times_the_teachers_confidence():
    s, t, y = drawn(1, classes=2), drawn(2, classes=2), torch.tensor([0, 1, 0, 1, 1, 0])
    q = t.softmax(1)
    expected = q.gather(1, y[:, None])[:, 0] * F.cross_entropy(s, y, reduction="none")
    torch.testing.assert_close(plackett_luce(s, q, order(t, y)), expected)


def test_pld_of_equal_weights_is_list_mle_over_the_number_of_classes():
    batch, teacher, student = views()
    found = make("pld", ranks="equal").terms(teacher, student, student.logits, batch)["pld"]
    ones = torch.ones_like(teacher.logits)
    expected = pld_by_loop(student.logits, ones, teacher.logits, batch.targets).mean() / 5
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_pld_orders_an_unlabelled_example_by_the_teacher_alone():
    t = drawn(2)
    nothing = torch.full((6,), UNLABELLED)
    assert torch.equal(order(t, nothing), t.argsort(1, descending=True))


def test_pld_tells_how_sure_the_teacher_is_of_the_labels():
    batch, teacher, student = views()
    recipe = make("pld", temperature=1.0)
    recipe.terms(teacher, student, student.logits, batch)
    own = teacher.logits.softmax(1).gather(1, batch.targets[:, None])
    found = recipe.measures()
    assert found["pld.teacher_on_label"] == pytest.approx(float(own.mean()), rel=1e-5)
    assert found["pld.labels_that_teach_little"] == pytest.approx(float((own < 0.1).float().mean()))


def test_pld_leaves_no_place_for_a_divergence_and_cautions_about_standardised_logits():
    [problem] = conflicts([METHODS["pld"](), METHODS["divergence"]()])
    assert "whole objective" in problem
    recipe = make("pld", "logit_standardisation")
    assert "lowers pld's accuracy" in recipe.cautions()[0]
