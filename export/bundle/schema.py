"""Schema of bundle.json, and the names of a bundle's files."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from edgestill.export.onnx.sessions import RUNTIME, Interface
from edgestill.export.result import Arithmetic, Parity
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.task import Task
from edgestill.pipeline.training.confusion import Confusion

SCHEMA = "edgestill.bundle/2"
BUNDLE, LABELS, CARD, RUN, TOKENIZER = "bundle.json", "labels.txt", "MODEL_CARD.md", "run.py", "tokenizer.json"
PROBES = "probes.safetensors"


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
    confusion: Confusion | None = None  # None: a bundle of an older version


class Licences(Frozen):
    """SPDX expressions; None: the person who made the bundle did not say."""

    model: str | None = None
    data: str | None = None
    code: str = "Apache-2.0"  # the scripts


class Hub(Frozen):
    """Names by which the Hugging Face hub relates a model to others."""

    base_model: str | None = None
    datasets: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


class Bundle(Frozen):
    """Content of `bundle.json`."""

    schema_name: Literal["edgestill.bundle/2"] = Field("edgestill.bundle/2", alias="schema")
    name: str
    created: str
    task: Task
    interface: Interface = "raw"  # of the files that can have it
    input: dict[str, Any]
    output: dict[str, Any]
    models: dict[str, BundleModel]  # by format
    default: str  # model for the scripts and predict: the fastest for onnxruntime that passed the gate
    defaults: dict[str, str] = {}  # target -> its default model, as that device measured; the first is the one above
    architecture: str
    methods: tuple[dict[str, Any], ...]
    later: tuple[str, ...] = ()  # changes to the weights after distillation, a clause each
    worth: tuple[str, ...] = ()  # sentences on the worth of teacher and search, where baselines were trained
    data: dict[str, Any]
    metrics: dict[str, TestMetrics]  # teacher, student, shipped
    quality: Quality
    cost: dict[str, Cost]  # student, and teacher unless it is answers in a file
    latency: dict[str, Any]
    budget: dict[str, Any]
    use: dict[str, str]  # intended, limits: in the maker's words
    licences: Licences
    hub: Hub = Hub()
    seeds: dict[str, int]
    versions: dict[str, str]
    machine: dict[str, Any]
    git_commit: str | None
    config_digest: str
    cautions: tuple[str, ...] = ()  # things missing from the folder, and why, a sentence each

    @model_serializer(mode="wrap")
    def _without_what_nobody_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out `worth`, `hub` and `defaults` where nothing is said, so that earlier versions read the bundle."""
        written: dict[str, Any] = handler(self)
        if not self.defaults:
            written.pop("defaults", None)
        if not self.worth:
            written.pop("worth", None)
        if self.hub == Hub():
            written.pop("hub", None)
        return written

    @model_validator(mode="after")
    def _one_default(self) -> "Bundle":
        if self.default not in self.models:
            raise ValueError(f"default {self.default!r} is none of the models {', '.join(self.models)}")
        if self.models[self.default].runtime != RUNTIME:
            raise ValueError(f"default {self.default!r} is not for onnxruntime, which is all that run.py has")
        unknown = [name for name, default in self.defaults.items() if default not in self.models]
        if unknown:
            raise ValueError(f"the default of target {unknown[0]!r} is none of the models {', '.join(self.models)}")
        wrong = [name for name, model in self.models.items() if model.format != name]
        if wrong:
            raise ValueError(f"the model {wrong[0]!r} is called {self.models[wrong[0]].format!r} inside")
        return self

    def needs(self) -> Iterator[str]:
        """Yield the names of the files the bundle needs: models, labels, probes, those that make its inputs."""
        yield from (model.file for model in self.models.values())
        yield from (LABELS, PROBES, *self.task.inputs.files)
