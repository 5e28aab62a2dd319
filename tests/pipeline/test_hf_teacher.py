"""A teacher from a Hugging Face folder: the same logits as the library's own model, and nothing loaded half."""

import json

import pytest
import torch

from edgestill.export.onnx.write import to_onnx
from edgestill.export.parity import check_parity
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.errors import CheckpointError, ConfigError
from edgestill.pipeline.networks.network import look
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers import TeacherConfig, build_teacher, load_teacher, make_teacher
from edgestill.pipeline.torchvision_compat import repair

repair()
transformers = pytest.importorskip("transformers", reason="pip install 'edgestill[transformers]'")

LENGTH, VOCABULARY = 12, 30
TASK = Task(kind="text", labels=("bad", "fair", "good"), input_shape=(LENGTH,), vocab_size=VOCABULARY)
_SIZES = {"vocab_size": VOCABULARY, "max_position_embeddings": 16, "num_labels": 3}
_BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
FAMILIES = {
    "bert": _BERT,
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "electra": _BERT | {"embedding_size": 8},
}


def make_model(kind: str):
    config = transformers.AutoConfig.for_model(kind, **_SIZES, **FAMILIES[kind])
    return transformers.AutoModelForSequenceClassification.from_config(config).eval()


@pytest.fixture
def saved(tmp_path):
    def save(kind="bert"):
        model = make_model(kind)
        model.save_pretrained(tmp_path / kind)
        return model, TeacherConfig(folder=tmp_path / kind)

    return save


def token_ids() -> torch.Tensor:
    ids = torch.randint(1, VOCABULARY, (20, LENGTH))
    ids[:8, 7:] = 0
    return ids


@pytest.mark.parametrize("kind", FAMILIES)
def test_it_answers_as_the_librarys_own_model_and_ships_as_onnx(kind, saved, tmp_path):
    model, config = saved(kind)
    teacher, ids = load_teacher(config, TASK, make_teacher(config).source).eval(), token_ids()
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=(ids != 0).long()).logits
        view = look(teacher, ids)
    assert torch.allclose(view.logits, expected, atol=1e-6)
    assert (view.features.shape, view.embedding.shape) == ((20, LENGTH, 16), (20, 16))
    assert (teacher.num_classes, teacher.embedding_dim) == (3, 16)
    path = tmp_path / "teacher.onnx"
    path.write_bytes(to_onnx(teacher, TASK.inputs, 20))
    splits = {"validation": ImageSplit(ids, torch.zeros(20, dtype=torch.int64))}
    assert "shorter" in check_parity(teacher, path, splits, TASK.inputs).checked


def test_class_names_that_cannot_be_compared_are_said(saved):
    _, config = saved()
    assert build_teacher(config, TASK).cautions == ()  # LABEL_0 and so on are no names
    described(config.folder, id2label={"0": "negative", "1": "neutral", "2": "positive"})
    (caution,) = build_teacher(config, TASK.model_copy(update={"labels": ("1", "3", "5")})).cautions
    assert "names its classes negative, neutral, positive and the data 1, 3, 5" in caution


def test_a_fresh_one_has_the_shape_and_not_the_weights(saved):
    model, config = saved()
    fresh = build_teacher(config, TASK)
    assert not torch.equal(fresh.get_classifier().weight, model.classifier.weight)


def test_weights_that_are_missing_are_an_error_and_not_drawn_at_random(saved):
    model, config = saved()
    model.bert.save_pretrained(config.folder)  # an encoder without its classifier
    described = json.loads((config.folder / "config.json").read_text())
    (config.folder / "config.json").write_text(json.dumps(described | {"num_labels": 3}))
    with pytest.raises(CheckpointError, match=r"model\.safetensors lacks classifier.bias.*no fine-tuned classifier"):
        load_teacher(config, TASK, make_teacher(config).source)
    (config.folder / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(CheckpointError, match="does not fit: "):
        load_teacher(config, TASK, make_teacher(config).source)
    (config.folder / "model.safetensors").rename(config.folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="which is a pickle"):
        _ = make_teacher(config).source


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"labels": ("0", "1")}, "tells 3 classes apart, and the data has 2"),
        ({"input_shape": (17,)}, "reads 16 tokens at most; set data.max_length"),
        ({"vocab_size": 31}, "knows 30 token ids, and its tokenizer.json gives 31"),
        ({"labels": ("LABEL_1", "LABEL_0", "LABEL_2")}, r"set data.labels to \[LABEL_0, LABEL_1, LABEL_2\]"),
    ],
)
def test_a_folder_for_another_task_is_refused(change, sentence, saved):
    _, config = saved()
    with pytest.raises(CheckpointError, match=sentence):
        build_teacher(config, TASK.model_copy(update=change))


def test_a_family_that_is_not_known_and_images_are_refused(saved, make_task):
    _, config = saved()
    with pytest.raises(ConfigError, match="read for text, and the data are images"):
        build_teacher(config, make_task())
    (config.folder / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(CheckpointError, match="a model of type 't5'; those known here are bert, distilbert, electra"):
        build_teacher(config, TASK)


# What a folder from elsewhere may say


def described(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def weights_of(teacher):
    return {name: tensor.clone() for name, tensor in teacher.model.state_dict().items()}


@pytest.mark.parametrize(
    "changes",
    [
        {"transformers_weights": "other.safetensors"},
        {"transformers_weights": ["other.safetensors"]},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
        {"pruned_heads": {"0": [0]}},
        {"is_decoder": True},
        {"add_cross_attention": True},
        {"position_embedding_type": "relative_key"},
    ],
)
def test_a_key_that_makes_another_network_is_refused(changes, saved):
    _, config = saved()
    described(config.folder, **changes)
    for make in (lambda: build_teacher(config, TASK), lambda: load_teacher(config, TASK, make_teacher(config).source)):
        with pytest.raises(CheckpointError, match=rf"config.json has {next(iter(changes))}: "):
            make()


def test_only_the_checked_weights_are_opened_whatever_else_the_folder_holds(saved, monkeypatch, tmp_path):
    _, config = saved()
    expected = weights_of(load_teacher(config, TASK, make_teacher(config).source))
    folder, ran = config.folder, tmp_path / "ran"
    (folder / "code.py").write_text(f"open({str(ran)!r}, 'w')\n")
    hostile = {
        "auto_map": {name: f"code.{name}" for name in ("AutoConfig", "AutoModelForSequenceClassification")},
        "_name_or_path": "code",
        "attn_implementation": "kernels-community/flash-attn",
        "_attn_implementation": "kernels-community/flash-attn",
        "use_kernels": True,
        "return_dict": False,
        "torchscript": True,
        "dtype": "bfloat16",
        "torch_dtype": "float16",
        "tie_word_embeddings": False,
        "chunk_size_feed_forward": 3,
    }
    described(folder, **hostile)
    index = {"metadata": {}, "weight_map": dict.fromkeys(expected, "../other.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "../other", "peft_type": "LORA"}')
    (folder / "tokenizer_config.json").write_text(json.dumps(hostile | {"chat_template": "{{ 1 / 0 }}"}))
    (folder / "generation_config.json").write_text("not JSON")
    (folder / "pytorch_model.bin").write_bytes(b"not a checkpoint")
    teacher = load_teacher(config, TASK, make_teacher(config).source)
    assert {name: tensor.dtype for name, tensor in teacher.model.state_dict().items()} == {
        name: tensor.dtype for name, tensor in expected.items()
    }
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights_of(teacher).items())
    assert look(teacher.eval(), token_ids()).logits.shape == (20, 3)
    assert build_teacher(config, TASK).model.config._attn_implementation == "eager"
    assert not ran.exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"id2label": ["a", "b", "c"]}, "id2label that does not name classes"),
        ({"id2label": {"x": "a", "y": "b", "z": "c"}}, "id2label that does not name classes"),
        ({"id2label": {"0": "a", "1": "b\nc", "2": "d"}}, r"id2label: 'b\\nc' is no class name"),
        ({"id2label": {"0": "a", "1": "a", "2": "d"}}, "id2label: two classes have the same name"),
        ({"vocab_size": "many"}, "vocab_size: 'many'; a whole number"),
        ({"max_position_embeddings": -1}, "max_position_embeddings: '-1'; a whole number"),
        ({"hidden_size": "wide"}, "hidden_size: 'wide'; a whole number"),
        ({"hidden_act": "../../code"}, "describes no Bert"),
    ],
)
def test_a_configuration_of_another_form_is_one_sentence(changes, sentence, saved):
    _, config = saved()
    described(config.folder, **changes)
    with pytest.raises(CheckpointError, match=sentence) as refusal:
        build_teacher(config, TASK)
    assert "\n" not in str(refusal.value)


def test_nested_json_is_refused_too(saved):
    _, config = saved()
    (config.folder / "config.json").write_text('{"a":' * 100_000)
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        build_teacher(config, TASK)


@pytest.mark.parametrize(
    "change",
    [
        {"vocab_size": 10**8},
        {"max_position_embeddings": 10**9},
        {"hidden_size": 10**6, "num_attention_heads": 1},
        {"num_hidden_layers": 10**7},
        {"intermediate_size": 2**62},
        {"vocab_size": -1},
        {"vocab_size": "30"},
        {"hidden_size": 1e9},
        {"num_hidden_layers": True},
        {"id2label": {"x": "bad"}},
        {"id2label": [1, 2]},
    ],
)
def test_sizes_that_the_weights_do_not_have_are_refused_before_anything_is_built(change, saved):
    """10^8 token ids of 16 numbers are 6.4 GB."""
    _, config = saved()
    path = config.folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    for build in (build_teacher, lambda *given: load_teacher(*given, make_teacher(config).source)):
        with pytest.raises(CheckpointError, match=r"asks for more weights than|a whole number|does not name classes"):
            build(config, TASK)
