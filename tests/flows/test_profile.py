"""`edgestill profile` and `edgestill report`, and what calibration takes from profiles."""

import hashlib
import json
import pickle
import random
import re
import shutil

import numpy as np
import pytest
from markupsafe import Markup
from matplotlib.figure import Figure

from edgestill.export.device.document import read_profile
from edgestill.export.device.profile import Model, Settings, profile_files
from edgestill.export.file_timing import ProbeSettings
from edgestill.export.onnx.write import to_onnx
from edgestill.flows.cli.main import execute
from edgestill.flows.fit_device import Inputs, fit_device
from edgestill.flows.profile import settings_of
from edgestill.flows.profiled import are_profiles, latencies_of_profiles
from edgestill.flows.report.device import render_profile, section
from edgestill.flows.report.drawing import charts, device_charts
from edgestill.pipeline.errors import ConfigError, DataError
from edgestill.pipeline.networks.cifar_resnet import CifarResNet
from edgestill.pipeline.timing.latency_statistics import describe_samples
from edgestill.pipeline.timing.timing import TimingConfig
from edgestill.search.latency.model import read_latency_model
from edgestill.search.spaces import ResNetConfig, ResNetSpace

pytestmark = pytest.mark.engines

SPACE = ResNetSpace(ResNetConfig(blocks=((1, 2, 3),) * 3, widths=((4, 6), (6, 8), (8,))))
QUICK = ["--duration", "0.03", "--repeats", "2", "--warmup", "0.01"]


@pytest.fixture(scope="module")
def files(tmp_path_factory, make_task):
    folder, task = tmp_path_factory.mktemp("models"), make_task()
    for name, widths in (("student", (4, 6, 8)), ("teacher", (16, 24, 32))):
        network = CifarResNet((1, 1, 1), widths, num_classes=3, mean=task.mean, std=task.std)
        (folder / f"{name}.onnx").write_bytes(to_onnx(network, task.inputs, 20))
    return folder


@pytest.fixture(scope="module")
def document(files):
    """A true profile as JSON, for tests to change."""
    model = Model(str(files / "student.onnx"), "model.onnx", {"format": "fp32", "precision": "fp32"})
    settings = Settings(duration_s=0.01, repeats=1, warmup_s=0, max_samples=70)
    found = profile_files({"fp32": model}, None, settings, lambda line: None, "again", "resnet:1-1-1/4-6-8")
    return json.loads(found.model_dump_json(by_alias=True))


def write_profile(path, document, student, latency_ms, **changes):
    """A profile of a student of the space resnet whose every call takes `latency_ms`."""
    samples = [latency_ms] * 70
    result = document["results"][0]
    percentiles = {"p50_ms": latency_ms, "p90_ms": latency_ms}
    process = {**result["processes"][0], "samples_ms": samples, **percentiles, "drift": None}
    summary = describe_samples(samples)
    changed = {**document, "architecture": student and f"resnet:{student}", **changes}
    changed["results"] = [{**result, "summary": summary, "processes": [process]}]
    path.write_text(json.dumps(changed), encoding="utf-8")
    return path


def places(value, at=()):
    """The keys that lead to everything in a document; of long lists the first two."""
    yield at
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(min(2, len(value))):
            yield from places(value[key], (*at, key))


ODD = [
    "x",
    "",
    None,
    True,
    0,
    -1,
    1e308,
    10**30,
    0.5,
    [],
    {},
    "9" * 5000,
    "\x1b[31m\n<script>",
    [[]],
    {"a": [{}]},
    1e-300,
]


def test_a_profile_with_any_field_spoilt_is_refused_in_one_sentence_or_shown(document, tmp_path, monkeypatch):
    def paint_only(width, height, paint, tips=None):
        paint(Figure().subplots())
        return Markup("")

    for module in (charts, device_charts):
        monkeypatch.setattr(module, "draw", paint_only)
    rng, said, shown = random.Random(0), [], 0
    for at in [at for at in places(document) if at]:
        for value in rng.sample(ODD, 2):
            changed = pickle.loads(pickle.dumps(document))
            inner = changed
            for key in at[:-1]:
                inner = inner[key]
            inner[at[-1]] = value
            (tmp_path / "p.json").write_text(json.dumps(changed), encoding="utf-8")
            try:
                page = section(read_profile(tmp_path / "p.json"))
            except DataError as error:
                said.append(str(error))
            else:
                shown += len(page["rows"])
    assert all(sentence.isprintable() and len(sentence) < 1000 for sentence in said)
    assert min(len(said), shown) > 50


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (["method", "turn"], "x", "method.turn: Input should be a valid integer"),
        (["method", "turn"], 0, "method.turn: Input should be greater than or equal to 1 (found '0')"),
        (["device", "cores"], "many", "device.cores: "),
        (["device", "ram_bytes"], -1, "device.ram_bytes: "),
        (["device", "name"], "n" * 10_000, "device.name: String should have at most 200"),
        (["device", "colour"], {"a": 1}, "device.colour"),
        (["loads", 0, "mhz_before"], 1e300, "loads.0.mhz_before: "),
        (["warnings"], ["w"] * 1000, "warnings: "),
    ],
)
def test_a_field_of_another_type_or_beyond_its_bounds_is_named(document, tmp_path, keys, value, said):
    changed = pickle.loads(pickle.dumps(document))
    inner = changed
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (tmp_path / "p.json").write_text(json.dumps(changed), encoding="utf-8")
    with pytest.raises(DataError, match=f"no profile of edgestill.profile/1: {re.escape(said)}"):
        read_profile(tmp_path / "p.json")


def test_samples_of_no_time_at_all_are_refused(document, tmp_path):
    write_profile(tmp_path / "p.json", document, None, 1.0)
    changed = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    changed["results"][0]["processes"][0]["samples_ms"] = [0.0] * 70
    (tmp_path / "p.json").write_text(json.dumps(changed), encoding="utf-8")
    with pytest.raises(DataError, match="no call took any time"):
        read_profile(tmp_path / "p.json")


def test_facts_that_this_version_does_not_know_are_shown(document, tmp_path):
    device = {**document["device"], "board_revision": "1.4", "max_mhz": None}
    found = read_profile(write_profile(tmp_path / "p.json", document, None, 1.0, device=device))
    assert ("board revision", "1.4") in section(found)["device"]


# The command


def test_a_student_against_its_teacher_is_measured_written_drawn_and_told(edgestill, files, tmp_path):
    arguments = [str(files / "student.onnx"), "--against", str(files / "teacher.onnx"), "--batch", "1,2", *QUICK]
    done = edgestill("profile", *arguments, "--out", str(tmp_path / "pi.json"))
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 100
    assert "times the speed of teacher" in done.stdout
    found = read_profile(tmp_path / "pi.json")
    assert [(r.model, r.batch) for r in found.results] == [
        ("student", 1), ("teacher", 1), ("student", 2), ("teacher", 2),
    ]  # fmt: skip
    assert found.models["student"].sha256 == hashlib.sha256((files / "student.onnx").read_bytes()).hexdigest()
    assert found.models["teacher"].file == "teacher.onnx"
    assert found.remeasure.startswith("edgestill profile ")
    page = (tmp_path / "pi.html").read_text(encoding="utf-8")
    assert page == render_profile(found)
    assert page.count("<svg") == 2 * 2
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_hostile_device_name_stays_text(document, tmp_path):
    device = {**document["device"], "name": "<script>alert(1)</script>"}
    found = read_profile(write_profile(tmp_path / "p.json", document, "1-1-1/4-6-8", 1.0, device=device))
    assert "<script>" not in render_profile(found)


class Planted:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("content", "arguments", "reason"),
    [
        (pickle.dumps(Planted()), [], "pickle"),
        (b"", [], "."),
        (None, [], "."),
        ("model", ["--batch", "0"], "--batch 0: expected whole numbers"),
        ("model", ["--threads", "1,x"], "--threads 1,x: expected whole numbers"),
        ("model", ["--model", "int8"], "chooses a model of a bundle"),
        ("model", ["--out", "nowhere/p.json"], "no folder nowhere"),
        ("model", ["--inputs", "planted.npy"], "no .npy file of numbers"),
        ("model", ["--cpus", "4095"], "may run on cores"),
    ],
)
def test_what_cannot_be_profiled_is_one_sentence_and_runs_nothing(
    files, tmp_path, content, arguments, reason, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    if content == "model":
        shutil.copyfile(files / "student.onnx", tmp_path / "m.onnx")
    elif content is not None:
        (tmp_path / "m.onnx").write_bytes(content)
    np.save(tmp_path / "planted.npy", np.array([Planted()], dtype=object), allow_pickle=True)
    code = execute(["profile", "m.onnx", *arguments, *QUICK])
    printed = capfd.readouterr()
    assert code == 2, printed.err
    assert printed.err.startswith("error: ")
    assert len(printed.err.splitlines()) == 1
    assert reason in printed.err
    assert "executed" not in printed.out + printed.err
    assert not (tmp_path / "profile.json").exists()


def test_options_are_checked_all_at_once():
    with pytest.raises(ConfigError) as refusal:
        settings_of(
            "1,", "-1", None, duration_s=1, repeats=1, warmup_s=0, examples=None, length=0, spinning=True, seed=0
        )
    assert len(refusal.value.problems) == 2


# Calibration


def latency(architecture):
    return 0.1 * sum(list(architecture.choices.values())[:3])


@pytest.fixture
def profiles(document, tmp_path):
    folder = tmp_path / "profiles"
    folder.mkdir()
    for place, chosen in enumerate(random.Random(0).sample(list(SPACE.all_architectures()), 14)):
        write_profile(folder / f"{place:02}.json", document, SPACE.format(chosen), latency(chosen))
    return folder


def test_profiles_of_a_device_are_its_latencies(profiles, document):
    found, facts = latencies_of_profiles([profiles], SPACE, "resnet", batch=1, threads=1)
    assert len(found) == 14
    assert all(value == pytest.approx(latency(architecture)) for architecture, value in found)
    assert facts["runtime"] == document["runtime"]["name"]
    assert facts["machine"] == {"cpu": document["device"]["cpu"], "cores": document["device"]["cores"]}
    single, _ = latencies_of_profiles(sorted(profiles.glob("*.json")), SPACE, "resnet", batch=1, threads=1)
    assert single == found


def test_a_latency_model_is_fitted_to_profiles(profiles, tmp_path):
    options = ["blocks=[[1,2,3],[1,2,3],[1,2,3]]", "widths=[[4,6],[6,8],[8]]"]
    fit_device(
        "resnet", options, Inputs(None, "1x8x8", 3), tmp_path / "device.json", samples=60,
        settings=ProbeSettings(TimingConfig(), 1, 1), seed=0, from_csv=[profiles], column=None, device=None,
        save_csv=None, say=lambda line: None,
    )  # fmt: skip
    model = read_latency_model(tmp_path / "device.json")
    assert (model.n, model.threads, model.batch) == (14, 1, 1)
    assert model.runtime is not None


def test_profiles_that_are_no_calibration_are_told_with_their_names(profiles, document, tmp_path):
    other = {**document["device"], "cpu": "another", "name": None}
    write_profile(profiles / "20.json", document, "1-1-1/4-6-8", 1.0, device=other)
    with pytest.raises(DataError, match="of one device and one runtime, and these are of 2"):
        latencies_of_profiles([profiles], SPACE, "resnet", 1, 1)
    (profiles / "20.json").unlink()
    write_profile(profiles / "21.json", document, "9-9/1", 1.0)
    write_profile(profiles / "22.json", document, None, 1.0)
    write_profile(profiles / "23.json", document, "x", 1.0, architecture="nb201:x")
    (profiles / "24.json").write_text("{}")
    with pytest.raises(DataError) as refusal:
        latencies_of_profiles([profiles], SPACE, "resnet", 1, 1)
    lines = str(refusal.value).splitlines()
    assert [line.split(".json")[0][-2:] for line in lines] == ["21", "22", "23", "24"]
    assert "names no architecture" in lines[1]
    assert "not of space 'resnet'" in lines[2]
    with pytest.raises(DataError, match="no median at batch 8, threads 1; it has batch 1, threads 1"):
        latencies_of_profiles([profiles / "00.json"], SPACE, "resnet", 8, 1)
    with pytest.raises(DataError, match="hold 1 architectures; 12 is the least"):
        latencies_of_profiles([profiles / "00.json"], SPACE, "resnet", 1, 1)


def test_one_table_or_profiles_but_not_both(profiles, tmp_path):
    assert are_profiles([profiles])
    assert are_profiles([profiles / "00.json", profiles / "01.json"])
    assert not are_profiles([tmp_path / "pi.csv"])
    for paths in ([tmp_path / "pi.csv", profiles], [tmp_path / "a.csv", tmp_path / "b.csv"]):
        with pytest.raises(ConfigError, match="one table, or any number of profiles"):
            are_profiles(paths)


# A bundle, and the run's report


def test_a_bundle_is_profiled_and_the_run_s_report_shows_it(here, finished_run, tmp_path):
    run = tmp_path / finished_run.name
    shutil.copytree(finished_run, run)
    before = (run / "report.html").read_text(encoding="utf-8")
    done = here("profile", str(run / "bundle"), *QUICK, "--out", str(tmp_path / "pi.json"))
    assert done.returncode == 0, done.stderr
    found = read_profile(tmp_path / "pi.json")
    card = json.loads((run / "bundle" / "bundle.json").read_text(encoding="utf-8"))
    assert found.architecture == card["architecture"]
    assert list(found.models) == [card["default"]]

    again = here("report", str(run), "--device", str(tmp_path / "pi.json"))
    assert again.returncode == 0, again.stderr
    page = (run / "report.html").read_text(encoding="utf-8")
    assert f"Latency on {found.title}" in page
    assert "Latency on" not in before
    twice = here("report", str(run))  # what was kept is shown again
    assert twice.returncode == 0, twice.stderr
    assert (run / "report.html").read_text(encoding="utf-8") == page
    resumed = here("resume", str(run), "--quiet", "--no-prefect")
    assert resumed.returncode == 0, resumed.stderr
    assert (run / "report.html").read_text(encoding="utf-8") == page

    altered = json.loads((tmp_path / "pi.json").read_text(encoding="utf-8"))
    altered["models"][card["default"]]["sha256"] = "0" * 64
    (tmp_path / "other.json").write_text(json.dumps(altered), encoding="utf-8")
    refused = here("report", str(run), "--device", str(tmp_path / "other.json"))
    assert refused.returncode == 2
    assert "measured no file of" in refused.stderr
