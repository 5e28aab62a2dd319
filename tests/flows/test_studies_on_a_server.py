"""A run whose studies are on a PostgreSQL server: its files and its output have no trace of the password."""

import pytest
from postgres import PASSWORD, postgres

from edgestill.distill.study_server import exists, study_place
from edgestill.flows.config.loading import load_config
from edgestill.flows.runner import new_run, run_part

pytestmark = pytest.mark.engines
__all__ = ["postgres"]


def test_a_run_tunes_on_the_server_and_keeps_nothing_of_its_address(
    postgres, tiny_arguments, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("EDGESTILL_STUDIES", postgres.address())
    changes = {"teacher__training__epochs": "1", "search__shortlist": "0", "tune__trials": "1", "tune__epochs": "1"}
    settings = [
        part for part in tiny_arguments(search__baselines="[]", search__evaluations="2", **changes) if "=" in part
    ]
    with new_run(load_config(None, "digits", settings), tmp_path) as run:
        run_part(run, "tune")
    file = run.root / "tune" / "study.db"
    assert not file.exists()
    assert exists(study_place(None, file))
    kept = b"\n".join(path.read_bytes() for path in run.root.rglob("*") if path.is_file())
    assert PASSWORD.encode() not in kept
    assert str(postgres.port).encode() not in kept
    assert PASSWORD not in "".join(capfd.readouterr())
