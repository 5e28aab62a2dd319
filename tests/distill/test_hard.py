"""HARD's objective, its two phases, and the toy on which it has to find the teacher's invariance."""

import copy
import io
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgestill.distill.config import DistillConfig, StudentTrainingConfig
from edgestill.distill.methods import METHODS
from edgestill.distill.methods.base import Context
from edgestill.distill.methods.hard.affine import AXES, Affine
from edgestill.distill.methods.hard.augmentor import Augmentor, with_augmented
from edgestill.distill.methods.hard.method import Hard, HardConfig, disagreement
from edgestill.distill.methods.hard.random_affine import RandomAffineConfig
from edgestill.distill.methods.kd import KDConfig
from edgestill.distill.recipe import make_recipe
from edgestill.distill.train import distill
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.datasets.base import AugmentConfig
from edgestill.pipeline.data.splits import UNLABELLED, ImageSplit, Splits
from edgestill.pipeline.device import Compute
from edgestill.pipeline.errors import ConfigError, TrainingError
from edgestill.pipeline.networks.network import PooledClassifier, View, initialise
from edgestill.pipeline.runs.checkpoint import state_bytes
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Supervised

CPU = torch.device("cpu")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def prepared(make_task, make_splits, make_network, make_context):
    """A recipe of KD and one more, its student, its teacher, and the splits."""

    def make(config, cache=True, student=None, deployable=None, task=None):
        task = task or make_task()
        splits = make_splits(task)
        teacher, student = frozen(make_network(1, (8, 12, 16), task)), student or make_network(2, task=task)
        recipe = make_recipe([KDConfig(), config])
        context = make_context(
            recipe, splits, teacher, student, deployable=lambda: deployable or recipe.deployable(student)
        )
        recipe.prepare(context, Augmentation() if cache else None)
        return recipe, student.train(), teacher, splits

    return make


EAGER = HardConfig(warmup_steps=0, every=1, images=16, initial_share=0.3)


# The batch


@pytest.mark.parametrize("count", [12, 5])
def test_the_loss_is_that_of_the_clean_images_plus_w_times_the_divergence_of_the_augmented(prepared, count):
    recipe, student, teacher, splits = prepared(RandomAffineConfig())
    batch = splits.train.batch(torch.arange(12))
    augmented = 1 - batch.inputs[:count]
    terms = recipe.loss(student.eval(), with_augmented(batch, augmented, weight=0.7))

    def divergence(images):
        with torch.no_grad():
            s, t = (F.log_softmax(network(images).double() / 4, dim=1) for network in (student, teacher))
        return 16 * (t.exp() * (t - s)).sum(1).mean().item()

    with torch.no_grad():
        labels = F.cross_entropy(student(batch.inputs), batch.targets).item()
    expected = 0.9 * (divergence(batch.inputs) + 0.7 * divergence(augmented))
    assert terms["distillation"].item() == pytest.approx(expected, rel=1e-4)
    assert terms["cross_entropy"].item() == pytest.approx(0.1 * labels, rel=1e-4)


@pytest.mark.parametrize("config", [RandomAffineConfig(), EAGER], ids=["random_affine", "hard"])
def test_every_image_is_followed_by_its_augmented_copy_which_has_no_label(prepared, config):
    recipe, _, _, splits = prepared(config)
    batch = splits.train.batch(torch.arange(12))
    found = recipe.prepare_batch(batch, generator())
    assert torch.equal(found.inputs[:12], batch.inputs)
    assert (found.inputs[12:] - batch.inputs).abs().amax((1, 2, 3)).min() > 0
    assert torch.equal(found.index, batch.index.repeat(2))
    assert found.targets.tolist() == [*batch.targets.tolist(), *[UNLABELLED] * 12]
    assert found.altered.tolist() == [False] * 12 + [True] * 12


@pytest.mark.parametrize("config", [RandomAffineConfig(), HardConfig()], ids=["random_affine", "hard"])
def test_text_is_refused_before_anything_is_trained(make_token_task, make_split, config):
    with pytest.raises(ConfigError, match=f"method '{config.name}' transforms images, and the task's inputs are text"):
        make_recipe([config]).check(make_token_task(), make_split(make_token_task(), 6))


def test_random_affine_draws_within_its_ranges_and_reaches_their_ends():
    method = METHODS["random_affine"](
        RandomAffineConfig(max_shift=0.25, max_rotation_deg=30, max_scale=1.5, max_shear_deg=45)
    )
    bounds = dict(zip(AXES, method._bounds().tolist(), strict=True))
    assert bounds["rotation"] == pytest.approx(math.pi / 6)
    assert bounds["shift_x"] == bounds["shift_y"] == 0.25
    assert math.exp(bounds["scale"]) == pytest.approx(1.5)
    assert bounds["shear_x"] == bounds["shear_y"] == pytest.approx(1.0)


def test_nothing_is_augmented_before_the_warm_up_is_over(prepared):
    recipe, _, _, splits = prepared(HardConfig(warmup_steps=3))
    batch = splits.train.batch(torch.arange(6))
    sizes = [len(recipe.prepare_batch(batch, generator()).targets) for _ in range(5)]
    assert sizes == [6, 6, 6, 12, 12]


def test_the_augmentor_learns_every_so_many_steps(prepared):
    recipe, _, _, splits = prepared(HardConfig(warmup_steps=2, every=3, turns=2, images=4))
    batch, counts = splits.train.batch(torch.arange(6)), []
    for _ in range(9):
        recipe.prepare_batch(batch, generator())
        counts.append(recipe.methods[1]._turns)
    assert counts == [0, 0, 2, 2, 2, 4, 4, 4, 6]


# The two phases


def bits(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("family", ["affine", "mix"])
def test_the_augmentors_phase_moves_phi_alone_and_the_students_phase_leaves_it(prepared, family):
    recipe, student, teacher, splits = prepared(EAGER.model_copy(update={"family": family}))
    hard, batch = recipe.methods[1], splits.train.batch(torch.arange(16))
    hard._augmentor.eval().train()
    states = [bits(module) for module in (student, teacher, hard._augmentor)]
    seen = recipe.prepare_batch(batch, generator())
    assert same(states[0], student.state_dict())  # the buffers of batch norm too
    assert same(states[1], teacher.state_dict())
    assert not same(states[2], hard._augmentor.state_dict())
    assert student.training
    assert not teacher.training
    assert all(p.grad is None for network in (student, teacher) for p in network.parameters())
    phi = bits(hard._augmentor)
    sum(recipe.loss(student, seen).values()).backward()
    torch.optim.SGD(student.parameters(), lr=0.1).step()
    assert not same(states[0], student.state_dict())
    assert same(states[1], teacher.state_dict())
    assert same(phi, hard._augmentor.state_dict())


def test_modes_within_the_student_are_kept(prepared, make_network):
    student = make_network(2)
    recipe, _, _, splits = prepared(EAGER, student=student)
    student.bn1.eval()
    recipe.prepare_batch(splits.train.batch(torch.arange(16)), generator())
    assert student.training
    assert not student.bn1.training


def test_a_student_that_equals_its_teacher_gives_no_disagreement_and_phi_no_gradient(
    make_network, make_batch, make_task
):
    network, images = frozen(make_network(1)), make_batch(make_task()).inputs
    augmentor = Affine((1, 8, 8), 0.5, "reflection")
    made = augmentor(images, augmentor.draw(len(images), generator()))
    loss = disagreement(network(made), copy.deepcopy(network)(made), 1.0)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, [augmentor.log_share])
    assert gradient.abs().max() < 1e-5


def test_what_would_ship_is_asked_rather_than_the_bare_student(prepared, make_network):
    """The one that would ship equals the teacher here, and the student does not."""
    losses = {}
    for name in ("teacher", "student"):
        teacher = frozen(make_network(1, (8, 12, 16)))
        recipe, _, _, splits = prepared(EAGER, deployable=teacher if name == "teacher" else None)
        recipe.prepare_batch(splits.train.batch(torch.arange(16)), generator())
        losses[name] = recipe.measures()["hard.L_ts"]
    assert losses["teacher"] == pytest.approx(0.0, abs=1e-6)
    assert losses["student"] > 1e-3


def test_disagreement_is_the_divergence_of_softened_distributions_with_gradients_to_both():
    one, other = (torch.randn(7, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    p, q = (torch.distributions.Categorical(logits=logits / 3) for logits in (one, other))
    expected = 9 * torch.distributions.kl_divergence(p, q).mean()
    found = disagreement(one, other, 3.0)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for gradient, by_hand in zip(
        torch.autograd.grad(found, [one, other]), torch.autograd.grad(expected, [one, other]), strict=True
    ):
        assert torch.allclose(gradient, by_hand, atol=1e-6)


@pytest.mark.parametrize("cached", [True, False])
def test_the_teacher_looks_again_only_at_what_is_augmented(make_task, make_splits, make_network, cached):
    shown = []
    teacher = make_network(1)
    teacher.normalize.register_forward_hook(lambda module, args, output: shown.append(len(output)))
    splits = make_splits(make_task(), None if cached else AugmentConfig(flip=True), train=64)
    config = DistillConfig(
        methods=(KDConfig(), HardConfig(warmup_steps=0, every=2, images=8)),
        training=StudentTrainingConfig(epochs=2, batch_size=16),
    )
    distill(make_network(2), teacher, splits, config, seed=0, device=CPU)
    sheet = len(splits.reference)
    of_turns = 4 * 8 * (1 if cached else 2)  # 8 steps; the teacher's answers to clean images
    assert sum(shown) == sheet + of_turns + (64 + 8 * 16 if cached else 8 * 32)


@pytest.mark.parametrize("config", [RandomAffineConfig(), EAGER], ids=["random_affine", "hard"])
def test_mixed_precision_trains_and_augments_to_the_same_bits(prepared, config, make_task, make_splits, make_network):
    made = []
    for autocast in (False, True):
        recipe, _, _, splits = prepared(config)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            made.append(recipe.prepare_batch(splits.train.batch(torch.arange(16)), generator()).inputs)
    assert torch.equal(*made)
    whole = DistillConfig(methods=(KDConfig(), config), training=StudentTrainingConfig(epochs=1, batch_size=16))
    options = {"seed": 0, "device": CPU, "compute": Compute("bf16")}
    done = distill(make_network(2), make_network(1), make_splits(make_task()), whole, **options)
    assert math.isfinite(done.fitted.curve[0].loss)


# Whole trainings


@pytest.mark.parametrize(
    "config",
    [
        HardConfig(warmup_steps=4),
        HardConfig(warmup_steps=4, policy="lagrangian"),
        HardConfig(warmup_steps=4, policy="penalty", family="mix"),
        RandomAffineConfig(),
    ],
    ids=["hysteresis", "lagrangian", "mix", "random_affine"],
)
def test_with_kd_it_trains_and_a_resumed_run_differs_in_nothing(make_task, make_splits, make_network, config):
    splits = make_splits(make_task())
    whole = DistillConfig(methods=(KDConfig(), config), training=StudentTrainingConfig(epochs=4, batch_size=16))

    def run(seed, **options):
        return distill(make_network(seed), make_network(1), splits, whole, seed=0, device=CPU, **options)

    saved = []
    one = run(2, save=lambda state: saved.append(state_bytes(state)))
    again = run(2)
    resumed = run(77, resume=torch.load(io.BytesIO(saved[1]), weights_only=True))
    for other in (again, resumed):
        assert same(one.student.state_dict(), other.student.state_dict())
        assert [r.terms for r in one.fitted.curve] == [r.terms for r in other.fitted.curve]
        assert one.measures == other.measures
        assert one.exhibits == other.exhibits


def test_phi_is_the_best_epochs_again_after_training(make_task, make_splits, make_network):
    splits, saved = make_splits(make_task()), []
    config = DistillConfig(
        methods=(HardConfig(warmup_steps=0, every=1),), training=StudentTrainingConfig(epochs=6, batch_size=16)
    )
    done = distill(
        make_network(2),
        make_network(1),
        splits,
        config,
        seed=0,
        device=CPU,
        save=lambda state: saved.append(torch.load(io.BytesIO(state_bytes(state)), weights_only=True)),
    )
    state = saved[done.fitted.best_epoch - 1]["objective"]["hard"]
    pixels = 0.5 * 8 * math.exp(state["augmentor"]["log_share"][1])
    assert done.measures["hard.shift_x_px"] == pytest.approx(pixels)
    assert saved[-1]["best_weights"]["objective"]["hard"]["counts"] == state["counts"]
    kept, then = (found["optimizer"]["mean"] for found in (saved[-1]["best_weights"]["objective"]["hard"], state))
    assert torch.equal(kept, then)


def test_the_sheet_shows_reference_images_with_the_answers_of_both(make_task, make_splits, make_network):
    splits = make_splits(make_task(channels=3))
    network = {"task": splits.task}
    config = DistillConfig(methods=(HardConfig(),), training=StudentTrainingConfig(epochs=1, batch_size=16))
    done = distill(make_network(2, **network), make_network(1, **network), splits, config, seed=0, device=CPU)
    (sheet,) = done.exhibits
    assert len(sheet.items) == len(splits.reference)
    for item in sheet.items:
        assert item.shape == (3, 8, 8)
        assert len(item.pixels) == 192
        assert all(0 <= value <= 255 for value in item.pixels)
        assert "teacher: class" in item.caption
        assert "student: class" in item.caption


def test_a_vae_whose_images_the_teacher_does_not_recognise_is_refused_with_the_agreement(
    make_task, make_splits, make_network
):
    splits, teacher = make_splits(make_task(), train=300), make_network(1)
    noisy = ImageSplit(torch.rand(300, 1, 8, 8), (torch.arange(300) % 3))  # what no VAE this small can rebuild
    fit(teacher, Supervised(), splits.train, splits.validation, TrainingConfig(epochs=4), seed=0, device=CPU)
    splits = Splits(splits.task, noisy, noisy, splits.validation, augment=AugmentConfig(), sizes={}, digests={})
    config = DistillConfig(methods=(KDConfig(), HardConfig(family="vae", vae_epochs=1)))
    with pytest.raises(ConfigError, match=r"answers \d+\.\d% of the 300 reference images .* alike; 95% are needed"):
        distill(make_network(2), teacher, splits, config, seed=0, device=CPU)


def test_a_vae_that_the_teacher_recognises_augments(make_task, make_splits, make_network):
    """Bands without noise are easily reconstructed, and told apart by a teacher that learned them."""
    task = make_task()
    splits = make_splits(task, train=240)
    bands = [ImageSplit(_bands(split.targets), split.targets) for split in (splits.train, splits.reference)]
    splits = Splits(task, *bands, splits.validation, augment=AugmentConfig(), sizes={}, digests={})
    teacher = make_network(1)
    fit(teacher, Supervised(), splits.train, splits.train, TrainingConfig(epochs=8), seed=0, device=CPU)
    config = DistillConfig(
        methods=(KDConfig(), HardConfig(family="vae", vae_epochs=20, warmup_steps=2)),
        training=StudentTrainingConfig(epochs=3, batch_size=32),
    )
    done = distill(make_network(2), teacher, splits, config, seed=0, device=CPU)
    assert done.measures["hard.step_in_deviations"] > 0
    assert len(done.exhibits[0].items) == 18


def _bands(targets):
    images = torch.full((len(targets), 1, 8, 8), 0.1)
    for k in range(3):
        images[targets == k, :, 2 * k : 2 * k + 2] = 0.9
    return images


# The toy (one dimension): the teacher does not mind where on a circle a pattern lies, the student was shown one place


LENGTH, PATTERNS = 32, 6


class OneConvolution(PooledClassifier):
    """Circular convolution, ReLU, mean: exactly invariant to circular shifts."""

    def __init__(self):
        super().__init__(PATTERNS, 32, (0.0,), (1.0,))
        self.conv = nn.Conv1d(1, 32, 9, padding=4, padding_mode="circular")

    def trunk(self, inputs):
        return F.relu(self.conv(inputs.squeeze(2))).unsqueeze(2)

    def blocks(self):
        return [self.conv]


class OneHiddenLayer(PooledClassifier):
    def __init__(self):
        super().__init__(PATTERNS, 64, (0.0,), (1.0,))
        self.hidden = nn.Linear(LENGTH, 64)

    def trunk(self, inputs):
        return F.relu(self.hidden(inputs.flatten(1)))[:, :, None, None]

    def blocks(self):
        return [self.hidden]


class ShiftAndNoise(Augmentor):
    """phi: the logarithms of the standard deviations of a circular shift, in places, and of noise."""

    def __init__(self, shift=0.5, noise=0.05):
        super().__init__()
        self.log_std = nn.Parameter(torch.tensor([math.log(shift), math.log(noise)]))

    def draw(self, count, generator):
        return torch.randn(count, 1 + LENGTH, generator=generator)

    def forward(self, images, noise):
        shift_std, noise_std = self.log_std.exp()
        shift = shift_std * noise[:, :1]
        whole = shift.detach().floor()
        part = (shift - whole)[:, None, None, :]
        here = (torch.arange(LENGTH) - whole.long()) % LENGTH
        moved = [images.gather(3, ((here - back) % LENGTH)[:, None, None, :]) for back in (0, 1)]
        return (1 - part) * moved[0] + part * moved[1] + noise_std * noise[:, None, None, 1:]

    @torch.no_grad()
    def project(self):
        self.log_std.clamp_(math.log(1e-3), math.log(LENGTH / 2))

    def measures(self):
        return dict(zip(("shift_std", "noise_std"), self.log_std.exp().tolist(), strict=True))


class ToyHard(Hard):
    """The real method with the toy's augmentor."""

    def make_augmentor(self, context):
        return ShiftAndNoise()


def toy_split(count, seed, shifted=False):
    """A smooth pattern at places 9 to 23 with a little noise; or anywhere on the circle."""
    smooth = F.interpolate(torch.randn(PATTERNS, 1, 6, generator=generator(99)), size=15, mode="linear")[:, 0]
    targets = torch.arange(count) % PATTERNS
    images = torch.zeros(count, 1, 1, LENGTH)
    images[:, 0, 0, 9:24] = 2 * smooth[targets]
    images += 0.05 * torch.randn(images.shape, generator=generator(seed))
    if shifted:
        by = torch.randint(LENGTH, (count, 1), generator=generator(seed + 1))
        images = images.gather(3, ((torch.arange(LENGTH) - by) % LENGTH)[:, None, None, :])
    return ImageSplit(images, targets)


@pytest.fixture(scope="module")
def toy():
    """Splits, a teacher that knows the patterns, and what a student is judged by."""
    labels = tuple(f"pattern {k}" for k in range(PATTERNS))
    task = Task(labels=labels, input_shape=(1, 1, LENGTH), mean=(0.0,), std=(1.0,))
    parts = [toy_split(count, seed) for count, seed in ((600, 1), (60, 2), (300, 3))]
    splits = Splits(task, *parts, augment=AugmentConfig(), sizes={}, digests={})
    teacher = OneConvolution()
    initialise(teacher, "kaiming", 5)
    config = TrainingConfig(epochs=12, batch_size=64, optimizer="adamw", learning_rate=0.01)
    result = fit(teacher, Supervised(), splits.train, splits.validation, config, seed=0, device=CPU)
    assert result.best.accuracy > 0.95
    return splits, frozen(teacher)


def fresh_student():
    student = OneHiddenLayer()
    initialise(student, "kaiming", 7)
    return student


def toy_distilled(monkeypatch, toy, *methods, epochs=100):
    monkeypatch.setitem(METHODS, "hard", ToyHard)
    training = StudentTrainingConfig(
        epochs=epochs, batch_size=64, optimizer="adamw", learning_rate=0.005, weight_decay=0, patience=0
    )
    config = DistillConfig(methods=(KDConfig(temperature=1.0, distill_weight=1.0), *methods), training=training)
    return distill(fresh_student(), toy[1], toy[0], config, seed=0, device=CPU)


@torch.no_grad()
def judged(student, teacher, split):
    """KL(teacher || student), and how often they answer alike."""
    own, theirs = student.eval()(split.images), teacher(split.images)
    return disagreement(theirs, own, 1.0).item(), (own.argmax(1) == theirs.argmax(1)).float().mean().item()


def test_an_exactly_shift_invariant_teacher_is_consistent_under_every_circular_shift(toy):
    images = toy[0].validation.images
    with torch.no_grad():
        for by in (1, 7, 20):
            assert disagreement(toy[1](images), toy[1](images.roll(by, 3)), 1.0).item() < 1e-6


def test_hard_finds_on_the_toy_what_the_teacher_does_not_mind(monkeypatch, toy):
    centred, shifted = toy_split(600, 11), toy_split(600, 12, shifted=True)
    plain = toy_distilled(monkeypatch, toy).student
    hard = toy_distilled(monkeypatch, toy, HardConfig())
    (plain_kl, plain_agreement), (kl, agreement) = (judged(s, toy[1], shifted) for s in (plain, hard.student))
    assert agreement >= plain_agreement + 0.3
    assert kl <= plain_kl / 10
    assert judged(hard.student, toy[1], centred)[0] < 0.02
    assert hard.measures["hard.shift_std"] > 5


def test_a_student_that_diverges_ends_the_training_before_the_augmentor_warps_by_nan(prepared):
    """Warping by NaN crashes the process."""
    recipe, student, _, splits = prepared(EAGER)
    batch = splits.train.batch(torch.arange(16))
    with torch.no_grad():
        student.linear.weight.fill_(torch.nan)
    with pytest.raises(TrainingError, match="augmentor became NaN or infinite; try a lower learning_rate"):
        recipe.prepare_batch(batch, generator())


def turned(monkeypatch, toy, config, turns):
    """The augmentor alone against a student that stays as it is."""
    monkeypatch.setitem(METHODS, "hard", ToyHard)
    splits, teacher = toy
    student = toy_distilled(monkeypatch, toy, epochs=20).student
    hard = ToyHard(config)

    def view(batch):
        return View(None, None, teacher(batch.inputs))

    hard.prepare(Context(splits.task, teacher, student, splits.train, splits.reference, CPU, 0, lambda: student, view))
    noise, worst = generator(), []
    for _ in range(turns):
        hard.data(splits.train.batch(torch.randperm(600, generator=noise)[:64]), noise)
        worst.append(hard._policy.average)
    return hard, student, worst


def losses_of(hard, student, toy):
    """L_ts and L_tt over the whole training split."""
    images = toy[0].train.images
    with torch.no_grad():
        made = hard._augmentor(images, hard._augmentor.draw(len(images), generator(3)))
        theirs, own = toy[1](made), student.eval()(made)
        return disagreement(theirs, own, 1.0).item(), disagreement(toy[1](images), theirs, 1.0).item()


def test_against_a_frozen_student_disagreement_grows_and_inconsistency_stays_bounded(monkeypatch, toy):
    config = HardConfig(warmup_steps=0, every=1, images=64)
    before = losses_of(*turned(monkeypatch, toy, config, 0)[:2], toy)
    hard, student, averages = turned(monkeypatch, toy, config, 100)
    after = losses_of(hard, student, toy)
    assert after[0] > 5 * before[0]
    assert max(after[1], *averages) < 1.1 * config.l_max


def test_where_the_bound_is_tight_the_augmentor_repairs_and_inconsistency_comes_back_under_it(monkeypatch, toy):
    config = HardConfig(warmup_steps=0, every=1, images=64, l_max=0.003)
    hard, student, averages = turned(monkeypatch, toy, config, 100)
    assert hard.measures()["repair_share"] > 0
    assert config.l_max < max(averages) < 2.1 * config.l_max  # it overshoots while the average catches up
    assert averages[-1] < config.l_max
    assert losses_of(hard, student, toy)[1] < 2.1 * config.l_max


def test_without_disagreement_the_augmentor_gives_up_what_the_teacher_minds_and_only_that(monkeypatch, toy):
    """The autoregulariser: the noise goes; shifts, to which the teacher is nearly indifferent, may stay."""
    hard, student, _ = turned(monkeypatch, toy, HardConfig(warmup_steps=0, every=1, images=64), 0)
    monkeypatch.setattr(hard._policy, "decide", lambda average: (0.0, 1.0))
    hard._augmentor.log_std.data.copy_(torch.tensor([5.0, 0.5]).log())
    inconsistency = losses_of(hard, student, toy)[1]
    noise = generator()
    for _ in range(150):
        hard.data(toy[0].train.batch(torch.randperm(600, generator=noise)[:64]), noise)
    assert hard.measures()["noise_std"] < 0.5 / 4
    assert hard.measures()["shift_std"] > 5 / 2
    assert losses_of(hard, student, toy)[1] < inconsistency / 5
