"""benchmarks/ship.py times the files whose accuracy it shows."""

import importlib.util
import sys
from pathlib import Path

import pytest

from edgestill.export.result import ConvertedModel, ConvertResult, ExportedModel, Latency, Parity, ProfileResult
from edgestill.flows.config import RunConfig, load_config
from edgestill.flows.stages.results import QatResult
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.training.metrics import Metrics

FILE = Path(__file__).parents[2] / "benchmarks" / "ship.py"


@pytest.fixture(scope="module")
def ship():
    spec = importlib.util.spec_from_file_location("benchmark_ship", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def model(stage: str, name: str) -> ConvertedModel:
    parity = Parity(max_abs_difference=0, top1_agreement=1, n=1, checked=())
    return ConvertedModel(
        path=f"{stage}/{name}", sha256=f"{stage} {name}", size_bytes=1, precision=name, opset=20, parity=parity
    )


def profile_of(converted: ConvertResult) -> ProfileResult:
    latency = Latency(runtime="onnxruntime", provider="CPU", threads=1, batch=1, summary={"n": 1, "p50_ms": 1.0})
    formats = {name: ExportedModel(**m.model_dump(), latency=latency) for name, m in converted.formats.items()}
    return ProfileResult(
        teacher=formats["fp32"], formats=formats, speedups={}, verdicts=(), default="fp32", cpu="", load_before=0
    )


@pytest.fixture
def run(tmp_path):
    """A run whose INT8 file was made again by fine-tuning."""
    config = load_config(settings=["qat.mode=auto"])
    converted = ConvertResult(
        teacher=model("export", "teacher"),
        student=model("export", "fp32"),
        others={"int8": model("export", "int8")},
    )
    fine_tuned = QatResult(
        mode="auto", allowed=0, fp32=Metrics(accuracy=1, cross_entropy=0, n=1), models={"int8": model("qat", "int8")}
    )
    with RunDir.create(tmp_path, "ship", 0, config) as run:
        run.finish("export", converted, "", 0)
        run.finish("qat", fine_tuned, "", 0)
        yield run


def test_what_is_timed_again_are_the_files_that_fine_tuning_put_in_place(ship, run) -> None:
    config = run.config(RunConfig)
    applied = run.read("qat", QatResult).applied_to(run.read("export", ConvertResult))
    assert ship.profiled_files(run, config, profile_of(applied)) == applied
    assert applied.others["int8"].path == "qat/int8"


def test_files_that_the_run_did_not_profile_are_not_timed_in_their_place(ship, run) -> None:
    before = run.read("export", ConvertResult)
    with pytest.raises(AssertionError, match="other files than the profiled ones"):
        ship.profiled_files(run, run.config(RunConfig), profile_of(before))
