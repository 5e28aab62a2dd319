"""What the tests of the command line share: a run that takes seconds, and the command as a subprocess."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import small
from filelock import FileLock

from edgestill.flows.cli.main import execute
from edgestill.flows.runner import new_run, run_chain

TINY = {
    "name": "tiny",
    "device.threads": "1",
    "teacher.architecture": "resnet8",
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
    "export.calibration.method": "minmax",
    "profile.timing.warmup_s": "0.05",
    "profile.timing.duration_s": "0.05",
    "profile.timing.min_samples": "70",
    "baselines.seeds": "1",
}
# Of the standard library, of what edgestill and its libraries import, and of edgestill itself.
PLANTED = (
    "argparse", "cProfile", "copy", "csv", "ctypes", "importlib_metadata", "json", "logging", "multiprocessing",
    "pickle", "platform", "profile", "queue", "random", "resource", "signal", "sitecustomize", "sqlite3", "string",
    "subprocess", "tempfile", "typing", "usercustomize", "zipfile", "PIL", "click", "cryptography", "cyclonedx",
    "fastapi", "filelock", "httpx", "jinja2", "joblib", "matplotlib", "nni", "numpy", "onnx", "onnxruntime",
    "onnxscript", "optuna", "packaging", "prefect", "pydantic", "pytorch_lightning", "rich", "safetensors",
    "scipy", "sklearn", "sqlalchemy", "tokenizers", "torch", "transformers", "typer", "uvicorn", "yaml", "distill",
    "export", "flows", "pipeline", "search",
)  # fmt: skip
# Secrets of the environment, which no file of a run may hold.
SECRETS = {
    name: f"planted-secret-{name.lower()}"
    for name in ("HF_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY")
} | {"EDGESTILL_NOTIFY": "json://me:planted-secret-notify@127.0.0.1:9/"}
Edgestill = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True, scope="session")
def _no_rehearsal() -> Iterator[None]:
    """Three exports that a run in this process need not wait for; test_rehearsal.py and every subprocess have them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgestill.flows.stages.data.rehearse_export", lambda *given: None)
        yield


@pytest.fixture(scope="session")
def tiny_arguments() -> Callable[..., list[str]]:
    """`edgestill run` arguments of the tiny run, with dotted keys changed (`__` for a dot)."""

    def arguments(**changes: str) -> list[str]:
        settings = TINY | {key.replace("__", "."): value for key, value in changes.items()}
        return ["--preset", "digits", *(part for item in settings.items() for part in ("--set", "=".join(item)))]

    return arguments


class Planted(NamedTuple):
    """A folder of modules that a hostile archive may hold, each of which leaves its name when it is run."""

    folder: Path
    notes: Path

    @property
    def ran(self) -> list[str]:
        return sorted(set(self.notes.read_text().split())) if self.notes.exists() else []


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all processes of this run of the tests."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def planted(shared: Path) -> Planted:
    notes, folder = shared / "planted_ran", shared / "planted"
    with FileLock(shared / "planted.lock"):
        if not folder.exists():
            folder.mkdir()
            for name in PLANTED:
                text = f"with open({str(notes)!r}, 'a') as notes:\n    notes.write({name + chr(10)!r})\n"
                (folder / f"{name}.py").write_text(text)
    return Planted(folder, notes)


@pytest.fixture(scope="session")
def command_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a subprocess: one thread, and no Prefect server but one of the tests' own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return (
        kept
        | SECRETS
        | {
            "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
            "DO_NOT_TRACK": "1",
            "OMP_NUM_THREADS": "1",
        }
    )


@pytest.fixture(scope="session")
def edgestill(command_environment: dict[str, str]) -> Edgestill:
    """Runs the command and gives its exit code and output."""

    def call(*arguments: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "edgestill", *arguments]
        return subprocess.run(command, cwd=cwd, env=command_environment, capture_output=True, text=True, timeout=280)

    return call


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Edgestill:
    """Runs the command in this process, which spares some seconds of imports."""

    def call(*arguments: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        capsys.readouterr()
        with contextlib.chdir(cwd or Path.cwd()):
            code = execute([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    return call


@pytest.fixture(scope="session")
def finished_run(
    edgestill: Edgestill,
    tiny_arguments: Callable[..., list[str]],
    planted: Planted,
    shared: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of one tiny run that went through undisturbed, started among planted modules.

    One process of the tests makes it, and each takes a copy.
    """
    out = shared / "finished"
    with FileLock(shared / "finished.lock"):
        if not out.exists():
            making = tmp_path_factory.mktemp("making")
            done = edgestill("run", *tiny_arguments(), "--out", str(making), "--quiet", cwd=planted.folder)
            assert done.returncode == 0, done.stderr
            making.rename(out)
    made = next(out.glob("*/manifest.json")).parent
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("runs") / made.name))


@pytest.fixture(scope="session")
def small_run(shared: Path) -> Path:
    """The folder of a run of a few seconds, with its data beside it; who changes it takes a copy."""
    out = shared / "small"
    with FileLock(shared / "small.lock"):
        if not out.exists():
            out.mkdir()
            with new_run(small.config(small.data(out / "x.npz")), out) as run:
                run_chain(run)
    return next(out.glob("*/manifest.json")).parent


@pytest.fixture(scope="session")
def told_secrets() -> Callable[..., list[str]]:
    """(folders or files) to the files among them that hold a planted secret."""

    def search(*places: Path) -> list[str]:
        files = [path for place in places for path in (place, *place.rglob("*")) if path.is_file()]
        return [str(path) for path in files if b"planted-secret" in path.read_bytes()]

    return search
