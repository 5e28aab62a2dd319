"""One table of every format of a bundle: measured in fresh processes, told as text, JSON and a picture."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from edgestill.export.benchmark import measure
from edgestill.export.benchmark.child import peak_bytes
from edgestill.export.benchmark.inputs import inputs_of, load_examples
from edgestill.export.benchmark.measure import Settings, benchmark
from edgestill.export.benchmark.result import Benchmark
from edgestill.export.benchmark.text import benchmark_text
from edgestill.export.bundle.read import open_bundle
from edgestill.flows.cli.main import execute
from edgestill.pipeline.errors import ConfigError, ExportError

QUICK = Settings(duration_s=0.05, warmup_s=0)


@pytest.fixture
def opened(bundle_of_formats):
    with open_bundle(bundle_of_formats.folder) as found:
        yield found


@pytest.fixture
def stood_in(monkeypatch):
    """Answers in place of the processes: int8 is twice as fast and disagrees on one input of four; fp16 breaks."""
    asked = []

    def run(task, limit_s):
        asked.append(task)
        names = list(task["models"])
        if task["kind"] == "first":
            return {"error": "no such kernel"} if names == ["fp16"] else {"first_answer_ms": 50, "memory_bytes": 10**7}
        logits = np.eye(4, dtype=np.float32)
        answers = {name: logits if name == "fp32" else logits[[0, 1, 2, 0]] for name in names}
        Path(task["answers"]).write_bytes(save(answers))
        samples = {name: [1.0 if name == "fp32" else 0.5] * 100 for name in names}
        return {"samples_ms": samples}

    monkeypatch.setattr(measure, "_run", run)
    return asked


def test_the_table_compares_each_format_with_fp32(opened, stood_in):
    found = benchmark(opened, *inputs_of(opened.bundle.task, None), QUICK, lambda line: None)
    rows = {row.format: row for row in found.rows}
    assert list(rows) == ["fp32", "int8"]
    assert rows["int8"].agreement.share == 0.75
    assert rows["int8"].agreement.interval[0] < 0.75 < rows["int8"].agreement.interval[1]
    assert rows["int8"].over_fp32.value == pytest.approx(2)
    assert rows["fp32"].over_fp32 is None
    assert rows["int8"].size_bytes == opened.bundle.models["int8"].bytes
    assert rows["int8"].accuracy == opened.bundle.models["int8"].test_accuracy
    assert found.left_out["fp16"] == "no such kernel"
    assert "is a program" in found.left_out["ort_int8"]
    text = benchmark_text(found)
    for part in ("256 random inputs", "75.0%", "0.500 ms", "50.0 ms", "10.0 MB", "fp16 is left out: no such kernel"):
        assert part in text
    assert len({len(line) for line in text.splitlines()[1:2]}) == 1


def test_files_that_are_programs_are_run_where_the_bundle_is_trusted(opened, stood_in):
    found = benchmark(opened, *inputs_of(opened.bundle.task, None), QUICK, lambda line: None, trusted=True)
    assert "ort_int8" in [row.format for row in found.rows]


def test_a_bundle_without_any_format_that_runs_here_is_an_error(opened, monkeypatch):
    monkeypatch.setattr(measure, "_run", lambda task, limit_s: {"error": "no such kernel"})
    with pytest.raises(ExportError, match="fp32: no such kernel"):
        benchmark(opened, *inputs_of(opened.bundle.task, None), QUICK, lambda line: None)


def test_the_command_measures_in_fresh_processes_and_draws(bundles, tmp_path, capsys):
    picture = tmp_path / "formats.svg"
    folder = str(bundles(3).folder)
    assert execute(["benchmark", folder, "--json", "--duration", "0.05", "--plot", str(picture)]) == 0
    found = Benchmark.model_validate(json.loads(capsys.readouterr().out))
    (row,) = found.rows
    assert row.format == "fp32"
    assert 0 < row.p50_ms <= row.p90_ms < row.first_answer_ms
    assert 0 <= row.memory_bytes < 10**9
    assert row.agreement.share == 1.0
    assert found.target == "here"
    assert "fp32" in picture.read_text()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (np.zeros((4, 1, 12, 12), np.float32), r"holds \[4, 1, 12, 12\]; expected float32 \[N, 3, 12, 12\]"),
        (np.zeros((4, 3, 12, 12)), "expected float32"),
        (np.full((4, 3, 12, 12), 255, np.float32), r"pixels within \[0, 1\]"),
        (np.zeros((0, 3, 12, 12), np.float32), "expected examples"),
    ],
)
def test_inputs_of_another_kind_are_refused(image_student, tmp_path, given, problem):
    np.save(tmp_path / "given.npy", given)
    with pytest.raises(ConfigError, match=problem):
        inputs_of(image_student.task, tmp_path / "given.npy")


HEADER = b"\x93NUMPY\x01\x00\x76\x00"


@pytest.mark.parametrize(
    "data",
    [
        b"PK\x03\x04nothing", b"", b"\x93NUMPY\x01\x00\xff\xff", HEADER + b"(" * 118,
        HEADER + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 3, 12, 12), }".ljust(118),
        HEADER + b"{'descr': '|O', 'fortran_order': False, 'shape': (1, 3), }".ljust(118),
    ],
)  # fmt: skip
def test_a_file_that_is_no_array_of_its_size_is_refused_before_it_is_read(data, tmp_path):
    (tmp_path / "given.npy").write_bytes(data)
    with pytest.raises(ConfigError, match=r"given.npy is no .npy file of numbers: "):
        load_examples(tmp_path / "given.npy")


def test_real_inputs_are_taken_from_a_file(image_student, tmp_path):
    np.save(tmp_path / "given.npy", image_student.source.calibration[:5])
    found, what = inputs_of(image_student.task, tmp_path / "given.npy")
    assert np.array_equal(found, image_student.source.calibration[:5])
    assert what == "5 inputs of given.npy"


def test_a_picture_has_a_suffix_of_one(bundles, tmp_path, capsys):
    assert execute(["benchmark", str(bundles(3).folder), "--plot", str(tmp_path / "table.txt")]) == 2
    assert ".svg, .png, .pdf" in capsys.readouterr().err


def test_the_memory_of_a_process_is_known():
    assert peak_bytes() > 10**7
