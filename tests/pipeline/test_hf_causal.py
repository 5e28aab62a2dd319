"""Causal language models of transformers as teachers: their own tokenizer, their own answers, nothing loaded half."""

import json

import pytest
import torch

from edgestill.pipeline.data.datasets.strings import StringsConfig
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.errors import CheckpointError, ConfigError
from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.input_kind.lm import END, MARKS, START
from edgestill.pipeline.networks.network import look
from edgestill.pipeline.runs.checkpoint import weights_bytes
from edgestill.pipeline.teachers import make_teacher
from edgestill.pipeline.teachers.adapted.causal import NEVER
from edgestill.pipeline.teachers.hf import HfConfig
from edgestill.pipeline.torchvision_compat import repair

repair()
transformers = pytest.importorskip("transformers", reason="pip install 'edgestill[transformers]'")
tokenizers = pytest.importorskip("tokenizers")

DATA = {"count": 40, "letters": 3, "largest": 9, "kinds": ("reverse", "add")}
CHARACTERS = "abcdefgh0123456789+= rvs"
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
LLAMA = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 24, "max_position_embeddings": 64, "tie_word_embeddings": False,
}  # fmt: skip


def gpt2_tokenizer():
    """Byte-level BPE of single bytes; one mark for beginning and end, and no padding."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*alphabet, "<|endoftext|>"])}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens([tokenizers.AddedToken("<|endoftext|>", special=True, normalized=False)])
    return made, len(alphabet), len(alphabet)


def llama_tokenizer():
    """Unigram with marks of its own that are written like ours, which it puts before every text."""
    vocabulary = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((c, -1.0) for c in CHARACTERS), ("ab", -0.5)]
    made = tokenizers.Tokenizer(tokenizers.models.Unigram(vocabulary, unk_id=0))
    made.decoder = tokenizers.decoders.Fuse()
    made.add_special_tokens([tokenizers.AddedToken(mark, special=True, normalized=False) for mark in ("<s>", "</s>")])
    made.post_processor = tokenizers.processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return made, 1, 2


FAMILIES = {"gpt2": (GPT2, gpt2_tokenizer), "llama": (LLAMA, llama_tokenizer)}


def save(folder, kind, **changes):
    sizes, make = FAMILIES[kind]
    tokenizer, begin, end = make()
    settings = {"vocab_size": tokenizer.get_vocab_size(), "bos_token_id": begin, "eos_token_id": end}
    config = transformers.AutoConfig.for_model(kind, **sizes, **(settings | changes))
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return model, tokenizer, begin, end


@pytest.fixture(scope="module", params=FAMILIES)
def given(request, tmp_path_factory):
    """(folder, model, tokenizer, begin, end, splits that read by the folder's tokenizer)"""
    folder = tmp_path_factory.mktemp(request.param)
    teacher = make_teacher(HfConfig(model=str(folder)))
    found = save(folder, request.param)
    return folder, *found, load_splits(StringsConfig(**DATA).with_tokenizer(teacher.tokenizer), seed=0)


def test_its_tokenizer_is_the_datas_with_the_marks_before_its_own_ids(given):
    _, _, tokenizer, _, _, splits = given
    assert splits.coder.tokens[:3] == MARKS
    assert splits.task.vocab_size == tokenizer.get_vocab_size() + 3
    ids = splits.coder.encode(["reverse cab=<s>bac</s>"])[0]
    prompt = [i + 3 for i in tokenizer.encode("reverse cab=", add_special_tokens=False).ids]
    answer = [i + 3 for i in tokenizer.encode("bac", add_special_tokens=False).ids]
    assert [i for i in ids if i != PADDING] == [*prompt, START, *answer, END]
    assert splits.coder.decode(prompt) == "reverse cab="


def test_it_answers_as_the_librarys_own_model_to_a_text_that_begins_with_its_own_mark(given):
    folder, model, _, begin, end, splits = given
    teacher = make_teacher(HfConfig(model=str(folder))).read(splits.task).eval()
    batch = splits.train.batch(torch.arange(7))
    found = look(teacher, batch.inputs, batch.rows).logits
    expected = []
    for text, place in batch.rows.tolist():
        ids = [i for i in batch.inputs[text].tolist() if i != PADDING]
        own = [begin, *(end if i == END else i - 3 for i in ids if i != START)]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([own[: place + 1]])).logits[0, -1]
        row = torch.full((splits.task.vocab_size,), NEVER)
        row[3 : 3 + len(logits)], row[END], row[end + 3] = logits, logits[end], NEVER
        expected.append(row)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-4, rtol=1e-4)


def test_a_prompt_alone_is_answered_at_its_last_token(given):
    folder, _, _, _, _, splits = given
    teacher = make_teacher(HfConfig(model=str(folder))).read(splits.task).eval()
    batch = splits.train.batch(torch.arange(3))
    rows = look(teacher, batch.inputs, batch.rows)
    (at,) = (batch.rows[:, 0] == 1).nonzero(as_tuple=True)
    place = int(batch.rows[at[1], 1])
    torch.testing.assert_close(teacher(batch.inputs[1:2, : place + 1])[0], rows.logits[at[1]], atol=1e-4, rtol=1e-4)


def test_between_leaves_the_mark_where_the_data_has_it(given):
    folder, model, _, begin, end, splits = given
    teacher = make_teacher(HfConfig(model=str(folder), start="between")).read(splits.task).eval()
    batch = splits.train.batch(torch.arange(1))
    ids = [i for i in batch.inputs[0].tolist() if i != PADDING]
    own = [{START: begin, END: end}.get(i, i - 3) for i in ids]
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([own])).logits[0, batch.rows[:, 1]]
    found = look(teacher, batch.inputs, batch.rows).logits
    torch.testing.assert_close(found[:, END], expected[:, end], atol=1e-4, rtol=1e-4)


def test_a_runs_copy_of_the_weights_loads_again(given, tmp_path):
    folder, _, _, _, _, splits = given
    family = make_teacher(HfConfig(model=str(folder)))
    teacher, path = family.read(splits.task).eval(), tmp_path / "weights.safetensors"
    path.write_bytes(weights_bytes(teacher, family.metadata(splits.task)))
    inputs = splits.train.batch(torch.arange(4)).inputs
    assert torch.equal(family.load(splits.task, path).eval()(inputs), teacher(inputs))
    assert not family.exports


def test_a_vocabulary_or_a_tokenizer_that_does_not_fit_is_refused_in_a_sentence(tmp_path):
    family = make_teacher(HfConfig(model=str(tmp_path)))
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        family.read(load_splits(StringsConfig(**DATA), seed=0).task)
    save(tmp_path, "gpt2")
    task = load_splits(StringsConfig(**DATA).with_tokenizer(family.tokenizer), seed=0).task
    described = json.loads((tmp_path / "config.json").read_text())
    larger = task.model_copy(update={"labels": (*task.labels, "more"), "vocab_size": task.vocab_size + 1})
    with pytest.raises(CheckpointError, match="knows 257 token ids, and the data's tokenizer gives 258"):
        family.read(larger)
    (tmp_path / "config.json").write_text(json.dumps(described | {"eos_token_id": None}))
    with pytest.raises(CheckpointError, match="names no eos_token_id"):
        family.read(task)
    (tmp_path / "config.json").write_text(json.dumps(described | {"n_positions": 8}))
    with pytest.raises(CheckpointError, match="reads 8 tokens at most"):
        family.read(task)
    (tmp_path / "config.json").write_text(json.dumps(described))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer.json in .*save_pretrained"):
        family.read(task)
    with pytest.raises(CheckpointError, match="trust_remote_code does not go with language models"):
        make_teacher(HfConfig(model=str(tmp_path), trust_remote_code=True)).read(task)


def test_a_model_that_sees_later_tokens_is_no_teacher_of_language(tmp_path):
    config = transformers.AutoConfig.for_model(
        "bert", vocab_size=257, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64, bos_token_id=0, eos_token_id=1, is_decoder=False,
    )  # fmt: skip
    transformers.BertLMHeadModel(config).save_pretrained(tmp_path)
    gpt2_tokenizer()[0].save(str(tmp_path / "tokenizer.json"))
    family = make_teacher(HfConfig(model=str(tmp_path)))
    task = load_splits(StringsConfig(**DATA).with_tokenizer(family.tokenizer), seed=0).task
    with pytest.raises(CheckpointError, match="does more to its answers than its last layer"):
        family.read(task)


def test_a_tokenizer_of_ones_own_beside_the_teachers_is_refused(tmp_path):
    from edgestill.flows.config import load_config

    save(tmp_path, "llama")
    own = f"data.tokenizer.file={tmp_path / 'tokenizer.json'}"
    with pytest.raises(ConfigError, match="the teacher has its own"):
        load_config(preset="strings", settings=[f"teacher=hf:{tmp_path}", own])
