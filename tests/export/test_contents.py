"""Parts of bundle.json that come from a run's results."""

import pytest

from edgestill.export.bundle.contents import ROBUSTNESS_EXAMPLES, bundle_model, quality_of
from edgestill.export.bundle.names import known_names, model_names
from edgestill.export.evaluate import answers_of
from edgestill.export.onnx.sessions import runner
from edgestill.export.quality import perturbed
from edgestill.export.result import ExportedModel, Latency, Parity

PARITY = Parity(max_abs_difference=0.1, top1_agreement=0.99, n=1008, checked=("validation",))
LATENCY = Latency(runtime="r", provider="p", threads=1, batch=1, summary={"n": 100, "p50_ms": 1.0})


def exported(name, path, *beside, **changes):
    about = {"sha256": "0", "size_bytes": 9, "precision": "fp32", "opset": 20, "parity": PARITY, "latency": LATENCY}
    return ExportedModel(format=name, path=path, beside=beside, **about | changes)


@pytest.mark.parametrize(
    ("name", "files", "names"),
    [
        ("fp32", ["export/student.onnx"], ["model.onnx"]),
        ("int8", ["qat/student.int8.onnx"], ["model.int8.onnx"]),
        (
            "ort_int8",
            ["export/student.ort_int8.ort", "export/student.ort_int8.config"],
            ["model.ort_int8.ort", "model.ort_int8.config"],
        ),
        (
            "openvino_fp16",
            ["export/student.openvino_fp16.xml", "export/student.openvino_fp16.bin"],
            ["model.openvino_fp16.xml", "model.openvino_fp16.bin"],
        ),
    ],
)
def test_files_of_a_model_have_known_names_in_a_bundle(name, files, names):
    assert model_names(exported(name, *files)) == dict(zip(names, files, strict=True))
    assert set(names) <= known_names()


def test_a_bundle_names_a_models_first_file_and_its_own_interface(image_student):
    tested = answers_of(runner(image_student.path), image_student.splits.validation).metrics
    for name, interface in (("fp32", "image"), ("cuda_fp16", "image"), ("openvino", "image"), ("executorch", "raw")):
        found = bundle_model(exported(name, f"export/student.{name}.x", f"export/student.{name}.y"), tested, "image")
        assert found.interface == interface
        assert found.file.endswith(".x")
        assert found.test_accuracy == tested.accuracy


def test_quality_is_of_the_answers_given_and_of_the_same_examples_damaged(image_student):
    run, split = runner(image_student.path), image_student.splits.validation
    answers = answers_of(run, split)
    found = quality_of(run, answers, split, image_student.task)
    assert sum(score.n * score.recall for score in found.classes) == pytest.approx(answers.right.sum())
    assert found.robustness_n == len(split) < ROBUSTNESS_EXAMPLES
    targets = split.targets.numpy()
    damaged = {name: run(images) for name, images in perturbed(split.images.numpy(), image_student.task)}
    assert found.robustness == {name: (logits.argmax(1) == targets).mean() for name, logits in damaged.items()}
