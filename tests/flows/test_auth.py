"""One setting guards UI and API, and the account's own commands carry the password to this machine's servers alone."""

import os
import stat
from pathlib import Path

import pytest

from edgestill.flows.config import RunConfig, load_config
from edgestill.flows.prefect import confinement
from edgestill.flows.prefect.auth import carry, guard
from edgestill.flows.prefect.deployments import KINDS
from edgestill.pipeline.errors import UserError

SERVER, CLIENT = "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (SERVER, CLIENT):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")


def test_a_password_is_made_once_and_kept_for_this_account_alone(tmp_path: Path) -> None:
    told = Path(guard(tmp_path))
    assert stat.S_IMODE(told.stat().st_mode) == 0o600
    made = told.read_text().strip()
    assert made.startswith("edgestill:")
    assert len(made) > 40
    assert os.environ[SERVER] == os.environ[CLIENT] == made
    os.environ[SERVER] = os.environ[CLIENT] = ""
    assert Path(guard(tmp_path)).read_text().strip() == made


def test_a_password_of_the_environment_counts_and_is_not_written(tmp_path: Path) -> None:
    os.environ[SERVER] = "me:mine"
    assert guard(tmp_path) == SERVER
    assert os.environ[CLIENT] == "me:mine"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "is_sent"),
    [
        ("http://127.0.0.1:4200/api", True),
        ("http://localhost:4201/api", True),
        ("http://prefect.example.org/api", False),
        ("http://127.0.0.1.example.org/api", False),
        ("", False),
    ],
)
def test_a_kept_password_is_sent_to_this_machine_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, is_sent: bool
) -> None:
    guard(tmp_path)
    os.environ[CLIENT] = ""
    monkeypatch.setenv("PREFECT_API_URL", url)
    carry(tmp_path)
    assert bool(os.environ[CLIENT]) == is_sent


def test_a_password_of_the_environment_is_not_replaced(tmp_path: Path) -> None:
    guard(tmp_path)
    os.environ[CLIENT] = "me:mine"
    carry(tmp_path)
    assert os.environ[CLIENT] == "me:mine"


CODE = (
    "teacher=os:getcwd",
    "data={name: python, code: 'os:getcwd'}",
    "teacher={name: hf, model: a/b, trust_remote_code: true}",
)


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.fields])
def test_no_form_of_a_new_run_names_code_that_the_operator_did_not_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, code: str
) -> None:
    from edgestill.flows.prefect import flow

    monkeypatch.setenv("EDGESTILL_SERVED_FOLDERS", "")
    confinement.confine([tmp_path, Path("a/b")])
    made = flow._tonight if kind == "compress" else flow._new
    with pytest.raises(UserError, match="would run code"):
        made(RunConfig(), {"more": [code]}, str(tmp_path))
    with pytest.raises(UserError, match="would run code"):
        made(load_config(None, "digits", [code], check_files=False), None, str(tmp_path))
    assert list(tmp_path.iterdir()) == []
