"""TRG: graphs against loops, what moves and what does not move its terms, and tokens of maps and sequences."""

import math

import pytest
import torch
import torch.nn.functional as F

from edgestill.distill.methods.features.tokens import pooled, same_tokens
from edgestill.distill.methods.features.trg import TRGConfig, global_loss, graph, inner_loss, local_loss, sampled
from edgestill.distill.recipe import make_recipe
from edgestill.pipeline.networks.network import look
from edgestill.pipeline.networks.text_transformer import TextTransformer
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.training.objective import Moment


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_graph_is_its_formula_token_by_token():
    tokens = drawn(0, 7, 3)
    far = [[float((a - b).square().sum()) for b in tokens] for a in tokens]
    sigma = float(torch.tensor([far[i][j] for i in range(7) for j in range(7) if i != j], dtype=torch.float64).median())
    found = graph(tokens, 2)
    for j in range(7):
        near = sorted((i for i in range(7) if i != j), key=lambda i: far[i][j])[:2]
        for i in range(7):
            expected = math.exp(-far[i][j] / (2 * sigma)) if i in near else 0.0
            assert float(found[i, j]) == pytest.approx(expected, abs=1e-9)


def test_the_local_loss_is_unmoved_by_a_rotation_and_raised_by_a_permutation():
    given, turn = drawn(0, 20, 4), torch.linalg.qr(drawn(1, 4, 4)).Q
    assert float(local_loss(given, given, 5)) == pytest.approx(0, abs=1e-12)
    assert float(local_loss(given @ turn + 3, given, 5)) == pytest.approx(0, abs=1e-9)
    other = drawn(2, 20, 6)
    plain = local_loss(other, given, 5)
    torch.testing.assert_close(local_loss(other @ torch.linalg.qr(drawn(3, 6, 6)).Q, given, 5), plain)
    mixed_up = given[torch.randperm(20)]
    assert float(local_loss(mixed_up, given, 5)) > 1e-3
    assert float(global_loss(mixed_up, given, 0.1)) > float(global_loss(given, given, 0.1))


def test_the_kl_of_the_graphs_goes_the_way_that_is_said():
    own, given = drawn(0, 9, 3), drawn(1, 9, 3)
    p, q = graph(own, 3).softmax(1), graph(given, 3).softmax(1)
    assert float(local_loss(own, given, 3)) == pytest.approx(float((p * (p / q).log()).sum(1).mean()))
    found = local_loss(own, given, 3, "teacher_student")
    assert float(found) == pytest.approx(float((q * (q / p).log()).sum(1).mean()))


def test_the_contrast_of_identical_sides_is_at_most_that_of_chance():
    tokens = drawn(0, 30, 5)
    for tau in (0.1, 1.0, 50.0):
        assert 0 <= float(global_loss(tokens, tokens, tau)) <= math.log(30)


def test_the_inner_loss_is_zero_at_equality_and_does_not_see_padding():
    own, given = drawn(0, 2, 5, 3), drawn(1, 2, 5, 4)
    assert float(inner_loss(own, own)) == 0
    maps = [(f @ f.transpose(1, 2) / math.sqrt(f.shape[2])).softmax(2) for f in (own, given)]
    assert float(inner_loss(own, given)) == pytest.approx(float((maps[0] - maps[1]).square().mean()))
    mask = torch.tensor([[True, True, True, False, False]]).expand(2, 5)
    assert float(inner_loss(own, given, mask)) == pytest.approx(float(inner_loss(own[:, :3], given[:, :3])))


@pytest.mark.parametrize("loss", [lambda s, t: local_loss(s, t, 3), lambda s, t: global_loss(s, t, 0.3)])
def test_the_gradients_are_finite_differences(loss):
    given = drawn(1, 6, 4)
    sigma_is_constant = global_loss if loss(given, given) > 1e-6 else None
    if sigma_is_constant is None:  # the median is held constant, which a finite difference would move
        own = drawn(0, 6, 4).requires_grad_()
        assert torch.autograd.grad(loss(own, given), own)[0].abs().max() > 0
        return
    torch.autograd.gradcheck(lambda own: loss(own, given), drawn(0, 6, 4).requires_grad_())


def test_maps_and_tokens_are_read_at_the_same_places():
    whole = torch.arange(64.0).view(1, 1, 8, 8)
    fine, coarse = same_tokens(whole, F.adaptive_avg_pool2d(whole, 4), 4)
    assert torch.equal(fine, coarse)
    sequence = torch.cat([torch.full((1, 1, 1), -9.0), F.adaptive_avg_pool2d(whole, 4).flatten(2).transpose(1, 2)], 1)
    of_map, of_tokens = same_tokens(whole, sequence, 4)
    assert torch.equal(of_map, of_tokens)
    assert same_tokens(whole, whole, 2)[0].shape == (1, 4, 1)
    short, long = same_tokens(drawn(0, 2, 5, 3), drawn(1, 2, 10, 3), None)
    assert short.shape == long.shape == (2, 5, 3)


def test_samples_are_distinct_and_of_the_mask(make_batch, make_token_task):
    mask = torch.tensor([[True, False, True], [False, False, True]])
    assert sampled(mask, 9, torch.device("cpu")).sort().values.tolist() == [0, 2, 5]
    assert len(set(sampled(500, 256, torch.device("cpu")).tolist())) == 256


@pytest.fixture
def texts(make_token_task, make_splits, make_context):
    task = make_token_task()
    splits = make_splits(task)
    teacher, student = (TextTransformer(task, depth=1, heads=h, head_width=4, feed_forward=1) for h in (2, 1))
    recipe = make_recipe([TRGConfig()])
    recipe.prepare(make_context(recipe, splits, frozen(teacher), student))
    batch = splits.train.batch(torch.arange(9))
    return recipe.methods[0], look(teacher, batch.inputs), look(student, batch.inputs), batch


def test_padding_of_a_text_moves_nothing(texts):
    method, teacher, student, batch = texts
    padding = (batch.inputs == 0)[:, :, None]
    assert bool(padding.any())
    found = []
    for noise in (0.0, 100.0):
        views = [view._replace(features=view.features + noise * padding) for view in (teacher, student)]
        torch.manual_seed(0)
        found.append({name: float(term.detach()) for name, term in method.feature(*views, batch).items()})
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    torch.testing.assert_close(pooled(student.features + 100 * padding, batch), student.embedding, atol=1e-4, rtol=1e-4)


def test_the_temperature_falls_by_the_clock_and_the_projection_learns(texts):
    method, teacher, student, batch = texts
    seen = []
    for step in range(5):
        seen.append(method.temperature())
        method.tick(Moment(step + 1, (step + 1) / 4, 0, {}, batch, None))
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == 0.5
    assert seen[-1] == pytest.approx(0.1)
    method.feature(teacher, student._replace(features=student.features.detach()), batch)["trg_global"].backward()
    [parameter] = method.trainable()
    assert float(parameter.grad.abs().sum()) > 0
