"""Acquisition functions against brute force, a linear program and gradients of autograd."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linprog
from torch import nn

from edgestill.distill.acquisition import ACQUISITIONS, Outlook
from edgestill.distill.acquisition.badge import last_layer_errors
from edgestill.distill.acquisition.farthest import farthest_first
from edgestill.distill.acquisition.rad import robust_chances


def outlook(pool=40, labelled=6, classes=4, width=5, seed=0, error_rate=0.1):
    generator = torch.Generator().manual_seed(seed)

    def drawn(count):
        logits, embedding = (torch.randn(count, n, generator=generator, dtype=torch.float64) for n in (classes, width))
        return (2 * logits).softmax(1), embedding

    return Outlook(*drawn(pool), *drawn(labelled), error_rate)


def choose(name, seen, count, seed=0):
    return ACQUISITIONS[name]().choose(seen, count, torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("name", ACQUISITIONS)
@pytest.mark.parametrize("count", [1, 7, 40])
def test_it_chooses_as_many_as_asked_none_twice_and_the_same_by_the_same_seed(name, count):
    found = choose(name, outlook(), count)
    assert len(found) == len(set(found)) == count
    assert set(found) <= set(range(40))
    assert choose(name, outlook(), count) == found


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_a_pool_of_equal_examples_is_chosen_from_without_repeats(name):
    same = Outlook(*(torch.full((9, n), 1 / n, dtype=torch.float64) for n in (4, 3, 4, 3)), 0.5)
    found = choose(name, same, 9)
    assert sorted(found) == list(range(9))
    if name in ("pcoreset", "k_center", "entropy", "margin"):
        assert found == list(range(9))  # the lowest first


def brute_force(points, centres, count):
    """Greedy k-centre by the definition, and its radius after each choice."""
    centres, chosen, radii = [np.array(c) for c in centres], [], []
    for _ in range(count):
        nearest = [min(np.linalg.norm(p - c) for c in centres) for p in points]
        chosen.append(max((i for i in range(len(points)) if i not in chosen), key=lambda i: nearest[i]))
        centres.append(points[chosen[-1]])
        radii.append(max(min(np.linalg.norm(p - c) for c in centres) for p in points))
    return chosen, radii


@pytest.mark.parametrize("seed", range(3))
def test_greedy_k_centre_is_its_definition_and_its_radius_never_grows(seed):
    seen = outlook(seed=seed)
    expected, radii = brute_force(seen.probabilities.numpy(), seen.labelled_probabilities.numpy(), 12)
    assert choose("pcoreset", seen, 12) == expected
    assert all(a >= b for a, b in itertools.pairwise(radii))
    assert choose("k_center", seen, 12) == brute_force(seen.embedding.numpy(), seen.labelled_embedding.numpy(), 12)[0]
    assert farthest_first(seen.embedding, seen.embedding[:0], 3)[0] == 0  # no centre: the first


def test_pcoreset_reads_probabilities_alone_and_k_centre_distances_of_embeddings_alone():
    seen = outlook()
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    turned = seen._replace(embedding=seen.embedding @ rotation, labelled_embedding=seen.labelled_embedding @ rotation)
    stretched = seen._replace(embedding=seen.embedding * torch.tensor([9.0, 1, 1, 1, 1]))
    assert choose("k_center", turned, 9) == choose("k_center", seen, 9) != choose("k_center", stretched, 9)
    assert choose("pcoreset", stretched, 9) == choose("pcoreset", seen, 9)
    softer = seen._replace(probabilities=seen.probabilities.sqrt())
    assert choose("k_center", softer, 9) == choose("k_center", seen, 9)


def test_pcoreset_finds_rare_kinds_of_examples_that_random_choices_miss():
    usual = torch.tensor([0.9, 0.05, 0.05], dtype=torch.float64).repeat(97, 1)
    rare = torch.tensor([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3]], dtype=torch.float64)
    seen = Outlook(torch.cat([usual, rare]), torch.zeros(100, 2), usual[:1], torch.zeros(1, 2))
    assert set(choose("pcoreset", seen, 3)) == {97, 98, 99}
    drawn = [len({97, 98, 99} & set(choose("random", seen, 3, seed))) for seed in range(50)]
    assert np.mean(drawn) < 0.5


def test_entropy_and_margin_are_their_textbook_definitions():
    seen = outlook()
    p = seen.probabilities.numpy()
    assert choose("entropy", seen, 40) == list(np.argsort(np.sum(p * np.log(p), 1), kind="stable"))
    two = np.sort(p, 1)[:, -2:]
    assert choose("margin", seen, 40) == list(np.argsort(two[:, 1] - two[:, 0], kind="stable"))
    certain = torch.eye(4, dtype=torch.float64)
    assert choose("entropy", seen._replace(probabilities=certain), 4) == [0, 1, 2, 3]  # 0 log 0 is 0


def test_badges_gradient_is_that_of_the_last_layer_with_the_likeliest_class_as_the_label():
    seen = outlook(pool=3)
    linear = nn.Linear(5, 4).double()
    logits = linear(seen.embedding)
    for at in range(3):
        loss = F.cross_entropy(logits[at : at + 1], logits[at : at + 1].argmax(1))
        (expected,) = torch.autograd.grad(loss, linear.weight, retain_graph=True)
        errors = last_layer_errors(logits.softmax(1).detach())
        torch.testing.assert_close(errors[at][:, None] * seen.embedding[at][None], expected)


def test_badge_begins_with_the_longest_gradient_and_draws_by_squared_distance():
    seen = outlook(pool=5)
    gradients = (last_layer_errors(seen.probabilities)[:, :, None] * seen.embedding[:, None]).flatten(1).numpy()
    first = int(np.argmax(np.linalg.norm(gradients, axis=1)))
    squares = np.square(gradients - gradients[first]).sum(1)
    drawn = [choose("badge", seen, 2, seed) for seed in range(1500)]
    assert {pair[0] for pair in drawn} == {first}
    shares = np.bincount([pair[1] for pair in drawn], minlength=5) / len(drawn)
    assert np.abs(shares - squares / squares.sum()).max() < 0.05


def value_by_linear_program(gains, m):
    """max_p min_{|B| = m} sum_{i not in B} p_i g_i, by a constraint for each B."""
    n = len(gains)
    rows = [[*(0.0 if i in b else -gains[i] for i in range(n)), 1.0] for b in itertools.combinations(range(n), m)]
    found = linprog([0.0] * n + [-1.0], A_ub=rows, b_ub=[0.0] * len(rows), A_eq=[[1.0] * n + [0.0]], b_eq=[1.0],
                    bounds=[(0, None)] * n + [(None, None)])  # fmt: skip
    return -found.fun


@pytest.mark.parametrize("m", [0, 1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_rads_closed_form_has_the_value_of_the_game(m, seed):
    gains = torch.rand(7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    chances, value = robust_chances(gains, m)
    assert float(chances.sum()) == pytest.approx(1)
    assert value == pytest.approx(value_by_linear_program(gains.tolist(), m), abs=1e-9)
    worth = (chances * gains)[chances > 0]
    assert float(worth.max() - worth.min()) < 1e-12
    assert value == pytest.approx(float((chances * gains).sort().values[: 7 - m].sum()))


def test_rads_support_grows_with_the_errors_and_its_easier_examples_are_likelier():
    gains = torch.linspace(0.05, 0.95, 30, dtype=torch.float64)
    sizes = [int((robust_chances(gains, m)[0] > 0).sum()) for m in range(20)]
    assert sizes[0] == 1
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[1]
    chances = robust_chances(gains, 5)[0]
    within = chances[chances > 0]
    assert bool((within[:-1] > within[1:]).all())  # the gains rise, and the chances fall


def test_rad_asks_about_more_that_a_teacher_knows_than_margin_does_where_hard_is_wrong():
    shares = {"rad": [], "margin": []}
    for seed in range(10):
        seen = outlook(pool=200, seed=seed, error_rate=0.3)
        ranked = choose("margin", seen, 200)
        wrong = set(ranked[:60])  # the teacher errs on the 30 % that the student is least sure of
        for name, found in shares.items():
            found.append(np.mean([at not in wrong for at in choose(name, seen, 40, seed)]))
    assert np.mean(shares["rad"]) > np.mean(shares["margin"]) + 0.1


def test_rad_takes_the_largest_gains_beyond_its_support_and_bears_certain_students():
    seen = outlook(error_rate=0.0)  # the support is one example
    assert choose("rad", seen, 10) == choose("margin", seen, 10)
    certain = seen._replace(probabilities=torch.eye(4, dtype=torch.float64).repeat(10, 1), error_rate=0.3)
    assert choose("rad", certain, 3) == [0, 1, 2]
