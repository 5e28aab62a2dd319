"""Students of the teacher's own layers: whole, they answer as it does; cut, as it does with parts masked."""

import copy
import json
import pickle
import shutil
import textwrap

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from edgestill.flows.config import RunConfig
from edgestill.flows.score import score_file
from edgestill.pipeline.conformance.samples import batch, image_task, text_task
from edgestill.pipeline.errors import ArchitectureError, ConfigError
from edgestill.pipeline.networks.attention import EncoderBlock
from edgestill.pipeline.networks.encoder_layers import find_layers, keep_heads, keep_neurons, spread
from edgestill.pipeline.networks.network import look
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.teachers import AnyTeacherConfig, build_teacher
from edgestill.pipeline.torchvision_compat import repair
from edgestill.search.conformance import spaces
from edgestill.search.spaces import LayersOfTeacherConfig, LayersOfTeacherSpace, make_space, named_space

LENGTH, VOCABULARY = 10, 20
TEXTS = text_task(length=LENGTH, vocab_size=VOCABULARY, classes=3)
IMAGES = image_task(channels=3, side=8, classes=3)
_TEXT = {"vocab_size": VOCABULARY, "max_position_embeddings": 16, "num_labels": 3}
_BERT = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
_VIT = _BERT | {"image_size": 8, "patch_size": 4, "num_labels": 3}
FOLDERS = {
    "bert": _TEXT | _BERT,
    "distilbert": _TEXT | {"dim": 8, "n_layers": 3, "n_heads": 2, "hidden_dim": 16},
    "electra": _TEXT | _BERT | {"embedding_size": 4},
    "vit": _VIT,
    "deit": _VIT,
}
IMAGE_CLASSES = {"vit": "ViTForImageClassification", "deit": "DeiTForImageClassification"}
OWN = """
import torch
from torch import nn
from edgestill.pipeline.networks.attention import EncoderBlock

class Own(nn.Module):
    def __init__(self, num_classes, layer):
        super().__init__()
        self.num_classes, self.into = num_classes, nn.Conv2d(3, 8, 4, 4)
        self.body = nn.Sequential(*(layer() for _ in range(3)))
        self.last = nn.Linear(8, num_classes)
    def forward_features(self, x):
        return self.body(self.into(x).flatten(2).transpose(1, 2))
    def forward_head(self, x, pre_logits=False):
        return x.mean(1) if pre_logits else self.last(x.mean(1))
    def get_classifier(self):
        return self.last
    def forward(self, x):
        return self.forward_head(self.forward_features(x))

def known(num_classes):
    return Own(num_classes, lambda: EncoderBlock(2, 4, 2))

def frozen(num_classes):
    return known(num_classes).requires_grad_(False)

def unknown(num_classes):
    return Own(num_classes, lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
"""


def config_of(given):
    return TypeAdapter(AnyTeacherConfig).validate_python(given)


def folder_of(kind, folder):
    transformers = pytest.importorskip("transformers", reason="pip install 'edgestill[transformers]'")
    sizes, of_images = transformers.AutoConfig.for_model(kind, **FOLDERS[kind]), IMAGE_CLASSES.get(kind)
    if of_images is None:
        model = transformers.AutoModelForSequenceClassification.from_config(sizes)
    else:
        model = getattr(transformers, of_images)(sizes)
    model.save_pretrained(folder / kind)
    return folder / kind


@pytest.fixture(scope="module", autouse=True)
def _repaired():
    repair()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A kind of teacher to (its space, its task, a network of it whose weights nobody chose)."""
    folder, known = tmp_path_factory.mktemp("teachers"), {}
    (folder / "own.py").write_text(textwrap.dedent(OWN))

    def configured(kind):
        family, _, name = kind.partition(":")
        if family == "timm":
            pytest.importorskip("timm", reason="pip install 'edgestill[timm]'")
            return {"name": "timm", "model": name, "size": 32}, IMAGES
        if family == "python":
            return {"name": "python", "code": f"{folder / 'own.py'}:{name}"}, IMAGES
        if family == "built in":
            return {"architecture": "text_transformer_2x128"}, TEXTS
        path, task = folder_of(name, folder), IMAGES if name in IMAGE_CLASSES else TEXTS
        return ({"name": "hf", "model": str(path)} if family == "hf" else {"folder": path}), task

    def make(kind):
        if kind not in known:
            given, task = configured(kind)
            config = config_of(given)
            with drawn_from(0):
                teacher = build_teacher(config, task).eval()
                for parameter in teacher.parameters():
                    nn.init.normal_(parameter, std=0.3)
            known[kind] = make_space(LayersOfTeacherConfig(teacher=config)), task, teacher
        space, task, teacher = known[kind]
        return space, task, copy.deepcopy(teacher)

    return make


CUTTABLE = (
    "built in", "huggingface:bert", "huggingface:distilbert", "huggingface:electra", "hf:bert", "hf:distilbert",
    "hf:vit", "hf:deit", "timm:test_vit", "python:known",
)  # fmt: skip
every_kind = pytest.mark.parametrize("kind", [*CUTTABLE, "python:unknown"])


def begun(space, text, task, teacher):
    architecture = space.parse(text)
    student = space.build(architecture, task)
    space.begin_from_teacher(student, architecture, task, teacher)
    return student.eval()


def largest(space):
    return space.format(space.make({gene.name: max(gene.choices) for gene in space.genes}))


@every_kind
def test_the_whole_teacher_as_a_student_gives_the_teachers_logits(kind, made):
    space, task, teacher = made(kind)
    student = begun(space, largest(space), task, teacher)
    inputs = batch(task, 6).inputs
    with torch.no_grad():
        assert torch.allclose(student(inputs), look(teacher, inputs).logits, atol=1e-5)
        assert torch.equal(student.forward_head(student.forward_features(inputs)), student(inputs))
        assert not torch.allclose(space.build(space.parse(largest(space)), task).eval()(inputs), student(inputs))


@every_kind
def test_fewer_layers_are_the_teachers_first_to_last_evenly_spaced(kind, made):
    space, task, teacher = made(kind)
    text = largest(space).replace(f"l{space.genes[0].choices[-1]}", "l2", 1)
    student = begun(space, text, task, teacher)
    theirs = list(teacher.get_submodule(find_layers(teacher).path))
    assert len(student.blocks()) == 2
    for mine, its in zip(student.blocks(), (theirs[0], theirs[-1]), strict=True):
        for name, tensor in its.state_dict().items():
            assert torch.equal(mine.state_dict()[name], tensor), name


@pytest.mark.parametrize(("count", "kept", "numbers"), [(12, 6, [0, 2, 4, 7, 9, 11]), (3, 2, [0, 2]), (4, 1, [0])])
def test_layers_are_spread_from_the_first_to_the_last(count, kept, numbers):
    assert spread(count, kept) == numbers


PLACES = {  # of values, output, and the feed-forward's two Linears
    "built in": ("attention.value", "attention.out", "feed_forward.0", "feed_forward.2"),
    "python": ("attention.value", "attention.out", "feed_forward.0", "feed_forward.2"),
    "bert": ("attention.self.value", "attention.output.dense", "intermediate.dense", "output.dense"),
    "electra": ("attention.self.value", "attention.output.dense", "intermediate.dense", "output.dense"),
    "distilbert": ("attention.v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2"),
    "vit": ("attention.v_proj", "attention.o_proj", "mlp.fc1", "mlp.fc2"),
    "deit": ("attention.v_proj", "attention.o_proj", "mlp.fc1", "mlp.fc2"),
    "test_vit": ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"),
}


def masked(layer, places, heads, kept_heads, quarters):
    """Silence heads and neurons of a layer where they are read; those kept are found by the maps themselves."""
    values, out, into, back = (layer.get_submodule(name) for name in places)
    values = values.weight[-out.in_features :]
    width = out.in_features // heads
    spans = [slice(h * width, (h + 1) * width) for h in range(heads)]
    norms = [torch.linalg.matrix_norm(out.weight[:, span] @ values[span]) for span in spans]
    for h in sorted(range(heads), key=lambda h: norms[h], reverse=True)[kept_heads:]:
        out.weight[:, spans[h]] = 0
    norms = [torch.linalg.matrix_norm(torch.outer(back.weight[:, n], into.weight[n])) for n in range(into.out_features)]
    most = into.out_features * quarters // 4
    for n in sorted(range(into.out_features), key=lambda n: norms[n], reverse=True)[most:]:
        back.weight[:, n] = 0


@pytest.mark.parametrize("kind", CUTTABLE)
@torch.no_grad()
def test_cutting_heads_and_neurons_is_masking_them_in_the_teacher(kind, made):
    space, task, teacher = made(kind)
    layers, heads, _ = (gene.choices[-1] for gene in space.genes)
    student = begun(space, f"l{layers}h1f2", task, teacher)
    places = PLACES.get(kind.partition(":")[2]) or PLACES[kind.partition(":")[0]]
    inputs = batch(task, 6).inputs
    whole = look(teacher, inputs).logits
    for layer in teacher.get_submodule(find_layers(teacher).path):
        masked(layer, places, heads, 1, 2)
    expected = look(teacher, inputs).logits
    assert torch.allclose(student(inputs), expected, atol=1e-5)
    assert not torch.allclose(whole, expected, atol=1e-3)


@pytest.mark.parametrize("kind", ["huggingface:bert", "huggingface:distilbert", "hf:vit", "timm:test_vit"])
@pytest.mark.parametrize("check", [spaces.costs_are_those_that_torch_counts, spaces.a_seed_decides_every_weight])
def test_costs_and_weights_keep_the_contract_beside_foreign_teachers(kind, check, made):
    space, task, _ = made(kind)
    if check is spaces.a_seed_decides_every_weight:
        one, other = (spaces._initialised(space, space.parse("l2h1f1"), task).state_dict() for _ in range(2))
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    else:
        spaces.require_cost(space, space.parse("l2h1f1"), task)


def test_students_of_a_frozen_teacher_are_trained_and_drawn(made):
    space, task, teacher = made("python:frozen")
    student = space.build(space.parse("l2h1f2"), task)
    assert all(parameter.requires_grad for parameter in student.parameters())
    theirs = dict(teacher.named_parameters())["model.body.0.norm1.weight"]
    assert not theirs.requires_grad
    one, other = (space.build(space.parse("l3h2f4"), task).blocks()[0].attention.query.weight for _ in range(2))
    assert not torch.equal(one, other)


def test_classes_are_in_the_datas_order_whatever_the_teachers_is(made, tmp_path):
    space, task, _ = made("hf:vit")
    task = task.model_copy(update={"labels": ("cat", "dog", "fish")})
    folder = shutil.copytree(space.config.teacher.model, tmp_path / "vit")
    described = json.loads((folder / "config.json").read_text())
    described["id2label"] = {"0": "fish", "1": "cat", "2": "dog"}
    (folder / "config.json").write_text(json.dumps(described))
    config = config_of({"name": "hf", "model": str(folder)})
    teacher, inputs = build_teacher(config, task).eval(), batch(task, 6).inputs
    assert teacher.order == (1, 2, 0)
    student = begun(make_space(LayersOfTeacherConfig(teacher=config)), "l3h2f4", task, teacher)
    with torch.no_grad():
        assert torch.allclose(student(inputs), look(teacher, inputs).logits, atol=1e-5)


def test_a_student_draws_nothing_in_training_unless_it_keeps_the_teachers_dropout(made):
    space, task, teacher = made("huggingface:bert")
    keeping = make_space(space.config.model_copy(update={"dropout": True}))
    inputs, small = batch(task, 4).inputs, space.parse("l2h1f2")
    student, dropping = (begun(one, "l2h1f2", task, teacher).train() for one in (space, keeping))
    assert torch.equal(student(inputs), student(inputs))
    assert not torch.equal(dropping(inputs), dropping(inputs))
    assert torch.equal(dropping.eval()(inputs), student.eval()(inputs))
    scored = keeping.build_to_score(small, task).train()
    assert torch.equal(scored(inputs), scored(inputs))


def test_random_weights_come_from_the_generator_alone_however_often_the_space_was_used(made):
    space, task, _ = made("hf:vit")

    def drawn(space):
        with drawn_from(3):
            return space.build(space.parse("l2h1f2"), task).state_dict()

    again = make_space(space.config)
    first, second, other = drawn(again), drawn(again), drawn(space)
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
        assert torch.equal(tensor, other[name]), name


def test_a_space_sent_to_another_process_has_the_same_members_and_no_networks(made):
    space, task, _ = made("hf:vit")
    architecture = space.parse("l2h1f2")
    space.build(architecture, task)
    packed = pickle.dumps(space)
    again = pickle.loads(packed)
    assert (again.genes, len(packed) < 2000) == (space.genes, True)
    assert spaces._initialised(again, architecture, task).state_dict().keys()


def test_strings_are_scored_beside_a_teacher_named_behind_the_space(made, tmp_path):
    space, _, _ = made("hf:vit")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    rows = {"x_train": images, "y_train": np.arange(40) % 3, "x_test": images[:9], "y_test": np.arange(9) % 3}
    np.savez(tmp_path / "images.npz", **rows)
    (tmp_path / "listed.txt").write_text("l1h1f1\nl3h2f4\n")
    score_file(
        f"layers_of_teacher:hf:{space.config.teacher.model}", tmp_path / "listed.txt", tmp_path / "images.npz",
        ["nwot", "params"], tmp_path / "scores.csv", "resnet20", 8, 0, 1, 1, lambda line: None,
    )  # fmt: skip
    small, large = (float(line.split(",")[2]) for line in (tmp_path / "scores.csv").read_text().splitlines()[1:])
    assert 0 < small < large


def test_a_wrong_teacher_behind_the_space_is_one_sentence():
    with pytest.raises(ConfigError, match="space 'layers_of_teacher:resnet57': "):
        named_space("layers_of_teacher:resnet57")


def test_equal_layers_of_unknown_attention_are_only_dropped(made):
    space, _, _ = made("python:unknown")
    assert [gene.name for gene in space.genes] == ["layers"]
    assert space.format(space.parse("l2")) == "l2"
    told = LayersOfTeacherConfig(teacher=space.config.teacher, heads=(1,))
    with pytest.raises(ConfigError, match="cannot be cut"):
        _ = make_space(told).genes


def test_the_layers_of_a_network_are_its_largest_list_of_equal_ones():
    stage = nn.Sequential(*(nn.Conv2d(4, 4, 3) for _ in range(3)))
    assert find_layers(nn.Sequential(stage, nn.Conv2d(4, 40, 3))) is None  # less than half of the weights
    blocks = nn.ModuleList(EncoderBlock(2, 4, 2) for _ in range(2))
    found = find_layers(nn.ModuleDict({"embedding": nn.Embedding(1000, 8), "blocks": blocks}))
    assert found == ("blocks", 2, 2)


def test_of_equal_heads_and_neurons_the_first_are_kept():
    layer = EncoderBlock(3, 2, 2)
    for parameter in layer.parameters():
        nn.init.ones_(parameter)
    layer.attention.key.weight.data[:, 0] = torch.arange(6.0)
    layer.feed_forward[0].bias.data = torch.arange(12.0)
    keep_heads(layer, 2)
    keep_neurons(layer, 1)
    assert layer.attention.key.weight[:, 0].tolist() == [0, 1, 2, 3]
    assert layer.feed_forward[0].bias.tolist() == [0, 1, 2]
    assert (layer.attention.heads, layer(torch.rand(1, 4, 6)).shape) == (2, (1, 4, 6))


def test_default_choices_are_every_depth_and_quarters_of_the_heads():
    space = named_space("layers_of_teacher")
    assert [gene.choices for gene in space.genes] == [(1, 2), (1, 2, 3, 4), (1, 2, 3, 4)]
    assert space.embedding_dims() == {128}


def test_words_tell_what_is_kept():
    space = LayersOfTeacherSpace()
    words = space.describe(space.parse("l6h4f2"))
    assert words == "layers of the teacher's own: 6, each with 4 of its heads and 2 quarters of its feed-forward"


def test_more_than_the_teacher_has_is_refused(made):
    space, task, _ = made("huggingface:bert")
    with pytest.raises(ConfigError, match="l9h1f1 has 9 layers; the teacher has 3"):
        space.build(space.parse("l9h1f1"), task)
    with pytest.raises(ConfigError, match=r"search.space.heads: 5 is a choice, and the teacher has 2"):
        _ = make_space(LayersOfTeacherConfig(teacher=space.config.teacher, heads=(1, 5))).genes
    with pytest.raises(ArchitectureError, match="feed_forward is 5; it goes from 1 to 4"):
        space.parse("l1h1f5")


def test_a_teacher_without_equal_layers_is_refused_with_those_that_fit(made):
    with pytest.raises(ValidationError, match=r"built-in text transformers, .* resnet56 is none of them"):
        RunConfig.model_validate({"search": {"space": "layers_of_teacher"}})
    pytest.importorskip("timm", reason="pip install 'edgestill[timm]'")
    space = make_space(LayersOfTeacherConfig(teacher=config_of("timm:resnet10t")))
    with pytest.raises(ConfigError, match=r"timm's vision transformers, .* resnet10t is none of them"):
        _ = space.genes
    space = make_space(LayersOfTeacherConfig(teacher=config_of("timm:deit_tiny_distilled_patch16_224")))
    with pytest.raises(ConfigError, match="is none of them"):  # it has two classifiers
        _ = space.genes


def test_a_run_tells_the_space_its_teacher_and_no_file_says_it_twice():
    given = {"data": {"name": "text", "path": "x.tsv"}, "teacher": "text_transformer_4x256"}
    config = RunConfig.model_validate(given | {"search": {"space": "layers_of_teacher"}})
    space = make_space(config.search.space)
    assert space.genes[0].choices == (1, 2, 3, 4)
    written = config.model_dump(mode="json")
    assert "teacher" not in written["search"]["space"]
    assert RunConfig.model_validate(written) == config
    other = {"name": "layers_of_teacher", "teacher": "text_transformer_2x128"}
    with pytest.raises(ValidationError, match="is another than the run's teacher"):
        RunConfig.model_validate(given | {"search": {"space": other}})
