"""What newcomers are likely to type wrongly: each gets one sentence that leads to the fix, and leaves no run behind.

A new mistake is a line of MISTAKES: the command as it is typed, and words that its answer must contain.
"""

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from edgestill.flows.cli.main import execute

NPZ = "run --set data.name=npz --set data.path="
TEXT = "run --set data.name=text --set data.path="
DIGITS = "run --preset digits --set "

MISTAKES = [
    ("run digits", "no configuration file at digits; ", "--preset digits"),
    ("run --preset digit", "did you mean 'digits'?"),
    ("run photos.npz", "photos.npz is data, not a configuration", "--set data.name=npz --set data.path=photos.npz"),
    ("run reviews.csv", "reviews.csv is data, not a configuration", "--set data.name=text --set data.path=reviews.csv"),
    ("run --epochs 3", "No such option", "--set KEY=VALUE"),
    (DIGITS + "max_params=50000", "max_params: unknown key; did you mean search.budget.max_params?"),
    (DIGITS + "epochs=3", "epochs: unknown key; did you mean teacher.training.epochs", "distill.training.epochs"),
    (DIGITS + "distill.method=kd", "distill.method: unknown key; did you mean 'methods'?"),
    (DIGITS + "data.path=photos.npz", "data.path: unknown key; set data.name too, to one that has it: ", "npz"),
    (DIGITS + "data.name=images", "data.name: unknown 'images'", "known: "),
    (DIGITS + "search.workers=many", "search.workers: expected a whole number or 'auto' (found 'many')"),
    (DIGITS + "search.workers=-1", "search.workers: expected 1 or more or 'auto' (found -1)"),
    (DIGITS + "search.budget.max_params=-5", "search.budget.max_params: ", "greater than"),
    (DIGITS + "teacher.architecture=resnet57", "did you mean 'resnet56'"),
    (DIGITS + "teacher=my_teacher.py", "my_teacher.py names no function; write my_teacher.py:make"),
    (DIGITS + "teacher=whole.pt", "whole.pt is a file of weights; set teacher.weights to it"),
    (DIGITS + "teacher=m.onnx", "m.onnx is an ONNX file; write onnx:m.onnx"),
    (DIGITS + "teacher=resnet50", "did you mean 'resnet56'", "such as timm:resnet50"),
    (DIGITS + "teacher.weights=notes.txt", "notes.txt is truncated or not a weights file"),
    (DIGITS + "teacher.weights=whole.pt", "whole.pt holds more than tensors", "save its state_dict() alone"),
    (DIGITS + "device.accelerator=gpu", "device.accelerator: unknown 'gpu'", "cuda"),
    (DIGITS + "export.formats=int8", "expected a list, such as [int8]"),
    (DIGITS + "export.formats=[fp32,onnx]", "unknown format 'onnx'", "known: ", "fp16"),
    (DIGITS + "data.name=text --set data.path=reviews.csv", "takes no text", "text_transformer_2x128"),
    ("run --preset sst2 --set data=digits", "takes no image", "resnet8"),
    (NPZ + "unnamed.npz", "unnamed.npz", "x_train", "np.savez"),
    (
        "run --set data.name=folder --set data.path=. --set data.size=32x32",
        "data.size: '32x32' is no size; write a side",
    ),
    (NPZ + "one_class.npz", "one class only; a classifier needs two or more"),
    (TEXT + "missing.csv", "data.path: no folder or file at missing.csv"),
    (TEXT + "semicolons.csv", "set data.delimiter to ';'"),
    (TEXT + "headless.csv", "name the columns in data.columns"),
    (TEXT + "gaps.csv", "line 3: column 'text' is empty", "data.empty"),
    (TEXT + "reviews.csv --set data.labels=[good,bad]", "no text has the label 'good' of data.labels", "0, 1"),
    (TEXT + "reviews.csv --set data.text_column=review", "no column 'review'", "data.text_column"),
    ("run --preset sst2 --set data.path=reviews.csv --set data.text_column=text", "data.columns to null"),
    ("run tabs.yaml", "tabs.yaml is not YAML"),
    ("resume latest", "there are no runs in runs"),
    ("predict latest a.png", "there is no bundle at latest", "there are no runs in runs"),
    ("show digits", "there are no runs in runs"),
    ("conformance my_method", "give PACKAGE.MODULE:NAME"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A newcomer's folder."""
    folder = tmp_path_factory.mktemp("home")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 8, 8), dtype=np.uint8)
    numbers = np.arange(60) % 3
    arrays = {"x_train": images[:48], "x_test": images[48:], "y_test": numbers[48:]}
    np.savez(folder / "photos.npz", y_train=numbers[:48], **arrays)
    np.savez(folder / "unnamed.npz", images, numbers)
    np.savez(folder / "one_class.npz", y_train=numbers[:48] * 0, **(arrays | {"y_test": numbers[48:] * 0}))
    torch.save(torch.nn.Linear(2, 2), folder / "whole.pt")
    (folder / "notes.txt").write_text("the weights are elsewhere\n")
    (folder / "tabs.yaml").write_text("search:\n\tbudget: {max_params: 9}\n")
    rows = [f"film number {n},{n % 2}" for n in range(40)]
    (folder / "reviews.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    (folder / "semicolons.csv").write_text("\n".join(["text;label", *rows]).replace(",", ";") + "\n")
    (folder / "headless.csv").write_text("\n".join(rows) + "\n")
    (folder / "gaps.csv").write_text("\n".join(["text,label", rows[0], ",1", *rows]) + "\n")
    return folder


@pytest.mark.parametrize(("typed", "words"), [(typed, words) for typed, *words in MISTAKES], ids=lambda v: str(v)[:60])
def test_a_likely_mistake_gets_a_sentence_that_leads_to_the_fix(
    typed: str, words: list[str], files: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(files)
    more = ["--quiet", "--no-prefect"] if typed.startswith("run ") else []
    assert execute([*shlex.split(typed), *more]) == 2
    said = capsys.readouterr().err
    assert [word for word in words if word not in said] == [], said
    assert "our mistake" not in said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) <= 2, said
    assert not list(files.glob("runs/*"))
