"""Methods made for language models, against brute force and what their papers say of them."""

import io
import itertools
import math

import pytest
import torch

from edgestill.distill.config import DistillConfig
from edgestill.distill.methods.base import Context
from edgestill.distill.methods.language.hints import hinted
from edgestill.distill.methods.language.opsd import clipped_kl
from edgestill.distill.methods.language.rlad import advantages, begun, clipped_gain, exact, log_ratio
from edgestill.distill.methods.language.tsd_kd import (
    entropy_of,
    gate_of,
    most_uncertain,
    opening_of,
    ranking_loss,
)
from edgestill.distill.own_samples import Sampling, tokens_of
from edgestill.distill.recipe import make_recipe
from edgestill.distill.train import distill
from edgestill.pipeline.data.datasets.strings import StringsConfig
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.input_kind.lm import END, START
from edgestill.pipeline.networks.causal_transformer import CausalTransformer
from edgestill.pipeline.networks.network import look
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.runs.checkpoint import state_bytes

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def splits():
    return load_splits(StringsConfig(count=60, letters=3, largest=9, kinds=("reverse", "add")), seed=0)


def network(splits, seed, width=4):
    with drawn_from(seed):
        return CausalTransformer(splits.task, depth=1, heads=2, head_width=width, feed_forward=1).eval()


def drawn(*shape, seed=0, scale=2.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def on_own_samples(splits, method, samples=2, on_policy=1.0):
    """Return a recipe, its student and teacher, and a batch of the student's own."""
    student, teacher = network(splits, 1), network(splits, 2, width=6)
    recipe = make_recipe(DistillConfig.model_validate({"methods": [method]}).methods, Sampling(on_policy, 1.0, samples))
    context = Context(
        splits.task, teacher, student, splits.train, splits.reference, CPU, 0,
        lambda: student, recipe.look_at_teacher,
    )  # fmt: skip
    recipe.prepare(context)
    texts = splits.train.batch(torch.arange(6))
    return recipe, student, teacher, recipe.prepare_batch(texts, torch.Generator().manual_seed(0))


# TSD-KD


def test_the_ranking_is_the_likelihood_of_the_teachers_order_by_brute_force():
    student, teacher = drawn(5, 7), drawn(5, 7, seed=1)
    found = ranking_loss(student, teacher, 3)
    for s, t, loss in zip(student, teacher, found, strict=True):
        order = sorted(s.topk(3).indices.tolist(), key=lambda token: -float(t[token]))
        chances = {
            ranks: math.prod(float(s[r].exp() / s[list(ranks[i:])].exp().sum()) for i, r in enumerate(ranks))
            for ranks in itertools.permutations(order)
        }
        assert sum(chances.values()) == pytest.approx(1)
        assert float(loss) == pytest.approx(-math.log(chances[tuple(order)]) / 3)


def test_no_other_order_of_the_same_tokens_is_likelier_than_a_student_that_is_its_teacher():
    student = drawn(1, 5)
    losses = [float(ranking_loss(student, drawn(1, 5, seed=seed), 5)) for seed in range(20)]
    assert float(ranking_loss(student, student, 5)) <= min(losses)


@pytest.mark.parametrize(("reads_what_is_left", "rank"), [(True, 1.0), (False, -1.0)])
def test_training_on_the_ranking_alone_reaches_the_teachers_order_and_the_released_form_its_reverse(
    reads_what_is_left, rank
):
    teacher = torch.arange(6.0)[None]
    student = (0.01 * drawn(1, 6)).float().requires_grad_()
    optimizer = torch.optim.SGD([student], lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        loss = ranking_loss(student, teacher, 6) if reads_what_is_left else released(student, teacher)
        loss.sum().backward()
        optimizer.step()
    ranks = student.detach()[0].argsort().argsort().float()
    assert float(torch.corrcoef(torch.stack([ranks, teacher[0]]))[0, 1]) == pytest.approx(rank)


def released(student, teacher):
    """The authors' code: the denominator is over what is ranked already."""
    scores = student.gather(1, teacher.argsort(1, descending=True))
    return (scores.logcumsumexp(1) - scores).sum(1)


def test_the_gate_is_a_half_where_both_are_as_sure_and_more_where_the_student_is_less_so():
    logits = drawn(4, 9)
    torch.testing.assert_close(gate_of(logits, logits.roll(3, 1)), torch.full((4,), 0.5, dtype=torch.float64))
    assert bool((gate_of(0.3 * logits, logits) > 0.5).all())
    assert float(entropy_of(torch.zeros(1, 9))) == pytest.approx(math.log(9))


def test_an_opening_is_each_answers_own():
    lengths = [7, 1, 30, 12]
    entropy = drawn(sum(lengths)).abs()
    answer = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))
    found = opening_of(entropy, answer, 0.3)
    for number, alone in enumerate(entropy.split(lengths)):
        expected = [float(alone[:place].sum()) < 0.3 * float(alone.sum()) for place in range(len(alone))]
        assert found[answer == number].tolist() == expected
        assert expected[0]
        assert len(alone) == 1 or not all(expected)


def test_the_share_of_uncertain_tokens_is_the_one_that_is_named():
    entropy = torch.randperm(200, generator=torch.Generator().manual_seed(0)).double()
    assert most_uncertain(entropy, 0.1).sum() == 20
    assert bool((most_uncertain(entropy, 0.1) == (entropy >= 180)).all())


def test_the_direct_term_is_the_gated_jsd_and_a_teacher_that_is_the_student_makes_it_0(splits):
    recipe, student, teacher, batch = on_own_samples(splits, {"name": "tsd_kd"})
    terms = recipe.loss(student, batch)
    s, t = (look(net, batch.inputs, batch.rows).logits.detach().double().softmax(1) for net in (student, teacher))
    m = 0.9 * t + 0.1 * s
    gate = ((t * t.log()).sum(1) - (s * s.log()).sum(1)).sigmoid()
    jsd = 0.9 * (t * (t / m).log()).sum(1) + 0.1 * (s * (s / m).log()).sum(1)
    assert terms["distillation"].item() == pytest.approx(float((gate * jsd).mean()), rel=1e-4)
    assert terms["cross_entropy"].item() == 0
    recipe._teacher = student
    assert recipe.loss(student, batch)["distillation"].item() == pytest.approx(0, abs=1e-7)


# OPSD


def test_without_a_limit_the_clipped_divergence_is_kl_and_a_limit_can_take_it_below_0():
    target, log_s = drawn(6, 5).softmax(1), drawn(6, 5, seed=1).log_softmax(1)
    expected = torch.nn.functional.kl_div(log_s, target, reduction="none").sum(1)
    torch.testing.assert_close(clipped_kl(target, log_s, None), expected)
    torch.testing.assert_close(clipped_kl(target, log_s, 1e9), expected)
    by_hand = [
        sum(min(float(p) * (math.log(float(p)) - float(q)), 0.02) for p, q in zip(row, other, strict=True))
        for row, other in zip(target, log_s, strict=True)
    ]
    found = clipped_kl(target, log_s, 0.02)
    assert found.tolist() == pytest.approx(by_hand)
    assert float(found.min()) < 0


def test_a_hint_stands_between_the_prompt_and_its_answer_and_the_rows_follow():
    texts = torch.tensor([[9, 8, START, 5, 5, END], [7, START, 6, END, PADDING, PADDING]])
    given = torch.tensor([[9, 8, START, 4, END, PADDING], [7, START, 3, 3, 3, END]])
    rows = torch.tensor([[0, 2], [0, 3], [0, 4], [1, 1], [1, 2]])
    ids, moved = hinted(texts, rows, given)
    assert [[i for i in row if i != PADDING] for row in ids.tolist()] == [
        [9, 8, 4, START, 5, 5, END],
        [7, 3, 3, 3, START, 6, END],
    ]
    assert ids[moved[:, 0], moved[:, 1]].tolist() == [START, 5, 5, START, 6]


def test_a_student_without_a_hint_learns_nothing_from_its_own_start(splits):
    recipe, student, _, batch = on_own_samples(splits, {"name": "opsd", "hint": "none"}, samples=1)
    sum(recipe.loss(student, batch).values()).backward()
    assert max(float(p.grad.abs().max()) for p in student.parameters()) < 1e-6
    student.zero_grad()
    recipe, student, _, batch = on_own_samples(splits, {"name": "opsd"}, samples=1)
    sum(recipe.loss(student, batch).values()).backward()
    assert max(float(p.grad.abs().max()) for p in student.parameters()) > 1e-4


def test_the_hint_is_the_prompts_own_answer_or_as_a_control_another_ones(splits):
    shown = {}
    for hint in ("answer", "other"):
        recipe, student, _, batch = on_own_samples(splits, {"name": "opsd", "hint": hint}, samples=2)
        found = recipe.look_at_teacher(batch).logits
        given = batch.own.given if hint == "answer" else batch.own.given.roll(2, 0)
        expected = look(student, *hinted(batch.inputs, batch.rows, given)).logits
        torch.testing.assert_close(found, expected)
        shown[hint] = found
    assert not torch.allclose(shown["answer"], shown["other"])


def trained(splits, method, driver=None, student=1, epochs=3, **options):
    training = {
        "epochs": epochs, "batch_size": 16, "optimizer": "adamw", "learning_rate": 0.01, "warmup_epochs": 0,
        "patience": 0,
    }  # fmt: skip
    driver = driver or {"name": "rollout", "samples": 2, "on_policy": 0.7, "max_tokens": 4}
    config = DistillConfig.model_validate({"methods": [method], "driver": driver, "training": training})
    return distill(network(splits, student), network(splits, 2, width=6), splits, config, seed=0, device=CPU, **options)


@pytest.mark.parametrize("whose", ["frozen", "ema", "live"])
def test_the_teacher_stays_or_follows_as_it_is_set(splits, whose):
    begun_with = network(splits, 1).state_dict()
    state = trained(splits, {"name": "opsd", "teacher": whose, "decay": 0.5}).state["opsd"]
    if whose == "live":
        assert state == {}
        return
    stayed = [torch.equal(value, state["teacher"][name]) for name, value in begun_with.items()]
    assert all(stayed) if whose == "frozen" else not any(stayed)


# RLAD / TRRD


def test_rewards_are_of_the_right_answer_or_of_how_much_of_it_is_begun():
    given = torch.tensor([[9, START, 4, 5, END, PADDING]]).repeat(3, 1)
    texts = torch.tensor(
        [[9, START, 4, 5, END, PADDING], [9, START, 4, 6, END, PADDING], [9, START, 4, 5, 5, END]]
    )  # fmt: skip
    assert exact(texts, given).tolist() == [1, 0, 0]
    assert begun(texts, given).tolist() == pytest.approx([1, 1 / 3, 2 / 3])


def test_advantages_are_normalised_in_each_group():
    found = advantages(torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 1.0]), torch.tensor([0, 0, 0, 1, 1, 1]))
    deviation = torch.tensor([1.0, 0.0, 0.0]).std().item() + 1e-4
    assert found[:3].tolist() == pytest.approx([2 / 3 / deviation, -1 / 3 / deviation, -1 / 3 / deviation])
    assert found[3:].tolist() == [0, 0, 0]


def grpo(log_s, log_old, advantage, low=0.2, high=0.28):
    """Loss of GRPO token by token, without a teacher: Shao et al. 2024, equation 3, beta = 0."""
    gains = []
    for s, old, a in zip(log_s.tolist(), log_old.tolist(), advantage.tolist(), strict=True):
        ratio = math.exp(s - old)
        gains.append(min(ratio * a, min(max(ratio, 1 - low), 1 + high) * a))
    return -sum(gains) / len(gains)


def test_without_a_teachers_share_it_is_grpo_and_independent_of_the_teacher(splits):
    method = {"name": "rlad", "distill_weight": 0.0, "reward": "begun"}
    recipe, student, teacher, batch = on_own_samples(splits, method, samples=32)
    for parameter in student.parameters():
        parameter.data.mul_(1.3)  # the student has moved on since it was sampled
    loss = recipe.loss(student, batch)["rlad"]
    with torch.no_grad():
        log_s = look(student, batch.inputs, batch.rows).logits.log_softmax(1)
    log_s = log_s.gather(1, tokens_of(batch)[:, None])[:, 0]
    each = advantages(begun(batch.inputs, batch.own.given), batch.own.group)[batch.rows[:, 0]]
    assert float(each.abs().max()) > 0.5
    assert loss.item() == pytest.approx(grpo(log_s, batch.own.log_probs, each), rel=1e-4)
    for parameter in teacher.parameters():
        parameter.data.normal_(0, 3)
    assert recipe.loss(student, batch)["rlad"].item() == loss.item()


def test_without_an_advantage_nothing_is_learnt_from_the_teacher(splits):
    recipe, student, _, batch = on_own_samples(splits, {"name": "rlad"}, samples=4)
    assert bool((exact(batch.inputs, batch.own.given) == 0).all())
    recipe.loss(student, batch)["rlad"].backward()
    assert max(float(p.grad.abs().max()) for p in student.parameters()) == 0


@pytest.mark.parametrize(("log_s", "slope"), [(-2.0, 1.0), (-0.5, 0.4), (-3.5, 0.4)])
def test_the_slope_in_the_student_is_1_within_the_teachers_band_and_a_beyond_it(log_s, slope):
    student = torch.tensor([log_s], dtype=torch.float64, requires_grad=True)
    found = log_ratio(student, torch.tensor([-1.7]), torch.tensor([-2.0]), teacher_share=0.6)
    found.backward()
    expected = 0.4 * (log_s + 1.7) + 0.6 * max(-1.0, min(1.0, log_s + 2.0))
    assert found.item() == pytest.approx(expected, rel=1e-6)
    assert float(student.grad) == pytest.approx(slope)


def test_a_ratio_beyond_the_clip_gains_nothing_more():
    log_r = torch.tensor([0.0, 0.4, -0.4, 0.4, -0.4], dtype=torch.float64, requires_grad=True)
    found = clipped_gain(log_r, torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0]), 0.2, 0.28)
    found.sum().backward()
    assert found.tolist() == pytest.approx([1.0, 1.28, math.exp(-0.4), -math.exp(0.4), -0.8])
    assert [value != 0 for value in log_r.grad.tolist()] == [True, False, True, True, False]


def test_a_student_held_to_its_start_pays_its_divergence_from_there(splits):
    recipe, student, _, batch = on_own_samples(splits, {"name": "rlad", "start_weight": 0.5}, samples=2)
    assert recipe.loss(student, batch)["rlad"].item() == pytest.approx(0, abs=1e-6)
    before = look(student, batch.inputs, batch.rows).logits.detach().double().log_softmax(1)
    for parameter in student.parameters():
        parameter.data.mul_(1.2)
    after = look(student, batch.inputs, batch.rows).logits.detach().double().log_softmax(1)
    expected = 0.5 * (after.exp() * (after - before)).sum(1).mean()
    assert recipe.loss(student, batch)["rlad"].item() == pytest.approx(float(expected), rel=1e-3)


def test_rewards_need_prompts_to_answer(tmp_path):
    from edgestill.pipeline.data.datasets.language import PromptsConfig

    (tmp_path / "book.txt").write_text("a text of words " * 100)
    book = load_splits(PromptsConfig(path=tmp_path / "book.txt", max_length=16), seed=0)
    with pytest.raises(ConfigError, match="no prompts to answer"):
        make_recipe(DistillConfig.model_validate({"methods": ["rlad"]}).methods).check(book.task, book.train)


@pytest.mark.parametrize(
    "method", [{"name": "opsd", "teacher": "ema"}, {"name": "rlad", "start_weight": 0.1}, "tsd_kd"]
)
def test_a_killed_training_goes_on_bit_for_bit(splits, method):
    saved = []
    undisturbed = trained(splits, method, save=lambda state: saved.append(state_bytes(state)))
    resumed = trained(splits, method, student=77, resume=torch.load(io.BytesIO(saved[0]), weights_only=True))
    expected = undisturbed.student.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.student.state_dict().items())
    assert resumed.measures == undisturbed.measures


@pytest.mark.parametrize(
    "method",
    [{"name": "tsd_kd"}, {"name": "opsd", "clip": 0.01}, {"name": "rlad", "reward": "begun"}],
    ids=lambda m: m["name"],
)
def test_the_gradient_on_own_samples_is_a_finite_difference(splits, method):
    recipe, student, _, batch = on_own_samples(splits, method, samples=32)
    with torch.no_grad():
        teacher, own = recipe.look_at_teacher(batch), look(student, batch.inputs, batch.rows)
    teacher, own = (view._replace(logits=view.logits.double()) for view in (teacher, own))
    direction = drawn(*own.logits.shape, seed=3)

    def loss(step):
        moved = own._replace(logits=own.logits + (0.1 + step) * direction)  # away from the ratio of 1
        seen = own._replace(logits=own.logits + 0.1 * direction)
        return torch.stack(list(recipe.terms(teacher, moved, moved.logits, batch, seen).values())).sum()

    at = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(loss(at), at)
    expected = (loss(1e-7) - loss(-1e-7)) / 2e-7
    assert abs(found.item()) > 1e-4
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
