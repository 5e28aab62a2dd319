"""Answers that a teacher writes: what is drawn, what is kept, and what a student learns from them."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from edgestill.distill.config import DistillConfig
from edgestill.distill.conformance.prepared import prepared
from edgestill.distill.methods.language import writing
from edgestill.distill.methods.language.sequence_kd import SequenceKD, SequenceKDConfig
from edgestill.distill.methods.language.writing import Library, Writing, chosen_tokens, written
from edgestill.distill.recipe import make_recipe
from edgestill.distill.train import distill
from edgestill.pipeline.conformance.samples import language_task, splits
from edgestill.pipeline.data.sequences import batch_of_texts
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.input_kind.lm import END, START
from edgestill.pipeline.networks.causal_transformer import CausalTransformer
from edgestill.pipeline.networks.network import View, evaluating, look
from edgestill.pipeline.randomness import drawn_from

CPU, TASK = torch.device("cpu"), language_task()


def network(seed, width=8):
    with drawn_from(seed):
        made = CausalTransformer(TASK, depth=1, heads=2, head_width=width, feed_forward=1)
    made.linear.weight.data *= 6  # surer, so that texts differ
    return made.eval()


class Counted(torch.nn.Module):
    """A network that counts how often it is asked, and dies at a given time."""

    def __init__(self, network, most=10_000):
        super().__init__()
        self.network, self.asked, self.most = network, 0, most

    def look(self, inputs, rows=None):
        self.asked += 1
        if self.asked > self.most:
            raise KeyboardInterrupt
        return look(self.network, inputs, rows)


@pytest.fixture(scope="module")
def data():
    return splits(TASK)


def test_greedy_writing_appends_the_likeliest_token_one_by_one(data):
    teacher, prompts = network(1), data.train.prompts()[:6]
    found = written(teacher, prompts, Writing())[:, 0]
    for prompt, text in zip(prompts.tolist(), found.tolist(), strict=True):
        ids = [i for i in prompt if i != PADDING]
        assert ids[-1] == START
        while len(ids) < TASK.input_shape[0] and ids[-1] != END:
            with torch.no_grad():
                logits = teacher(torch.tensor([ids]))[0]
            logits[[PADDING, START]] = -torch.inf
            ids.append(int(logits.argmax()))
        assert text == ids + [PADDING] * (len(text) - len(ids))


def test_tokens_are_drawn_as_often_as_their_probability_says_and_none_beyond_top_p():
    logits = torch.tensor([[9.0, 9.0, 0.0, 1.0, 2.0, 0.5]])
    p = (logits[:, 2:] / 1.5).softmax(1)[0]
    chances = (torch.arange(4000) + 0.5) / 4000
    found = chosen_tokens(logits.expand(4000, 6), chances, Writing(temperature=1.5))
    shares = torch.bincount(found, minlength=6) / 4000
    assert shares[:2].tolist() == [0, 0]
    torch.testing.assert_close(shares[2:], p, atol=1e-3, rtol=0)
    few = chosen_tokens(logits.expand(4000, 6), chances, Writing(temperature=1.5, top_p=0.6))
    shares = torch.bincount(few, minlength=6) / 4000  # of 4, then 3: 0.48 is below 0.6, 0.73 is not
    torch.testing.assert_close(shares[[4, 3]], p[[2, 1]] / p[[2, 1]].sum(), atol=1e-3, rtol=0)
    assert float(shares[[4, 3]].sum()) == pytest.approx(1)


def test_samples_differ_by_seed_and_are_the_same_for_the_same(data):
    teacher, prompts = network(1), data.train.prompts()
    how = Writing(samples=3, temperature=2.0)
    first, again, other = (written(teacher, prompts, one) for one in (how, how, how._replace(draw=1)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[:, 0], first[:, 1])


def test_a_stopped_writing_goes_on_where_it_was_and_a_finished_one_asks_nothing(data, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_PART", 16)
    prompts, how = data.train.prompts(), Writing(temperature=1.0)
    whole = Counted(network(1))
    expected = written(whole, prompts, how)
    parts = sorted(tmp_path.iterdir())
    assert parts == []
    with pytest.raises(KeyboardInterrupt):
        written(Counted(network(1), most=whole.asked // 2), prompts, how, tmp_path)
    kept = len(list(tmp_path.iterdir()))
    assert 0 < kept < len(prompts) / 16
    rest = Counted(network(1))
    assert torch.equal(written(rest, prompts, how, tmp_path), expected)
    assert rest.asked < whole.asked
    done = Counted(network(1))
    assert torch.equal(written(done, prompts, how, tmp_path), expected)
    assert done.asked == 0
    damaged = sorted(tmp_path.iterdir())[2]
    damaged.write_bytes(damaged.read_bytes()[:-3])
    assert torch.equal(written(done, prompts, how, tmp_path), expected)
    assert 0 < done.asked < whole.asked


def test_a_teacher_that_is_always_right_teaches_what_the_labels_teach(data):
    """What is written is then the data's own text, and the loss that of the labels alone."""
    recipe, _, student, _ = prepared(SequenceKD)
    [method] = recipe.methods
    method._library = Library.whole(data.train.images[:, None])
    batch = data.train.batch(torch.tensor([4, 1, 7]))
    given = recipe.prepare_batch(batch, torch.Generator())
    assert torch.equal(given.inputs, batch.inputs)
    assert torch.equal(given.targets, batch.targets)
    with evaluating(student), torch.no_grad():
        terms = recipe.loss(student, given)
        expected = -look(student, batch.inputs, batch.rows).logits.log_softmax(1)
    assert float(terms["cross_entropy"]) == pytest.approx(
        float(expected[torch.arange(len(batch.targets)), batch.targets].mean()), rel=1e-6
    )
    assert method.measures() == {"same_answers": 1.0}


def test_an_epoch_draws_each_of_a_prompts_answers_in_turn_and_keeps_to_the_prompt(data):
    method = SequenceKD(SequenceKDConfig(samples=4, temperature=1.0))
    method._train = data.train
    marks = torch.arange(3, 7)
    texts = data.train.prompts()[:, None].repeat(1, 4, 1)
    texts[:, torch.arange(4), 3] = marks
    method._library = Library.whole(texts)
    seen = set()
    for seed, some in itertools.product(range(6), ([2, 0], [5])):
        batch = method.data(data.train.batch(torch.tensor(some)), torch.Generator().manual_seed(seed))
        assert torch.equal(batch.inputs[:, :3], data.train.images[some][:, :3])
        assert batch.view is None
        seen |= set(batch.inputs[:, 3].tolist())
    assert seen == set(marks.tolist())


def test_the_teacher_writes_once_and_is_not_asked_in_training(data):
    teacher = network(1)
    asked = []
    teacher.register_forward_pre_hook(lambda *_: asked.append("forward"))
    own = teacher.states  # of whole texts, and of further tokens by a cache

    def counted(inputs, *cache):
        asked.append(len(inputs))
        return own(inputs, *cache)

    teacher.states = counted
    counts = {}
    for epochs in (1, 3):
        asked.clear()
        config = DistillConfig.model_validate(
            {"methods": ["sequence_kd"], "training": {"epochs": epochs, "batch_size": 16, "warmup_epochs": 0}}
        )
        distill(network(2, width=4), teacher, data, config, seed=0, device=CPU)
        counts[epochs] = len(asked)
    assert counts[1] == counts[3] > 0


def test_with_logits_too_the_loss_is_plain_kds_on_the_written_texts(data):
    methods = [{"name": "sequence_kd", "distill_weight": 0.3}, {"name": "kd", "temperature": 2.0}]
    recipe = make_recipe(DistillConfig.model_validate({"methods": methods}).methods)
    teacher, student = (network(seed, width).requires_grad_(False) for seed, width in ((1, 8), (2, 4)))
    batch = batch_of_texts(data.train.images[:5])
    s, t = (look(one, batch.inputs, batch.rows).logits for one in (student, teacher))
    found = recipe.terms(View(s[:0], s[:0], t), View(s[:0], s[:0], s), s, batch)
    divergence = 4 * ((t / 2).softmax(1) * ((t / 2).log_softmax(1) - (s / 2).log_softmax(1))).sum(1).mean()
    assert float(found["distillation"]) == pytest.approx(0.3 * float(divergence), rel=1e-5)
    assert float(found["cross_entropy"]) == pytest.approx(
        0.7 * float(torch.nn.functional.cross_entropy(s, batch.targets)), rel=1e-5
    )


def test_greedy_answers_to_no_prompt_and_several_greedy_answers_are_refused(data):
    texts = data.train.images.roll(-2, 1)
    running = dataclasses.replace(data.train, images=texts)
    assert not bool(running.prompted().any())
    with pytest.raises(ConfigError, match="one and the same answer"):
        SequenceKD(SequenceKDConfig()).check(TASK, running)
    with pytest.raises(ConfigError, match="all the same"):
        SequenceKD(SequenceKDConfig(samples=2)).check(TASK, data.train)
    with pytest.raises(ValueError, match="no weight"):
        DistillConfig.model_validate({"methods": ["sequence_kd", "taid"]})


def test_a_method_for_language_models_refuses_images(make_splits, make_task):
    made = make_splits(make_task())
    with pytest.raises(ConfigError, match="for data of kind 'lm', and these are 'image'"):
        make_recipe([SequenceKDConfig()]).check(made.task, made.train)


def test_rows_find_their_texts(data):
    counts = np.array([int(data.train.batch(torch.tensor([n])).targets.numel()) for n in range(6)])
    assert counts.tolist() == [3] * 6
    assert data.train.texts_of(data.train.batch(torch.tensor([5, 2])).index).tolist() == [5, 2]
