"""Targets of a person and of a run: the file, the commands, the configuration, profiles that a person carries."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from loopback import Home, Loopback

from edgestill.export.targets import measure, remote
from edgestill.export.targets.book import book_path, target_of
from edgestill.export.targets.job import Sent, Timed, make_job
from edgestill.flows.cli.main import execute
from edgestill.flows.config import RunConfig, load_config
from edgestill.flows.prefect import confinement
from edgestill.flows.targets.carried import carried
from edgestill.pipeline.errors import ConfigError, TargetError, UserError
from edgestill.pipeline.frozen import digest


@pytest.fixture(autouse=True)
def own_book(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESTILL_CONFIG", str(tmp_path / "configuration"))
    monkeypatch.setattr(measure, "PAUSES_S", (0.05,))
    monkeypatch.setattr(remote, "POLL_S", 0.05)


@pytest.fixture
def pi(tmp_path):
    device = Loopback(tmp_path / "pi")
    yield device
    device.close()


def add(pi, *more):
    where = f"ssh://tester@127.0.0.1:{pi.port}"
    keys = ["--identity", pi.identity, "--known-hosts", pi.known_hosts]
    return execute([str(part) for part in ("target", "add", "pi5", where, *keys, *more)])


def test_a_target_is_added_listed_checked_cleaned_and_forgotten(pi, capsys):
    assert add(pi, "--threads", "4") == 0
    assert f"kept in {book_path()}" in capsys.readouterr().out
    kept = target_of("pi5")
    assert (kept.threads, kept.architecture) == (4, os.uname().machine)
    assert execute(["target", "list"]) == 0
    assert "pi5" in capsys.readouterr().out
    assert execute(["target", "check", "pi5"]) == 0
    shown = capsys.readouterr().out
    assert "onnxruntime   1.20.0" in shown
    assert "others        none" in shown
    assert shown.endswith("pi5: can measure\n")
    pi.be(onnxruntime="", others={"openvino": "2025.3", "ai-edge-litert": "2.0"})
    assert execute(["target", "check", "pi5"]) == 1
    shown = capsys.readouterr().out
    assert "missing: its Python cannot import onnxruntime" in shown
    assert "others        openvino 2025.3, ai-edge-litert 2.0" in shown
    assert execute(["target", "clean", "pi5"]) == 0
    assert "nothing of edgestill is there" in capsys.readouterr().out
    assert execute(["target", "remove", "pi5"]) == 0
    with pytest.raises(ConfigError, match="there is no target 'pi5'"):
        target_of("pi5")


def test_a_target_that_cannot_be_reached_is_not_kept_unless_that_is_asked_for(pi, capsys):
    pi.is_gone = True
    assert add(pi) == 1
    assert capsys.readouterr().err.startswith("error: pi5: ")
    assert not book_path().exists()
    assert add(pi, "--offline") == 0
    assert target_of("pi5").architecture is None
    assert add(pi, "--offline") == 2
    assert "give --replace" in capsys.readouterr().err


def test_a_name_in_a_configuration_stands_for_the_targets_settings(pi):
    assert add(pi, "--offline") == 0
    config = load_config(settings=["targets=[pi5, here]"])
    assert [target.name for target in config.targets] == ["pi5", "here"]
    assert config.target == target_of("pi5")
    written = json.loads(config.model_dump_json())
    book_path().unlink()
    assert RunConfig.model_validate(written) == config
    with pytest.raises(ConfigError, match=r"there is no target 'pi6'; .*known: here"):
        load_config(settings=["targets=[pi6]"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pi: {where: here, threads: 2}\npi: {where: here, threads: 4}\n", "lines 1 and 2: pi stands twice"),
        ("pi: {where: here, threads: 2, threads: 4}\n", "line 1: pi.threads stands twice"),
        ("pi: 2001-02-30\n", "is no list of targets"),
        ("- pi\n", "is no list of targets"),
        ("pi: " + "[" * 1000, "nests deeper than 50"),
        ("pi: {where: here, threads: 9" + "9" * 5000 + "}\n", "is not YAML"),
        ("pi: !!python/object/apply:os.system [true]\n", "is not YAML"),
    ],
)
def test_a_damaged_list_of_targets_is_told_and_nothing_of_it_is_lost(text, said):
    book_path().parent.mkdir()
    book_path().write_text(text)
    with pytest.raises(ConfigError, match=said):
        target_of("pi")
    book_path().write_text("pi: {where: here, threads: 010}\n")
    assert target_of("pi").threads == 10


def test_a_configuration_without_targets_is_written_and_digested_as_before():
    plain = RunConfig()
    assert "targets" not in plain.model_dump()
    assert RunConfig(targets=({"name": "pi5", "where": "ssh://pi"},)).model_dump()["targets"]
    assert digest(plain) == digest({k: v for k, v in plain.model_dump(mode="json").items() if k != "targets"})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["targets=[{name: a, where: 'ssh://h'}, {name: a, where: 'adb:b'}]"], "two targets have one name: a, a"),
        (
            ["targets=[{name: a, where: 'folder:/tmp/a'}]", "search.budget.max_latency_ms=3"],
            "asks the target a for candidates. latencies, and a person carries its profiles",
        ),
        (["targets=[{name: A, where: here}]"], "targets.0.name"),
        (["targets=[{name: a, where: 'telnet://h'}]"], "is no place of a target"),
    ],
)
def test_targets_that_cannot_be_are_refused(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load_config(settings=settings)


def test_a_served_run_reaches_no_device_that_was_not_served(monkeypatch, tmp_path):
    for name in ("EDGESTILL_SERVED_FOLDERS", "EDGESTILL_SERVED_CODE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "")
    where = "targets=[{name: a, where: 'ssh://elsewhere', python: /bin/x}]"
    config = load_config(settings=[where], check_files=False)
    confinement.confine([tmp_path])
    with pytest.raises(UserError, match=r"targets.0.(python|where)="):
        confinement.require_inside({"config": config})
    confinement.confine([tmp_path], ["config.targets.0.where=ssh://elsewhere", "config.targets.0.python=/bin/x"])
    confinement.require_inside({"config": config})


def test_a_carried_job_waits_for_its_profile_and_takes_no_other(tmp_path):
    target = load_config(settings=[f"targets=[{{name: cow, where: 'folder:{tmp_path}/out'}}]"]).targets[0]
    job = make_job({"fp32": Sent(b"x" * 100, "fp32", "fp32")}, Timed((2,), (1,), 0.02, 1))
    with pytest.raises(TargetError, match=r"^cow: carry .*cow-[0-9a-f]{12} to the device, run `python profile_device"):
        carried(target, job)
    (folder,) = (tmp_path / "out").iterdir()
    assert {path.name for path in folder.iterdir()} == {"profile_device.py", "bundle.json", "fp32.onnx"}
    stand_in = Home(tmp_path / "person").bin / "stand_in.py"
    subprocess.run([sys.executable, "-S", "-E", stand_in, "-B", "x", *job.arguments], cwd=folder, check=True)
    assert carried(target, job).results[0].threads == 2
    profile = folder / "profile.json"
    profile.write_text(profile.read_text().replace('"threads": 2', '"threads": 1'))
    with pytest.raises(TargetError, match="batch or threads are not those that were asked for"):
        carried(target, job)


@pytest.mark.engines
def test_a_file_is_profiled_on_a_target(pi, tmp_path, make_task, capsys):
    from edgestill.export.onnx.write import to_onnx
    from edgestill.pipeline.networks.cifar_resnet import CifarResNet

    task = make_task()
    network = CifarResNet((1, 1, 1), (4, 6, 8), num_classes=3, mean=task.mean, std=task.std)
    (tmp_path / "student.onnx").write_bytes(to_onnx(network, task.inputs, 20))
    pi.be(ms={"student": 3.5})
    assert add(pi, "--threads", "2") == 0
    out = tmp_path / "pi.json"
    command = ["profile", str(tmp_path / "student.onnx"), "--target", "pi5", "--duration", "0.02", "--out", str(out)]
    assert execute(command) == 0
    found = json.loads(out.read_text())
    assert found["device"]["name"] == "Board 5"
    assert found["results"][0]["summary"]["percentiles"]["p50_ms"] == 3.5
    assert found["results"][0]["threads"] == 2
    assert found["models"]["student"]["file"] == "student.onnx"
    assert pi.left() == []
    assert execute([*command, "--cpus", "0"]) == 2
    assert "--cpus: the measuring script on a target has no such option" in capsys.readouterr().err


def test_a_latency_model_is_fitted_to_students_measured_on_a_target(pi, tmp_path, monkeypatch, capsys):
    from edgestill.flows import fit_device
    from edgestill.search.latency.model import read_latency_model
    from edgestill.search.spaces import ResNetConfig, ResNetSpace

    space = ResNetSpace(ResNetConfig(blocks=((1, 2, 3),) * 3, widths=((4, 6), (6,), (8,))))
    students = {space.format(a): a for a in list(space.all_architectures())[:13]}
    exported = students, {text: text.encode() for text in students}
    monkeypatch.setattr(fit_device, "_exported", lambda *given: exported)
    assert add(pi, "--threads", "2") == 0
    out = tmp_path / "pi.json"
    options = ["--set", "blocks=[[1,2,3],[1,2,3],[1,2,3]]", "--set", "widths=[[4,6],[6],[8]]", "--input-shape", "1x8x8"]
    command = ["calibrate", "--space", "resnet", "--target", "pi5", "--out", str(out), "--seconds", "0.01", *options]
    assert execute(command) == 0
    model = read_latency_model(out)
    assert (model.n, model.device, model.threads) == (13, "Board 5", 2)
    assert dict(model.machine) == {"cpu": "Cortex-A76", "cores": 4}
    assert pi.left() == []
    assert list(pi.root.glob("files/*")) == []
    assert execute([*command, "--from-csv", str(Path(out))]) == 2
