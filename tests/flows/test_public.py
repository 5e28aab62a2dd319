"""What `import edgestill` gives: the public names, each documented, imported when it is first used."""

import subprocess
import sys
from pathlib import Path

import pytest

import edgestill
from edgestill.pipeline.child import environment
from edgestill.pipeline.errors import ConfigError, EdgestillError

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = {
    "Bundle", "Dataset", "Format", "Method", "Outcome", "RunConfig", "Scorer", "SearchSpace", "Teacher", "__version__",
    "compress", "load_config",
}  # fmt: skip


def test_the_public_names_are_these_and_each_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    assert set(edgestill.__all__) == set(dir(edgestill)) == PUBLIC
    for name in PUBLIC:
        assert getattr(edgestill, name) == getattr(edgestill, name)
        assert getattr(edgestill, name).__doc__
        assert f"`edgestill.{name}" in page or f"`{name}`" in page


def test_another_name_is_none_of_it() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'compres'"):
        _ = edgestill.compres


def test_importing_it_is_quick_and_imports_nothing_slow() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import edgestill; took = time.perf_counter() - start;"
        "slow = {'torch', 'numpy', 'pydantic', 'prefect', 'typer'} & set(sys.modules); print(took); print(sorted(slow))"
    )
    took = []
    for _ in range(3):
        command = [sys.executable, "-P", "-c", code]
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment())
        seconds, slow = told.stdout.splitlines()
        took.append(float(seconds))
        assert slow == "[]"
    assert min(took) < 0.2


def test_a_configuration_beside_settings_is_refused(tmp_path: Path) -> None:
    config = edgestill.load_config(preset="digits")
    with pytest.raises(ConfigError, match="config is given beside preset or settings"):
        edgestill.compress(config, settings=["seed=1"], out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_setting_that_is_none_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(EdgestillError, match=r"search\.budget\.max_parms"):
        edgestill.compress(preset="digits", settings=["search.budget.max_parms=1"], out=tmp_path)
    assert list(tmp_path.iterdir()) == []
