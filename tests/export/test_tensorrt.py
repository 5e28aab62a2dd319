"""TensorRT's side of things: its logic against a double of the released names, and a real engine where there is one."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorrt_api as api
import tensorrt_double as double
import torch

from edgestill.export.config import ExportConfig, GateConfig, ProfileConfig
from edgestill.export.formats import FORMATS
from edgestill.export.formats.base import Source
from edgestill.export.formats.tensorrt import TensorRT, TensorRTConfig, shapes_of
from edgestill.export.formats.tensorrt_build import Built, Shapes, build_engine, load_tensorrt
from edgestill.export.formats.tensorrt_engines import EngineKey, EngineStore, Gpu
from edgestill.export.formats.tensorrt_run import EngineRun
from edgestill.export.gate import Limits
from edgestill.export.onnx.sessions import feed, open_session, runner
from edgestill.export.onnx.write import to_onnx
from edgestill.export.result import ConvertedModel, ConvertResult, Parity
from edgestill.export.timing import profile
from edgestill.pipeline.errors import ExportError
from edgestill.pipeline.timing.timing import TimingConfig, time_interleaved
from edgestill.pipeline.training.metrics import Metrics

OLD, NEW = sorted(double.RELEASES)
GPU = Gpu(name="Some GPU", compute_capability="8.6", driver="580.65", tensorrt=OLD)


class Host:
    """The host's memory in a device's place."""

    stream_handle = 17

    def empty(self, shape, dtype):
        return torch.empty(shape, dtype=dtype)

    def write(self, buffer, host):
        buffer.copy_(torch.from_numpy(host))

    def read(self, buffer):
        return buffer.to(torch.float32).numpy().copy()

    def synchronize(self):
        pass


@pytest.fixture(scope="module")
def make_source(small_space, make_task_for, make_split, tmp_path_factory):
    def make(name, side=8):
        space = small_space(name)
        task = make_task_for(space, side=side)
        torch.manual_seed(0)
        student = space.build(list(space.all_architectures())[-1], task).eval()
        path = tmp_path_factory.mktemp(name) / "student.onnx"
        path.write_bytes(to_onnx(student, task.inputs, 20))
        return Source(path, student, task, make_split(task, 40).images.numpy())

    return make


@pytest.fixture(scope="module")
def images(make_source):
    return make_source("resnet")


@pytest.fixture(scope="module")
def text(make_source):
    return make_source("text_transformer")


@pytest.fixture(params=[OLD, NEW])
def trt(request):
    return double.TensorRT(request.param)


@pytest.fixture
def make_format(trt, monkeypatch, tmp_path):
    """(made_from, max_batch, gpu) to a format of the double's release on a GPU that is the host."""
    monkeypatch.setenv("EDGESTILL_CACHE", str(tmp_path))

    def make(made_from="fp16", max_batch=4, gpu=GPU):
        asked = ExportConfig(tensorrt=TensorRTConfig(max_batch=max_batch))

        class Doubled(TensorRT):
            def build(self, source, config=asked):
                return super().build(source, config)

            def variants(self, source, config=asked):
                return super().variants(source, config)

            def library(self):
                return trt

            def gpu(self):
                return gpu.model_copy(update={"tensorrt": trt.__version__})

            def device(self):
                return Host()

        return Doubled("doubled", FORMATS[made_from])

    return make


def saved(files, folder):
    for suffix, data in files.items():
        (folder / f"student.tensorrt{suffix}").write_bytes(data)
    return folder / f"student.tensorrt{next(iter(files))}"


# The double is the releases


@pytest.fixture(scope="module")
def wheels():
    folder = Path(os.environ.get("EDGESTILL_TENSORRT_WHEELS", Path(sys.prefix) / "share" / "tensorrt"))
    found = sorted(folder.glob("tensorrt_cu1*_bindings-*.whl"))
    if not found:
        pytest.skip(f"no wheels of TensorRT's bindings in {folder}; `make .venv/.installed` downloads them")
    if shutil.which("cc") is None:
        pytest.skip("reading the wheels needs a C compiler")
    return found


def test_the_names_and_signatures_on_record_are_those_of_the_released_wheels(wheels):
    assert dict(api.read_api(wheel) for wheel in wheels) == double.RELEASES
    assert {version.split(".")[0] for version in double.RELEASES} == {"10", "11"}


def test_a_name_that_a_release_has_not_is_seen_in_its_wheel(wheels):
    for wheel in wheels:
        names = ("Builder.create_network", "Builder.create_netwrok", "BuilderFlag.FP16")
        version, found = api.read_api(wheel, names)
        assert found["Builder.create_netwrok"] is None
        assert (found["BuilderFlag.FP16"] is None) == version.startswith("11")


def test_every_name_on_record_is_used_and_exists_in_both_releases(images, make_format, trt, tmp_path):
    run = make_format().open(saved(make_format().build(images), tmp_path), 1)
    run(images.calibration)
    trt.refuses_file = True
    with pytest.raises(ExportError):
        build_engine(trt, b"", {})
    assert set(trt.used) | {"Builder.create_network"} == set(api.NAMES) - (
        {"NetworkDefinitionCreationFlag.STRONGLY_TYPED"} if trt.__version__ == NEW else set()
    )
    for released in double.RELEASES.values():
        assert set(released) == set(api.NAMES)
        assert None not in released.values()


def test_the_double_refuses_unknown_names_and_arguments_that_a_release_does_not_take(trt):
    from edgestill.export.formats.tensorrt_build import logger_of

    builder = trt.Builder(logger_of(trt))
    with pytest.raises(AttributeError, match=rf"TensorRT {trt.__version__} has no Builder\.build_engine"):
        builder.build_engine()
    with pytest.raises(AttributeError, match=r"has no BuilderFlag\.FP16"):
        _ = trt.BuilderFlag.FP16
    with pytest.raises(TypeError, match="create_network takes"):
        builder.create_network(1, 2)
    with pytest.raises(TypeError, match="set_timing_cache takes"):
        builder.create_builder_config().set_timing_cache(b"")


# Building


def test_ten_is_asked_for_a_strongly_typed_network_and_eleven_has_no_other(trt, images):
    build_engine(trt, images.onnx.read_bytes(), shapes_of(images.task, TensorRTConfig()))
    assert trt.given("Builder.create_network") == [() if trt.__version__ == NEW else (2,)]


def test_the_profile_spans_the_configured_batches_and_any_length_of_text(trt, images, text):
    config = TensorRTConfig(optimal_batch=2, max_batch=5)
    build_engine(trt, images.onnx.read_bytes(), shapes_of(images.task, config))
    assert trt.given("IOptimizationProfile.set_shape") == [("images", (1, 1, 8, 8), (2, 1, 8, 8), (5, 1, 8, 8))]
    trt.calls.clear()
    build_engine(trt, text.onnx.read_bytes(), shapes_of(text.task, config))
    sides = ((1, 1), (2, 8), (5, 8))
    assert trt.given("IOptimizationProfile.set_shape") == [("input_ids", *sides), ("attention_mask", *sides)]
    with pytest.raises(ValueError, match="is above max_batch"):
        TensorRTConfig(optimal_batch=9, max_batch=8)


def test_a_later_build_starts_from_the_timing_cache_unless_it_is_anothers(images, trt):
    onnx, shapes = images.onnx.read_bytes(), shapes_of(images.task, TensorRTConfig())
    first = build_engine(trt, onnx, shapes)
    again = build_engine(trt, onnx, shapes, first.timing_cache)
    assert [built.timing_cache.split()[-1] for built in (first, again)] == [b"1", b"2"]
    elsewhere = double.TensorRT(trt.__version__, device="b")
    assert build_engine(elsewhere, onnx, shapes, again.timing_cache).timing_cache.split()[-1] == b"1"


def test_what_tensorrt_refuses_is_told_in_its_words(images, trt):
    onnx, shapes = images.onnx.read_bytes(), shapes_of(images.task, TensorRTConfig())
    trt.builds_nothing = True
    with pytest.raises(ExportError, match="built no engine: Error Code 10: could not find any implementation"):
        build_engine(trt, onnx, shapes)
    trt.refuses_file = True
    with pytest.raises(ExportError, match=r"does not take the file: no importer .* \(node 'node_7', Tachyon\)"):
        build_engine(trt, onnx, shapes)


# Keeping


OTHERS = [
    {"name": "Some GPU Ti"},
    {"compute_capability": "8.9"},
    {"driver": "580.66"},
    {"tensorrt": NEW},
]


def test_an_engine_is_built_once_for_its_key(tmp_path):
    key = EngineKey(gpu=GPU, onnx_sha256="0" * 64, shapes={"images": Shapes((1, 1), (1, 1), (2, 1))})
    given = []

    def build(timing_cache):
        given.append(timing_cache)
        return Built(b"engine %d" % len(given), b"times %d" % len(given))

    store = EngineStore(tmp_path)
    assert [store.kept(key, build) for _ in range(3)] == [b"engine 1"] * 3
    others = [key.model_copy(update={"gpu": GPU.model_copy(update=change)}) for change in OTHERS]
    others.append(key.model_copy(update={"onnx_sha256": "1" * 64}))
    others.append(key.model_copy(update={"shapes": {"images": Shapes((1, 1), (1, 1), (4, 1))}}))
    assert [store.kept(other, build) for other in others] == [b"engine %d" % n for n in range(2, 8)]
    assert given[0] == b""
    assert given[1:5] == [b""] * 4  # another GPU's or version's times are of no use
    assert given[5:] == [b"times 1", b"times 6"]


@pytest.mark.parametrize("change", OTHERS)
def test_an_engine_of_another_key_under_this_ones_name_is_rebuilt_not_loaded(tmp_path, change):
    key = EngineKey(gpu=GPU, onnx_sha256="0" * 64, shapes={})
    other = key.model_copy(update={"gpu": GPU.model_copy(update=change)})
    store = EngineStore(tmp_path)
    store.kept(other, lambda _: Built(b"theirs", b""))
    for suffix in (".engine", ".json"):
        (tmp_path / f"{other.stem}{suffix}").rename(tmp_path / f"{key.stem}{suffix}")
    assert store.kept(key, lambda _: Built(b"ours", b"")) == b"ours"


@pytest.mark.parametrize("spoil", ["truncated", "flipped", "no sidecar", "a sidecar that is no JSON"])
def test_a_damaged_engine_is_rebuilt(tmp_path, spoil):
    key = EngineKey(gpu=GPU, onnx_sha256="0" * 64, shapes={})
    store = EngineStore(tmp_path)
    store.kept(key, lambda _: Built(b"engine", b""))
    engine, sidecar = (tmp_path / f"{key.stem}{suffix}" for suffix in (".engine", ".json"))
    if spoil == "truncated":
        engine.write_bytes(b"engin")
    elif spoil == "flipped":
        engine.write_bytes(b"engind")
    elif spoil == "no sidecar":
        sidecar.unlink()
    else:
        sidecar.write_text("{")
    assert store.kept(key, lambda _: Built(b"again", b"")) == b"again"


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path):
    (tmp_path / "file").write_text("")
    store = EngineStore(tmp_path / "file" / "engines")
    assert store.kept(EngineKey(gpu=GPU, onnx_sha256="0", shapes={}), lambda _: Built(b"engine", b"")) == b"engine"


# The formats


def test_the_onnx_file_and_the_recipe_ship_and_the_engine_is_built_where_they_run(images, make_format, trt, tmp_path):
    files = make_format().build(images)
    assert list(files) == [".onnx", ".json"]
    assert files[".onnx"] == FORMATS["fp16"].build(images, ExportConfig())[".onnx"]
    recipe = json.loads(files[".json"])
    assert recipe["shapes"]["images"] == [[1, 1, 8, 8], [1, 1, 8, 8], [4, 1, 8, 8]]
    assert recipe["relative_difference"] < 1e-6  # the double's engine computes what ONNX Runtime does
    path = saved(files, tmp_path)
    before = len(trt.given("Builder.build_serialized_network"))
    make_format().open(path, 1)
    assert len(trt.given("Builder.build_serialized_network")) == before == 1
    make_format(gpu=GPU.model_copy(update={"driver": "590.1"})).open(path, 1)
    assert len(trt.given("Builder.build_serialized_network")) == 2


@pytest.mark.parametrize("count", [1, 4, 7])
def test_logits_are_the_files_for_any_batch_also_above_the_engines_largest(images, make_format, tmp_path, count):
    path = saved(make_format().build(images), tmp_path)
    run = make_format().open(path, 1)
    expected = runner(path)(images.calibration[:count])
    assert run(images.calibration[:count]) == pytest.approx(expected, abs=1e-6)
    assert run(images.calibration[-count:]) == pytest.approx(runner(path)(images.calibration[-count:]), abs=1e-6)


def test_text_goes_in_with_its_mask_at_any_length(text, make_format, tmp_path):
    path = saved(make_format().build(text), tmp_path)
    run = make_format().open(path, 1)
    for inputs in (text.calibration[:3], text.calibration[:2, :5], text.calibration[:1, :1]):
        assert run(inputs) == pytest.approx(runner(path)(inputs), abs=1e-6)
    with pytest.raises(ExportError, match=r"not built for input_ids \[1, 9\]: Error Code 3"):
        run(np.ones((1, 9), np.int64))


def test_int8_is_built_from_the_symmetric_file_in_each_calibration(images, make_format, trt):
    variants = dict(make_format("int8_tensorrt").variants(images))
    assert set(variants) == {"minmax", "entropy", "percentile"}
    assert variants["minmax"][".onnx"] != variants["entropy"][".onnx"]
    operators = {node.op_type for node in _graph(variants["minmax"][".onnx"]).node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators


def test_an_engine_that_is_not_its_file_is_refused(images, make_format, monkeypatch):
    class Halved(EngineRun):
        def __call__(self, inputs):
            return super().__call__(inputs) * 0.9

    monkeypatch.setattr("edgestill.export.formats.tensorrt.EngineRun", Halved)
    with pytest.raises(ExportError, match=r"differs from its ONNX file: on 40 reference examples .* \(allowed 0.05\)"):
        make_format().build(images)


def test_calls_that_fail_on_the_gpu_are_told_in_its_words(images, make_format, trt, tmp_path):
    path = saved(make_format().build(images), tmp_path)
    run = make_format().open(path, 1)
    trt.runs_nothing = True
    with pytest.raises(ExportError, match="did not run the engine: Error Code 1: Cask"):
        run(images.calibration[:1])
    with pytest.raises(ExportError, match="does not load the engine: Error Code 1: Serialization"):
        EngineRun(trt, b"not an engine", {}, Host())


@pytest.mark.parametrize("recipe", [None, "{", '{"shapes": {}}', '{"schema_name": "edgestill.tensorrt/9"}'])
def test_a_file_without_its_recipe_is_refused(images, make_format, tmp_path, recipe):
    path = saved({".onnx": images.onnx.read_bytes()}, tmp_path)
    if recipe is not None:
        path.with_suffix(".json").write_text(recipe)
    with pytest.raises(ExportError, match=r"student\.tensorrt\.json is no recipe of a TensorRT engine"):
        make_format().open(path, 1)


def test_the_copies_in_and_out_are_timed_beside_the_engine(images, make_format, trt, tmp_path):
    path = saved(make_format().build(images), tmp_path)
    parts = make_format().open(path, 1).parts(images.calibration[:1])
    config = TimingConfig(warmup_s=0, duration_s=0.01, min_samples=10, max_samples=10)
    before = len(trt.given("IExecutionContext.execute_async_v3"))
    timings = time_interleaved({name: parts[name] for name in ("copy_in", "copy_out")}, config)
    assert len(trt.given("IExecutionContext.execute_async_v3")) == before  # the copies run no engine
    timings |= time_interleaved({name: parts[name] for name in ("execute", "call")}, config)
    assert {name: len(timing.samples_ms) for name, timing in timings.items()} == dict.fromkeys(parts, 10)
    assert trt.given("IExecutionContext.execute_async_v3")[-1] == (Host.stream_handle,)
    assert parts["copy_out"]() == pytest.approx(runner(path)(images.calibration[:1]), abs=1e-6)


def test_a_profile_holds_the_copies_apart_for_a_device_and_for_no_other(images, make_format, monkeypatch, tmp_path):
    path = saved(make_format().build(images), tmp_path)
    form = make_format()
    monkeypatch.setattr(form, "missing", lambda: None)
    monkeypatch.setitem(FORMATS, "tensorrt_fp16", form)
    parity = Parity(max_abs_difference=1e-3, top1_agreement=1, n=40, checked=())
    (tmp_path / "student.onnx").write_bytes(images.onnx.read_bytes())
    fp32 = ConvertedModel(
        path="student.onnx", sha256="a", size_bytes=9, precision="fp32", opset=20, parity=parity,
        validation=Metrics(accuracy=1, cross_entropy=0, n=40),
    )  # fmt: skip
    changes = {"path": path.name, "sha256": "b", "precision": "fp16", "runtime": "tensorrt", "format": "tensorrt_fp16"}
    others = {"tensorrt_fp16": fp32.model_copy(update=changes)}
    config = ProfileConfig(timing=TimingConfig(warmup_s=0, duration_s=0.01, min_samples=70, max_samples=70))
    converted = ConvertResult(teacher=fp32, student=fp32, others=others)
    result, _ = profile(converted, tmp_path, images.calibration, config, GateConfig(), Limits())
    parts = result.formats["tensorrt_fp16"].latency.parts
    assert set(parts) == {"copy_in", "execute", "copy_out"}
    assert all({"n", "p50_ms"} <= set(summary) for summary in parts.values())
    assert result.formats["fp32"].latency.parts == {}
    assert result.default == "fp32"  # a bundle's run.py has no TensorRT


def test_without_tensorrt_or_without_a_gpu_there_is_a_reason_and_a_way(monkeypatch, make_format):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    for name in ("tensorrt_fp16", "tensorrt_int8"):
        reason = FORMATS[name].missing()
        assert "TensorRT does not import here" in reason
        assert "pip install 'edgestill[tensorrt]'" in reason
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "sees none" in make_format().missing()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert make_format().missing() is None


@pytest.mark.parametrize("error", [ImportError("libnvinfer.so.10"), OSError("no such file"), RuntimeError("driver")])
def test_a_tensorrt_that_does_not_load_is_no_crash(monkeypatch, tmp_path, error):
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    (tmp_path / "tensorrt.py").write_text(f"raise {type(error).__name__}({str(error)!r})")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ExportError, match=f"TensorRT does not import here .{error}."):
        load_tensorrt()


@pytest.mark.parametrize("version", ["8.6.1", "12.0.0"])
def test_another_major_version_is_refused(monkeypatch, tmp_path, version):
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    (tmp_path / "tensorrt.py").write_text(f"__version__ = {version!r}")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ExportError, match=rf"TensorRT {version} is here, 10 and 11 are supported"):
        load_tensorrt()
    monkeypatch.delitem(sys.modules, "tensorrt")


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["tensorrt_fp16", "tensorrt_int8"])
@pytest.mark.parametrize("kind", ["images", "text"])
def test_a_real_engine_gives_the_files_logits_at_every_batch(name, kind, request, tmp_path):
    source, form = request.getfixturevalue(kind), FORMATS[name]
    if form.missing():
        pytest.skip(form.missing())
    path = saved(form.build(source, ExportConfig()), tmp_path)
    run, expected = form.open(path, 1), open_session(path)
    for count in (1, 7, len(source.calibration)):
        inputs = source.calibration[:count]
        logits = expected.run(None, feed(inputs))[0]
        assert run(inputs) == pytest.approx(logits, abs=0.05 * np.abs(logits).max())
    parts = run.parts(source.calibration[:1])
    timings = time_interleaved(parts, TimingConfig(warmup_s=0.1, duration_s=0.5))
    medians = {part: timing.percentile(50) for part, timing in timings.items()}
    assert medians["execute"] < medians["call"]
    engines = list((Path(os.environ["EDGESTILL_CACHE"]) / "tensorrt").glob("*.engine"))
    assert engines


def _graph(data):
    import onnx

    return onnx.load_from_string(data).graph
