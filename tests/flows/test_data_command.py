"""`edgestill data`: counts, findings and pictures of a configuration's data."""

import numpy as np
import pytest

from edgestill.flows.cli.main import execute


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (90, 8, 8, 3), np.uint8), np.arange(90) % 3
    x[3] = x[0]
    path = tmp_path / "photos.npz"
    np.savez(path, x_train=x, y_train=y, x_test=x[:12], y_test=y[:12])
    return path


def test_the_command_tells_counts_and_findings_and_writes_pictures(photos, tmp_path, capsys):
    given = ["data", "--set", "data.name=npz", "--set", f"data.path={photos}", "--sheet", str(tmp_path / "sheet")]
    assert execute(given) == 0
    out = capsys.readouterr().out
    assert "3 classes of 3×8×8 images" in out
    assert "caution: " in out
    assert "test 0" in out
    assert len(list((tmp_path / "sheet").iterdir())) == 3


def test_the_command_needs_something_to_look_at(capsys):
    assert execute(["data"]) == 2
    assert "nothing to look at" in capsys.readouterr().err


def test_the_command_writes_the_ids_of_all_examples_and_no_class_of_test(photos, tmp_path):
    given = ["data", "--set", "data.name=npz", "--set", f"data.path={photos}", "--ids", str(tmp_path / "ids.csv")]
    assert execute(given) == 0
    rows = [line.split(",") for line in (tmp_path / "ids.csv").read_text().splitlines()]
    assert rows[0] == ["id", "split", "class"]
    assert {row[0] for row in rows[1:]} == {f"train/{n}" for n in range(90)} | {f"test/{n}" for n in range(12)}
    assert {row[1] for row in rows[1:]} == {"train", "reference", "validation", "test"}
    for name, split, label in rows[1:]:
        assert label == ("" if split == "test" else str(int(name.partition("/")[2]) % 3))


def test_the_command_says_what_was_understood_first(tmp_path, capsys):
    x, y = np.zeros((60, 1, 8, 8), np.uint8), np.arange(60) % 3
    np.savez(tmp_path / "nchw.npz", x_train=x, y_train=y, x_test=x[:12], y_test=y[:12])
    assert execute(["data", "--set", "data.name=npz", "--set", f"data.path={tmp_path / 'nchw.npz'}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("caution: ")
    assert "is taken as [N, C, H, W]" in lines[0]
    assert lines[1] == "3 classes of 1×8×8 images"
