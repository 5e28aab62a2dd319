"""Names of files that can come first on Python's path, and scripts that import nothing from beside them."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import edgestill
from edgestill.pipeline.child import environment

ROOT = Path(edgestill.__file__).parents[1]
# What Python puts first on the path when a script in one of them is run, or pytest does.
SCRIPT_FOLDERS = (
    "benchmarks",
    "benchmarks/lib",
    "benchmarks/tasks",
    "tests",
    "tests/export",
    "tests/flows",
    "tests/pipeline",
)
TAKEN = set(sys.stdlib_module_names) | set(importlib.metadata.packages_distributions())


def test_no_file_that_ships_has_the_name_of_a_module(bundles, text_bundle):
    for made in (bundles(3), text_bundle):
        stems = {path.name.split(".")[0] for path in made.folder.iterdir()}
        assert stems & TAKEN == set()


def test_no_script_or_module_beside_scripts_has_the_name_of_a_module():
    found = {path.stem for folder in SCRIPT_FOLDERS for path in (ROOT / folder).glob("*.py")}
    assert "trained" in found
    assert found & TAKEN == set()


@pytest.fixture(scope="module")
def planted(bundles, tmp_path_factory):
    """A bundle's folder with files that call themselves modules and leave a mark where they are imported."""
    folder = tmp_path_factory.mktemp("planted")
    for path in bundles(3).folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    mark = f"import os\nopen({str(folder / 'mark')!r}, 'a').write(__name__)\nraise ImportError(__name__)\n"
    for name in ("numpy", "onnxruntime", "json", "struct", "zlib", "io", "argparse", "statistics", "PIL", "pathlib"):
        (folder / f"{name}.py").write_text(mark, encoding="utf-8")
    return folder


@pytest.mark.parametrize("started_in", ["here", "elsewhere"])
@pytest.mark.parametrize("script", ["run.py", "profile_device.py"])
def test_a_script_imports_nothing_from_its_own_folder(script, started_in, planted, tmp_path):
    name = script if started_in == "here" else str(planted / script)
    plain = {key: value for key, value in environment().items() if key not in ("PYTHONSAFEPATH", "PYTHONPATH")}
    done = subprocess.run(
        [sys.executable, name, "--help" if script != "run.py" else "nothing.png"],
        cwd=planted if started_in == "here" else tmp_path,
        env=plain,
        capture_output=True,
        encoding="utf-8",
        timeout=100,
    )
    assert not (planted / "mark").exists()
    assert "ImportError" not in done.stderr
    assert done.returncode == (2 if script == "run.py" else 0)


def test_the_standard_library_s_profiler_starts_in_a_bundle_s_folder(bundles):
    """It imports `profile`, and so does torch.compile."""
    command = [sys.executable, "-c", "import cProfile, profile, pstats; print(profile.__file__)"]
    plain = {key: value for key, value in environment().items() if key not in ("PYTHONSAFEPATH", "PYTHONPATH")}
    done = subprocess.run(command, cwd=bundles(3).folder, env=plain, capture_output=True, encoding="utf-8", timeout=60)
    assert done.returncode == 0, done.stderr
    assert str(bundles(3).folder) not in done.stdout


def test_a_label_prints_on_a_terminal_without_its_letters_and_does_not_steer_it(bundles, tmp_path):
    made = bundles(3)
    for path in made.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    card = (tmp_path / "bundle.json").read_text(encoding="utf-8")
    for label in made.bundle.task.labels:
        card = card.replace(f'"{label}"', '"gr\\u00fcn\\u001b[2J"')
    (tmp_path / "bundle.json").write_text(card, encoding="utf-8")
    (tmp_path / "a.ppm").write_bytes(b"P6 8 10 255\n" + bytes(240))
    own = environment({"PYTHONIOENCODING": "ascii"})
    done = subprocess.run([sys.executable, "run.py", "a.ppm"], cwd=tmp_path, env=own, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, rb"gr\xfcn\x1b[2J" + b"\n"), done.stderr
