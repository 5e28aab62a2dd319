"""Teachers from elsewhere: each answers as its own library's network does, and says what it cannot give."""

import copy
import json
import textwrap
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save_file
from torch import nn

from edgestill.export.onnx.sessions import runner
from edgestill.export.onnx.write import to_onnx
from edgestill.pipeline.errors import CheckpointError
from edgestill.pipeline.networks.network import look
from edgestill.pipeline.runs.checkpoint import weights_bytes
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers import AnyTeacherConfig, load_teacher, make_teacher, spelt_out
from edgestill.pipeline.teachers.adapted.labels import configured_names, match_labels
from edgestill.pipeline.torchvision_compat import repair

repair()
timm = pytest.importorskip("timm", reason="pip install 'edgestill[timm]'")
torchvision = pytest.importorskip("torchvision", reason="pip install 'edgestill[timm]'")
transformers = pytest.importorskip("transformers", reason="pip install 'edgestill[transformers]'")

TASK = Task(labels=("cat", "dog", "fish"), input_shape=(3, 32, 32), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3))
GREY = Task(labels=("cat", "dog", "fish"), input_shape=(1, 8, 8), mean=(0.5,), std=(0.2,))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Plain(nn.Module):
    """A user's network: its pooling, and the order of its modules, are its own."""

    def __init__(self, channels=3, classes=3):
        super().__init__()
        self.answer = nn.Linear(6, classes)
        self.body = nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())

    def forward(self, x):
        return self.answer(self.body(x).mean((2, 3)))


def config_of(**given):
    return TypeAdapter(AnyTeacherConfig).validate_python(given, context={"check_files": True})


def read(config, task=TASK):
    return make_teacher(config).read(task).eval()


def pixels(count=4, task=TASK):
    return torch.rand(count, *task.input_shape, generator=torch.Generator().manual_seed(1))


def normalised(images):
    return (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def alive(network):
    """Give batch norms statistics of their own, so that evaluation mode is not the identity."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def agrees(teacher, images, expected, classifier):
    """Its logits are those expected, its embedding is the input of the last Linear, and it writes and reads again."""
    taken = []
    handle = classifier.register_forward_pre_hook(lambda module, given: taken.append(given[0]))
    with torch.no_grad():
        logits = expected()
        view = look(teacher, images)
    handle.remove()
    assert torch.allclose(view.logits, logits, atol=1e-5)
    assert torch.allclose(view.embedding, taken[0], atol=1e-5)
    assert torch.equal(teacher(images), view.logits)
    assert view.features.dim() in (3, 4)
    assert torch.allclose(teacher.get_classifier()(view.embedding), logits, atol=1e-5)
    assert teacher.embedding_dim == view.embedding.shape[1]


def reloads(config, teacher, tmp_path, task=TASK):
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(weights_bytes(teacher, make_teacher(config).metadata(task)))
    again = load_teacher(config, task, copy).eval()
    assert torch.equal(again(pixels(task=task)), teacher(pixels(task=task)))
    assert min(make_teacher(config).count(task)) > 0


# Networks of libraries


@pytest.mark.parametrize("wrapped", ["plain", "state_dict", "module."])
def test_timm_loads_a_file_of_weights_whatever_wraps_it(wrapped, tmp_path):
    network = alive(timm.create_model("resnet10t", num_classes=3))
    tensors = network.state_dict()
    path = tmp_path / "w.pt"
    torch.save(
        {
            "plain": tensors,
            "state_dict": {
                "epoch": 3,
                "state_dict": {f"model.{n}": t for n, t in tensors.items()} | {"loss.w": torch.ones(1)},
            },
            "module.": {f"module.{n}": t for n, t in tensors.items()},
        }[wrapped],
        path,
    )
    config = config_of(name="timm", model="resnet10t", weights=path, size="data")
    teacher = read(config)
    images = pixels()
    agrees(teacher, images, lambda: network(normalised(images)), network.fc)
    reloads(config, teacher, tmp_path)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_are_those_of_the_first_convolution_not_of_the_first_in_the_file(channels, tmp_path):
    network = alive(timm.create_model("lcnet_035", num_classes=3, in_chans=channels))
    path = tmp_path / "w.safetensors"
    save_file(network.state_dict(), path)  # sorted by name: a depthwise one, of one channel, comes first
    task = TASK if channels == 3 else GREY
    for extra in ({}, {"finetune": True}):
        config = config_of(name="timm", model="lcnet_035", weights=path, size=32, **extra)
        teacher = read(config, task) if not extra else make_teacher(config).build(task).eval()
        assert torch.equal(teacher.model.conv_stem.weight, network.conv_stem.weight)
        reloads(config, teacher, tmp_path, task)


def test_timm_takes_over_size_crop_and_interpolation_of_its_configuration(tmp_path):
    network = alive(timm.create_model("resnet10t", num_classes=3))
    path = tmp_path / "w.safetensors"
    save_file(network.state_dict(), path)
    teacher = read(config_of(name="timm", model="resnet10t", weights=path))
    assert "sees 176 x 176 pixels (bicubic, centre 0.875), as its own configuration says" in teacher.cautions[0]
    assert read(config_of(name="timm", model="resnet10t", weights=path, size=176)).cautions == ()
    large = torch.nn.functional.interpolate(pixels(), size=(201, 201), mode="bicubic", antialias=True)
    start = round((201 - 176) / 2)
    seen = large[:, :, start : start + 176, start : start + 176]
    with torch.no_grad():
        assert torch.allclose(teacher(pixels()), network(normalised(seen)), atol=1e-4)


def test_a_vision_transformer_of_timm_is_built_for_the_size(tmp_path):
    network = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=32).eval()
    path = tmp_path / "w.safetensors"
    save_file(network.state_dict(), path)
    teacher = read(
        config_of(
            name="timm", model="vit_tiny_patch16_224", weights=path, size=32, mean=[0, 0, 0], std=[1, 1, 1], crop=1
        )
    )
    agrees(teacher, pixels(), lambda: network(pixels()), network.head)


def test_torchvision_loads_a_file_of_weights(tmp_path):
    network = alive(torchvision.models.resnet18(weights=None, num_classes=3))
    path = tmp_path / "w.pt"
    torch.save({"model": network.state_dict()}, path)
    config = config_of(name="torchvision", model="resnet18", weights=path, size="data")
    teacher = read(config)
    images = pixels()
    agrees(teacher, images, lambda: network(normalised(images)), network.fc)
    assert look(teacher, images).features.shape == (4, 512, 1, 1)
    reloads(config, teacher, tmp_path)


def test_grey_images_are_repeated_for_a_network_of_colour(tmp_path):
    network = alive(timm.create_model("resnet10t", num_classes=3))
    path = tmp_path / "w.safetensors"
    save_file(network.state_dict(), path)
    teacher = read(config_of(name="timm", model="resnet10t", weights=path, size=64, crop=1), GREY)
    given = torch.nn.functional.interpolate(pixels(task=GREY), size=(64, 64), mode="bicubic", antialias=True)
    with torch.no_grad():
        assert torch.allclose(teacher(pixels(task=GREY)), network(normalised(given.expand(-1, 3, -1, -1))), atol=1e-4)


def test_a_head_of_another_number_of_classes_is_one_sentence(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(timm.create_model("resnet10t", num_classes=7).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"tells 7 classes apart, and the data have 3; fine-tune it on the data"):
        read(config_of(name="timm", model="resnet10t", weights=path))
    named = config_of(
        name="timm", model="resnet10t", weights=path, size="data", labels=["a", "Fish", "b", "cat", "dog", "c", "d"]
    )
    teacher = read(named)
    with torch.no_grad():
        assert torch.equal(teacher(pixels()), teacher.model(teacher.before(pixels()))[:, [3, 4, 1]])
    reloads(named, teacher, tmp_path)


def test_finetune_keeps_the_body_and_draws_a_head(tmp_path):
    body = timm.create_model("resnet10t", num_classes=7)
    path = tmp_path / "w.safetensors"
    save_file(body.state_dict(), path)
    config = config_of(name="timm", model="resnet10t", weights=path, finetune=True)
    teacher = make_teacher(config)
    assert not teacher.is_trained
    network = teacher.build(TASK).model
    assert torch.equal(network.conv1[0].weight, body.conv1[0].weight)
    assert network.fc.weight.shape[0] == 3


@pytest.mark.parametrize(("library", "model"), [("timm", "test_efficientnet"), ("torchvision", "mobilenet_v3_small")])
def test_a_new_head_begins_with_small_logits_whatever_the_library_draws(tmp_path, library, model):
    """A library's head for few classes, drawn by their number, would spoil the published weights in its first steps."""
    make = timm.create_model if library == "timm" else torchvision.models.get_model
    body = make(model, num_classes=7)
    path = tmp_path / "w.safetensors"
    save_file(body.state_dict(), path)
    network = make_teacher(config_of(name=library, model=model, weights=path, finetune=True)).build(TASK)
    head = network.model.get_submodule(network.parts.classifier)
    assert head.weight.abs().max() <= head.in_features**-0.5


def test_a_pickle_and_an_unknown_network_are_refused(tmp_path):
    path = tmp_path / "w.pt"
    torch.save(Plain(), path)
    with pytest.raises(CheckpointError, match="holds more than tensors and was not opened"):
        read(config_of(name="timm", model="resnet10t", weights=path))
    with pytest.raises(CheckpointError, match="timm knows no network 'resnet5o'; did you mean"):
        make_teacher(config_of(name="timm", model="resnet5o")).build(TASK)
    with pytest.raises(CheckpointError, match="torchvision knows no classifier 'resnet19'"):
        make_teacher(config_of(name="torchvision", model="resnet19")).build(TASK)


def test_published_weights_without_a_network_say_how_to_give_a_file(monkeypatch):
    def refuse(*given, **named):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(CheckpointError, match=r"published weights of timm:resnet10t cannot be had.*teacher\.weights"):
        read(config_of(name="timm", model="resnet10t", pretrained=True))


# A user's code

USERS = """
import torch
from torch import nn
from parts import widths

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.answer = nn.Linear(widths[0], num_classes)
        self.body = nn.Sequential(nn.Conv2d(3, widths[0], 3), nn.ReLU())

    def forward(self, x):
        return {"logits": self.answer(self.body(x).mean((2, 3))).softmax(1)}

def make(num_classes):
    torch.manual_seed(3)
    return Net(num_classes)
"""


def test_a_users_function_gives_the_network_and_its_probabilities_become_logits(tmp_path):
    folder = tmp_path / "else where"
    folder.mkdir()
    (folder / "my_teacher.py").write_text(textwrap.dedent(USERS))
    (folder / "parts.py").write_text("widths = [6]\n")
    config = config_of(**spelt_out(f"{folder}/my_teacher.py:make"))
    teacher = read(config)
    network = teacher.model
    images = pixels()
    with torch.no_grad():
        expected = network(images)["logits"]
        view = look(teacher, images)
    assert torch.allclose(view.logits.softmax(1), expected, atol=1e-6)
    assert torch.allclose(view.embedding, network.body(images).mean((2, 3)))
    assert torch.equal(view.features, network.body(images))
    assert (teacher.parts.classifier, teacher.parts.features) == ("answer", "body")
    reloads(config, teacher, tmp_path)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("def make(): raise OSError('no disk')", "my_teacher.py:make fails: no disk"),
        ("def mike(): pass", r"my_teacher.py has no 'make'; did you mean 'mike'\? known: mike"),
        (
            "import pickle\ndef make(): raise pickle.UnpicklingError('Weights only load failed. Two ways: …')",
            r"my_teacher.py:make fails: torch.load refuses a file of more than tensors; save the network",
        ),
        ("def make(): return 3", "gives a int, not an nn.Module"),
        ("import nothing_of_that_name", "cannot be loaded: ModuleNotFoundError: No module named"),
        ("from torch import nn\nmake = nn.Conv2d(3, 2, 3)", r"answers with \[2, 2, 30, 30\]; a classifier gives"),
        ("from torch import nn\nmake = nn.Conv2d(1, 2, 3)", "cannot take the data's images"),
    ],
)
def test_what_a_users_file_does_wrong_is_one_sentence(code, sentence, tmp_path):
    (tmp_path / "my_teacher.py").write_text(code + "\n")
    with pytest.raises(CheckpointError, match=sentence) as refused:
        read(config_of(name="python", code=f"{tmp_path}/my_teacher.py:make"))
    assert "\n" not in str(refused.value)


def test_parts_can_be_named_and_a_wrong_name_is_told(tmp_path):
    (tmp_path / "my_teacher.py").write_text(textwrap.dedent(USERS).replace("from parts import widths", "widths = [6]"))
    place = f"{tmp_path}/my_teacher.py:make"
    named = read(config_of(name="python", code=place, features="body.0", classifier="answer"))
    assert torch.equal(look(named, pixels()).features, named.model.body[0](pixels()))
    with pytest.raises(
        CheckpointError, match=r"teacher\.features: the network has no module 'boddy'; did you mean 'body'"
    ):
        read(config_of(name="python", code=place, features="boddy"))


# Hugging Face


def make_vit(folder, labels=("cat", "dog", "fish"), **more):
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
        id2label=dict(enumerate(labels)), label2id={n: k for k, n in enumerate(labels)},
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config).eval()
    model.save_pretrained(folder)
    described = {
        "do_resize": True, "size": {"height": 32, "width": 32}, "resample": 3, "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": list(MEAN), "image_std": list(STD),
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(described))
    return model


def test_a_vision_transformer_of_hugging_face(tmp_path):
    model = make_vit(tmp_path)
    config = config_of(name="hf", model=str(tmp_path))
    teacher, images = read(config), pixels()
    agrees(teacher, images, lambda: model(pixel_values=normalised(images)).logits, model.classifier)
    reloads(config, teacher, tmp_path)


def test_classes_in_another_order_are_mapped_by_name_and_said(tmp_path):
    model = make_vit(tmp_path, ("Fish", "cat", "dog"))
    teacher, images = read(config_of(name="hf", model=str(tmp_path))), pixels()
    with torch.no_grad():
        expected = model(pixel_values=normalised(images)).logits[:, [1, 2, 0]]
        assert torch.allclose(teacher(images), expected, atol=1e-5)
        assert torch.allclose(teacher.get_classifier()(look(teacher, images).embedding), expected, atol=1e-5)
    (caution,) = teacher.cautions
    assert "in the order Fish, cat, dog; they are mapped" in caution


@pytest.mark.parametrize("labels", [("negative", "neutral", "positive"), ("LABEL_0", "LABEL_1", "LABEL_2")])
def test_names_that_cannot_be_compared_are_said_unless_they_are_no_names(labels, tmp_path):
    make_vit(tmp_path, labels)
    told = read(config_of(name="hf", model=str(tmp_path))).cautions
    assert ("set teacher.labels to the data's names" in "".join(told)) == (labels[0] == "negative")


def test_other_classes_are_refused(tmp_path):
    make_vit(tmp_path, ("cat", "dog", "bird"))
    with pytest.raises(CheckpointError, match=r"fish is not among them; set teacher\.labels"):
        read(config_of(name="hf", model=str(tmp_path)))
    assert read(config_of(name="hf", model=str(tmp_path), labels=["cat", "dog", "fish"])).cautions == ()


def test_a_folder_of_hugging_face_cannot_bring_code_pickles_or_sizes(tmp_path):
    make_vit(tmp_path)
    config, ran = config_of(name="hf", model=str(tmp_path)), tmp_path / "ran"
    path = tmp_path / "config.json"
    plain = json.loads(path.read_text())
    (tmp_path / "code.py").write_text(f"open({str(ran)!r}, 'w')\n")
    hostile = {
        "auto_map": {"AutoConfig": "code.A", "AutoModelForImageClassification": "code.B"}, "_name_or_path": "code",
        "attn_implementation": "kernels-community/flash-attn", "use_kernels": True, "dtype": "bfloat16",
    }  # fmt: skip
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "../other", "peft_type": "LORA"}')
    expected = read(config)(pixels())
    path.write_text(json.dumps(plain | hostile))
    assert torch.equal(read(config)(pixels()), expected)
    for change, sentence in [
        ({"model_type": "mine", **hostile}, "it brings code of its own, which teacher.trust_remote_code runs"),
        ({"num_hidden_layers": 10**7}, "asks for more weights than"),
        ({"hidden_size": 4096, "num_attention_heads": 1}, "asks for more weights than"),
        ({"quantization_config": {"load_in_8bit": True}}, "has quantization_config"),
        ({"transformers_weights": "../other.safetensors"}, "has transformers_weights"),
        ({"hidden_act": "../../code"}, "holds no classifier of images that transformers builds"),
    ]:
        path.write_text(json.dumps(plain | change))
        with pytest.raises(CheckpointError, match=sentence):
            read(config)
    path.write_text(json.dumps(plain))
    index = {"weight_map": {"a": "../model.safetensors"}}
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="which is a pickle"):
        read(config)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="safetensors beside it alone are read"):
        read(config)
    assert not ran.exists()


def test_an_id_that_cannot_be_fetched_is_told_before_anything_is_done(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValidationError, match=r"nobody/nothing is no folder here, and cannot be had.*teacher\.model"):
        config_of(name="hf", model="nobody/nothing")


def test_a_classifier_of_texts_beyond_those_of_the_older_family(tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.AutoConfig.for_model(
        "albert", vocab_size=30, embedding_size=8, max_position_embeddings=16, num_labels=3, **sizes
    )
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    model.save_pretrained(tmp_path)
    task = Task(kind="text", labels=("bad", "fair", "good"), input_shape=(12,), vocab_size=30)
    ids = torch.randint(1, 30, (6, 12))
    ids[:3, 7:] = 0
    teacher = read(config_of(name="hf", model=str(tmp_path)), task)
    agrees(teacher, ids, lambda: model(input_ids=ids, attention_mask=(ids != 0).long()).logits, model.classifier)
    with pytest.raises(CheckpointError, match="holds no classifier of images"):
        read(config_of(name="hf", model=str(tmp_path)))


# Several


def test_an_ensemble_is_the_weighted_mean_of_its_members(tmp_path):
    paths = []
    for number in range(2):
        torch.manual_seed(number)
        paths.append(tmp_path / f"{number}.safetensors")
        save_file(alive(timm.create_model("resnet10t", num_classes=3)).state_dict(), paths[-1])
    members = [{"name": "timm", "model": "resnet10t", "weights": str(path), "size": "data"} for path in paths]
    config = config_of(name="ensemble", members=members, weights=[3, 1])
    assert TypeAdapter(AnyTeacherConfig).validate_python(config.model_dump(mode="json")) == config
    teacher, images = read(config), pixels()
    with torch.no_grad():
        one, two = (read(config_of(**member))(images).softmax(1) for member in members)
        assert torch.allclose(teacher(images).softmax(1), 0.75 * one + 0.25 * two, atol=1e-6)
        view = look(teacher, images)
    assert view.embedding.shape == (4, 1024)
    assert torch.equal(view.logits, teacher(images))
    reloads(config, teacher, tmp_path)


# Black boxes


def export_onnx(network, path, side=32, **more):
    torch.onnx.export(
        network.eval(), (torch.rand(2, 3, side, side),), path, dynamo=False, input_names=["pixels"],
        output_names=["scores"], opset_version=17, **{"dynamic_axes": {"pixels": {0: "n"}, "scores": {0: "n"}}} | more,
    )  # fmt: skip


class Ends(nn.Module):
    """A network that gives probabilities."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x).softmax(1)


@pytest.mark.filterwarnings("ignore")
def test_an_onnx_file_answers_as_its_network_with_its_own_size_and_normalisation(tmp_path):
    network, path = alive(Plain()), tmp_path / "teacher.onnx"
    export_onnx(Ends(network), path, side=16)
    plain = onnx.load(path)
    inside = next(node for node in plain.graph.node if node.op_type == "Gemm").input[0]
    config = config_of(name="onnx", file=path, embedding=inside, mean=MEAN, std=STD)
    teacher, images = read(config), pixels()
    small = torch.nn.functional.interpolate(images, size=(16, 16), mode="bilinear", antialias=True)
    with torch.no_grad():
        view, expected = look(teacher, images), network(normalised(small))
        assert torch.allclose(view.logits.softmax(1), expected.softmax(1), atol=1e-5)
        assert torch.allclose(view.embedding, network.body(normalised(small)).mean((2, 3)), atol=1e-5)
    assert (teacher.gives, teacher.embedding_dim) == ({"logits", "inputs", "embedding"}, 6)
    reloads(config, teacher, tmp_path)
    params, flops = make_teacher(config).count(TASK)
    assert flops == 16 * 16 * 6 * 27 + 6 * 3
    assert params == 6 * 27 + 6 + 6 * 3 + 3  # the batch norm is folded into the convolution
    file = to_onnx(copy.deepcopy(teacher), TASK.inputs, 20)
    assert np.allclose(runner(file)(images.numpy()), view.logits.numpy(), atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_an_onnx_file_names_its_classes(tmp_path):
    network, path = alive(Plain()), tmp_path / "teacher.onnx"
    export_onnx(network, path)
    named = onnx.load(path)
    named.metadata_props.append(onnx.StringStringEntryProto(key="names", value="{0: 'fish', 1: 'cat', 2: 'dog'}"))
    onnx.save(named, path)
    teacher = read(config_of(**spelt_out(f"onnx:{path}")))
    with torch.no_grad():
        assert torch.allclose(teacher(pixels()), network(pixels())[:, [1, 2, 0]], atol=1e-5)
    assert "they are mapped to the data's by name" in teacher.cautions[0]


@pytest.mark.filterwarnings("ignore")
def test_onnx_files_that_cannot_be_a_teacher_are_refused(tmp_path):
    path = tmp_path / "teacher.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="is no ONNX file"):
        read(config_of(name="onnx", file=path))
    export_onnx(Plain(), path)
    with pytest.raises(CheckpointError, match=r"teacher\.embedding: the file has no node 'pooled'; its last are"):
        read(config_of(name="onnx", file=path, embedding="pooled"))
    foreign = onnx.load(path)
    foreign.graph.node[0].domain = "mine"
    (tmp_path / "foreign.onnx").write_bytes(foreign.SerializeToString())
    with pytest.raises(CheckpointError, match="uses operators of mine"):
        read(config_of(name="onnx", file=tmp_path / "foreign.onnx"))
    onnx.save(onnx.load(path), tmp_path / "apart.onnx", save_as_external_data=True, size_threshold=0)
    with pytest.raises(CheckpointError, match="keeps its weights in other files"):
        read(config_of(name="onnx", file=tmp_path / "apart.onnx"))


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16, torch.float64])
def test_a_users_network_of_another_precision_is_read_as_float32(precision, tmp_path):
    (tmp_path / "my_teacher.py").write_text(
        "import torch\nfrom torch import nn\n"
        "make = lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 3)).to(torch." + str(precision)[6:] + ")\n"
    )
    teacher = read(config_of(name="python", code=f"{tmp_path}/my_teacher.py:make"))
    assert teacher(pixels()).dtype == torch.float32


@pytest.mark.filterwarnings("ignore")
def test_inputs_and_outputs_of_onnx_files_are_told_or_found(tmp_path):
    from onnx import TensorProto, helper

    path = tmp_path / "teacher.onnx"

    def refused(shape, kind=TensorProto.FLOAT, output=TensorProto.FLOAT):
        given = helper.make_tensor_value_info("x", kind, shape)
        made = helper.make_tensor_value_info("y", output, [2, 3])
        onnx.save(helper.make_model(helper.make_graph([], "g", [given], [made])), path)
        with pytest.raises(CheckpointError) as said:
            read(config_of(name="onnx", file=path))
        return str(said.value)

    assert "takes images [batch, H, W, C]; export it with channels first" in refused(["n", 32, 32, 3])
    assert "takes uint8 [?, 3, 32, 32], not float32 images" in refused(["n", 3, 32, 32], TensorProto.UINT8)
    assert "answers with y of int64, and logits in float32" in refused([2, 3, 32, 32], output=TensorProto.INT64)
    network = alive(Plain())
    export_onnx(network, path)
    model = onnx.load(path)
    model.graph.output.insert(
        0, helper.make_tensor_value_info(model.graph.node[0].output[0], TensorProto.FLOAT, [2, 8, 9, 9])
    )
    onnx.save(model, path)
    with torch.no_grad():
        assert torch.allclose(read(config_of(name="onnx", file=path))(pixels()), network(pixels()), atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_archive_answers_as_its_network_and_passes_gradients(tmp_path):
    network, path = alive(Plain()), tmp_path / "teacher.pt"
    torch.jit.save(torch.jit.trace(network, pixels()), path)
    config = config_of(name="torchscript", file=path)
    teacher, images = read(config), pixels().requires_grad_()
    logits = teacher(images)
    assert torch.allclose(logits, network(images), atol=1e-5)
    assert torch.autograd.grad(logits.sum(), images)[0].abs().sum() > 0
    assert teacher.gives == {"logits", "inputs", "gradients"} == make_teacher(config).gives
    reloads(config, teacher, tmp_path)
    assert np.allclose(runner(to_onnx(teacher, TASK.inputs, 20))(images.detach().numpy()), logits.detach(), atol=1e-5)


# Labels


@pytest.mark.parametrize(
    ("theirs", "ours", "outputs", "order"),
    [
        (None, ("a", "b"), 2, None),
        (("a", "b"), ("a", "b"), 2, None),
        (("B ", "a"), ("a", "b"), 2, (1, 0)),
        (("guinea_pig", "dog"), ("dog", "Guinea Pig"), 2, (1, 0)),
        (("tench, Tinca tinca", "goldfish", "hen"), ("hen", "tench"), 3, (2, 0)),
        (("1", "0"), ("0", "1"), 2, None),
    ],
)
def test_classes_are_found_by_name(theirs, ours, outputs, order):
    assert match_labels(theirs, ours, outputs, "it").order == order


def test_an_order_by_number_names_the_outputs():
    given = SimpleNamespace(labels=None, order=(2, 0, 1))
    assert configured_names(given, ("a", "b", "c")) == ("c", "a", "b")
    with pytest.raises(CheckpointError, match=r"teacher\.order must hold each number from 0 to 2 once"):
        configured_names(SimpleNamespace(labels=None, order=(0, 0, 1)), ("a", "b", "c"))


def test_a_configuration_of_the_shortest_form():
    assert spelt_out("timm:resnet50") == {"name": "timm", "model": "resnet50"}
    assert spelt_out("resnet56") == {"architecture": "resnet56"}
    assert spelt_out("my/teacher.py:make") == {"name": "python", "code": "my/teacher.py:make"}
    assert spelt_out("package.module:make") == {"name": "python", "code": "package.module:make"}
    assert spelt_out("hf:owner/model") == {"name": "hf", "model": "owner/model"}
