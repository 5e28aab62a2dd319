"""`make gpu`: what it does without a GPU, and its parts on the processor."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu():
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_a_gpu_it_says_so_and_runs_nothing(gpu, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    monkeypatch.setattr(gpu, "_tests", lambda limit_s: pytest.fail("nothing was to be run"))
    assert gpu.main() == 0
    assert capsys.readouterr().out.startswith("No GPU that torch can use is here: nothing was run")


@pytest.mark.engines
def test_throughput_and_latency_are_measured(gpu):
    assert gpu.images_per_second(torch.device("cpu"), "fp32", 64) > 0
    assert gpu.latency("fp32").endswith(" ms")


def test_a_format_whose_library_is_not_here_has_its_reason(gpu, monkeypatch):
    monkeypatch.setattr(type(gpu.FORMATS["cuda_fp32"]), "missing", lambda self: "no CUDA here")
    assert gpu.latency("cuda_fp32") == "skipped, no CUDA here"
    assert "onnxruntime" not in gpu.GPU_RUNTIMES
    assert {"tensorrt"} < gpu.GPU_RUNTIMES
