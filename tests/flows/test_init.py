"""`edgestill init`: a short configuration that loads, for the data and the teacher that a person has."""

from pathlib import Path

import numpy as np
import pytest
import typer

from edgestill.flows.cli.main import execute
from edgestill.flows.config import load_config
from edgestill.flows.config.looking import data_for
from edgestill.pipeline.data.datasets import DATASETS
from edgestill.pipeline.data.datasets.base import DatasetConfig
from edgestill.pipeline.data.datasets.given import columns_of
from edgestill.pipeline.errors import UserError


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.zeros((12, 32, 32, 3), np.uint8)
    np.savez("my images.npz", x_train=pixels, y_train=np.arange(12) % 3, x_test=pixels, y_test=np.arange(12) % 3)
    rows = "".join(f"{n},a review of some length number {n},{n % 3}\n" for n in range(30))
    Path("reviews.csv").write_text(f"id,review,stars\n{rows}")


def init(*arguments: str) -> str:
    assert execute(["init", "--out", "c.yaml", *arguments]) == 0
    return Path("c.yaml").read_text()


def test_digits_are_the_presets_and_a_budget_is_written_as_it_was_given() -> None:
    text = init("--data", "digits", "--max-params", "50k", "--latency-ms", "5")
    config, preset = load_config(Path("c.yaml")), load_config(None, "digits")
    assert (config.search.budget.max_params, config.search.budget.max_latency_ms) == (50_000, 5.0)
    assert config.model_copy(update={"search": preset.search}) == preset
    assert "max_params: 50k" in text
    assert len(text.splitlines()) < 25


def test_images_in_an_archive_take_about_ten_lines() -> None:
    text = init("--data", "my images.npz", "--teacher", "resnet20", "--size-kb", "300")
    config = load_config(Path("c.yaml"))
    assert (config.data.name, config.name, config.teacher.architecture) == ("npz", "my-images", "resnet20")
    assert config.search.budget.max_size_bytes == 300_000
    assert len(text.splitlines()) <= 12
    assert max(map(len, text.splitlines())) <= 120


def test_a_table_of_texts_is_read_by_its_columns_and_gets_a_teacher_and_students_for_texts() -> None:
    init("--data", "reviews.csv")
    config = load_config(Path("c.yaml"))
    assert (config.data.text_column, config.data.label_column) == ("review", "stars")
    assert (config.data.kind, config.search.space.name) == ("text", "text_transformer")
    assert "# budget: {max_latency_ms: 5}" in Path("c.yaml").read_text()


def test_a_folder_of_parts_names_those_that_are_there() -> None:
    Path("parts").mkdir()
    for part in ("train", "val"):
        Path("parts", f"{part}.tsv").write_text("sentence\tlabel\n" + "some text\t0\nother text\t1\n" * 3)
    found = data_for("parts")
    assert found == {
        "name": "text", "path": "parts", "text_column": "sentence", "label_column": "label", "validation": "val",
        "test": None,
    }  # fmt: skip


def test_a_data_set_of_another_package_recognises_its_own(monkeypatch) -> None:
    class Photos(DatasetConfig):
        @classmethod
        def settings_for(cls, given: str) -> dict[str, object] | None:
            return {"path": given, "size": 64} if given.endswith(".tar") else None

    monkeypatch.setitem(DATASETS, "photos", (Photos, None))
    Path("pets.tar").touch()
    assert data_for("pets.tar") == {"name": "photos", "path": "pets.tar", "size": 64}


def test_a_folder_a_class_is_known(monkeypatch) -> None:
    Path("pets", "cat").mkdir(parents=True)
    assert data_for("pets") == {"name": "folder", "path": "pets"}


def test_a_table_of_paths_of_images_is_no_text_and_a_cifar_folder_is_known_by_its_batches() -> None:
    Path("photos", "cat").mkdir(parents=True)
    Path("photos", "cat", "a.png").touch()
    Path("photos.csv").write_text("file,label\n" + "photos/cat/a.png,cat\n" * 4)
    assert columns_of(Path("photos.csv")) == ("file", "label", True, None, None)
    found = data_for("photos.csv")
    assert found == {"name": "csv", "path": "photos.csv", "image_column": "file", "label_column": "label"}
    Path("photos.csv").write_text("file,label,Split\n" + "photos/cat/a.png,cat,val\nphotos/cat/a.png,cat,train\n" * 2)
    assert data_for("photos.csv") == found | {"split_column": "Split"}
    Path("photos.csv").write_text("file;label\n" + "photos/cat/a.png;cat\n" * 4)
    assert data_for("photos.csv") == found | {"delimiter": ";"}
    Path("batches").mkdir()
    Path("batches", "train.bin").touch()
    assert data_for("batches") == {"name": "cifar", "path": "batches"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("nothing-here", "nothing-here is not there; give a folder of tables or of images by class"),
        ("flat", "flat holds 1 images and no folder; put the images of each class in a folder of its own"),
        ("empty", "empty holds neither folders of images nor train.csv or train.tsv"),
        ("c.docx", "c.docx is of no kind that is read here"),
        ("one.csv", "one.csv has no two columns"),
        ("rows.csv", "rows.csv: its first line is a row like the others; add one before it, such as text,label"),
        ("wide.csv", "wide.csv is no text in UTF-8; save it as such"),
    ],
)
def test_data_that_is_not_recognised_is_refused_with_what_is(given: str, told: str) -> None:
    Path("flat").mkdir()
    Path("flat", "a.JPG").touch()
    Path("empty").mkdir()
    Path("c.docx").touch()
    Path("one.csv").write_text("a\n1\n2\n3\n")
    Path("rows.csv").write_text("".join(f"film number {n},{n % 2}\n" for n in range(9)))
    Path("wide.csv").write_text("text,label\na film,1\nb film,0\n", encoding="utf-16")
    with pytest.raises(UserError, match=told):
        data_for(given)


def test_a_file_is_overwritten_by_force_alone_and_an_unknown_teacher_writes_none(capsys) -> None:
    Path("c.yaml").write_text("mine")
    assert execute(["init", "c.yaml"]) == 2
    assert "c.yaml exists already; name another file, or give --force to overwrite it" in capsys.readouterr().err
    assert Path("c.yaml").read_text() == "mine"
    assert "Every key may be left out" not in init("--force")
    assert "Every key may be left out" in init("--force", "--full")
    assert execute(["init", "d.yaml", "--teacher", "nokind:name", "--data", "digits"]) == 2
    assert execute(["init", "d.yaml", "--out", "e.yaml"]) == 2
    capsys.readouterr()
    assert execute(["init", "d.yaml", "--data", "digits", "--max-params", "50q"]) == 2
    assert capsys.readouterr().err.startswith("error: search.budget.max_params: '50q' is no whole number here; write")
    assert not Path("d.yaml").exists()


def test_on_a_terminal_it_asks_for_what_is_open(monkeypatch) -> None:
    asked = []

    def prompt(question: str, **options: object) -> str:
        asked.append(question)
        answers = {"Your data": "my images.npz", "Longest": "2", "Most": "20k"}
        return next((answer for begin, answer in answers.items() if question.startswith(begin)), "")

    monkeypatch.setattr(typer, "prompt", prompt)
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())
    init()
    config = load_config(Path("c.yaml"))
    budget = config.search.budget
    assert (config.data.name, budget.max_latency_ms, budget.max_params) == ("npz", 2, 20_000)
    assert len(asked) == 4
    init("--force", "--data", "digits")
    assert len(asked) == 4, "data that is given asks nothing"
