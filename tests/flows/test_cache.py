"""What is kept between runs."""

import os

import pytest

from edgestill.flows.cache import clear, kept_prepared, kinds
from edgestill.flows.cli.main import execute
from edgestill.pipeline.cache import cache_folder
from edgestill.pipeline.errors import UserError
from edgestill.search.scorers.ensemble_scale import EnsembleScale

SCALE = EnsembleScale(scales={}, missing=("jacov",), architectures=3)


def never():
    raise AssertionError("computed again")


def test_a_scale_is_computed_once(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGESTILL_CACHE", str(tmp_path / "not" / "there yet"))
    assert kept_prepared("key", EnsembleScale, lambda: SCALE) == SCALE
    assert kept_prepared("key", EnsembleScale, never) == SCALE


def test_a_file_that_is_no_scale_is_replaced(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGESTILL_CACHE", str(tmp_path))
    for damage in (b"", b"{}", b'{"scales": {"params": {"median": "much"}}}', os.urandom(100)):
        (tmp_path / "calibration").mkdir(exist_ok=True)
        (tmp_path / "calibration" / "key.json").write_bytes(damage)
        assert kept_prepared("key", EnsembleScale, lambda: SCALE) == SCALE
        assert kept_prepared("key", EnsembleScale, never) == SCALE


def test_a_scale_of_other_content_is_not_taken(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGESTILL_CACHE", str(tmp_path))
    other = SCALE.model_copy(update={"architectures": 4})
    kept_prepared("key", EnsembleScale, lambda: SCALE)
    (tmp_path / "calibration" / "key.json").rename(tmp_path / "calibration" / "another.json")
    assert kept_prepared("another", EnsembleScale, lambda: other) == other
    assert kept_prepared("another", EnsembleScale, never) == other


def test_a_folder_that_cannot_be_written_costs_time_only(monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("EDGESTILL_CACHE", str(file))
    assert kept_prepared("key", EnsembleScale, lambda: SCALE) == SCALE


def test_the_folder_is_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("EDGESTILL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "edgestill"


def test_the_cache_is_listed_and_cleared_by_kind(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("EDGESTILL_CACHE", str(tmp_path / "cache"))
    assert kinds() == []
    kept_prepared("key", EnsembleScale, lambda: SCALE)
    rows = tmp_path / "cache" / "images" / "some" / "images.rows"
    rows.parent.mkdir(parents=True)
    rows.write_bytes(bytes(3_000_000))
    assert [(kind.name, kind.entries) for kind in kinds()] == [("images", 1), ("calibration", 1)]
    assert execute(["cache"]) == 0
    assert "images             3.0 MB       1  decoded pictures" in capsys.readouterr().out
    with pytest.raises(UserError, match="has no 'image'; did you mean 'images'"):
        clear("image")
    assert execute(["cache", "clear", "images"]) == 0
    assert capsys.readouterr().out == "freed 3.0 MB\n"
    assert [kind.name for kind in kinds()] == ["calibration"]
    (tmp_path / "cache" / "other").mkdir()
    clear(None)
    assert kinds() == []
    assert (tmp_path / "cache" / "other").is_dir()  # EDGESTILL_CACHE may name a folder with other things in it
