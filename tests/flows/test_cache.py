"""What is kept between runs."""

import os

from edgestill.flows.cache import kept_calibration
from edgestill.pipeline.cache import cache_folder
from edgestill.search.scorers import Calibration

CALIBRATION = Calibration(scales={}, missing=("jacov",), architectures=3)


def never():
    raise AssertionError("computed again")


def test_a_calibration_is_computed_once(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGESTILL_CACHE", str(tmp_path / "not" / "there yet"))
    assert kept_calibration("key", lambda: CALIBRATION) == CALIBRATION
    assert kept_calibration("key", never) == CALIBRATION


def test_a_file_that_is_no_calibration_is_replaced(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGESTILL_CACHE", str(tmp_path))
    for damage in (b"", b"{}", b'{"scales": {"params": {"median": "much"}}}', os.urandom(100)):
        (tmp_path / "calibration").mkdir(exist_ok=True)
        (tmp_path / "calibration" / "key.json").write_bytes(damage)
        assert kept_calibration("key", lambda: CALIBRATION) == CALIBRATION
        assert kept_calibration("key", never) == CALIBRATION


def test_a_calibration_of_other_content_is_not_taken(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGESTILL_CACHE", str(tmp_path))
    other = CALIBRATION.model_copy(update={"architectures": 4})
    kept_calibration("key", lambda: CALIBRATION)
    (tmp_path / "calibration" / "key.json").rename(tmp_path / "calibration" / "another.json")
    assert kept_calibration("another", lambda: other) == other
    assert kept_calibration("another", never) == other


def test_a_folder_that_cannot_be_written_costs_time_only(monkeypatch, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("EDGESTILL_CACHE", str(file))
    assert kept_calibration("key", lambda: CALIBRATION) == CALIBRATION


def test_the_folder_is_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("EDGESTILL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "edgestill"
