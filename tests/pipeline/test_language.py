"""Data of language tasks: generated strings, prompts from files, characters as tokens, places of answers as rows."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgestill.pipeline.data.datasets.language import PromptsConfig, load_prompts, marked
from edgestill.pipeline.data.datasets.strings import StringsConfig, answer_to, load_strings
from edgestill.pipeline.data.loading import load_splits, load_test
from edgestill.pipeline.data.sequences import MOST_PLACES, prompts_of, split_of_language
from edgestill.pipeline.data.splits import ImageSplit, draw_batch
from edgestill.pipeline.data.tokens import token_labels
from edgestill.pipeline.errors import DataError
from edgestill.pipeline.input_kind.lm import END, START, answered
from edgestill.pipeline.networks.causal_transformer import CausalTransformer
from edgestill.pipeline.networks.network import look
from edgestill.pipeline.task import Task
from edgestill.pipeline.training.metrics import evaluate

TEXTS = torch.tensor([[5, 6, START, 7, 8, END, 0], [5, START, 9, END, 0, 0, 0], [START, 4, 5, 6, 7, 8, 9]])
TASK = Task(kind="lm", labels=tuple(f"t{k}" for k in range(10)), input_shape=(7,), vocab_size=10)


@pytest.fixture(scope="module")
def splits():
    return load_splits(StringsConfig(count=90), seed=0)


@pytest.fixture
def network():
    return CausalTransformer(TASK, depth=2, heads=2, head_width=4, feed_forward=2).eval()


@pytest.mark.parametrize(("prompt", "answer"), [("7+15=", "22"), ("reverse cab=", "bac"), ("sort cab=", "abc")])
def test_each_kind_of_string_has_one_right_answer(prompt, answer):
    assert answer_to(prompt) == answer


def test_strings_are_different_evenly_of_each_kind_and_the_same_for_the_same_draw():
    config = StringsConfig(count=300)
    raw = load_strings(config)
    assert raw.train.texts == load_strings(config).train.texts
    assert raw.train.texts != load_strings(StringsConfig(count=300, draw=1)).train.texts
    assert len(set(raw.train.texts)) == 300
    assert np.bincount(raw.train.targets).tolist() == [100, 100, 100]
    for text in raw.train.texts:
        prompt, _, answer = text.removesuffix("</s>").partition("<s>")
        assert answer == answer_to(prompt)


def test_more_strings_than_there_are_is_refused_with_the_keys_to_change():
    with pytest.raises(DataError, match=r"gave 100 different prompts, and 200 .*data\.count"):
        load_strings(StringsConfig(kinds=("add",), largest=9, count=200))


def test_a_file_of_prompts_and_answers_is_split_and_decodes_to_itself(tmp_path):
    lines = [{"prompt": f"say {n} ", "response": f"it's {n}!"} for n in range(40)]
    (tmp_path / "talk.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    splits = load_splits(PromptsConfig(path=tmp_path / "talk.jsonl"), seed=0)
    texts = splits.coder.decode_all(splits.train.images.numpy())
    assert {f"{line['prompt']}{line['response']}" for line in lines} > set(texts)
    assert splits.task.labels[:3] == ("[PAD]", "<s>", "</s>")
    assert "\N{OPEN BOX}" in splits.task.labels


def test_worse_answers_stand_beside_the_training_texts_and_domains_reach_every_split(tmp_path):
    lines = [
        {"prompt": f"{n}?", "response": f"yes {n}", "rejected": f"no {n}", "topic": "ab"[n % 2]} for n in range(60)
    ]
    (tmp_path / "talk.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    config = PromptsConfig(path=tmp_path / "talk.jsonl", rejected_key="rejected", domain_key="topic")
    splits = load_splits(config, seed=0)
    for text, worse in zip(
        *(splits.coder.decode_all(ids.numpy()) for ids in (splits.train.images, splits.train.rejected)), strict=True
    ):
        number = text.partition("?")[0]
        assert (text, worse) == (f"{number}?yes {number}", f"{number}?no {number}")
    few = splits.train.select(torch.tensor([4, 0]))
    assert torch.equal(few.rejected, splits.train.rejected[[4, 0]])
    for split in splits.parts:
        assert {name.partition("/")[0] for name in split.ids} == {"a", "b"}
    plain = load_splits(PromptsConfig(path=tmp_path / "talk.jsonl"), seed=0)
    assert plain.train.rejected is None
    assert plain.digests["train"] != splits.digests["train"]
    (tmp_path / "talk.jsonl").write_text('{"prompt": "a", "response": "b"}\n')
    with pytest.raises(DataError, match="'response', 'rejected' and 'topic'"):
        load_prompts(config)


def test_a_wrong_answer_is_one_character_off():
    raw = load_strings(StringsConfig(count=90, rejected=True)).train
    for right, wrong in zip(raw.texts, raw.rejected, strict=True):
        assert len(right) == len(wrong)
        assert sum(a != b for a, b in zip(right, wrong, strict=True)) == 1
        assert right.partition("<s>")[0] == wrong.partition("<s>")[0]
    assert {name.partition("/")[0] for name in raw.names} == {"add", "reverse", "sort"}


def test_running_text_becomes_windows_that_no_end_closes(tmp_path):
    (tmp_path / "book.txt").write_text("the quick brown fox jumps over the lazy dog. " * 60)
    splits = load_splits(PromptsConfig(path=tmp_path / "book.txt", max_length=16), seed=0)
    assert splits.task.input_shape == (16,)
    assert (splits.train.images[:, 0] == START).all()
    assert not (splits.train.images == END).any()


@pytest.mark.parametrize(
    ("line", "said"),
    [("{", "line 1 is no JSON object"), ('{"prompt": 3, "response": "x"}', "no text"), ('{"prompt": "a"}', "response"),
     ('{"prompt": "a<s>", "response": "x"}', "text 1: holds one of"), ("[" * 10**5, "line 1 is no JSON object"),
     ('{"prompt": "a", "response": "x", "response": "y"}', "stands in it twice"),
     ('{"prompt": "a\\ud800", "response": "x"}', "line 1: column 'prompt' holds half a character")],
)  # fmt: skip
def test_a_line_that_is_no_prompt_with_an_answer_is_named(line, said, tmp_path):
    (tmp_path / "talk.jsonl").write_text(f"{line}\n")
    with pytest.raises(DataError, match=said):
        load_prompts(PromptsConfig(path=tmp_path / "talk.jsonl"))


def test_a_separator_of_lines_within_a_text_ends_no_line_of_the_file(tmp_path):
    lines = [json.dumps({"prompt": f"{n}?", "response": "one\u2028two\x85three"}, ensure_ascii=False) for n in range(9)]
    (tmp_path / "talk.jsonl").write_text("\n".join(lines), encoding="utf-8")
    texts = load_prompts(PromptsConfig(path=tmp_path / "talk.jsonl")).train.texts
    assert texts == tuple(marked(f"{n}?", "one\u2028two\x85three") for n in range(9))


def test_names_of_tokens_are_distinct_lines_whatever_the_tokens():
    names = token_labels(("[PAD]", " ", "\N{OPEN BOX}", "\n", "\t", "", "x"))
    assert names == ("[PAD]", "\N{OPEN BOX}", "\N{OPEN BOX} (id 2)", "\\n", "\\t", "id 5", "x")
    assert Task(kind="lm", labels=names, input_shape=(4,), vocab_size=7).labels == names


def test_answers_begin_at_the_start_and_end_with_the_end():
    assert answered(TEXTS).int().tolist() == [[0, 0, 1, 1, 1, 0], [0, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]]


def test_a_training_batch_has_the_rows_that_prompts_have_one_by_one(network):
    whole = ImageSplit(TEXTS, torch.zeros(3, dtype=torch.int64), "train")
    split, singly = split_of_language(whole), prompts_of(whole)
    batch = split.batch(torch.tensor([2, 0]))
    with torch.no_grad():
        rows, alone = look(network, batch.inputs, batch.rows).logits, network(singly.images)
    assert batch.index.tolist() == [5, 6, 7, 8, 9, 10, 0, 1, 2]
    assert torch.equal(batch.targets, singly.targets[batch.index])
    assert torch.allclose(rows, alone[batch.index], atol=1e-6)
    assert split.singly().texts is TEXTS


def test_a_split_to_be_judged_has_prompts_with_one_answer_each(network):
    split = split_of_language(
        ImageSplit(TEXTS, torch.zeros(3, dtype=torch.int64), "validation", np.array(["a", "b", "c"]))
    )
    found = evaluate(network, split, torch.device("cpu"))
    with torch.no_grad():
        logits = network(split.images)
    assert found.n == len(split) == 11
    assert found.cross_entropy == pytest.approx(float(F.cross_entropy(logits, split.targets)), rel=1e-5)
    assert split.ids[0] == "a@2"


def test_judging_takes_one_pass_a_text_and_counts_each_prompt_once():
    split = prompts_of(ImageSplit(TEXTS, torch.zeros(3, dtype=torch.int64)))
    chosen = split.select(torch.tensor([10, 0, 4, 7]))
    batches = list(chosen.passes(2))
    assert [len(batch.inputs) for batch in batches] == [2, 1]
    assert torch.cat([batch.index for batch in batches]).sort().values.tolist() == [0, 1, 2, 3]
    for batch in batches:
        for (text, place), target, index in zip(batch.rows, batch.targets, batch.index, strict=True):
            ids = batch.inputs[text]
            assert torch.equal(chosen.images[index][: place + 1], ids[: place + 1])
            assert target == ids[place + 1] == chosen.targets[index]


def test_a_long_text_is_judged_at_some_places_evenly_spread():
    text = torch.cat([torch.tensor([START]), torch.full((60,), 5)])[None]
    split = prompts_of(ImageSplit(text, torch.zeros(1, dtype=torch.int64)))
    lengths = (split.images != 0).sum(1)
    assert len(split) == MOST_PLACES
    assert (lengths[0], lengths[-1]) == (1, 60)
    assert (lengths.diff() >= 3).all()


def test_splits_of_strings_share_a_tokenizer_and_keep_the_test_prompts_apart(splits):
    test = load_test(StringsConfig(count=90), 0, splits.coder.json)
    seen = {tuple(row) for part in (splits.train.images, splits.validation.texts) for row in part.tolist()}
    assert not seen & {tuple(row) for row in test.texts.tolist()}
    assert splits.task.num_classes == splits.task.vocab_size == splits.coder.vocab_size


def test_scorers_are_given_prompts_with_one_answer_each(splits):
    batch = draw_batch(splits.train, 16, seed=0)
    assert batch.rows is None
    assert len(batch.inputs) == len(batch.targets) == 16


def test_the_counts_of_a_look_are_of_the_answers_tokens():
    splits = load_splits(StringsConfig(count=60), seed=0, looking=True)
    assert sum(splits.look.counts["train"]) == int(answered(splits.train.images).sum())
    assert set(splits.look.texts) == {"add", "reverse", "sort"}
