"""The maps from influence to weight."""

import numpy as np
import pytest
import torch

from edgestill.distill.methods.kd_aif.influence import effective_share, to_weights
from edgestill.pipeline.errors import TrainingError

MAPS = ("sigmoid", "exp", "drop")


def weights(influence, how="sigmoid", sharpness=10.0, clip=0.01, bounds=(0.0, 10.0)):
    return to_weights(influence, how, sharpness=sharpness, clip=clip, bounds=bounds)


@pytest.mark.parametrize("how", MAPS)
@pytest.mark.parametrize("bounds", [(0.0, 10.0), (0.1, 10.0), (0.5, 1.2)])
def test_weights_have_mean_one_keep_their_bounds_and_fall_with_the_influence(how, bounds):
    influence = torch.randn(500) ** 3
    found = weights(influence, how, bounds=bounds)
    assert found.mean().item() == pytest.approx(1, abs=1e-5)
    assert found.min() >= bounds[0] - 1e-6
    assert found.max() <= bounds[1] + 1e-6
    assert (found[influence.argsort()].diff() <= 1e-6).all()
    assert found.std() > 0.01


def test_the_sigmoid_is_its_formula():
    influence = torch.randn(1000, dtype=torch.float64)
    low, high = np.quantile(influence.numpy(), [0.01, 0.99])
    raw = 1 / (1 + np.exp(10 * np.clip(influence.numpy(), low, high) / (high - low)))
    assert np.allclose(weights(influence).numpy(), raw / raw.mean(), rtol=1e-5)


def test_drop_takes_out_the_harmful_ones_and_shares_their_weight():
    assert weights(torch.tensor([-1.0, 2.0, -3.0, 0.5]), "drop", clip=0).tolist() == pytest.approx(
        [2, 0, 2, 0], abs=1e-9
    )


@pytest.mark.parametrize("how", ["sigmoid", "exp"])
def test_no_sharpness_and_equal_influences_give_equal_weights(how):
    assert torch.allclose(weights(torch.randn(50), how, sharpness=0.0), torch.ones(50))
    for value in (0.0, 3.0, -3.0):
        assert torch.equal(weights(torch.full((50,), value), how), torch.ones(50))


def test_one_huge_outlier_does_not_make_the_others_alike():
    influence = torch.randn(500)
    calm = effective_share(weights(influence))
    influence[0] = 1e6
    assert effective_share(weights(influence)) == pytest.approx(calm, rel=0.05)
    assert effective_share(weights(influence, clip=0.0)) > 0.99


@pytest.mark.parametrize("how", MAPS)
def test_influences_that_differ_by_rounding_alone_give_equal_weights(how):
    noise = torch.randn(500)
    one_ulp = 1000 * torch.finfo(torch.float32).eps
    for influence in (1e-9 * noise, 0.3 + 1e-8 * noise, -1000 + one_ulp * noise, torch.zeros(0)):
        assert torch.equal(weights(influence, how), torch.ones(len(influence)))
    assert torch.equal(weights(torch.cat([1e-9 * noise, torch.tensor([1e6])]), how), torch.ones(501))


@pytest.mark.parametrize("how", MAPS)
def test_a_small_signal_is_weighed_as_a_large_one(how):
    influence = torch.randn(500, dtype=torch.float64)
    for scale in (1e-6, 1e6):
        assert torch.allclose(weights(scale * influence, how), weights(influence, how), atol=1e-5)


def test_what_cannot_be_weighed_is_an_error():
    with pytest.raises(TrainingError, match="NaN or infinite"):
        weights(torch.tensor([0.0, torch.nan, 1.0]))
    with pytest.raises(TrainingError, match="NaN or infinite"):
        weights(torch.tensor([1e-9, torch.inf, -1e-9]))
    with pytest.raises(TrainingError, match="every training example came out harmful"):
        weights(torch.tensor([1.0, 2.0, 3.0]), "drop")


def test_the_effective_share_counts_equal_weights_fully_and_lone_ones_once():
    assert effective_share(torch.ones(10)) == pytest.approx(1)
    assert effective_share(torch.tensor([5.0, 0, 0, 0, 0])) == pytest.approx(0.2)
