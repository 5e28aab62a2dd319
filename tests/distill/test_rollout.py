"""On-policy distillation: what a student draws, and what it learns from that."""

import io
import math
from types import SimpleNamespace

import pytest
import torch

from edgestill.distill.config import DistillConfig
from edgestill.distill.drivers.once import OnceConfig
from edgestill.distill.drivers.rollout import RolloutConfig
from edgestill.distill.methods import METHODS
from edgestill.distill.methods.base import Context
from edgestill.distill.needs import lacking
from edgestill.distill.own_samples import Sampler, Sampling, own_batch, tokens_of
from edgestill.distill.recipe import make_recipe
from edgestill.distill.train import distill
from edgestill.pipeline.data.datasets.strings import StringsConfig
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.data.splits import UNLABELLED
from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.input_kind.lm import END, START, prompt_ends
from edgestill.pipeline.networks.causal_transformer import CausalTransformer
from edgestill.pipeline.networks.network import look
from edgestill.pipeline.networks.sampling import by_chance, drawn
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.runs.checkpoint import state_bytes

CPU = torch.device("cpu")
GKD = {"name": "divergence", "kind": "js", "beta": 0.3, "temperature": 1.0, "distill_weight": 1.0}


@pytest.fixture(scope="module")
def splits():
    return load_splits(StringsConfig(count=60, letters=3, largest=9, kinds=("reverse", "add")), seed=0)


def network(splits, seed, width=4):
    with drawn_from(seed):
        return CausalTransformer(splits.task, depth=2, heads=2, head_width=width, feed_forward=1).eval()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def texts(splits):
    return splits.train.batch(torch.arange(12))


def test_a_cache_draws_what_whole_texts_draw(splits, texts):
    student, ends = network(splits, 1), prompt_ends(texts.inputs)
    assert len(ends.unique()) > 2
    cached = drawn(student, texts.inputs, ends, by_chance(seeded(), 1.0))
    student.cache_shape = None
    whole = drawn(student, texts.inputs, ends, by_chance(seeded(), 1.0))
    assert torch.equal(cached.ids, whole.ids)
    torch.testing.assert_close(cached.log_probs, whole.log_probs, atol=1e-5, rtol=1e-5)


def test_prompts_stay_and_what_follows_ends_where_it_should(splits, texts):
    ends = prompt_ends(texts.inputs)
    found = drawn(network(splits, 1), texts.inputs, ends, by_chance(seeded(), 1.0), most=3)
    for before, after, end in zip(texts.inputs.tolist(), found.ids.tolist(), ends.tolist(), strict=True):
        assert after[:end] == before[:end]
        assert after[end - 1] == START
        answer = [token for token in after[end:] if token != PADDING]
        assert 1 <= len(answer) <= 3
        assert after[end : end + len(answer)] == answer
        assert END not in answer[:-1]
        assert len(answer) == min(3, len(after) - end) or answer[-1] == END


def test_tokens_are_drawn_by_the_networks_probabilities_at_the_temperature(splits, texts):
    student, count, temperature = network(splits, 3, width=8), 20_000, 0.5
    prompt, end = texts.inputs[:1], prompt_ends(texts.inputs[:1])
    found = drawn(student, prompt.repeat(count, 1), end.repeat(count), by_chance(seeded(), temperature), most=1)
    with torch.no_grad():
        logits = student(prompt[:, : int(end)])[0]
    scaled = logits / temperature
    scaled[PADDING] = -math.inf
    expected = scaled.softmax(0)
    shares = torch.bincount(found.ids[:, int(end)], minlength=len(expected)) / count
    assert shares[PADDING] == 0
    assert bool(((shares - expected).abs() < 5 * (expected * (1 - expected) / count).sqrt() + 1e-9).all())


def test_own_texts_carry_their_probabilities_and_no_labels_and_leave_global_generators_alone(splits, texts):
    student, before = network(splits, 1), torch.get_rng_state()
    found = own_batch(texts, student, Sampling(1.0, temperature=0.7, samples=3), seeded())
    assert torch.equal(torch.get_rng_state(), before)
    assert len(found.inputs) == 36
    assert bool((found.targets == UNLABELLED).all())
    assert torch.equal(found.own.given, texts.inputs.repeat_interleave(3, 0))
    with torch.no_grad():
        logits = look(student, found.inputs, found.rows).logits
    expected = logits.log_softmax(1).gather(1, tokens_of(found)[:, None])[:, 0]
    torch.testing.assert_close(found.own.log_probs, expected, atol=1e-5, rtol=1e-5)
    first = {int(text): int(index) for text, index in reversed([*zip(texts.rows[:, 0], texts.index, strict=True)])}
    assert [first[int(text) // 3] for text in found.rows[:, 0]] == found.index.tolist()


def test_a_steps_text_is_its_own_in_the_share_asked_for_and_serves_as_often_as_asked(splits, texts):
    student, generator = network(splits, 1), seeded()
    sampler = Sampler(Sampling(0.3, most=1))
    own = [sampler(texts, student, generator).own is not None for _ in range(300)]
    assert 0.2 < sum(own) / len(own) < 0.4
    sampler = Sampler(Sampling(1.0, reuse=3, most=1))
    found = [sampler(texts, student, generator) for _ in range(7)]
    assert found[0] is found[2] is not found[3]
    assert found[3] is found[5] is not found[6]
    sampler.begin()
    assert sampler(texts, student, generator) is not found[6]


def recipe_on(splits, methods):
    student, teacher = network(splits, 1), network(splits, 2, width=6)
    recipe = make_recipe(DistillConfig.model_validate({"methods": methods}).methods, Sampling(1.0))
    context = Context(
        splits.task, teacher, student, splits.train, splits.reference, CPU, 0,
        lambda: student, recipe.look_at_teacher,
    )  # fmt: skip
    recipe.prepare(context)
    return recipe, student, teacher


def test_gkd_is_the_generalised_jsd_of_both_networks_on_what_the_student_drew(splits, texts):
    recipe, student, teacher = recipe_on(splits, [GKD])
    batch = recipe.prepare_batch(texts, seeded())
    terms = recipe.loss(student, batch)
    expected = own_jsd(batch.inputs, student, teacher, beta=0.3)
    assert terms["cross_entropy"].item() == 0
    assert terms["distillation"].item() == pytest.approx(expected, rel=1e-5)


def own_jsd(ids, student, teacher, beta):
    """Mean over the tokens of answers, text by text and place by place."""
    losses = []
    for text in ids.tolist():
        for place in range(text.index(START), len(text) - 1):
            if text[place + 1] == PADDING:
                break
            with torch.no_grad():
                p, q = (net(torch.tensor([text[: place + 1]]))[0].double().softmax(0) for net in (teacher, student))
            m = beta * p + (1 - beta) * q
            losses.append(float(beta * (p * (p / m).log()).sum() + (1 - beta) * (q * (q / m).log()).sum()))
    return sum(losses) / len(losses)


def test_no_gradient_flows_through_the_draws(splits, texts):
    recipe, student, _ = recipe_on(splits, [GKD])
    batch = recipe.prepare_batch(texts, seeded())
    assert not batch.own.log_probs.requires_grad
    sum(recipe.loss(student, batch).values()).backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in student.parameters())


def trained(splits, driver, student=1, methods=(GKD,), **options):
    training = {"epochs": 3, "batch_size": 16, "optimizer": "adamw", "learning_rate": 0.01, "warmup_epochs": 0}
    config = DistillConfig.model_validate({"methods": list(methods), "driver": driver, "training": training})
    found = distill(
        network(splits, student), network(splits, 2, width=6), splits, config, seed=0, device=CPU, **options
    )
    return found.student.state_dict(), [record.terms for record in found.fitted.curve]


def test_a_share_of_0_is_the_plain_distillation_bit_for_bit(splits):
    (plain, curve), (found, same) = (
        trained(splits, driver, methods=("kd",)) for driver in ("once", {"name": "rollout", "on_policy": 0.0})
    )
    assert curve == same
    assert all(torch.equal(value, found[name]) for name, value in plain.items())


def test_a_killed_training_goes_on_with_the_samples_it_would_have_drawn(splits):
    driver, saved = {"name": "rollout", "on_policy": 0.6, "samples": 2, "reuse": 2}, []
    expected, undisturbed = trained(splits, driver, save=lambda state: saved.append(state_bytes(state)))
    resume = torch.load(io.BytesIO(saved[0]), weights_only=True)
    found, resumed = trained(splits, driver, student=77, resume=resume)
    assert resumed == undisturbed
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


@pytest.mark.parametrize(
    "method",
    [
        {"name": "sequence_kd"},
        {"name": "symbolic"},
        {"name": "dckd"},
        {"name": "adpa"},
        {"name": "swing", "rarity": "pattern"},
        {"name": "first", "offline": True},
    ],
    ids=lambda method: method["name"],
)
def test_methods_that_prepare_something_for_each_answer_are_refused_with_own_samples(method) -> None:
    one = METHODS[method["name"]].Config.model_validate(method)
    told = {
        driver: [*lacking(SimpleNamespace(driver=config, methods=(one,), start="random"))]
        for driver, config in (("once", OnceConfig()), ("rollout", RolloutConfig()))
    }
    assert told["once"] == []
    [sentence] = told["rollout"]
    assert sentence.startswith(f"method '{method['name']}' as set prepares something")
    assert "once" in sentence
