"""A whole run that is judged by devices: throttled ones on loopback, whose links break on the way."""

import json
import sys

import pytest
from loopback import Loopback

from edgestill.export.targets import measure, remote
from edgestill.flows.cli.main import execute

pytestmark = pytest.mark.engines

# In the place of onnxruntime: the library itself, with calls that wait in proportion to their time, by precision.
THROTTLE = """
import importlib, os, sys, time
place = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:] = [path for path in sys.path if os.path.abspath(path) != place]
del sys.modules["onnxruntime"]
real = importlib.import_module("onnxruntime")
factors = [float(part) for part in os.environ["THROTTLE"].split(",")]
class Session(real.InferenceSession):
    def __init__(self, path, *given, **options):
        super().__init__(path, *given, **options)
        self.factor = factors[b"DequantizeLinear" in open(path, "rb").read()]
    def run(self, *given, **options):
        begun = time.perf_counter()
        found = super().run(*given, **options)
        until = begun + self.factor * (time.perf_counter() - begun)
        while time.perf_counter() < until:
            pass
        return found
real.InferenceSession = Session
"""


def device(folder, fp32, int8):
    """A device whose fp32 and INT8 calls take so many times as long as here."""
    made = Loopback(folder)
    shim = folder / "shim" / "onnxruntime"
    shim.mkdir(parents=True)
    (shim / "__init__.py").write_text(THROTTLE)
    where = f"THROTTLE={fp32},{int8} PYTHONPATH={folder}/shim"
    made.command("python3", f'export {where}; exec {sys.executable} "$@"')
    return made


def settings_of(device, name):
    return (
        f"{{name: {name}, where: 'ssh://tester@127.0.0.1:{device.port}', identity: {device.identity}, "
        f"known_hosts: {device.known_hosts}, repeats: 1, formats: [int8]}}"
    )


def test_search_gate_profile_and_bundle_follow_the_devices_samples(tmp_path, tiny_arguments, monkeypatch, capsys):
    monkeypatch.setattr(measure, "PAUSES_S", (0.5,) * 6)
    monkeypatch.setattr(remote, "POLL_S", 0.1)
    pi, old = device(tmp_path / "pi", 8, 1), device(tmp_path / "old", 1, 16)
    pi.cut = {
        "uname": "before", ".part": "middle", "Popen": "after", "elif ! test -e pid": "before 2",
        "/profile.json": "after",
    }  # fmt: skip
    arguments = tiny_arguments(
        targets=f"[{settings_of(pi, 'pi5')}, {settings_of(old, 'old')}]",
        export__formats="[fp32, fp16, int8]",
        search__budget__max_latency_ms="1000",
        search__latency__timing__duration_s="0.02",
        search__baselines="[]",
        search__shortlist="0",
        tune__trials="1",
        tune__epochs="1",
        distill__training__epochs="1",
        teacher__training__epochs="1",
        baselines__enabled="false",
        export__gate__max_accuracy_drop="1.0",
        qat__mode="never",
    )
    try:
        assert execute(["run", *arguments, "--out", str(tmp_path / "runs"), "--quiet"]) == 0
    finally:
        pi.close()
        old.close()
    assert pi.cut == {}
    assert pi.left() == old.left() == []
    (run,) = (path.parent for path in (tmp_path / "runs").glob("*/manifest.json"))
    bundle = json.loads((run / "bundle" / "bundle.json").read_text())
    assert bundle["defaults"] == {"pi5": "int8", "old": "fp32"}
    assert bundle["default"] == "int8"
    assert set(bundle["latency"]["targets"]) == {"pi5", "old"}
    profiled = json.loads((run / "profile" / "result.json").read_text())
    by_target = {target["name"]: target for target in profiled["targets"]}
    medians = {n: {k: v["summary"]["p50_ms"] for k, v in t["latencies"].items()} for n, t in by_target.items()}
    assert medians["pi5"]["fp32"] > 3 * medians["pi5"]["int8"]
    assert medians["old"]["int8"] > 3 * medians["old"]["fp32"]
    verdicts = {t["name"]: {v["format"]: v["shipped"] for v in t["verdicts"]} for t in profiled["targets"]}
    assert verdicts["pi5"]["int8"] is True
    assert verdicts["old"]["int8"] is False
    assert profiled["formats"]["int8"]["latency"]["summary"]["p50_ms"] == medians["pi5"]["int8"]
    found = json.loads((run / "search" / "result.json").read_text())
    assert found["latency"]["measured_ms"] > 3 * medians["old"]["fp32"]  # a candidate, on the slower device
    page, card = (run / "report.html").read_text(), (run / "bundle" / "MODEL_CARD.md").read_text()
    assert "On each device" in page
    assert "| old |" in card
    assert "`model.int8.onnx`" in card
    assert execute(["verify", str(run / "bundle")]) == 0
    assert execute(["report", str(run)]) == 0
