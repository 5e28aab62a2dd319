"""OpenVINO's, ExecuTorch's and ONNX Runtime's GPU forms: the same function as the fp32 file, or a reason and a way."""

import subprocess
import sys
from collections import Counter

import numpy as np
import onnxruntime
import pytest
import torch

from edgestill.export.config import ExportConfig
from edgestill.export.formats import FORMATS
from edgestill.export.formats.base import Source
from edgestill.export.formats.executorch import ExecutorchConfig
from edgestill.export.formats.providers import CUDA, TENSORRT, nodes_by_provider, open_on
from edgestill.export.onnx.sessions import open_session, runner
from edgestill.export.onnx.write import to_onnx
from edgestill.pipeline.errors import ExportError

FP32 = ("openvino", "executorch", "litert", "ort_fp32")
SMALLER = (
    "openvino_fp16",
    "openvino_int8",
    "openvino_w8",
    "executorch_int8",
    "litert_fp16",
    "litert_int8",
    "litert_w8",
    "litert_w8a16",
)
LIBRARIES = {"openvino": "openvino", "executorch": "executorch", "litert": "litert_torch"}
GPU = ("cuda_fp32", "cuda_fp16", "ort_tensorrt_fp16", "ort_tensorrt_int8")
SPACES = ("resnet", "vit", "text_transformer")


@pytest.fixture(scope="module")
def sources(small_space, make_task_for, make_split, tmp_path_factory):
    made = {}

    def source(name):
        if name not in made:
            space = small_space(name)
            task = make_task_for(space)
            student = space.build(list(space.all_architectures())[-1], task).eval()
            path = tmp_path_factory.mktemp(name) / "student.onnx"
            path.write_bytes(to_onnx(student, task.inputs, 20))
            made[name] = Source(path, student, task, make_split(task, 40).images.numpy())
        return made[name]

    return source


@pytest.fixture(scope="module")
def opened(sources, tmp_path_factory):
    """(format, space) to the source, the files and a run of them; skips where the library is not here."""
    made = {}

    def build(name, space):
        form = FORMATS[name]
        if form.missing():
            pytest.skip(form.missing())
        if (name, space) not in made:
            source, folder = sources(space), tmp_path_factory.mktemp(name)
            files = form.build(source, ExportConfig())
            for suffix, data in files.items():
                (folder / f"student.{name}{suffix}").write_bytes(data)
            made[name, space] = source, files, form.open(folder / f"student.{name}{form.suffix}", 1)
        return made[name, space]

    return build


def inputs_of(source):
    """Any batch, and of text any length."""
    yield from (source.calibration[:count] for count in (1, 7, 40))
    if source.task.kind == "text":
        yield from (source.calibration[:3, :5], source.calibration[:1, :1])


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", FP32)
def test_an_fp32_form_gives_torchs_logits_for_any_batch_and_length(opened, name, space):
    source, files, run = opened(name, space)
    assert tuple(files) == (FORMATS[name].suffix, *FORMATS[name].beside)
    with torch.inference_mode():
        for inputs in inputs_of(source):
            expected = source.network(torch.from_numpy(inputs)).numpy()
            assert run(inputs) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("space", ["resnet", "text_transformer"])
@pytest.mark.parametrize("name", SMALLER)
def test_a_smaller_form_is_near_fp32_and_not_the_same(opened, name, space):
    source, files, run = opened(name, space)
    expected = runner(source.onnx)(source.calibration)
    found = run(source.calibration)
    spread = np.sqrt(((expected - expected.mean(1, keepdims=True)) ** 2).mean())
    assert 0 < np.abs(found - expected).max() < (0.02 if name.endswith("fp16") else 0.3) * max(spread, 1.0)
    whole = opened(name.split("_")[0], space)[1]
    heavy = ".bin" if ".bin" in files else FORMATS[name].suffix
    assert len(files[heavy]) < (0.55 if heavy == ".bin" and name.endswith("fp16") else 0.9) * len(whole[heavy])


def test_openvino_computes_in_fp32_on_the_threads_asked_for(opened, monkeypatch, tmp_path):
    _, files, _ = opened("openvino", "resnet")
    import openvino

    given = []
    compile_model = openvino.Core.compile_model
    monkeypatch.setattr(openvino.Core, "compile_model", lambda *args: given.append(args) or compile_model(*args))
    for suffix, data in files.items():
        (tmp_path / f"model{suffix}").write_bytes(data)
    FORMATS["openvino"].open(tmp_path / "model.xml", 2)
    ((core, path, device, settings),) = given
    compiled = compile_model(core, path, device, settings)
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 2
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32


def test_importing_openvino_sends_no_telemetry(opened):
    opened("openvino", "resnet")
    code = (
        "import sys; from edgestill.export.formats.openvino import load_openvino; load_openvino(); "
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')]; "
        "from openvino.tools.ovc import telemetry_utils as used; print(used.tm.__name__)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert told.stdout.strip() == "openvino.tools.ovc.telemetry_stub"


def test_openvino_is_left_out_where_an_instruction_set_is_switched_off(opened, monkeypatch):
    opened("openvino", "resnet")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert FORMATS["openvino"].missing() == "OpenVINO may end the process where ONEDNN_MAX_CPU_ISA is set; unset it"


@pytest.mark.parametrize("name", ["openvino", "executorch", "litert"])
def test_a_damaged_file_is_refused_in_one_sentence(opened, name, tmp_path):
    opened(name, "resnet")
    path = tmp_path / f"model{FORMATS[name].suffix}"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ExportError, match=f"refuses {path.name}: .+") as caught:
        FORMATS[name].open(path, 1)
    assert "\n" not in str(caught.value)


def test_executorch_plans_memory_for_one_example_where_that_is_asked_for(opened, sources, tmp_path):
    opened("executorch", "resnet")
    source = sources("resnet")
    form, config = FORMATS["executorch"], ExportConfig(executorch=ExecutorchConfig(max_batch=1))
    path = tmp_path / "model.pte"
    path.write_bytes(form.build(source, config)[".pte"])
    assert form.open(path, 1)(source.calibration) == pytest.approx(runner(source.onnx)(source.calibration), abs=1e-5)


@pytest.mark.parametrize("name", [*FP32[:3], *SMALLER])
def test_without_its_library_a_format_is_missing_with_the_way_to_get_it(monkeypatch, name):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    extra = name.split("_")[0]
    library = LIBRARIES[extra]
    for module in [m for m in sys.modules if m.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    reason = FORMATS[name].missing()
    assert "does not import" in reason
    assert f"pip install 'edgestill[{extra}]'" in reason


# ONNX Runtime's GPU providers


@pytest.mark.parametrize("name", GPU)
def test_a_provider_that_is_not_here_is_missing_with_the_way_to_get_it(name):
    form = FORMATS[name]
    if form.provider in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has {form.provider}")
    assert form.missing().startswith(f"onnxruntime {onnxruntime.__version__} has no {form.provider} here; on a machine")
    assert "pip install 'edgestill[gpu]'" in form.missing()


@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_a_session_that_fell_back_to_the_cpu_is_no_session(sources, provider, capfd):
    """ONNX Runtime itself only warns."""
    if torch.cuda.is_available() and provider in onnxruntime.get_available_providers():
        pytest.skip("the provider may load here")
    with pytest.raises(ExportError, match=f"{provider} .* did not load.*fell back to CPUExecutionProvider"):
        open_on(provider, sources("resnet").onnx.read_bytes(), 1)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_products_on_a_gpu_are_not_rounded_to_tf32_in_the_fallback_of_tensorrt_either(sources, provider, monkeypatch):
    asked = {}

    def session(model, options, providers):
        asked.update(providers)
        raise RuntimeError("enough")

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(ExportError, match="enough"):
        open_on(provider, sources("resnet").onnx.read_bytes(), 1)
    assert list(asked) == list(dict.fromkeys([provider, CUDA, "CPUExecutionProvider"]))
    assert asked[CUDA] == {"use_tf32": "0"}


@pytest.mark.parametrize("name", GPU)
def test_a_provider_that_is_listed_and_does_not_load_is_missing(monkeypatch, name):
    """As with onnxruntime-gpu where CUDA's libraries are not."""
    if torch.cuda.is_available():
        pytest.skip("the provider may load here")
    form = FORMATS[name]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [form.provider, "CPUExecutionProvider"])
    assert "did not load, so that ONNX Runtime fell back to CPUExecutionProvider" in form.missing()
    assert "pip install 'edgestill[gpu]'" in form.missing()


def test_a_provider_that_leaves_the_layers_to_the_cpu_is_refused(sources, monkeypatch):
    def on_the_cpu(provider, model, threads):
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr("edgestill.export.formats.providers.open_on", on_the_cpu)
    source = sources("resnet")
    convolutions = Counter(node.op_type for node in _graph(source.onnx).node)["Conv"]
    with pytest.raises(ExportError, match=rf"leaves .*{convolutions} .*Conv.* of student\.onnx to the CPU"):
        FORMATS["cuda_fp32"].open(source.onnx, 1)


def test_every_node_is_counted_at_its_provider(sources):
    source = sources("resnet")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(str(source.onnx), options, providers=["CPUExecutionProvider"])
    assert nodes_by_provider(session) == {"CPUExecutionProvider": Counter(n.op_type for n in _graph(source.onnx).node)}


@pytest.mark.gpu
@pytest.mark.parametrize("name", GPU)
def test_a_real_provider_gives_the_files_logits(opened, name):
    source, files, run = opened(name, "resnet")
    expected = open_session(files[".onnx"]).run(None, {"images": source.calibration})[0]
    assert run(source.calibration) == pytest.approx(expected, abs=0.05 * np.abs(expected).max())


def _graph(path):
    import onnx

    return onnx.load(path).graph
