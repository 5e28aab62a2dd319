"""The pages of a whole run are accessible: axe finds nothing in headless Chromium, in light, dark and narrow."""

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgestill.flows.cli.main import execute

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def axe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("axe", Path(__file__).with_name("axe.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if module.CHROMIUM is None or module.axe_script() is None:
        pytest.skip("there is no Chromium, or no axe-playwright-python")
    return module


def told(found: list[dict[str, Any]]) -> list[str]:
    return [f"{one['impact']} {one['id']}: {one['nodes'][0]['html'][:100]}" for one in found]


def test_axe_finds_what_is_wrong(axe: ModuleType, tmp_path: Path) -> None:
    page = "<!doctype html><html><body><img src='x.png'><p style='color: #ccc'>pale</p></body></html>"
    found = {one["id"] for one in axe.violations(page, tmp_path)}
    assert {"image-alt", "color-contrast", "html-has-lang"} <= found


@pytest.mark.parametrize(("width", "is_dark"), [(1280, False), (1280, True), (500, False)])
def test_axe_finds_nothing_on_a_runs_page(
    axe: ModuleType, finished_run: Path, tmp_path: Path, width: int, is_dark: bool
) -> None:
    page = (finished_run / "report.html").read_text(encoding="utf-8")
    assert told(axe.violations(page, tmp_path, width=width, is_dark=is_dark)) == []
    assert len(page) < 5_000_000


def test_axe_finds_nothing_on_the_page_of_a_comparison(axe: ModuleType, finished_run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(finished_run, tmp_path / "other")
    assert execute(["compare", str(finished_run), str(other), "-o", str(tmp_path / "both.html")]) == 0
    assert told(axe.violations((tmp_path / "both.html").read_text(encoding="utf-8"), tmp_path)) == []
