"""The library without Prefect, the wheel beside packages of common names, and the README's example."""

import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.engines
ROOT = Path(__file__).resolve().parents[2]
BRIEF = {
    "teacher__training__epochs": "2",
    "search__shortlist": "0",
    "tune__enabled": "false",
    "distill__training__epochs": "1",
    "export__formats": "[fp32]",
    "baselines__enabled": "false",
}


def without_prefect(code: str, environment: dict[str, str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run code in a process in which Prefect cannot be imported."""
    blocked = f"import sys\nsys.modules['prefect'] = None\n{code}"
    return subprocess.run(
        [sys.executable, "-c", blocked], cwd=folder, env=environment, capture_output=True, text=True, timeout=250
    )


def test_the_readme_example_runs_without_prefect(
    command_environment: dict[str, str], tmp_path: Path, tiny_arguments: Callable[..., list[str]]
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(example.strip().splitlines()) <= 10
    given = 'settings=["search.budget.max_params=20000"]'
    assert given in example
    small = example.replace(given, f"settings={tiny_arguments(**BRIEF)[3::2]!r}")
    done = without_prefect(small, command_environment, tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("runs/*/bundle/model.onnx"))
    assert "undamaged; unsigned" in done.stdout


def test_asking_for_prefect_where_there_is_none_says_how_to_get_it(
    command_environment: dict[str, str], tmp_path: Path
) -> None:
    called = "sys.argv = ['edgestill', 'run', '--preset', 'digits', '--prefect']"
    code = f"{called}\nfrom edgestill.flows.cli.main import main\nmain()"
    failed = without_prefect(code, command_environment, tmp_path)
    assert failed.returncode == 2
    assert "pip install 'prefect" in failed.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True, timeout=120)
    (built,) = folder.glob("edgestill-*.whl")
    return built


def test_the_wheel_holds_the_five_packages_and_the_presets_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    packages = {name.split("/")[1] for name in names if name.startswith("edgestill/")}
    assert tops == {"edgestill"}
    assert packages == {"__init__.py", "__main__.py", "py.typed", "pipeline", "search", "distill", "export", "flows"}
    assert "edgestill/flows/presets/digits.yaml" in names
    assert any(name.startswith("edgestill/flows/report/") and name.endswith(".j2") for name in names)


def test_the_installed_wheel_runs_beside_packages_of_common_names(
    wheel: Path,
    command_environment: dict[str, str],
    tmp_path: Path,
    tiny_arguments: Callable[..., list[str]],
) -> None:
    place = tmp_path / "venv"
    venv.create(place, with_pip=False)
    (packages,) = place.glob("lib/python*/site-packages")
    install = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python"), "install", "--quiet"]
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True, timeout=120)
    # The dependencies come from this environment; its own editable edgestill does not, being a .pth or a finder.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    users = tmp_path / "user"
    for name in ("pipeline", "search", "distill", "export", "flows"):  # of the user's project, and of its dependencies
        for folder in (users / name, packages / name):
            folder.mkdir(parents=True)
            (folder / "__init__.py").write_text(f"raise ImportError('{name} is not edgestill')\n")

    environment = {name: value for name, value in command_environment.items() if name != "PYTHONPATH"}

    def call(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [str(place / "bin" / "edgestill"), *arguments]
        return subprocess.run(command, cwd=users, env=environment, capture_output=True, text=True, timeout=200)

    where = [
        str(place / "bin" / "python"),
        "-c",
        "import edgestill, edgestill.flows as f; print(edgestill.__file__, f.__file__)",
    ]
    found = subprocess.run(where, cwd=users, env=environment, capture_output=True, text=True, timeout=60)
    assert all(path.startswith(str(packages)) for path in found.stdout.split()), found
    assert "resume" in call("--help").stdout
    done = call("run", *tiny_arguments(**BRIEF), "--quiet")
    assert done.returncode == 0, done.stderr
    assert list(users.glob("runs/*/bundle/model.onnx"))
    assert list(users.glob("runs/*/report.html"))
    (bundle,) = users.glob("runs/*/bundle")
    assert call("verify", str(bundle)).returncode == 0
