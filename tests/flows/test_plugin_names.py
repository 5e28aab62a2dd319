"""A plug-in's name stands in its own file and in its table, and elsewhere for a reason that is listed here."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgestill.distill import methods
from edgestill.export import formats
from edgestill.pipeline import teachers, trackers
from edgestill.pipeline.data import datasets
from edgestill.search import scorers, spaces, strategies

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pipeline", "search", "distill", "export", "flows")
TABLES = {  # kind -> (module of the table, names with what each line holds)
    "methods": (methods, methods.METHODS),
    "spaces": (spaces, spaces.SPACES),
    "scorers": (scorers, scorers.SCORERS),
    "strategies": (strategies, strategies.STRATEGIES),
    "datasets": (datasets, datasets.DATASETS),
    "formats": (formats, formats.FORMATS),
    "trackers": (trackers, trackers.TRACKERS),
    "teachers": (
        teachers,
        {**teachers.TEACHERS, **{name: each for each in teachers.TEACHERS.values() for name in each.architectures}},
    ),
}
OF_SOMETHING_ELSE = {  # words that mean another thing wherever they stand
    "text": "a kind of input",
    "none": "no such thing: a setting's value, or torch's reduction",
    "random": "drawn: the teacher's weights, LELP's directions, a seed's purpose",
    "params": "a number of parameters, in costs and budgets",
    "flops": "a number of operations, in costs and budgets",
    "fp32": "a precision, and the file that all others are made from and compared with",
    "fp16": "a precision",
    "int8": "a precision",
    "nni": "the library",
    "openvino": "the library",
    "executorch": "the library",
    "python": "the language, among versions",
    "torchvision": "the library",
    "onnx": "the library, or a format of files",
    "torchscript": "a key of Hugging Face's configurations",
    "parquet": "a format of files",
    "folder": "a setting of a teacher",
    "outputs": "a number of classes, among facts of weights",
    "timm": "the library",
    "divergence": "a slot of the equation",
    "first": "an order",
    "prompts": "texts to be continued",
    "vit": "a key of Hugging Face's configurations",
}
ALLOWED = {  # (file, name): why it stands there; the list may only shrink
    ("search/config.py", "ensemble"): "the default of search.scorer",
    ("search/config.py", "nwot"): "of the default of search.baselines",
    ("search/conformance/scorers.py", "nwot"): "scored beside the checked one",
    ("search/conformance/scorers.py", "synflow"): "scored beside the checked one",
    ("search/scorers/ensemble_scale.py", "swap"): "parts of the ensemble",
    ("search/scorers/ensemble_scale.py", "jacov"): "parts of the ensemble",
    ("search/scorers/ensemble_scale.py", "az_trainability"): "parts of the ensemble",
    ("search/scorers/ensemble_scale.py", "diswot_semantic"): "parts of the ensemble",
    ("search/scorers/ensemble_scale.py", "diswot_relation"): "parts of the ensemble",
    ("search/search.py", "exhaustive"): "the strategy of a space no larger than the effort",
    ("distill/methods/kd_aif/method.py", "kd"): "a loss of its own",
    ("distill/methods/diswot_plus.py", "diswot_semantic"): "a term of its loss",
    ("distill/methods/diswot_plus.py", "diswot_relation"): "a term of its loss",
    ("search/spaces/layers_of_teacher.py", "text_transformer_2x128"): "the teacher of a space outside of a run",
    ("distill/conformance/facts.py", "kd"): "the method whose step others' steps are timed beside",
    ("distill/drivers/generations.py", "fixed_weights"): "the labels' share of a generation",
    ("flows/plan/surroundings.py", "cuda_fp32"): "made here if CUDA is",
    ("flows/plan/surroundings.py", "tensorrt_fp16"): "made here if TensorRT is",
    ("flows/config/starting.py", "strings"): "the first language data of a preset",
    ("flows/config/by_kind.py", "strings"): "the preset of language models",
    ("flows/cli/configure.py", "digits"): "the default of --preset",
    ("flows/cli/search.py", "resnet56"): "the default of `score --teacher`",
}


def literals(path: Path) -> Iterator[str]:
    """Yield every string of a module but its docstrings and what a method says of itself in its facts."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    said = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            said.add(id(node.value))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Facts":
            said.update(map(id, ast.walk(node)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node.value


def homes(kind: str, name: str) -> set[Path]:
    """Find the files and folders in which the name is at home: the table's, and those of what its line holds."""
    module, table = TABLES[kind]
    own = Path(module.__file__).resolve()
    line = table[name] if isinstance(table[name], tuple) else (table[name],)
    files = [Path(inspect.getfile(part if callable(part) else type(part))).resolve() for part in line]
    return {own, *(file if file.parent == own.parent else file.parent for file in files)}


@pytest.fixture(scope="module")
def found() -> set[tuple[str, str]]:
    """(file, name) of every name away from home."""
    names = {(kind, name) for kind, (_, table) in TABLES.items() for name in table}
    at_home: dict[str, set[Path]] = {}
    for kind, name in names:
        at_home.setdefault(name, set()).update(homes(kind, name))
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {
        (str(path.relative_to(ROOT)), text)
        for path in files
        for text in literals(path)
        if text in at_home and not at_home[text] & {path, *path.parents}
    }


def test_a_name_away_from_home_has_a_reason(found) -> None:
    left = {(path, name) for path, name in found if name not in OF_SOMETHING_ELSE}
    assert left - ALLOWED.keys() == set()


def test_every_listed_reason_is_still_needed(found) -> None:
    assert ALLOWED.keys() - found == set()
    assert OF_SOMETHING_ELSE.keys() - {name for _, name in found} == set()
