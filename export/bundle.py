"""Bundle folder to hand to a person: its contents, and how it is written. `export/reading.py` reads it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from export.card import model_card
from export.formats import FORMATS
from export.interface import Interface, describe_input, describe_output
from export.manifest import MANIFEST, SIGNATURE, manifest_bytes
from export.probes import PROBES, make_probes
from export.profile_script import PROFILE, profile_script, run_script
from export.result import Arithmetic, Parity
from export.sbom import SBOM, sbom_bytes
from pipeline.cost import Cost
from pipeline.frozen import Frozen
from pipeline.nicety import nicety
from pipeline.task import Task

SCHEMA = "edgestill.bundle/2"
BUNDLE, LABELS, CARD, RUN, TOKENIZER = "bundle.json", "labels.txt", "MODEL_CARD.md", "run.py", "tokenizer.json"
_SCRIPTS = {"image": {RUN: "_run.py"}, "text": {RUN: "_run_text.py"}}  # name in the bundle -> file of this package
_FORMER = ("run.py", "profile.py")  # names of scripts in older bundles

__all__ = ["Bundle", "BundleModel", "TestMetrics", "describe_input", "describe_output", "write_bundle"]


class TestMetrics(Frozen):
    """Accuracy on the test split, measured once, on `n` examples."""

    __test__ = False  # pytest: not a test class
    test_accuracy: float
    n: int


class BundleModel(Frozen):
    """One form of the student that passed the gate."""

    file: str  # the file to open; the model's others lie beside it under the same stem
    format: str  # a key of FORMATS
    precision: str
    runtime: str
    interface: Interface = "raw"  # of this file
    bytes: int  # of all its files
    parity: Parity
    validation_accuracy: float | None = None
    test_accuracy: float
    latency: dict[str, Any]  # summary of one call's wall time: n, p50_ms, …
    arithmetic: Arithmetic | None = (
        None  # of an INT8 model: where it was measured, and whether it is the same elsewhere
    )


class ClassQuality(Frozen):
    label: str
    n: int  # test examples of the class
    precision: float | None  # None: the class was never answered
    recall: float | None  # None: the test split has none of it


class Quality(Frozen):
    """Quality of the default model's file on the test split, beyond accuracy."""

    classes: tuple[ClassQuality, ...]
    ece: float  # expected calibration error of the softmax
    ece_bins: int
    confidence: float  # mean probability of the answer
    robustness: dict[str, float]  # perturbation, in words -> accuracy
    robustness_n: int


class Licences(Frozen):
    """SPDX expressions; None: the person who made the bundle did not say."""

    model: str | None = None
    data: str | None = None
    code: str = "Apache-2.0"  # the scripts


class Bundle(Frozen):
    """Content of `bundle.json`."""

    schema_name: Literal["edgestill.bundle/2"] = Field("edgestill.bundle/2", alias="schema")
    name: str
    created: str
    task: Task
    interface: Interface = "raw"  # of the files that onnxruntime opens
    input: dict[str, Any]
    output: dict[str, Any]
    models: dict[str, BundleModel]  # by format
    default: str  # model for the scripts and predict: the fastest for onnxruntime that passed the gate
    architecture: str
    methods: tuple[dict[str, Any], ...]
    later: tuple[str, ...] = ()  # changes to the weights after distillation, a clause each
    data: dict[str, Any]
    metrics: dict[str, TestMetrics]  # teacher, student, shipped
    quality: Quality
    cost: dict[str, Cost]  # teacher, student
    latency: dict[str, Any]
    budget: dict[str, Any]
    use: dict[str, str]  # intended, limits: in the maker's words
    licences: Licences
    seeds: dict[str, int]
    versions: dict[str, str]
    machine: dict[str, Any]
    git_commit: str | None
    config_digest: str
    cautions: tuple[str, ...] = ()  # things missing from the folder, and why, a sentence each

    @model_validator(mode="after")
    def _one_default(self) -> "Bundle":
        if self.default not in self.models:
            raise ValueError(f"default {self.default!r} is none of the models {', '.join(self.models)}")
        if self.models[self.default].runtime != "onnxruntime":
            raise ValueError(f"default {self.default!r} is not for onnxruntime, which is all that run.py has")
        wrong = [name for name, model in self.models.items() if model.format != name]
        if wrong:
            raise ValueError(f"the model {wrong[0]!r} is called {self.models[wrong[0]].format!r} inside")
        return self

    def needs(self) -> Iterator[str]:
        """Yield the names of the files the bundle needs: models, labels, probes, a text task's tokenizer."""
        yield from (model.file for model in self.models.values())
        yield from (LABELS, PROBES, *([TOKENIZER] if self.task.kind == "text" else ()))


def write_bundle(
    folder: Path, bundle: Bundle, models: Mapping[str, Path], tokenizer: str | None = None
) -> tuple[str, ...]:
    """Write the bundle into an empty folder; return the cautions, a sentence for each thing missing from it.

    Args:
        models: name in the bundle -> file in the run, for the models' files and those needed beside them.
        tokenizer: a text task's tokenizer, as JSON.
    """
    files = {name: path.read_bytes() for name, path in models.items()}
    files[LABELS] = labels_text(bundle.task)
    if tokenizer is not None:
        files[TOKENIZER] = tokenizer.encode()
    for name, source in _SCRIPTS[bundle.task.kind].items():
        files[name] = run_script(source).encode()
    files[PROFILE] = profile_script().encode()
    cautions: list[str] = []
    with nicety(f"{SBOM} was not written", cautions):
        contents = {name: files[name] for name in models}
        files[SBOM] = sbom_bytes(bundle.name, bundle.created, bundle.licences.model, contents, cautions)
    with nicety(f"{CARD} was not written", cautions):
        files[CARD] = model_card(bundle.model_copy(update={"cautions": tuple(cautions)})).encode()
    bundle = bundle.model_copy(update={"cautions": tuple(cautions)})
    text = json.dumps(bundle.model_dump(mode="json", by_alias=True), indent=1, ensure_ascii=False)
    files[BUNDLE] = f"{text}\n".encode()
    for name in models:
        (folder / name).write_bytes(files[name])
    files[PROBES] = make_probes(folder, bundle)
    files[MANIFEST] = manifest_bytes(files)
    for name in files.keys() - models.keys():
        (folder / name).write_bytes(files[name])
    return bundle.cautions


def model_stem(format: str) -> str:
    """Return the name of a format's files without its suffix: `model` for fp32, else such as `model.int8`."""
    return "model" if format == "fp32" else f"model.{format}"


def known_names() -> frozenset[str]:
    """Return all names allowed for a bundle's files, over all tasks and formats."""
    models = {model_stem(name) + suffix for name, kind in FORMATS.items() for suffix in (kind.suffix, *kind.beside)}
    scripts = {PROFILE, *_FORMER, *(name for of_kind in _SCRIPTS.values() for name in of_kind)}
    return frozenset({BUNDLE, LABELS, CARD, TOKENIZER, SBOM, PROBES, MANIFEST, SIGNATURE} | scripts | models)


def labels_text(task: Task) -> bytes:
    """`labels.txt`: line k names class k."""
    return "".join(f"{label}\n" for label in task.labels).encode()
