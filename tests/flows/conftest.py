"""What the tests of the command line share: a run that takes seconds, and the command as a subprocess."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TINY = {
    "name": "tiny",
    "device.threads": "1",
    "teacher.architecture": "resnet20",
    "teacher.training.epochs": "5",
    "search.space.widths": "[[8],[8,12],[16]]",
    "search.space.blocks": "[[1,2],[1],[1]]",
    "search.budget.max_params": "26000",
    "search.draws": "1",
    "search.baselines": "[params,random]",
    "search.shortlist": "2",
    "search.tournament.epochs": "1",
    "tune.trials": "3",
    "tune.epochs": "3",
    "distill.training.epochs": "5",
    "profile.timing.duration_s": "0.05",
    "profile.timing.min_samples": "70",
}
Edgestill = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def tiny_arguments() -> Callable[..., list[str]]:
    """`edgestill run` arguments of the tiny run, with dotted keys changed (`__` for a dot)."""

    def arguments(**changes: str) -> list[str]:
        settings = TINY | {key.replace("__", "."): value for key, value in changes.items()}
        return ["--preset", "digits", *(part for item in settings.items() for part in ("--set", "=".join(item)))]

    return arguments


@pytest.fixture(scope="session")
def command_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a subprocess: one thread, and no Prefect server but one of the tests' own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return kept | {
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="session")
def edgestill(command_environment: dict[str, str]) -> Edgestill:
    """Runs the command and gives its exit code and output."""

    def call(*arguments: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "flows.cli", *arguments]
        return subprocess.run(command, cwd=cwd, env=command_environment, capture_output=True, text=True, timeout=280)

    return call


@pytest.fixture(scope="session")
def finished_run(
    edgestill: Edgestill, tiny_arguments: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of one tiny run that went through undisturbed."""
    out = tmp_path_factory.mktemp("runs")
    done = edgestill("run", *tiny_arguments(), "--out", str(out), "--quiet")
    assert done.returncode == 0, done.stderr
    return next(out.glob("*/manifest.json")).parent
