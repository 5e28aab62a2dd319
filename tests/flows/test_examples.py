"""Each project of examples/ ends in a bundle that verifies, on data that it generates itself."""

import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgestill.export.bundle.predict import predict
from edgestill.export.bundle.read import open_bundle
from edgestill.export.bundle.verify import verify
from edgestill.flows.cli.main import execute
from edgestill.pipeline.torchvision_compat import repair

repair()
pytest.importorskip("timm", reason="pip install 'edgestill[timm]'")
pytest.importorskip("transformers", reason="pip install 'edgestill[transformers]'")
pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("ignore")]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
BRIEF = (
    "baselines.seeds=1", "search.evaluations=2", "search.shortlist=1", "search.baselines=[]", "export.formats=[fp32]",
    "profile.timing.duration_s=0.02", "profile.timing.min_samples=30",
)  # fmt: skip
COUNTED = ("search.budget.max_latency_ms=null", "search.budget.max_params=2M")  # nothing is exported to be timed
Visit = Callable[[str], Path]


@pytest.fixture
def visit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Visit:
    """Copies an example and makes the copy the current folder."""

    def go(name: str) -> Path:
        folder = Path(shutil.copytree(EXAMPLES / name, tmp_path / name))
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(folder)
        return folder

    return go


def call(script: str, *arguments: str) -> None:
    given = sys.argv
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        sys.argv = given


def commands(folder: Path) -> str:
    blocks = re.findall(
        r"^```sh\n(.+?)^```$", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    return "\n".join(blocks)


def shipped(folder: Path) -> Path:
    [bundle] = folder.glob("runs/*/bundle")
    assert verify(bundle).problems == ()
    return bundle


@pytest.mark.parametrize(("name", "count"), [("photographs", "90"), ("sentences", "240")])
def test_an_example_of_a_configuration_ends_in_a_bundle(name: str, count: str, visit: Visit) -> None:
    folder = visit(name)
    assert len((folder / "config.yaml").read_text(encoding="utf-8").splitlines()) <= 14
    said = commands(folder)
    assert "python make_data.py" in said
    assert "edgestill run config.yaml --smoke" in said
    call("make_data.py", "--count", count)
    settings = [part for setting in (*BRIEF, *COUNTED) for part in ("--set", setting)]
    assert execute(["run", "config.yaml", "--smoke", "--quiet", *settings]) == 0
    bundle = shipped(folder)
    asked = next(folder.glob("photos/sky/*")) if name == "photographs" else "the film is lovely"
    [answer] = predict(open_bundle(bundle), [str(asked)])
    assert answer.label in {"photographs": ("apple", "leaf", "sky"), "sentences": ("blame", "praise")}[name]


def test_the_example_from_python_ends_in_a_bundle(visit: Visit, capsys: pytest.CaptureFixture[str]) -> None:
    folder = visit("from_python")
    assert "python distil.py" in commands(folder)
    brief = ("tune.enabled=false", "baselines.enabled=false", "search.draws=1", "distill.training.epochs=1")
    call("distil.py", *BRIEF, *brief)
    shipped(folder)
    assert re.search(r"[\d.]+% on 300 test images; undamaged", capsys.readouterr().out)
