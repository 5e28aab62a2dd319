"""A run whose clients are in one process ends in a bundle."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgestill.export.bundle.verify import verify
from edgestill.flows.cli.main import execute

pytest.importorskip("flwr.app")
pytestmark = pytest.mark.engines


def test_a_run_with_clients_in_one_process_becomes_a_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_arguments: Callable[..., list[str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    driver = "{name: federated, clients: 3, rounds: 2, division: class, training: {local_epochs: 1, taught_epochs: 1}}"
    assert execute(["run", *tiny_arguments(distill__driver=driver), "--quiet"]) == 0
    (bundle,) = tmp_path.glob("runs/*/bundle")
    assert verify(bundle).problems == ()
    told = json.loads((bundle.parent / "distill/result.json").read_text())["measures"]
    assert told["federated.bytes_from_a_client_a_round"] > 0
    assert not list((bundle.parent / "distill").glob(".federated.pt")), "the stage is done, and its state goes"
