"""Every command in a folder of modules that are called as those it imports, and what it then must not run."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hostile import rewritten
from onnx import helper, numpy_helper

import edgestill
from edgestill.flows.cli.safe_path import leave_out_the_current_folder

pytestmark = pytest.mark.engines

COMMANDS = (
    "init mine.yaml",
    "presets",
    "runs",
    "show latest",
    "resume latest --quiet",
    "report latest",
    "verify latest",
    "predict latest image.npy",
    "profile model.onnx --duration 0.05 --repeats 1",
    "keygen ours",
    "sign latest --key ours.pem",
    "bundle export latest --out b.zip",
    "score --space resnet --architectures architectures --data data.npz --out scores.csv --scorers nwot "
    "--teacher resnet20 --batch-size 8",
    "calibrate --space resnet --from-csv latencies.csv --input-shape 1x8x8 --out device.json "
    "--set blocks=[[1,2],[1,2],[1,2]] --set widths=[[4,6],[6],[8]]",
)
EACH = """
from edgestill.flows.cli.main import execute
for command in {commands!r}:
    assert execute(command.split(), debug=True) == 0, command
"""


@pytest.fixture(scope="module")
def run(finished_run, planted) -> Path:
    """A finished run below the folder, and what commands are given beside it."""
    run = Path(shutil.copytree(finished_run, planted.folder / "runs" / "1"))
    shutil.copy(run / "bundle" / "model.onnx", planted.folder)
    x = np.random.default_rng(0).integers(0, 256, (24, 8, 8), dtype=np.uint8)
    y = np.arange(24) % 3
    np.savez(planted.folder / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    np.save(planted.folder / "image.npy", x[0])
    (planted.folder / "architectures").write_text("1-1-1/8-8-16\n")
    depths = [*itertools.product("12", repeat=3)]
    rows = [f"{'-'.join(d)}/{width}-6-8,{sum(map(int, d)) / width}" for d in depths for width in (4, 6)]
    (planted.folder / "latencies.csv").write_text("\n".join(["architecture,latency_ms", *rows]) + "\n")
    return run


def test_no_command_runs_a_module_of_the_current_folder(run, planted, command_environment) -> None:
    assert planted.ran == []  # by the whole run, which was started there
    # In one process for the time that imports take; `python -c` has the current folder first on its path.
    command = [sys.executable, "-c", EACH.format(commands=COMMANDS)]
    done = subprocess.run(
        command, cwd=planted.folder, env=command_environment, capture_output=True, text=True, timeout=280
    )
    assert planted.ran == []
    assert done.returncode == 0, done.stderr


def following(data: bytes) -> bytes:
    """The model with a zero added to its logits that is the mean of a vector as long as the batch has rows."""
    model = onnx.load_model_from_string(data)
    for node in model.graph.node:
        node.output[:] = ["plain" if name == "logits" else name for name in node.output]
    model.graph.initializer.append(numpy_helper.from_array(np.array([2]), "two"))
    model.graph.node.extend(
        [
            helper.make_node("Shape", ["images"], ["rows"], start=0, end=1),
            helper.make_node("Mul", ["rows", "two"], ["many"]),
            helper.make_node("ConstantOfShape", ["many"], ["zeros"]),
            helper.make_node("ReduceMean", ["zeros"], ["zero"], keepdims=0),
            helper.make_node("Add", ["plain", "zero"], ["logits"]),
        ]
    )
    return model.SerializeToString()


def test_a_bundle_whose_sizes_are_followed_runs_none_of_the_modules_beside_it(
    run, planted, edgestill, tmp_path
) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for path in (run / "bundle").iterdir():
        if path.name != "manifest.sig":
            (bundle / path.name).write_bytes(path.read_bytes())
    model = following((bundle / "model.onnx").read_bytes())
    card = json.loads((bundle / "bundle.json").read_text())
    card["models"]["fp32"]["bytes"] = len(model)
    rewritten(bundle, model__onnx=model, bundle__json=json.dumps(card).encode())
    done = edgestill("verify", str(bundle), cwd=planted.folder)
    assert done.returncode == 0, done.stdout
    for path in planted.folder.glob("*.py"):
        (bundle / path.name).write_bytes(path.read_bytes())
    rewritten(bundle)
    done = edgestill("verify", ".", cwd=bundle)
    assert done.returncode == 1
    assert "is no file of a bundle" in done.stdout
    assert edgestill("predict", ".", str(planted.folder / "image.npy"), cwd=bundle).returncode == 2
    assert planted.ran == []


def test_settings_of_libraries_are_not_read_from_the_current_folder(run, planted, edgestill) -> None:
    (planted.folder / "matplotlibrc").write_bytes(b"\xff axes.labelsize: 90\n")
    before = (run / "report.html").read_bytes()
    done = edgestill("report", "latest", cwd=planted.folder)
    assert done.returncode == 0, done.stderr
    assert (run / "report.html").read_bytes() == before
    logging = "version: 1\nhandlers:\n  here:\n    (): onnx.Handler\nroot:\n  handlers: [here]\n"
    (planted.folder / "logging.yml").write_text(logging)
    (planted.folder / "prefect.toml").write_text('[logging]\nconfig_path = "logging.yml"\n')
    (planted.folder / ".env").write_text("PREFECT_LOGGING_SETTINGS_PATH=logging.yml\n")
    done = edgestill("serve", cwd=planted.folder)
    assert "no Prefect server is named" in done.stderr
    assert planted.ran == []


def path_of_imports(monkeypatch: pytest.MonkeyPatch, entries: list[str], named: str) -> list[str]:
    monkeypatch.setattr(sys, "path", [*entries])
    monkeypatch.setenv("PYTHONPATH", named)
    leave_out_the_current_folder()
    return sys.path


def test_the_current_folder_leaves_the_path_unless_it_is_named_in_full(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    here, other, site = str(tmp_path), "/other", "/site-packages"
    assert path_of_imports(monkeypatch, [here, site], "") == [site]  # python -m
    assert path_of_imports(monkeypatch, ["", ".", "lib", site], "") == [site]
    # `site` makes the empty entry of PYTHONPATH absolute
    assert path_of_imports(monkeypatch, ["/bin", other, here, site], os.pathsep.join([other, ""])) == [
        "/bin", other, site
    ]  # fmt: skip
    assert path_of_imports(monkeypatch, ["/bin", here, site], here) == ["/bin", here, site]
    assert path_of_imports(monkeypatch, [here, site, here], "") == [site, here]  # installed from here
    home = str(Path(edgestill.__file__).absolute().parents[1])
    monkeypatch.chdir(home)
    assert path_of_imports(monkeypatch, [home, site], "") == [home, site]  # our code lies in it


def test_a_library_that_starts_processes_gives_the_environment_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgestill.pipeline.child import inherited

    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.setenv("PYTHONPATH", "/other" + os.pathsep)
    show: Callable[[], str] = lambda: subprocess.run(  # noqa: E731
        [sys.executable, "-c", "import os; print(os.environ['PYTHONPATH'], os.environ.get('PYTHONSAFEPATH'))"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    with inherited():
        assert show() == "/other 1\n"
    assert show() == "/other: None\n"
