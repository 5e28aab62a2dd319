"""`predict` and run.py on many inputs: files, folders, tables, standard input, and a line for each failure."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgestill.flows.cli.main import execute


@pytest.fixture
def folder(bundles, tmp_path: Path) -> Path:
    """Three images in two folders, of which one is truncated, beside a file that is none."""
    inner = tmp_path / "images" / "inner"
    inner.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    Image.fromarray(pixels).save(inner / "c.jpg")
    (tmp_path / "images" / "b.jpg").write_bytes((inner / "c.jpg").read_bytes()[:300])
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    return tmp_path / "images"


def ask(capsys, *arguments: object) -> tuple[int, list[str], list[str]]:
    code = execute(["predict", *map(str, arguments)])
    said = capsys.readouterr()
    notes = [line for line in said.err.splitlines() if "resized" not in line]
    return code, said.out.splitlines(), notes


def test_a_folders_images_are_labelled_and_a_truncated_one_has_a_line(bundles, folder, capsys) -> None:
    code, answers, notes = ask(capsys, bundles(3).folder, folder)
    assert code == 1
    assert [line.rpartition(": ")[0] for line in answers] == [f"{folder}/a.png", f"{folder}/inner/c.jpg"]
    (failed,) = notes
    assert failed.startswith(f"failed: {folder}/b.jpg: not an image that is read here (")


def test_run_py_answers_as_predict_does(bundles, folder, capsys) -> None:
    _, answers, _ = ask(capsys, bundles(3).folder, folder)
    script = [sys.executable, "-I", str(bundles(3).folder / "run.py")]
    done = subprocess.run([*script, str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [line.rpartition(" ")[0] for line in answers]
    assert f"{folder}/b.jpg: not an image" in done.stderr
    by_lines = subprocess.run([*script, "-"], input=f"{folder}/a.png\n", capture_output=True, text=True, timeout=60)
    assert (by_lines.returncode, by_lines.stdout.strip()) == (0, answers[0].rpartition(": ")[2].split()[0])
    (folder / "none").mkdir()
    empty = subprocess.run([*script, str(folder / "none")], capture_output=True, text=True, timeout=60)
    assert (empty.returncode, empty.stderr) == (2, f"{folder}/none: there is no image in it\n")


def test_a_table_of_paths_goes_in_and_a_table_of_answers_comes_out(bundles, folder, capsys) -> None:
    (folder / "list.csv").write_text("id,file\n1,a.png\n2,b.jpg\n3,inner/c.jpg\n")
    out = folder / "answers.csv"
    code, _, notes = ask(capsys, bundles(3).folder, folder / "list.csv", "--column", "file", "--out", out)
    assert code == 1
    assert notes[-1] == f"wrote {out}: 2 answers to 3 inputs"
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [Path(row["input"]).name for row in rows] == ["a.png", "b.jpg", "c.jpg"]
    assert [bool(row["label"]) for row in rows] == [True, False, True]
    assert "not an image" in rows[1]["error"]
    code, _, (said,) = ask(capsys, bundles(3).folder, folder / "list.csv")
    assert code == 2
    assert said.endswith("list.csv has no column 'path'; known: file, id; name one with --column")


def test_texts_come_from_tables_lines_and_standard_input(text_bundle, tmp_path: Path, capsys, monkeypatch) -> None:
    (tmp_path / "t.csv").write_text('review,n\n"a fine, moving film",1\n,2\na dull film,3\n')
    code, answers, (failed,) = ask(capsys, text_bundle.folder, tmp_path / "t.csv", "--column", "review")
    assert (code, len(answers)) == (1, 2)
    assert answers[0].startswith("a fine, moving film: ")
    assert failed == "failed: '': there is nothing in this text"
    (tmp_path / "t.txt").write_text("a fine film\n\na dull film\u2028seen\x85twice\n", encoding="utf-8")
    assert len(ask(capsys, text_bundle.folder, tmp_path / "t.txt")[1]) == 2
    monkeypatch.setattr(sys, "stdin", io.StringIO("a fine film\na dull film\n"))
    assert len(ask(capsys, text_bundle.folder, "-")[1]) == 2
    for text in ("it ends in film.txt", "a long film " * 500 + "x.txt"):
        assert ask(capsys, text_bundle.folder, text)[0] == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("missing.csv", "there is no file missing.csv"),
        (".", ". is a folder; name the texts themselves"),
        (" ", "nothing"),
        ("a fine \udcff film", r"the text 'a fine \udcff film' is not UTF-8"),
    ],
)
def test_what_is_no_text_is_told(given, said, text_bundle, capsys) -> None:
    code, answers, (told,) = ask(capsys, text_bundle.folder, given)
    assert (code, answers) == (2, [])
    assert said in told


def test_json_has_the_answers_alone(bundles, folder, capsys) -> None:
    code, answers, _ = ask(capsys, bundles(3).folder, folder, "--json")
    assert code == 1
    assert [Path(one["input"]).name for one in json.loads("\n".join(answers))] == ["a.png", "c.jpg"]
