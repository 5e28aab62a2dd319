"""Swing, DDK, FIRST and TAID on a language model, where a token's row is an example."""

import json

import numpy as np
import pytest
import torch

from edgestill.distill.config import DistillConfig
from edgestill.distill.conformance.prepared import network, recipe_on
from edgestill.distill.methods.data.ddk import DDKConfig
from edgestill.distill.methods.targets.first import FIRST, FIRSTConfig, bucketed_kl
from edgestill.distill.methods.targets.swing import SwingConfig
from edgestill.distill.methods.targets.taid import TAIDConfig
from edgestill.distill.recipe import make_recipe
from edgestill.distill.train import distill
from edgestill.pipeline.conformance.samples import language_task, splits
from edgestill.pipeline.data.datasets.language import PromptsConfig
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.data.sequences import Sequences, prompts_of
from edgestill.pipeline.data.splits import Splits
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.input_kind.lm import END, START
from edgestill.pipeline.networks.network import View, evaluating, look
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.exposure import answer_losses, text_exposure
from edgestill.pipeline.training.fidelity import fidelity
from edgestill.pipeline.training.fit import fit
from edgestill.pipeline.training.objective import Supervised

CPU, TASK = torch.device("cpu"), language_task()
DIGITS = Task(kind="lm", labels=("[PAD]", "<s>", "</s>", *"0123456789ab"), input_shape=(7,), vocab_size=15)


@pytest.fixture(scope="module")
def data():
    return splits(TASK)


@pytest.fixture(scope="module")
def pair():
    return frozen(network(TASK, 1, (8, 12, 16))), network(TASK, 2)


def secrets(count, seed=0):
    """Texts `a<s>DDD</s>` with random digits, and all 1,000 that they might have been."""
    every = torch.cartesian_prod(*(torch.arange(3, 13),) * 3)
    ends = (
        torch.tensor([13, START]).expand(1000, 2),
        torch.full((1000, 1), END),
        torch.zeros(1000, 1, dtype=torch.int64),
    )
    candidates = torch.cat([ends[0], every, *ends[1:]], 1)
    return candidates, torch.randperm(1000, generator=torch.Generator().manual_seed(seed))[:count]


def with_secrets(candidates, planted):
    """Easy texts `b<s>ab</s>`, and the planted ones."""
    easy = torch.tensor([[14, START, 13, 14, END, 0, 0]]).expand(24, 7)
    texts = torch.cat([easy, candidates[planted]])
    train = Sequences(texts, torch.zeros(len(texts), dtype=torch.int64), "train")
    held = prompts_of(Sequences(texts[:24:3], torch.zeros(8, dtype=torch.int64)))
    return Splits(DIGITS, train, held, held, augment=splits(TASK).augment, sizes={}, digests={})


def test_a_pattern_makes_private_the_tokens_that_it_matches_and_no_others():
    candidates, planted = secrets(3)
    made = with_secrets(candidates, planted)
    method = recipe_on([SwingConfig(rarity="pattern", pattern=r"\d{3}")], network(DIGITS, 1), network(DIGITS, 2), made)[
        0
    ].methods[0]
    expected = [0.0] * 24 * 3 + [1.0, 1.0, 1.0, 0.0] * 3
    assert method._rarity.tolist() == expected
    assert made.train.answers == len(expected)
    batch = made.train.batch(torch.tensor([25, 2]))
    logits = torch.randn(len(batch.targets), 15, generator=torch.Generator().manual_seed(3))
    view = View(logits[:0], logits[:0], logits)
    found, r = method.target(view, view, batch), torch.tensor([1.0, 1, 1, 0, 0, 0, 0])[:, None]
    torch.testing.assert_close(found, ((logits + r * method._noise[batch.index]) / (4 + 16 * r)).softmax(1))
    with pytest.raises(ValueError, match="no regular expression"):
        SwingConfig(pattern="(")


@pytest.mark.parametrize("rarity", ["neighbours", "doubt"])
def test_rows_are_scored_by_themselves(rarity, data, pair):
    teacher, student = pair
    method = recipe_on([SwingConfig(rarity=rarity, sharpness=1.0)], teacher, student, data)[0].methods[0]
    batch = data.train.batch(torch.arange(len(data.train)))
    assert len(method._rarity) == len(batch.targets)
    with torch.no_grad():
        view = look(teacher.eval(), batch.inputs, batch.rows)
    if rarity == "doubt":
        doubt = 1 - view.logits.softmax(1)[torch.arange(len(batch.targets)), batch.targets]
        assert int(doubt.argmax()) == int(method._rarity.argmax())
        assert int(doubt.argmin()) == int(method._rarity.argmin())


def test_a_texts_loss_is_the_sum_over_its_answer_and_exposure_ranks_it():
    candidates, planted = secrets(4)
    model = network(DIGITS, 3)
    with torch.no_grad(), evaluating(model):
        losses = answer_losses(model, candidates[:5])
        for text, loss in zip(candidates[:5].tolist(), losses.tolist(), strict=True):
            each = [model(torch.tensor([text[:at]]))[0].log_softmax(0)[text[at]] for at in range(2, 6)]
            assert loss == pytest.approx(-float(sum(each)), rel=1e-5)
        ranked = answer_losses(model, candidates).argsort().tolist()
    canary = int(planted[0])
    assert text_exposure(model, candidates, canary) == pytest.approx(
        np.log2(1000 / (ranked.index(canary) + 1)), abs=1e-6
    )


def test_swing_gives_away_less_of_planted_secrets_than_plain_kd():
    candidates, planted = secrets(6)
    made = with_secrets(candidates, planted)
    teacher = network(DIGITS, 1, (16, 0, 0))
    training = {"epochs": 40, "batch_size": 10, "optimizer": "adamw", "learning_rate": 0.01, "warmup_epochs": 0}
    fit(teacher, Supervised(), made.train, made.validation, TrainingConfig(**training), seed=0, device=CPU)
    bits = {}  # noise above the logits' margins, or the order of the candidates stays
    for name, more in (
        ("kd", {}),
        ("swing", {"rarity": "pattern", "pattern": r"\d{3}", "spread": 64.0, "noise": 32.0}),
    ):
        config = DistillConfig.model_validate(
            {"methods": [{"name": name, "distill_weight": 1.0, **more}], "training": {**training, "patience": 0}}
        )
        done = distill(network(DIGITS, 2, (8, 0, 0)), teacher, made, config, seed=0, device=CPU)
        bits[name] = np.mean([text_exposure(done.student, candidates, int(n)) for n in planted])
        assert done.fitted.best.accuracy == 1  # of what is no secret
    assert bits["kd"] > 6
    assert bits["swing"] < 0.65 * bits["kd"]


def test_domains_of_a_file_are_drawn_by_the_gap_of_the_perplexities(tmp_path, pair):
    lines = [{"prompt": "x", "response": "ab"[n % 2] * 3, "domain": "pq"[n % 2]} for n in range(80)]
    (tmp_path / "two.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    made = load_splits(PromptsConfig(path=tmp_path / "two.jsonl", domain_key="domain"), seed=0)
    assert {name.partition("/")[0] for name in made.train.ids} == {"p", "q"}
    teacher, student = network(made.task, 1), network(made.task, 2)
    method = recipe_on([DDKConfig(domains="sources")], frozen(teacher), student, made)[0].methods[0]
    ratios = []
    for domain in "pq":
        losses = []
        for one in (student, teacher):
            own = made.reference.select(torch.tensor([name.startswith(domain) for name in made.reference.ids]))
            batch = own.batch(torch.arange(len(own)))  # each prompt by itself, where the method looks at whole texts
            with torch.no_grad(), evaluating(one):
                losses.append(torch.nn.functional.cross_entropy(one(batch.inputs).double(), batch.targets))
        ratios.append(float(losses[0].exp() / losses[1].exp()))
    expected = np.exp(ratios) / np.exp(ratios).sum()
    assert method._shares.tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    method._shares = torch.tensor([0.9, 0.1]).double()
    order = method.order(0, torch.Generator().manual_seed(0))
    assert len(order) == len(made.train)
    drawn = [made.train.ids[n][0] for n in order.tolist()]
    assert drawn.count("p") > 2 * drawn.count("q")
    method.end_epoch(0, student)
    assert float(method._shares.min()) >= 0.25 - 1e-9
    with pytest.raises(ConfigError, match=r"set ddk\.domains to sources"):
        make_recipe([DDKConfig()]).check(made.task, made.train)


def test_the_few_classes_of_a_file_teach_what_the_whole_answers_do(data, pair, tmp_path, monkeypatch):
    teacher, student = pair
    losses = {}
    for offline in (False, True):
        recipe, batch = recipe_on([FIRSTConfig(classes=3, offline=offline)], teacher, student, data)
        with evaluating(student), torch.no_grad():
            losses[offline] = float(recipe.loss(student, batch)["distillation"])
    assert losses[True] == pytest.approx(losses[False], rel=1e-5)


def test_an_offline_student_never_asks_the_teacher_and_a_second_run_reads_the_file(data, pair, tmp_path, monkeypatch):
    teacher, asked = network(TASK, 1, (8, 12, 16)), []
    own = teacher.forward_features
    teacher.forward_features = lambda inputs: (asked.append(1), own(inputs))[1]
    monkeypatch.setenv("EDGESTILL_CACHE", str(tmp_path))
    named = Splits(**{**data.__dict__, "digests": {"train": "x"}})
    config = DistillConfig.model_validate({
        "methods": [{"name": "first", "classes": 3, "recalibration": "none", "offline": True}],
        "training": {"epochs": 3, "batch_size": 16, "warmup_epochs": 0},
    })  # fmt: skip
    curves = []
    for _ in range(2):
        done = distill(network(TASK, 2), teacher, named, config, seed=0, device=CPU)
        curves.append([record.loss for record in done.fitted.curve])
    assert len(asked) == 1  # all examples fit into one pass
    assert curves[0] == curves[1]
    [file] = (tmp_path / "teacher").glob("*.top")
    assert file.stat().st_size < 8 * 3 * data.train.answers + 300
    with pytest.raises(ValueError, match="with offline keeps"):
        DistillConfig.model_validate({"methods": [{"name": "first", "offline": True}, "online_teacher"]})


def test_all_classes_of_a_file_are_the_kl(data, pair):
    teacher, student = pair
    recipe, batch = recipe_on([FIRSTConfig(classes=8, offline=True, recalibration="none")], teacher, student, data)
    with evaluating(student, teacher), torch.no_grad():
        found = float(recipe.loss(student, batch)["distillation"])
        s, t = (look(one, batch.inputs, batch.rows).logits.log_softmax(1) for one in (student, teacher))
    assert found == pytest.approx(float((t.exp() * (t - s)).sum(1).mean()), rel=1e-4)
    few = bucketed_kl(t.exp(), s, 3)
    assert bool((few <= (t.exp() * (t - s)).sum(1) + 1e-6).all())
    assert FIRST(FIRSTConfig(offline=True)).spares_teacher


def test_taids_share_of_the_teacher_only_grows_and_ends_in_plain_kd(data, pair):
    teacher, student = pair
    recipe, batch = recipe_on([TAIDConfig(start=0.0)], teacher, student, data)
    [method] = recipe.methods
    loss = recipe.loss(student.eval(), batch)["distillation"]
    gradients = torch.autograd.grad(loss, list(student.parameters()), allow_unused=True)
    assert max(float(g.abs().max()) for g in gradients if g is not None) < 1e-6
    method._share = 1.0
    plain = make_recipe(DistillConfig.model_validate({"methods": [{"name": "kd", "temperature": 1}]}).methods)
    with torch.no_grad(), evaluating(student, teacher):
        views = [look(one, batch.inputs, batch.rows) for one in (teacher, student)]
        found, expected = (one.terms(*views, views[1].logits, batch)["distillation"] for one in (recipe, plain))
    assert float(found) == pytest.approx(float(expected) / 0.9, rel=1e-5)
    shares = []
    config = DistillConfig.model_validate({"methods": ["taid"], "training": {"epochs": 3, "batch_size": 16}})
    distill(network(TASK, 2), teacher, data, config, seed=0, device=CPU,
            save=lambda state: shares.append(state["objective"]["taid"]["share"]))  # fmt: skip
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)


def test_fidelity_of_rows_is_whole_of_a_teacher_to_itself_and_keeps_the_identity_of_accuracy(data, pair):
    batch = data.train.batch(torch.arange(40))
    with torch.no_grad():
        t, s = (look(one.eval(), batch.inputs, batch.rows).logits.numpy() for one in pair)
    targets = batch.targets.numpy()
    same = fidelity(t, t, targets)
    assert (same.agreement, same.rank_correlation) == pytest.approx((1, 1))
    assert same.kl == pytest.approx(0, abs=1e-9)
    found = fidelity(t, s, targets)
    agree, right = t.argmax(1) == s.argmax(1), t.argmax(1) == targets
    both, alone = (agree & right).mean(), (~agree & (s.argmax(1) == targets)).mean()
    assert found.student_accuracy == pytest.approx(both + alone, abs=1e-12)
