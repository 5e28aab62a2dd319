"""The package in examples/plugin, installed beside edgestill: a run with it, its conformance, and a broken one too."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.engines
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "plugin"
PLACES = ("method:TotalVariation", "space:ShallowSpace", "format:Fp16Stored")
Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory, command_environment: dict[str, str]) -> Call:
    """The command where the example is installed, and a package whose method fails when it is imported."""
    packages, source = tmp_path_factory.mktemp("packages"), tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(EXAMPLE, source)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*install, "--target", str(packages), str(source)], check=True, timeout=120)
    broken = packages / "broken-2.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 2.0\n")
    (broken / "entry_points.txt").write_text("[edgestill.methods]\nbroken = broken:Broken\n")
    (packages / "broken.py").write_text("import nothing_of_this_name\n")
    path = os.pathsep.join([str(packages), *filter(None, [command_environment.get("PYTHONPATH")])])
    here = tmp_path_factory.mktemp("here")

    def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "edgestill", *arguments]
        env = command_environment | {"PYTHONPATH": path} | environment
        return subprocess.run(command, cwd=here, env=env, capture_output=True, text=True, timeout=280)

    return run


@pytest.fixture(scope="module")
def arguments(tiny_arguments: Callable[..., list[str]]) -> list[str]:
    preset, digits, *settings = tiny_arguments(
        search__space="shallow", distill__methods="[total_variation]", export__formats="[fp32,fp16_stored]"
    )
    pairs = zip(settings[::2], settings[1::2], strict=True)
    return [preset, digits, *(part for pair in pairs if not pair[1].startswith("search.space.") for part in pair)]


@pytest.fixture(scope="module")
def finished(call: Call, arguments: list[str], tmp_path_factory: pytest.TempPathFactory):
    """(run's folder, the process that made it)"""
    out = tmp_path_factory.mktemp("runs")
    done = call("run", *arguments, "--out", str(out), "--quiet")
    assert done.returncode == 0, done.stderr
    return next(out.glob("*/manifest.json")).parent, done


def test_a_run_searches_tunes_exports_and_reports_with_the_plug_in(finished) -> None:
    run, _ = finished
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["search"]["space"] == {"name": "shallow", "depth": [2, 3, 4], "width": [8, 16, 24, 32]}
    found, tuned, exported = (json.loads((run / s / "result.json").read_text()) for s in ("search", "tune", "export"))
    assert re.fullmatch(r"d\dw\d+", found["winner"]["architecture"])
    assert "total_variation.temperature" in tuned["best"]
    assert "fp16_stored" in json.dumps(exported)
    page = (run / "report.html").read_text()
    for name in ("shallow", "total_variation", "fp16_stored"):
        assert name in page
    bundle = json.loads((run / "bundle" / "bundle.json").read_text())
    assert bundle["methods"][0]["name"] == "total_variation"
    for versions in (bundle["versions"], json.loads((run / "manifest.json").read_text())["versions"]):
        assert versions["edgestill-example"] == "0.1.0"


def test_a_broken_package_is_named_and_left_out(finished, call: Call) -> None:
    run, done = finished
    sentence = "the plug-in 'broken' (broken:Broken) of broken for edgestill's methods is left out: it cannot be "
    assert f"caution: {sentence}" in done.stderr
    assert sentence[1:].replace("'", "&#39;") in (run / "report.html").read_text()
    assert f"caution: {sentence}" in call("show", str(run)).stdout
    refused = call("run", "--preset", "digits", "--set", "distill.methods=[broken]")
    assert refused.returncode == 2
    assert "unknown 'broken'" in refused.stderr
    assert sentence in refused.stderr


@pytest.mark.parametrize("place", PLACES)
def test_each_passes_conformance(call: Call, place: str) -> None:
    done = call("conformance", f"edgestill_example.{place}")
    assert done.returncode == 0, done.stdout + done.stderr
    *checks, last = done.stdout.splitlines()
    assert all(line.startswith(("ok ", "left out ")) for line in checks)
    assert re.fullmatch(r"\w+, of the \w+: 0 of \d+ checks failed", last)


def test_conformance_says_what_is_wrong(call: Call) -> None:
    failed = call("conformance", "edgestill_example.method:TotalVariationConfig")
    assert failed.returncode == 2
    assert "is for no table" in failed.stderr
    missing = call("conformance", "broken:Broken")
    assert missing.returncode == 2
    assert "it cannot be imported (ModuleNotFoundError" in missing.stderr


def test_without_plug_ins_their_names_are_unknown(call: Call, arguments: list[str]) -> None:
    refused = call("run", *arguments, EDGESTILL_PLUGINS="none")
    assert refused.returncode == 2
    for name in ("total_variation", "shallow", "fp16_stored"):
        assert f"unknown '{name}'" in refused.stderr or f"unknown format '{name}'" in refused.stderr
    assert "broken" not in refused.stderr


def test_help_reads_no_plug_in(command_environment: dict[str, str]) -> None:
    code = "import sys, edgestill.flows.cli; print('edgestill.pipeline.plugins' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=command_environment, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
