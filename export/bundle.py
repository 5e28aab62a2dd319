"""The folder that a person is handed: the model, what it is, how good it is, and a script that runs it."""

import json
import shutil
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field

from export.result import Parity
from export.sessions import INPUT, MASK, TOKENS
from pipeline.cost import Cost
from pipeline.frozen import Frozen
from pipeline.rundir import file_digest
from pipeline.task import PADDING, Task

SCHEMA = "edgestill.bundle/2"
TOKENIZER = "tokenizer.json"


class BundleFile(Frozen):
    sha256: str
    bytes: int


class TestMetrics(Frozen):
    """Measured once, on the test split; `n` examples."""

    __test__ = False  # pytest: not a test class
    test_accuracy: float
    n: int


class BundleModel(Frozen):
    """One form of the student that passed the gate."""

    file: str  # the one that is opened; others of the model lie beside it under the same stem
    format: str  # a key of FORMATS
    precision: str
    runtime: str
    bytes: int  # of all its files
    parity: Parity
    validation_accuracy: float | None = None
    test_accuracy: float
    latency: dict[str, Any]  # summary of one call's wall time: n, p50_ms, …


class Bundle(Frozen):
    """`bundle.json`."""

    schema_name: str = Field(SCHEMA, alias="schema")
    name: str
    created: str
    task: Task
    input: dict[str, Any]
    output: dict[str, Any]
    architecture: str
    methods: tuple[dict[str, Any], ...]
    files: dict[str, BundleFile] = {}
    metrics: dict[str, TestMetrics]  # teacher, student, shipped
    cost: dict[str, Cost]  # teacher, student
    latency: dict[str, Any]
    models: dict[str, BundleModel]  # by format
    default: str  # what run.py takes: the fastest that passed the gate and that ONNX Runtime runs
    budget: dict[str, Any]
    seeds: dict[str, int]
    versions: dict[str, str]
    machine: dict[str, Any]
    git_commit: str | None
    config_digest: str


def describe_input(task: Task) -> dict[str, Any]:
    """The file's inputs, as `bundle.json` has them."""
    if task.kind == "text":
        sides = {"dtype": "int64", "shape": ["batch", "length"], "max_length": task.input_shape[0]}
        return {"names": [TOKENS, MASK], **sides, "padding": PADDING, "tokenizer": TOKENIZER}
    return {"name": INPUT, "dtype": "float32", "shape": ["batch", *task.input_shape], "range": [0, 1]}


def write_bundle(folder: Path, bundle: Bundle, models: Mapping[str, Path], tokenizer: str | None = None) -> Bundle:
    """Fill an empty folder; gives the bundle with its files entered.

    Args:
        models: name in the bundle to the file in the run.
        tokenizer: of a text task, the JSON of its tokenizer.
    """
    for name, path in models.items():
        shutil.copyfile(path, folder / name)
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in bundle.task.labels), encoding="utf-8")
    if tokenizer is not None:
        (folder / TOKENIZER).write_text(tokenizer, encoding="utf-8")
    source = "_run.py" if bundle.task.kind == "image" else "_run_text.py"
    script = resources.files("export").joinpath(source).read_bytes()
    (folder / "run.py").write_bytes(script)
    (folder / "MODEL_CARD.md").write_text(_model_card(bundle), encoding="utf-8")
    files = {
        path.name: BundleFile(sha256=file_digest(path), bytes=path.stat().st_size) for path in sorted(folder.iterdir())
    }
    complete = bundle.model_copy(update={"files": files})
    text = json.dumps(complete.model_dump(mode="json", by_alias=True), indent=1, ensure_ascii=False)
    (folder / "bundle.json").write_text(text + "\n", encoding="utf-8")
    return complete


def _model_card(bundle: Bundle) -> str:
    default = bundle.models[bundle.default]
    teacher, student, shipped = (bundle.metrics[k] for k in ("teacher", "student", "shipped"))
    cost = bundle.cost
    latency = "\n".join(
        f"| {name} | {bundle.latency[name].get('p50_ms', float('nan')):.3f} | {bundle.latency[name]['n']} |"
        for name in ("teacher", "student")
    )
    low, high = bundle.latency["speedup_interval"]
    return f"""# {bundle.name}

{_WHAT[bundle.task.kind]} for {bundle.task.num_classes} classes, {cost["student"].params:,} parameters, distilled by
edgestill from a teacher of {cost["teacher"].params:,}.

## Use

{_use(bundle.task)}

It was trained on the classes listed and answers with one of them whatever it is shown.

## Quality

Accuracy on the {shipped.n} {bundle.task.kind}s of the test split, opened once.

| | accuracy | parameters | multiply-accumulates |
|---|---|---|---|
| teacher | {teacher.test_accuracy:.2%} | {cost["teacher"].params:,} | {cost["teacher"].flops:,} |
| student, in torch | {student.test_accuracy:.2%} | {cost["student"].params:,} | {cost["student"].flops:,} |
| this file | {shipped.test_accuracy:.2%} | {default.bytes:,} bytes | |

`{default.file}` is what `run.py` takes ({default.precision}). Its logits differ from {default.parity.reference}'s by at
most {default.parity.max_abs_difference:.1e} over {default.parity.n} inputs; {default.parity.top1_agreement:.2%} of its
answers are the same.

## Speed

{bundle.latency["runtime"]}, {bundle.latency["threads"]} thread, batch 1, {bundle.machine["cpu"]}.

| | median, ms | samples |
|---|---|---|
{latency}

{bundle.latency["speedup"]:.2f} times the teacher's speed (95 % interval {low:.2f} to {high:.2f}). Measure again on
your own device: a latency does not travel.

## How it was made

Student `{bundle.architecture}` of a search within {_budget(bundle.budget)}; methods
{", ".join(str(m["name"]) for m in bundle.methods)}; seed {bundle.seeds["run"]}; configuration
`{bundle.config_digest[:12]}`; {", ".join(f"{k} {v}" for k, v in bundle.versions.items())}.
"""


_WHAT = {"image": "An image classifier", "text": "A text classifier"}


def _use(task: Task) -> str:
    output = f"`logits`, float32 [batch, {task.num_classes}]; line k of `labels.txt` names class k"
    if task.kind == "text":
        return f"""`model.onnx` takes `{TOKENS}` and `{MASK}`, int64 [batch, length] with at most
{task.input_shape[0]} tokens, and gives {output}.
`{TOKENIZER}` (of the library tokenizers) turns text into ids and cuts what is longer; a token whose mask is 0
is padding.
`python run.py "A TEXT"` prints a label and needs numpy, onnxruntime and tokenizers."""
    channels, height, width = task.input_shape
    return f"""`model.onnx` takes `images`, float32 [batch, {channels}, {height}, {width}] with pixels in [0, 1]
(normalisation is inside), and gives {output}.
`python run.py IMAGE` prints a label and needs numpy and onnxruntime."""


def _budget(budget: dict[str, Any]) -> str:
    limits = [f"{name} {value:,}" for name, value in budget.items() if value is not None]
    return ", ".join(limits) or "no limit"
