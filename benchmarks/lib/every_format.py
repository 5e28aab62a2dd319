"""A bundle of one small student in every format that is to be had here, whatever a gate would say of them."""

from pathlib import Path

import torch

from edgestill.export.bundle.names import model_names
from edgestill.export.bundle.schema import Bundle, BundleModel, ClassQuality, Licences, Quality, TestMetrics
from edgestill.export.bundle.write import write_bundle
from edgestill.export.calibration import calibration_examples
from edgestill.export.conformance import QUICK, student, tinted
from edgestill.export.formats import FORMATS, Source
from edgestill.export.onnx.interface import describe_input, describe_output
from edgestill.export.onnx.sessions import runner
from edgestill.export.parity import measure_parity
from edgestill.export.result import ConvertedModel
from edgestill.pipeline.errors import ExportError
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.runs.rundir import file_digest
from edgestill.pipeline.task import Task


def write_every_format(folder: Path) -> tuple[Path, dict[str, str]]:
    """Write the bundle below a folder; return its place, and the reason for each format that it lacks."""
    network, data, task = student()
    reference = tinted(64, 3, "reference")
    fp32 = folder / "student.onnx"
    fp32.write_bytes(data)
    source = Source(fp32, network, task, calibration_examples(reference, 64))
    made: dict[str, ConvertedModel] = {}
    absent: dict[str, str] = {}
    for name in FORMATS:
        try:
            made[name] = _converted(name, source, folder)
        except ExportError as error:
            absent[name] = str(error)
    paths = {name: folder / path for model in made.values() for name, path in model_names(model).items()}
    place = folder / "bundle"
    place.mkdir()
    cautions = write_bundle(place, _described(task, made), paths)
    assert not cautions, cautions
    return place, absent


def _converted(name: str, source: Source, folder: Path) -> ConvertedModel:
    """Make a format's files in the folder.

    Raises:
        ExportError: its library is not here, or it is no format of this student.
    """
    form = FORMATS[name]
    reason = form.missing()
    if reason is not None:
        raise ExportError(reason)
    files = form.build(source, QUICK)
    paths = [folder / (f"student.{name}{suffix}" if name != "fp32" else f"student{suffix}") for suffix in files]
    for path, data in zip(paths, files.values(), strict=True):
        path.write_bytes(data)
    parts = {"reference": tinted(64, 3, "reference")}
    return ConvertedModel(
        path=paths[0].name,
        beside=tuple(path.name for path in paths[1:]),
        sha256=file_digest(paths[0]),
        size_bytes=sum(map(len, files.values())),
        precision=form.precision,
        opset=QUICK.opset,
        parity=measure_parity(runner(source.onnx), form.open(paths[0], 1), parts, source.task.inputs),
        format=name,
        runtime=form.runtime,
    )


def _described(task: Task, made: dict[str, ConvertedModel]) -> Bundle:
    """Return `bundle.json` of the files: nothing was trained, and no figure but parity is measured."""
    models = {
        name: BundleModel(
            file=next(iter(model_names(model))),
            format=name,
            precision=model.precision,
            runtime=model.runtime,
            bytes=model.size_bytes,
            parity=model.parity,
            test_accuracy=0,
            latency={"n": 1, "p50_ms": 1.0},
        )
        for name, model in made.items()
    }
    return Bundle(
        schema="edgestill.bundle/2",
        name="every format",
        created="2025-01-01T00:00:00+00:00",
        task=task,
        input=describe_input(task, "raw"),
        output=describe_output(task, "raw"),
        models=models,
        default="fp32",
        architecture="resnet",
        methods=(),
        data={"name": "tints"},
        metrics={name: TestMetrics(test_accuracy=0, n=1) for name in ("teacher", "student", "shipped")},
        quality=Quality(
            classes=tuple(ClassQuality(label=label, n=1, precision=None, recall=None) for label in task.labels),
            ece=0,
            ece_bins=15,
            confidence=0,
            robustness={},
            robustness_n=0,
        ),
        cost={"student": Cost(params=1, flops=1)},
        latency={"runtime": "none", "threads": 1, "cpu": "none", "student": {"n": 1, "p50_ms": 1.0}},
        budget={},
        use={},
        licences=Licences(),
        seeds={"run": 0},
        versions={"torch": torch.__version__},
        machine={"cpu": "none"},
        git_commit=None,
        config_digest="none",
    )
