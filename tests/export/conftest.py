"""Whole bundles of small networks, and a small student that is right about its task with its splits; made once."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from edgestill.export.build import with_interfaces
from edgestill.export.bundle.schema import Bundle, BundleModel, ClassQuality, Licences, Quality, TestMetrics
from edgestill.export.bundle.write import write_bundle
from edgestill.export.calibration import CalibrationConfig, calibration_examples
from edgestill.export.config import ExportConfig
from edgestill.export.conformance import student, tinted
from edgestill.export.formats import FORMATS, Source
from edgestill.export.onnx.interface import describe_input, describe_output, with_interface
from edgestill.export.onnx.write import to_onnx
from edgestill.export.parity import check_parity
from edgestill.export.result import Parity
from edgestill.pipeline.data.tokens import TokenizerConfig, make_coder
from edgestill.pipeline.networks.cifar_resnet import CifarResNet
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.networks.text_transformer import TextTransformer
from edgestill.pipeline.task import Task

HEIGHT, WIDTH, CLASSES = 10, 8, 6
LABELS = ("cat", "dog", "grün", "a b", "<tag>", "sixth")
TEXTS = ["the film is a joy", "dull and much too long", "a moving story of a dog", "it was poor"]


class Made(NamedTuple):
    """Unpacks as (folder, network, bundle)."""

    folder: Path
    network: nn.Module
    bundle: Bundle


@pytest.fixture(scope="session")
def bundles(tmp_path_factory, make_task, make_split) -> Callable[..., Made]:
    """(channels, interface="raw", resize=None) to a complete bundle of an image classifier."""
    networks: dict[int, tuple[Any, ...]] = {}
    made: dict[tuple[int, str, str | None], Made] = {}

    def make(channels: int, interface: str = "raw", resize: str | None = None) -> Made:
        if channels not in networks:
            folder = tmp_path_factory.mktemp("network")
            networks[channels] = _image_network(folder, channels, make_task, make_split)
        key = channels, interface, resize
        if key not in made:
            network, task, data, parity, examples = networks[channels]
            task = task.model_copy(update={"resize": resize})
            folder = tmp_path_factory.mktemp("bundle")
            (folder / "raw.onnx").write_bytes(data)
            wrapped = with_interface(data, interface, examples, resize)
            made[key] = _bundle(folder, network, task, {"fp32": {".onnx": wrapped}}, parity, interface)
        return made[key]

    return make


def _image_network(folder: Path, channels: int, make_task, make_split) -> tuple[Any, ...]:
    torch.manual_seed(channels)
    task = make_task(channels, side=WIDTH, classes=CLASSES).model_copy(
        update={"input_shape": (channels, HEIGHT, WIDTH), "labels": LABELS}
    )
    network = CifarResNet((1, 1, 1), (4, 6, 8), num_classes=CLASSES, mean=task.mean, std=task.std)
    network.train()(torch.rand(32, *task.input_shape))
    torch.nn.init.normal_(network.linear.weight, std=20)
    network.eval()
    with torch.no_grad():  # no class wins by default
        network.linear.bias -= network(torch.rand(256, *task.input_shape)).mean(0)
    split = make_split(task, 8)
    data = to_onnx(network, task.inputs, 20)
    (folder / "raw.onnx").write_bytes(data)
    parity = check_parity(network, folder / "raw.onnx", {"validation": split}, task.inputs)
    return network, task, data, parity, split.batch(torch.arange(8)).inputs.contiguous().numpy()


@pytest.fixture(scope="session")
def text_bundle(tmp_path_factory, make_split) -> Made:
    """A complete bundle of a text classifier."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("text-bundle")
    coder = make_coder(TEXTS, TokenizerConfig(vocab_size=200), 12)
    task = Task(kind="text", labels=("good", "bad"), input_shape=(coder.length,), vocab_size=coder.vocab_size)
    network = TextTransformer(task, depth=1, heads=2, head_width=4, feed_forward=1).eval()
    torch.nn.init.normal_(network.linear.weight, std=5)
    data = to_onnx(network, task.inputs, 20)
    (folder / "raw.onnx").write_bytes(data)
    split = {"validation": make_split(task, 8)}
    parity = check_parity(network, folder / "raw.onnx", split, task.inputs)
    return _bundle(folder, network, task, {"fp32": {".onnx": data}}, parity, "raw", coder.json)


@pytest.fixture(scope="session")
def bundle_of_formats(tmp_path_factory, image_student) -> Made:
    """Five formats of one student behind the interface for images, made by the stages' functions; int8 the default."""
    folder, source = tmp_path_factory.mktemp("formats"), image_student.source
    config = ExportConfig(calibration=CalibrationConfig(method="minmax"), interface="image")
    files = {}
    for name in ("fp32", "fp16", "int8", "ort_int8", "openvino"):
        form = FORMATS[name]
        if form.missing() is None:
            files[name] = with_interfaces(form, form.build(source, config), "image", source)
    parity = Parity(max_abs_difference=0.1, top1_agreement=0.99, n=1008, checked=("validation",), reference="fp32")
    return _bundle(folder, image_student.network, image_student.task, files, parity, "image", default="int8")


def _bundle(folder, network, task, files, parity, interface, tokenizer=None, default="fp32") -> Made:
    """A bundle of files by format and suffix."""
    metrics = {
        name: TestMetrics(test_accuracy=accuracy, n=450)
        for name, accuracy in (("teacher", 0.98), ("student", 0.95), ("shipped", 0.9512))
    }
    models, paths = {}, {}
    for name, contents in files.items():
        stem, kind = "model" if name == "fp32" else f"model.{name}", FORMATS[name]
        for suffix, data in contents.items():
            paths[f"{stem}{suffix}"] = folder / f"student-{stem}{suffix}"
            paths[f"{stem}{suffix}"].write_bytes(data)
        models[name] = BundleModel(
            file=f"{stem}{kind.suffix}",
            format=name,
            precision=kind.precision,
            runtime=kind.runtime,
            interface=kind.interface(interface),
            bytes=sum(map(len, contents.values())),
            parity=parity,
            test_accuracy=0.9512,
            latency={"n": 130, "p50_ms": 0.25},
        )
    bundle = Bundle(
        schema="edgestill.bundle/2",
        name="digits",
        created="2025-01-01T00:00:00+00:00",
        task=task,
        interface=interface,
        input=describe_input(task, interface),
        output=describe_output(task, interface),
        models=models,
        default=default,
        architecture="resnet:1-1-1/4-6-8",
        methods=({"name": "kd", "temperature": 4.0},),
        data={"name": "digits", "description": "", "sizes": {"train": 1000, "test": 450}},
        metrics=metrics,
        quality=Quality(
            classes=tuple(ClassQuality(label=label, n=75, precision=0.9, recall=None) for label in task.labels),
            ece=0.0123,
            ece_bins=15,
            confidence=0.96,
            robustness={"contrast halved": 0.5},
            robustness_n=450,
        ),
        cost={"teacher": Cost(params=853_018, flops=10**7), "student": Cost(params=12_345, flops=10**5)},
        latency={
            "runtime": "onnxruntime 1",
            "threads": 1,
            "cpu": "the timed CPU",
            "teacher": {"n": 130, "p50_ms": 1.0},
            "student": {"n": 130, "p50_ms": 0.25},
            "speedup": 4.0,
            "speedup_interval": (3.9, 4.1),
        },
        budget={"max_params": 20_000, "max_flops": None},
        use={"intended": "sorting *parcels*", "limits": ""},
        licences=Licences(model="MIT"),
        seeds={"run": 0},
        versions={"torch": "2"},
        machine={"cpu": "a CPU"},
        git_commit=None,
        config_digest="0123456789abcdef",
    )
    target = folder / "bundle"
    target.mkdir()
    write_bundle(target, bundle, paths, tokenizer)
    return Made(target, network, bundle)


@pytest.fixture
def copy_of(tmp_path) -> Callable[[Made], Path]:
    """A bundle's folder that a test may spoil."""

    def copy(made: Made) -> Path:
        target = tmp_path / "bundle"
        target.mkdir()
        for path in made.folder.iterdir():
            (target / path.name).write_bytes(path.read_bytes())
        return target

    return copy


@pytest.fixture(scope="session")
def image_student(tmp_path_factory):
    """task, splits, network, path (of the fp32 file) and source; right on nine images of ten or so."""
    network, data, task = student()
    splits = SimpleNamespace(validation=tinted(300, 2, "validation"), reference=tinted(64, 3, "reference"), task=task)
    path = tmp_path_factory.mktemp("student") / "student.onnx"
    path.write_bytes(data)
    source = Source(onnx=path, network=network, task=task, calibration=calibration_examples(splits.reference, 64))
    return SimpleNamespace(task=task, splits=splits, network=network, path=path, source=source)


@pytest.fixture
def canary(tmp_path):
    """What code in a hostile file would leave behind; the test fails if it does."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "code in a hostile file was run"
