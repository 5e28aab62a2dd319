"""Profiles: measured in fresh processes, by a script that stands alone, and read back with care."""

import ast
import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgestill.export.bundle.scripts.join import profile_script
from edgestill.export.device.document import read_profile
from edgestill.export.device.facts import describe_device, energy_counter, load_between, read_load
from edgestill.export.device.judge import warnings_of
from edgestill.export.device.profile import Model, Settings, profile_files
from edgestill.export.device.text import profile_text
from edgestill.export.device.worker import make_inputs
from edgestill.pipeline.errors import DataError, ExportError
from edgestill.pipeline.timing import latency_statistics, stopwatch
from edgestill.pipeline.timing.timing import Timing

SHORT = Settings(duration_s=0.03, repeats=2, warmup_s=0.01, min_samples=70, max_samples=200)


def write_classifier(path, hidden=8, batch="batch", dtype=TensorProto.FLOAT):
    """images [batch, 3, 6, 6] through one hidden layer to logits [batch, 4]."""
    rng = np.random.default_rng(0)
    shapes = {"a": (108, hidden), "b": (hidden, 4)}
    weights = [
        helper.make_tensor(name, TensorProto.FLOAT, shape, rng.normal(size=shape).astype(np.float32).ravel())
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"]),
        helper.make_node("MatMul", ["flat", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["logits"]),
    ]
    given = helper.make_tensor_value_info("images", dtype, [batch, 3, 6, 6])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 4])
    graph = helper.make_graph(nodes, "classifier", [given], [logits], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def write_text_classifier(path):
    """input_ids and attention_mask [batch, length] to logits [batch, 3]."""
    table = helper.make_tensor("t", TensorProto.FLOAT, (9, 3), np.arange(27, dtype=np.float32))
    axis = helper.make_tensor("axis", TensorProto.INT64, (1,), [1])
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["ids"]),
        helper.make_node("Gather", ["t", "ids"], ["rows"]),
        helper.make_node("ReduceSum", ["rows", "axis"], ["logits"], keepdims=0),
    ]
    given = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask")
    ]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "text", given, [logits], [table, axis])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def model(path):
    return Model(str(path), path.name, {"format": "fp32", "precision": "fp32"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What profile_device.py needs of a bundle: its card and its models."""
    folder = tmp_path_factory.mktemp("run") / "bundle"
    folder.mkdir()
    write_classifier(folder / "model.onnx")
    write_classifier(folder / "model.int8.onnx", hidden=2048)
    models = {
        name: {"file": file, "format": name, "precision": name, "runtime": runtime}
        for name, file, runtime in (
            ("fp32", "model.onnx", "onnxruntime"),
            ("int8", "model.int8.onnx", "onnxruntime"),
            ("openvino", "model.openvino.xml", "openvino"),
        )
    }
    card = {"models": models, "default": "fp32", "architecture": "resnet:1-1-1/4-6-8", "input": {}}
    (folder / "bundle.json").write_text(json.dumps(card), encoding="utf-8")
    (folder / "profile_device.py").write_text(profile_script(), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def measured(folder):
    models = {"student": model(folder / "model.onnx"), "teacher": model(folder / "model.int8.onnx")}
    settings = SHORT._replace(batches=(1, 3))
    return profile_files(models, "teacher", settings, lambda line: None, "edgestill profile x", "resnet:1-1-1/4-6-8")


# The script


def test_the_script_imports_the_standard_library_numpy_and_onnxruntime_and_nothing_else():
    imported = set()
    for node in ast.walk(ast.parse(profile_script())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).partition(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}


def test_the_script_defines_no_name_twice():
    names = [node.name for node in ast.parse(profile_script()).body if hasattr(node, "name")]
    assert len(names) == len(set(names))


def test_its_statistics_and_its_stopwatch_give_the_package_s_numbers(folder):
    spec = importlib.util.spec_from_file_location("bundled_profile", folder / "profile_device.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.describe_samples is not latency_statistics.describe_samples
    rng = np.random.default_rng(0)
    for n in (10, 64, 130, 700):
        one, two = (list(rng.lognormal(0, 0.3, n)) for _ in range(2))
        assert script.describe_samples(one) == latency_statistics.describe_samples(one)
        assert {"n": n, **script.describe_samples(one)["percentiles"]} == Timing(samples_ms=tuple(one)).summary()
        assert script.drift(one) == latency_statistics.drift(one)
        assert script.paired_ratio(one, two) == latency_statistics.paired_ratio(one, two)
        assert script.spread(one) == latency_statistics.spread(one)
    found = []
    for module in (script, stopwatch):
        ticks = itertools.accumulate(itertools.cycle([1, 5, 2, 8, 1_000_000]))
        calls = {name: lambda: None for name in "ab"}
        found.append(module.take_turns(calls, 0.01, 0.02, 20, 500, lambda ticks=ticks: next(ticks)))
    assert found[0] == found[1]
    assert len(found[0]["a"]) >= 20


def test_it_runs_beside_a_bundle_and_writes_what_the_package_reads(folder):
    before = sorted(folder.iterdir())
    arguments = ["--model", "all", "--batch", "1,2", "--duration", "0.02", "--repeats", "2"]
    command = [sys.executable, "profile_device.py", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert before == sorted(folder.iterdir())  # or `edgestill verify` would find a file that does not belong
    found = read_profile(folder.parent / "profile.json")
    assert found.architecture == "resnet:1-1-1/4-6-8"
    assert set(found.models) == {"fp32", "int8"}  # openvino is not onnxruntime's
    assert [(r.model, r.batch) for r in found.results] == [("fp32", 1), ("int8", 1), ("fp32", 2), ("int8", 2)]
    assert {(c.model, c.against) for c in found.comparisons} == {("int8", "fp32")}
    assert found.remeasure == "python profile_device.py --model all --batch 1,2 --duration 0.02 --repeats 2"
    assert "int8: 0." in done.stdout


def test_files_beside_it_are_not_taken_for_modules(folder, tmp_path):
    for name in ("profile_device.py", "bundle.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "numpy.py").write_text("print('executed')", encoding="utf-8")
    done = subprocess.run([sys.executable, "profile_device.py", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "executed" not in done.stdout


def test_it_says_in_a_sentence_what_it_cannot_measure(folder):
    command = [sys.executable, "profile_device.py", "--model", "openvino"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "no model 'openvino' to run by onnxruntime here; there are fp32, int8\n"


# The measurement


def test_every_figure_is_that_of_the_raw_samples(measured):
    assert [(r.model, r.batch, r.threads) for r in measured.results] == [
        ("student", 1, 1), ("teacher", 1, 1), ("student", 3, 1), ("teacher", 3, 1),
    ]  # fmt: skip
    for result in measured.results:
        assert len(result.processes) == 2
        pooled = [value for process in result.processes for value in process.samples_ms]
        assert result.summary.n == len(pooled) >= 140
        assert result.summary.percentiles["p50_ms"] == np.percentile(pooled, 50, method="inverted_cdf")
        assert result.throughput_per_s == pytest.approx(result.batch * 1000 / np.mean(pooled))
        medians = [np.percentile(p.samples_ms, 50, method="inverted_cdf") for p in result.processes]
        assert result.p50_spread == pytest.approx(np.ptp(medians) / np.median(medians))
        assert [p.p50_ms for p in result.processes] == medians
    for comparison in measured.comparisons:
        assert (comparison.model, comparison.against) == ("student", "teacher")
        assert comparison.ratio > 1  # a layer of 2,048 against one of 8
        assert comparison.interval[0] <= comparison.ratio <= comparison.interval[1]
        assert len(comparison.process_ratios) == 2


def test_it_says_what_a_figure_must_be_quoted_with(measured, folder):
    assert measured.device.cores >= 1
    assert measured.device.cpu
    assert measured.runtime.name.startswith("onnxruntime ")
    assert measured.runtime.graph_optimization == "all"
    assert measured.models["student"].inputs[0].model_dump() == {
        "name": "images", "dtype": "float32", "shape": ("batch", 3, 6, 6),
    }  # fmt: skip
    assert measured.models["student"].size_bytes == (folder / "model.onnx").stat().st_size
    assert measured.method.told["warm_up"] == (
        "untimed calls for 0.01 s; where models take turns, each of 10 timed calls begins with 10 more, "
        "or 20 ms of them"
    )
    assert len(measured.loads) == 2 * 2
    cold = measured.models["student"].cold
    assert len(cold) == 2
    assert all(c.load_ms > 0 and c.first_call_ms > 0 for c in cold)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_fresh_process_holds_the_runtime_and_the_model_and_no_torch(measured):
    peaks = {name: max(c.peak_rss_bytes for c in m.cold) for name, m in measured.models.items()}
    assert all(20e6 < peak < 250e6 for peak in peaks.values())  # torch alone takes more


def test_a_profile_survives_its_file(measured, tmp_path):
    path = tmp_path / "profile.json"
    path.write_text(measured.model_dump_json(by_alias=True), encoding="utf-8")
    assert read_profile(path) == measured
    assert max(map(len, profile_text(measured.model_dump(mode="json")).splitlines())) <= 100


def change(document, *keys, value):
    *parents, last = keys
    target = document
    for key in parents:
        target = target[key]
    target[last] = value


@pytest.mark.parametrize(
    ("keys", "value", "reason"),
    [
        (["schema"], "edgestill.profile/2", r"schema: Input should be 'edgestill\.profile/1'"),
        (["results", 0, "summary", "percentiles", "p50_ms"], 1e-9, "the summary is not that of the samples"),
        (["results", 0, "summary", "max_ms"], 1e-9, "the summary is not that of the samples"),
        (["results", 0, "summary", "mean_ms"], 1e-3, "the summary is not that of the samples"),
        (["results", 0, "summary", "bounds", "p50_ms"], [0, 1e9], "the summary is not that of the samples"),
        (["device", "cores"], "many", r"device.cores: Input should be a valid integer.*found 'many'"),
        (["results", 0, "model"], "\x1b[2J", r"not described: \\x1b"),
        (["results", 0, "summary", "n"], 3, "the summary is not that of the samples"),
        (["results", 0, "processes", 0, "samples_ms", 0], float("nan"), "finite"),
        (["results", 0, "model"], "other", "not described: other"),
        (["models", "student", "sha256"], "../../etc", "sha256"),
        (["surprise"], 1, "surprise: Extra inputs"),
    ],
)
def test_an_altered_profile_is_refused_in_one_sentence(measured, tmp_path, keys, value, reason):
    document = json.loads(measured.model_dump_json(by_alias=True))
    change(document, *keys, value=value)
    (tmp_path / "p.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(DataError, match=reason) as refusal:
        read_profile(tmp_path / "p.json")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\x80\x04", b"[]", b"[" * 100_000])
def test_what_is_no_json_is_no_profile(tmp_path, content):
    (tmp_path / "p.json").write_bytes(content)
    with pytest.raises(DataError, match="is no profile of"):
        read_profile(tmp_path / "p.json")


def test_a_pipe_or_a_device_is_no_profile(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", Path("/dev/zero")):
        with pytest.raises(DataError, match="is not a plain file"):
            read_profile(path)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_profile(tmp_path / "missing.json")


def test_a_models_memory_holds_no_inputs(tmp_path):
    """A batch is 55 MB here; 16 of them would be cycled through in a timed process."""
    path = write_classifier(tmp_path / "model.onnx")
    settings = SHORT._replace(repeats=1, batches=(2**17,), min_samples=1, max_samples=1)
    task = {**settings._asdict(), "kind": "cold", "models": {"m": str(path)}, "batch": 2**17, "threads": 1}
    worker = [sys.executable, "-c", "from edgestill.export.device.worker import answer_task as a; a()"]
    done = subprocess.run(worker, input=json.dumps(task), capture_output=True, text=True, timeout=60, check=True)
    found = json.loads(done.stdout)
    batch_bytes = 2**17 * 3 * 6 * 6 * 4
    assert found["added_rss_bytes"] < 3 * batch_bytes
    assert found["peak_rss_bytes"] < 8 * batch_bytes


def test_what_is_printed_of_a_profile_cannot_steer_a_terminal(measured):
    document = measured.model_dump(mode="json")
    document["device"]["cpu"] = "\x1b[2Ja CPU"
    assert "\x1b" not in profile_text(document)


def test_bytes_token_ids_and_real_examples_go_in(tmp_path):
    quick = SHORT._replace(repeats=1, length=5)
    photos = write_classifier(tmp_path / "bytes.onnx", dtype=TensorProto.UINT8)
    found = profile_files({"m": model(photos)}, None, quick, lambda line: None, "")
    assert found.models["m"].inputs[0].dtype == "uint8"
    assert found.comparisons == ()
    text = write_text_classifier(tmp_path / "text.onnx")
    assert profile_files({"m": model(text)}, None, quick, lambda line: None, "").results[0].summary.n >= 70
    np.save(tmp_path / "ids.npy", np.array([[1, 2, 0], [8, 0, 0]]))
    real = quick._replace(examples=str(tmp_path / "ids.npy"), batches=(3,))
    found = profile_files({"m": model(text)}, None, real, lambda line: None, "")
    assert found.method.told["examples"] == "a file of examples"


def test_large_batches_are_few_and_one_at_least():
    item = SimpleNamespace(name="images", type="tensor(float)", shape=["batch", 1024, 1024])
    for batch, count in ((1, 16), (24, 2), (80, 1)):
        made = make_inputs([item], {"seed": 0, "examples": None, "batch": batch, "length": 1})
        assert [example["images"].shape for example in made] == [(batch, 1024, 1024)] * count


def test_what_cannot_be_measured_is_one_sentence(tmp_path):
    fixed = write_classifier(tmp_path / "fixed.onnx", batch=1)
    (tmp_path / "broken.onnx").write_bytes(fixed.read_bytes()[:100])
    np.save(tmp_path / "wide.npy", np.zeros((2, 5), np.float32))
    for path, settings, reason in (
        (
            fixed,
            SHORT._replace(batches=(8,)),
            "student: input 'images' takes batches of 1 and no others; give --batch 1",
        ),
        (tmp_path / "broken.onnx", SHORT, "student: .*"),
        (
            write_text_classifier(tmp_path / "text.onnx"),
            SHORT,
            r"'input_ids' leaves the sides \['length'\] open; give --length",
        ),
        (fixed, SHORT._replace(examples=str(tmp_path / "wide.npy")), "student: .*[Ii]nvalid"),
    ):
        with pytest.raises(ExportError, match=reason) as refusal:
            profile_files({"student": model(path)}, None, settings, lambda line: None, "")
        assert "\n" not in str(refusal.value)


# The device


def write_tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_board_is_described_from_what_linux_shows(tmp_path):
    root = write_tree(
        tmp_path,
        {
            "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
            "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n",
            "proc/meminfo": "MemTotal:        3884288 kB\nMemFree: 1 kB\n",
            "etc/os-release": 'ID=debian\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
            "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1800000\n",
            "sys/devices/system/cpu/cpufreq/boost": "0\n",
        },
    )
    found = describe_device(root)
    assert found["name"] == "Raspberry Pi 4 Model B Rev 1.4"
    assert found["cpu"] == "ARM implementer 0x41 part 0xd08"
    assert found["ram_bytes"] == 3884288 * 1024
    assert found["os"] == "Debian GNU/Linux 12 (bookworm)"
    assert (found["governor"], found["turbo"], found["max_mhz"]) == ("ondemand", False, 1800.0)
    assert not found["is_virtual"]


def test_a_system_that_shows_nothing_is_described_as_far_as_it_goes(tmp_path):
    found = describe_device(tmp_path)
    assert (found["name"], found["governor"], found["turbo"], found["ram_bytes"]) == (None,) * 4
    assert energy_counter(tmp_path) == "this system shows no RAPL counter"
    load = load_between(read_load(tmp_path), read_load(tmp_path))
    assert load["others_busy_cores"] is None


def test_the_energy_counter_bears_that_it_starts_again_from_0(tmp_path):
    zone = "sys/class/powercap/intel-rapl:0"
    root = write_tree(tmp_path, {f"{zone}/energy_uj": "900000", f"{zone}/max_energy_range_uj": "1000000"})
    write_tree(root, {"sys/class/powercap/intel-rapl:0:0/energy_uj": "1"})  # a part of the package, counted within it
    joules = energy_counter(root)
    assert joules() == 0
    write_tree(root, {f"{zone}/energy_uj": "100000"})
    assert joules() == pytest.approx(0.2)


def test_what_others_kept_busy_is_all_less_our_own(tmp_path):
    before = read_load(write_tree(tmp_path, {"proc/stat": "cpu  1000 0 500 9000 0 0 0 100 0 0\n"}))
    after = read_load(write_tree(tmp_path, {"proc/stat": "cpu  1300 0 600 9000 0 0 0 110 0 0\n"}))
    after = after._replace(wall_s=before.wall_s + 2, own_s=before.own_s + 1)
    found = load_between(before, after)
    assert found["others_busy_cores"] == pytest.approx((4 - 1) / 2)  # 400 ticks of 10 ms
    assert found["stolen_share"] > 0


# Warnings


def quiet(**changes):
    """A profile with nothing to be wary of, but for what is changed."""
    load = {"others_busy_cores": 0.05, "stolen_share": 0.0, "mhz_before": 2000.0, "mhz_after": 1990.0}
    load |= {"core_p10_ms": 0.037, "core_p50_ms": 0.038, "core_p90_ms": 0.040}
    process = {"drift": (0.01, (0.005, 0.02))}
    result = {
        "model": "student", "batch": 1, "threads": 1, "p50_spread": 0.02, "p90_spread": 0.05, "processes": [process],
        "summary": {"n": 200, "percentiles": {"p50_ms": 1.0, "p90_ms": 2.0}},
    }  # fmt: skip
    device = {"cores": 2, "affinity": [0, 1], "governor": "performance"}
    document = {"loads": [load], "results": [result], "device": device, "method": {"repeats": 3}}
    for path, value in changes.items():
        keys = [int(key) if key.isdigit() else key for key in path.split("__")]
        change(document, *keys, value=value)
    return document


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"loads__0__others_busy_cores": 0.9}, "Other processes kept up to 0.9 of 2 cores busy"),
        ({"loads__0__stolen_share": 0.04}, "took up to 4% of this virtual machine's time"),
        ({"loads__0__mhz_after": 1500.0}, "clock fell by 25%"),
        ({"loads__0__core_p90_ms": 0.0555}, "core itself was 50% slower for a tenth of a process"),
        ({"results__0__processes__0__drift": (0.05, (0.04, 0.06))}, "student at batch 1, 1 thread became 5.0% slower"),
        ({"results__0__processes__0__drift": (-0.05, (-0.06, -0.04))}, "became 5.0% faster"),
        ({"results__0__p50_spread": 0.031}, "differ by 3.1% in the p50 of student at batch 1, 1 thread"),
        ({"results__0__p90_spread": 0.081}, "differ by 8.1% in the p90"),
        ({"results__0__threads": 4}, "4 threads on 2 cores wait for each other"),
        ({"device__governor": "powersave"}, "governor is 'powersave'"),
        ({"results__0__summary__percentiles": {"p50_ms": 1.0}}, "200 calls .* too few for a p90"),
        ({"method__repeats": 1}, "^1 fresh process does not show how much"),
        ({"method__repeats": 2}, "^2 fresh processes do not show how much"),
    ],
)
def test_each_thing_to_be_wary_of_is_one_sentence(changes, sentence):
    (found,) = warnings_of(quiet(**changes))
    assert re.search(sentence, found)
    assert found.endswith(".")


def test_a_quiet_machine_is_not_warned_of():
    assert warnings_of(quiet()) == []
    assert warnings_of(quiet(results__0__processes__0__drift=(0.5, (-0.1, 1.0)))) == []  # not sure
    assert warnings_of(quiet(results__0__p50_spread=None, device__governor=None)) == []
    slow_once = [{**quiet()["loads"][0], "mhz_after": mhz} for mhz in (2000.0, 2000.0, 1500.0)]
    assert warnings_of(quiet(loads=slow_once)) == []
