"""What the augmentors make of an image, and the policies on scripted losses."""

import math

import pytest
import torch

from edgestill.distill.methods.hard.affine import AXES, WIDEST, Affine, uniform, warp
from edgestill.distill.methods.hard.ascent import CommonAdam
from edgestill.distill.methods.hard.mix import OPERATIONS, Mix
from edgestill.distill.methods.hard.policies import Hysteresis, Lagrangian, Penalty
from edgestill.distill.methods.hard.vae import Vae, VaeAugmentor

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 9, 14)]
FAMILIES = {
    "affine": lambda shape, share: Affine(shape, share, "reflection"),
    "mix": lambda shape, share: Mix(share, min_entropy=1.0),
    "vae": lambda shape, share: VaeAugmentor(Vae(shape), trust=3.0),
}

every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_family = pytest.mark.parametrize("family", FAMILIES)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def amounts(count=1, **of_axis):
    return torch.tensor([[of_axis.get(axis, 0.0) for axis in AXES]]).repeat(count, 1)


# The warp


@every_shape
def test_a_shift_by_whole_pixels_moves_the_image_and_zeros_come_in(shape):
    images = torch.rand(2, *shape)
    _, height, width = shape
    found = warp(images, amounts(2, shift_x=2 / width, shift_y=-1 / height), "zeros")
    expected = torch.zeros_like(images)
    expected[:, :, :-1, 2:] = images[:, :, 1:, :-2]
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_quarter_turn_is_rot90_and_a_turn_keeps_its_angle_on_images_that_are_not_square():
    images = torch.rand(1, 2, 8, 8)
    found = warp(images, amounts(rotation=math.pi / 2), "zeros")
    assert torch.allclose(found, torch.rot90(images, -1, (2, 3)), atol=1e-4)
    wide = torch.zeros(1, 1, 9, 21)
    wide[0, 0, 4, 10:13] = 1  # a bar from the centre to the right
    turned = warp(wide, amounts(rotation=math.pi / 2), "zeros")
    assert turned[0, 0, 4:7, 10].tolist() == pytest.approx([1, 1, 1], abs=1e-4)


def test_a_scale_of_two_doubles_what_is_seen():
    ramp = torch.linspace(0, 1, 16).repeat(1, 1, 16, 1)
    found = warp(ramp, amounts(scale=math.log(2.0)), "border")
    slope = (found[0, 0, 8, 9] - found[0, 0, 8, 6]) / 3
    assert slope.item() == pytest.approx(1 / 15 / 2, rel=1e-3)


@every_shape
def test_a_shift_does_not_change_a_constant_image_where_the_edge_is_reflected(shape):
    images = torch.full((3, *shape), 0.7)
    moved = warp(images, torch.tensor(WIDEST) * uniform(3, len(AXES), generator()), "reflection")
    assert torch.allclose(moved, images, atol=1e-5)


# The augmentors


@every_shape
@pytest.mark.parametrize("family", ["affine", "mix"])
def test_without_noise_an_image_stays_as_it_is(family, shape):
    augmentor, images = FAMILIES[family](shape, 0.5), torch.rand(4, *shape)
    noise = torch.zeros_like(augmentor.draw(4, generator()))
    assert (augmentor(images, noise) - images).abs().max() < 1e-3


@every_shape
@every_family
def test_images_keep_shape_type_and_range_and_phi_gets_a_gradient(family, shape):
    augmentor, images = FAMILIES[family](shape, 1.0), torch.rand(6, *shape)
    found = augmentor(images, augmentor.draw(6, generator()))
    assert found.shape == images.shape
    assert found.dtype == images.dtype
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6
    phi = [parameter for parameter in augmentor.parameters() if parameter.requires_grad]
    target = torch.rand(6, *shape)
    gradients = torch.autograd.grad((found - target).square().sum(), phi, materialize_grads=True)
    assert any(gradient.abs().max() > 0 for gradient in gradients)
    assert all(gradient.isfinite().all() for gradient in gradients)


@every_family
def test_equal_seeds_draw_equal_noise(family):
    augmentor = FAMILIES[family]((1, 8, 8), 0.5)
    one, two, other = (augmentor.draw(5, generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("family", ["affine", "mix"])
def test_phi_is_brought_back_into_its_bounds(family):
    augmentor = FAMILIES[family]((1, 8, 8), 0.5)
    share = augmentor.log_share if family == "affine" else augmentor.log_strength
    for pushed, kept in ((5.0, 1.0), (-50.0, 0.01)):
        share.data.fill_(pushed)
        augmentor.project()
        assert share.exp().flatten()[0].item() == pytest.approx(kept)


def test_the_learned_ranges_are_told_in_pixels_and_degrees():
    found = Affine((1, 20, 40), 0.1, "zeros").measures()
    assert found["rotation_deg"] == pytest.approx(18)
    assert found["shift_x_px"] == pytest.approx(2)
    assert found["shift_y_px"] == pytest.approx(1)
    assert found["scale_factor"] == pytest.approx(2**0.1)
    assert found["shear_x_deg"] == pytest.approx(math.degrees(math.atan(0.05)))


def test_every_operation_of_the_mix_changes_images_and_keeps_their_range():
    images = torch.rand(3, 3, 12, 12)
    for operation in OPERATIONS.values():
        made = operation(images)
        assert made.shape == images.shape
        assert 0 <= made.min() <= made.max() <= 1
        assert not torch.allclose(made, images, atol=1e-2)


def test_the_mix_pays_for_entropy_below_its_floor_and_only_there():
    mix = Mix(0.5, min_entropy=1.0)
    assert mix.regulariser().item() == 0
    mix.logits.data[0] = 20.0
    assert mix.regulariser().item() == pytest.approx(1.0, abs=1e-3)


def test_a_latent_steps_no_farther_than_its_trust():
    augmentor = VaeAugmentor(Vae((1, 8, 8)), trust=2.0)
    images, seen = torch.rand(5, 1, 8, 8), []
    torch.nn.init.normal_(augmentor.delta.weight, std=50)
    augmentor.vae.decode = lambda latents: seen.append(latents) or latents
    noise = augmentor.draw(5, generator())
    augmentor(images, noise)
    mean, deviation = augmentor.vae.encode(images)
    step = (seen[0] - mean - deviation * noise) / deviation
    assert 1.9 < step.abs().max() <= 2.0 + 1e-4


# The steps


def test_steps_are_adams_for_one_parameter_and_one_size_for_several():
    """One number has no other to share its second moment with."""
    (ours, adams), values = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2)), [1.0, 0.5, -2.0, 0.1]
    common, adam = CommonAdam([ours], rate=0.1), torch.optim.Adam([adams], lr=0.1)
    for value in values:
        common.step([torch.tensor([value])])
        adams.grad = torch.tensor([value])
        adam.step()
        assert ours.item() == pytest.approx(adams.item(), rel=1e-5)
    two = [torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(2))]
    CommonAdam(two, rate=0.3).step([torch.tensor([3.0]), torch.tensor([0.0, -1.0])])
    scale = 0.3 / math.sqrt(10 / 3)
    assert torch.cat([p.data for p in two]).tolist() == pytest.approx([-3 * scale, 0, scale], rel=1e-5)


# The policies


def test_hysteresis_repairs_above_the_bound_until_below_the_lower_one_and_does_not_chatter_between():
    policy = Hysteresis(decay=0.0, l_max=0.1, l_min=0.03)
    explore, repair = (1.0, 0.0), (0.0, 1.0)
    script = [0.05, 0.09, 0.11, 0.09, 0.05, 0.031, 0.029, 0.031, 0.05, 0.09, 0.101]
    modes = [explore, explore, repair, repair, repair, repair, explore, explore, explore, explore, repair]
    assert [policy.weights(loss) for loss in script] == modes


def test_policies_read_a_moving_average_that_begins_with_the_first_loss():
    policy = Hysteresis(decay=0.9, l_max=0.1, l_min=0.03)
    policy.weights(0.02)
    assert policy.weights(0.5) == (1.0, 0.0)
    assert policy.average == pytest.approx(0.9 * 0.02 + 0.1 * 0.5)


def test_the_lagrangian_grows_by_the_excess_and_stays_at_zero_and_above():
    policy = Lagrangian(decay=0.0, l_max=0.1, rate=2.0)
    found = [policy.weights(loss)[1] for loss in (0.3, 0.2, 0.1, 0.0, 0.0, 0.0, 0.0)]
    assert found == pytest.approx([0.4, 0.6, 0.6, 0.4, 0.2, 0.0, 0.0])


def test_the_penalty_is_fixed():
    policy = Penalty(decay=0.9, consistency_weight=5.0)
    assert [policy.weights(loss) for loss in (0.0, 9.0)] == [(1.0, 5.0), (1.0, 5.0)]


@pytest.mark.parametrize("make", [lambda: Hysteresis(0.5, 0.1, 0.03), lambda: Lagrangian(0.5, 0.1, 1.0)])
def test_a_policy_goes_on_from_its_state(make):
    one, two = make(), make()
    for loss in (0.5, 0.09, 0.2):
        one.weights(loss)
    two.load_state_dict(one.state_dict())
    assert [one.weights(0.06) for _ in range(5)] == [two.weights(0.06) for _ in range(5)]
