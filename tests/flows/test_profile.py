"""`edgestill profile` and `edgestill report`, and what calibration takes from profiles."""

import hashlib
import json
import pickle
import random
import shutil

import numpy as np
import pytest

from export.device_profile import Model, Settings, profile_files
from export.file_timing import ProbeSettings
from export.profile_document import read_profile
from export.to_onnx import to_onnx
from flows import cli
from flows.calibrate import Inputs, calibrate
from flows.profile import settings_of
from flows.profiled import are_profiles, latencies_of_profiles
from flows.report.device import render_profile
from pipeline.blocks import CifarResNet
from pipeline.errors import ConfigError, DataError
from pipeline.latency_statistics import describe_samples
from pipeline.timing import TimingConfig
from search.latency_model import read_latency_model
from search.spaces import ResNetConfig, ResNetSpace

SPACE = ResNetSpace(ResNetConfig(blocks=((1, 2, 3),) * 3, widths=((4, 6), (6, 8), (8,))))
QUICK = ["--duration", "0.03", "--repeats", "2", "--warmup", "0.01"]


@pytest.fixture(scope="module")
def files(tmp_path_factory, make_task):
    folder, task = tmp_path_factory.mktemp("models"), make_task()
    for name, widths in (("student", (4, 6, 8)), ("teacher", (16, 24, 32))):
        network = CifarResNet((1, 1, 1), widths, num_classes=3, mean=task.mean, std=task.std)
        (folder / f"{name}.onnx").write_bytes(to_onnx(network, task.input_shape, 20))
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
    code = cli._guarded(["profile", "m.onnx", *arguments, *QUICK], debug=False)
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
    calibrate(
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


def test_a_bundle_is_profiled_and_the_run_s_report_shows_it(edgestill, finished_run, tmp_path):
    run = tmp_path / finished_run.name
    shutil.copytree(finished_run, run)
    before = (run / "report.html").read_text(encoding="utf-8")
    done = edgestill("profile", str(run / "bundle"), *QUICK, "--out", str(tmp_path / "pi.json"))
    assert done.returncode == 0, done.stderr
    found = read_profile(tmp_path / "pi.json")
    card = json.loads((run / "bundle" / "bundle.json").read_text(encoding="utf-8"))
    assert found.architecture == card["architecture"]
    assert list(found.models) == [card["default"]]

    again = edgestill("report", str(run), "--device", str(tmp_path / "pi.json"))
    assert again.returncode == 0, again.stderr
    page = (run / "report.html").read_text(encoding="utf-8")
    assert f"Latency on {found.title}" in page
    assert "Latency on" not in before
    twice = edgestill("report", str(run))  # what was kept is shown again
    assert twice.returncode == 0, twice.stderr
    assert (run / "report.html").read_text(encoding="utf-8") == page
    resumed = edgestill("resume", str(run), "--quiet", "--no-prefect")
    assert resumed.returncode == 0, resumed.stderr
    assert (run / "report.html").read_text(encoding="utf-8") == page

    altered = json.loads((tmp_path / "pi.json").read_text(encoding="utf-8"))
    altered["models"][card["default"]]["sha256"] = "0" * 64
    (tmp_path / "other.json").write_text(json.dumps(altered), encoding="utf-8")
    refused = edgestill("report", str(run), "--device", str(tmp_path / "other.json"))
    assert refused.returncode == 2
    assert "measured no file of" in refused.stderr
