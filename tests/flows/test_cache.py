"""What is kept between runs."""

import os

from edgestill.flows.cache import kept_prepared
from edgestill.pipeline.cache import cache_folder
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
