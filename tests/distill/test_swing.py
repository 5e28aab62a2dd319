"""Swing's temperature and noise by an example's rarity."""

import itertools

import pytest
import torch

from edgestill.distill.config import DistillConfig, StudentTrainingConfig
from edgestill.distill.conformance.prepared import prepared
from edgestill.distill.methods.targets.swing import Swing, SwingConfig, neighbour_distances, ranks
from edgestill.distill.recipe import make_recipe
from edgestill.distill.train import distill
from edgestill.pipeline.conformance.samples import image_task, splits
from edgestill.pipeline.data.splits import Batch, Mixed
from edgestill.pipeline.networks.network import View

N, K = 6, 4


def drawn(seed):
    return 2 * torch.randn(N, K, generator=torch.Generator().manual_seed(seed))


def batch(index=None, mixed=None):
    index = torch.arange(N) if index is None else index
    return Batch(torch.zeros(N, 1, 4, 4), torch.arange(N) % K, index, mixed=mixed)


def method(rarity, **settings):
    made = Swing(SwingConfig(**settings))
    made._shape, made._device = (len(rarity), K), torch.device("cpu")
    made._set(rarity, 3)
    return made


def view(logits):
    return View(torch.zeros(0), torch.zeros(0), logits)


def target(made, logits, of=None):
    return made.target(view(logits), view(logits), of or batch())


def entropy(p):
    return -(p * p.log()).sum(1)


def test_a_common_example_has_plain_kds_target():
    made = method(torch.zeros(N), temperature=3.0, noise=5.0, spread=9.0)
    torch.testing.assert_close(target(made, drawn(1)), (drawn(1) / 3).softmax(1))


def test_the_targets_entropy_rises_with_the_rarity_and_ends_uniform():
    logits = drawn(1)
    rising = [entropy(target(method(torch.full((N,), r), noise=0.0), logits)) for r in (0.0, 0.25, 0.5, 1.0)]
    for less, more in itertools.pairwise(rising):
        assert bool((less < more).all())
    flat = target(method(torch.ones(N), noise=0.0, spread=1000.0), logits)
    torch.testing.assert_close(flat, torch.full_like(flat, 1 / K), atol=1e-2, rtol=1e-1)


def test_noise_grows_with_rarity_and_stays_with_the_example():
    r = torch.linspace(0, 1, N)
    made = method(r, noise=2.0, spread=0.0, temperature=1.0)
    logits = torch.zeros(N, K)
    first = target(made, logits)
    torch.testing.assert_close(first, (2 * r[:, None] * made._noise).softmax(1))
    assert torch.equal(first, target(made, logits))
    backward = torch.arange(N - 1, -1, -1)
    torch.testing.assert_close(target(made, logits, batch(backward)), first.flip(0))


def test_a_mixed_example_has_rarity_and_noise_of_both_by_their_shares():
    r = torch.linspace(0, 1, N)
    made = method(r, noise=2.0, spread=6.0, temperature=1.0)
    pairs = torch.stack([torch.arange(N), torch.arange(N).flip(0)])
    share = torch.linspace(0.2, 1, N)
    logits = drawn(1)
    found = target(made, logits, batch(mixed=Mixed(pairs % K, pairs, share)))
    for n in range(N):
        a, b, lam = n, N - 1 - n, share[n]
        rarity = lam * r[a] + (1 - lam) * r[b]
        noise = lam * made._noise[a] + (1 - lam) * made._noise[b]
        torch.testing.assert_close(found[n], ((logits[n] + 2 * rarity * noise) / (1 + 6 * rarity)).softmax(0))


def test_ranks_are_shares_of_the_others_below_and_equal_scores_share_theirs():
    assert ranks(torch.tensor([0.3, 0.1, 0.9])).tolist() == [0.5, 0.0, 1.0]
    assert ranks(torch.tensor([2.0, 2.0, 5.0, 1.0])).tolist() == pytest.approx([0.5, 0.5, 1.0, 0.0])


def test_an_example_far_from_all_others_has_the_largest_distance():
    generator = torch.Generator().manual_seed(0)
    many = torch.tensor([1.0, 0.0, 0.0]) + 0.1 * torch.randn(40, 3, generator=generator)
    lonely = torch.tensor([[0.0, 0.0, -2.0]])
    found = neighbour_distances(torch.cat([many, lonely]), 3)
    assert int(found.argmax()) == 40
    unit = torch.nn.functional.normalize(torch.cat([many, lonely]), dim=1)
    for n in (0, 40):
        gaps = sorted(float(1 - unit[n] @ unit[m]) for m in range(41) if m != n)
        assert float(found[n]) == pytest.approx(sum(gaps[:3]) / 3, abs=1e-6)


def test_studying_gives_the_rarest_the_highest_temperature_and_doubt_reads_logits_alone(make_network):
    for rarity, needs in (("neighbours", {"embedding"}), ("doubt", set())):
        assert Swing(SwingConfig(rarity=rarity)).needs == needs
    recipe, _, _, _ = prepared(Swing)
    [made] = recipe.methods
    assert made._rarity.min() == 0
    assert made._rarity.max() == 1
    assert float(made._rarity.mean()) == pytest.approx(1 / 5, abs=0.02)  # of r ** 4
    assert made.measures()["highest_temperature"] == pytest.approx(20.0)


@pytest.mark.parametrize("rarity", ["neighbours", "doubt"])
def test_a_later_stage_keeps_rarity_and_noise(make_network, rarity):
    data = splits(image_task(classes=3))
    config = DistillConfig.model_validate({
        "methods": [{"name": "swing", "rarity": rarity}],
        "training": StudentTrainingConfig(epochs=1, batch_size=32, patience=0),
    })  # fmt: skip
    networks = (make_network(2, task=data.task), make_network(1, task=data.task))
    done = distill(*networks, data, config, seed=0, device=torch.device("cpu"))
    later = distill(*networks, data, config, seed=5, device=torch.device("cpu"), state=done.state)
    assert later.state["swing"]["seed"] == done.state["swing"]["seed"]
    assert torch.equal(later.state["swing"]["rarity"], done.state["swing"]["rarity"])


def test_a_training_without_spread_and_noise_is_plain_kds(make_network):
    data = splits(image_task(classes=3))

    def losses(method):
        config = DistillConfig.model_validate(
            {"methods": [method], "training": StudentTrainingConfig(epochs=2, batch_size=32, patience=0)}
        )
        networks = (make_network(2, task=data.task), make_network(1, task=data.task))
        done = distill(*networks, data, config, seed=0, device=torch.device("cpu"))
        return [record.loss for record in done.fitted.curve]

    assert losses({"name": "swing", "spread": 0.0, "noise": 0.0}) == pytest.approx(losses("kd"), rel=1e-5)


def test_a_method_that_replaces_the_teacher_is_refused_beside_it():
    with pytest.raises(ValueError, match="studies the given teacher"):
        DistillConfig.model_validate({"methods": ["swing", {"name": "kd_aif", "mechanism": "simultaneous"}]})
    make_recipe(DistillConfig.model_validate({"methods": ["swing", "kd_aif"]}).methods)
