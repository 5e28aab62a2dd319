"""What the export cannot do is told before anything is trained, by the setting that asks for it."""

import random

import pytest

from edgestill.export.formats import FORMATS
from edgestill.export.formats.fp16 import Fp16
from edgestill.export.onnx.write import to_onnx
from edgestill.flows.config import load_config
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.rehearsal import rehearse_export
from edgestill.pipeline.data.loading import load_splits
from edgestill.pipeline.errors import ConfigError, ExportError
from edgestill.pipeline.runs.rundir import RunDir

IMAGES = [
    "search.space={name: resnet, blocks: [[1], [1], [1]], widths: [[4], [4, 6], [8]]}", "search.budget={}",
    "teacher.architecture=resnet20", "export.calibration.method=minmax",
]  # fmt: skip


@pytest.fixture(scope="module")
def files() -> dict[tuple[int, int], bytes]:
    """By opset and number of parameters: an export takes seconds."""
    return {}


@pytest.fixture
def rehearsed(tmp_path, monkeypatch, files):
    """(preset, settings) to what was told on the way; every call tries anew."""
    monkeypatch.setenv("EDGESTILL_CACHE", str(tmp_path / "cache"))

    def export(network, inputs, opset):
        key = (opset, sum(parameter.numel() for parameter in network.parameters()))
        if key not in files:
            files[key] = to_onnx(network, inputs, opset)
        return files[key]

    monkeypatch.setattr("edgestill.flows.stages.rehearsal.to_onnx", export)

    def rehearse(preset: str, *settings: str) -> list[str]:
        config = load_config(preset=preset, settings=settings)
        said: list[str] = []
        with RunDir.create(tmp_path / "runs", "tiny", 0, config) as run:
            stage = StageContext(run, config, lambda *told: None, said.append)
            rehearse_export(stage, load_splits(config.read_data, config.seed))
        return said

    return rehearse


@pytest.fixture(scope="module")
def sentences(tmp_path_factory) -> str:
    rng, path = random.Random(0), tmp_path_factory.mktemp("text") / "all.tsv"
    words = ["good", "bad", "film", "plot", "cast"]
    rows = [f"{' '.join(rng.choices(words, k=6))}\t{n % 2}" for n in range(300)]
    path.write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    return str(path)


def test_an_opset_that_the_runtime_cannot_run_is_named_with_one_that_works(rehearsed, sentences) -> None:
    """Attention at opset 23 is one node, which this ONNX Runtime refuses with a mask as ours."""
    text = [f"data.path={sentences}", "data.validation=null", "data.test=null", "data.max_length=8"]
    small = ["search.space={name: text_transformer, depth: [1], heads: [1], head_width: [8], feed_forward: [1]}"]
    with pytest.raises(ConfigError) as caught:
        rehearsed("sst2", *text, *small, "search.budget={}", "export.formats=[fp32]", "export.opset=23")
    (problem,) = caught.value.problems
    assert problem.startswith("export.opset: 23 cannot work for the teacher: ")
    assert problem.endswith("; export.opset=20 works")


class _Failing(Fp16):
    """Refuses networks above a size."""

    limit = 0

    def build(self, source, config):
        if sum(parameter.numel() for parameter in source.network.parameters()) > self.limit:
            raise ExportError("too large for this format")
        return super().build(source, config)


def test_a_format_that_no_student_has_is_refused_and_one_that_some_have_is_told_of(rehearsed, monkeypatch) -> None:
    monkeypatch.setitem(FORMATS, "fp16", _Failing())
    with pytest.raises(ConfigError) as caught:
        rehearsed("digits", *IMAGES)
    (problem,) = caught.value.problems
    assert problem.startswith("export.formats: fp16 cannot work for student 1-1-1/4-4-8 of space 'resnet': too large")
    assert problem.endswith("; leave fp16 out of export.formats")
    monkeypatch.setattr(_Failing, "limit", 2000)  # between the smallest and the largest student
    (said,) = rehearsed("digits", *IMAGES)
    assert said.startswith("caution: export.formats: fp16 cannot work for student 1-1-1/4-6-8 of space 'resnet'")


def test_what_is_not_here_is_no_fault_and_what_went_well_is_not_tried_again(rehearsed, monkeypatch) -> None:
    settings = [*IMAGES, "export.formats=[fp32, fp16, tensorrt_fp16]"]
    monkeypatch.setattr(FORMATS["tensorrt_fp16"], "missing", lambda: "TensorRT is not installed")
    assert rehearsed("digits", *settings) == []
    monkeypatch.setattr("edgestill.flows.stages.rehearsal.to_onnx", lambda *arguments: pytest.fail("tried again"))
    assert rehearsed("digits", *settings) == []


def test_fine_tuning_for_int8_without_an_int8_format_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"qat.mode 'always' fine-tunes for INT8, and export.formats has no INT8"):
        load_config(preset="digits", settings=["qat.mode=always", "export.formats=[fp32, fp16]"])


def test_a_latency_without_enough_samples_for_a_median_is_refused_at_once() -> None:
    for place in ("search.latency.timing", "profile.timing"):
        with pytest.raises(ConfigError, match=rf"{place}: min_samples and max_samples must be 11 or more"):
            load_config(preset="digits", settings=[f"{place}.min_samples=10"])
