"""Targets: places, facts of devices, measurements by SSH on loopback and by an adb double, and broken links."""

import shutil
import sys
from pathlib import Path

import asyncssh
import numpy as np
import pytest
from loopback import AdbDouble, Loopback

from edgestill.export.config import ExportConfig
from edgestill.export.formats import FORMATS, Source
from edgestill.export.onnx.write import to_onnx
from edgestill.export.targets import adb, connection, here, measure, probe, remote, ssh
from edgestill.export.targets.adb import listed
from edgestill.export.targets.config import TargetConfig
from edgestill.export.targets.connection import Ran
from edgestill.export.targets.here import HereConnection
from edgestill.export.targets.job import Sent, Timed, make_job
from edgestill.export.targets.measure import Device
from edgestill.export.targets.places import place_of
from edgestill.flows.targets.check import throttling
from edgestill.pipeline.errors import ExportError, TargetError
from edgestill.pipeline.networks.cifar_resnet import CifarResNet

JOB = make_job(
    {"fp32": Sent(b"f" * 3000, "fp32", "fp32"), "int8": Sent(b"i" * 1000, "int8", "int8")},
    Timed((2,), (1,), 0.02, 1),
    architecture="resnet:1-1-1/4-6-8",
)

LIAR = """t=$(mktemp); cat > $t; case "$(cat $t)" in {*samples_ms*) echo SAID;; *) /usr/bin/wc -c < $t;; esac; rm $t"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    monkeypatch.setattr(measure, "PAUSES_S", (0.05, 0.05))
    monkeypatch.setattr(remote, "POLL_S", 0.05)
    monkeypatch.setattr(probe, "SYSTEM", str(tmp_path / "sys"))


@pytest.fixture
def pi(tmp_path):
    device = Loopback(tmp_path / "pi")
    yield device
    device.close()


@pytest.fixture
def phone(tmp_path, monkeypatch):
    device = AdbDouble(tmp_path / "phone")
    monkeypatch.setenv("PATH", device.path())
    return device


def measured(target, job=JOB, **options):
    with Device(target) as device:
        return device.measure(job, 20, **options)


@pytest.mark.parametrize(
    ("where", "place"),
    [
        ("here", ("here", "", "", None, "", "")),
        ("ssh://pi@raspberry.local", ("ssh", "pi", "raspberry.local", None, "", "")),
        ("ssh://host:2222", ("ssh", "", "host", 2222, "", "")),
        ("ssh://me@[fe80::1%eth0]:22", ("ssh", "me", "fe80::1%eth0", 22, "", "")),
        ("adb:192.168.1.5:5555", ("adb", "", "", None, "192.168.1.5:5555", "")),
        ("folder:~/to the pi", ("folder", "", "", None, "", "~/to the pi")),
    ],
)
def test_a_place_is_read(where, place):
    assert tuple(place_of(where)) == place


@pytest.mark.parametrize(
    "where",
    ["ssh://", "ssh://-oProxyCommand=x", "ssh://a@-b", "ssh://h:0", "ssh://h:70000", "ssh://h/x", "ssh://h;id",
     "adb:", "adb:-a", "adb:a b", "folder:", "http://h", "pi", ""],
)  # fmt: skip
def test_what_is_no_place_is_refused_with_the_way_to_write_one(where):
    with pytest.raises(ValueError, match=r"ports are 1 to 65535|write here, ssh://USER@HOST"):
        TargetConfig(name="pi5", where=where)


def test_a_target_measures_what_onnxruntime_runs_and_further_formats_that_are_named():
    target = TargetConfig(name="pi5", formats=("int8", "openvino_int8"))
    assert target.formats == ("fp32", "int8", "openvino_int8")
    names = ("fp32", "int8", "fp16", "openvino_int8", "openvino")
    assert [target.runs(name) for name in names] == [True, True, False, True, False]
    plain = TargetConfig(name="pi5")
    assert [plain.runs(name) for name in names] == [True, True, True, False, False]
    assert plain.why_not("openvino") == "it runs in openvino, and its formats do not name it"
    assert plain.why_not("executorch") == "it runs in executorch"
    assert target.why_not("fp16") == "its formats leave it out"
    with pytest.raises(
        ValueError, match="runs in executorch, and a target is measured in onnxruntime, openvino and ai"
    ):
        TargetConfig(name="pi5", formats=("executorch",))


def test_the_facts_of_a_device_are_read_from_its_system(tmp_path):
    system = tmp_path / "sys"
    for path, text in {
        "proc/device-tree/model": "Raspberry Pi 5 Model B\0",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
        "sys/class/thermal/thermal_zone0/temp": "41000\n",
        "sys/class/thermal/thermal_zone1/temp": "86500\n",
    }.items():
        (system / path).parent.mkdir(parents=True, exist_ok=True)
        (system / path).write_text(text)
    target = TargetConfig(name="pi5", folder=str(tmp_path), python=sys.executable)
    facts = probe.ask(HereConnection(), target)
    assert (facts.device, facts.governor, facts.celsius) == ("Raspberry Pi 5 Model B", "ondemand", 86.5)
    assert facts.python == ".".join(map(str, sys.version_info[:3]))
    assert facts.numpy == np.__version__
    assert facts.free_bytes == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.5)
    assert facts.root == f"{tmp_path}/.edgestill-target"
    assert not (tmp_path / ".edgestill-target").exists()
    assert probe.unfit(facts, target) == ["it is hot: 86 °C, above max_celsius 80; let it cool, or cool it"]


def test_asking_this_machine_runs_no_module_of_the_current_folder(tmp_path, monkeypatch):
    for name in ("platform", "numpy", "onnxruntime", "re", "types", "importlib", "os", "argparse"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.setattr(here, "environment", lambda: None)  # as with a Python that knows no PYTHONSAFEPATH
    target = TargetConfig(name="own", folder=str(tmp_path / "own"), python=sys.executable)
    assert probe.ask(HereConnection(), target).numpy == np.__version__
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("text", ["9" * 400, "²", "-5", "0x1f", "٤", ""])
def test_a_number_that_no_device_has_is_not_told(text, monkeypatch):
    said = "\n".join(f"{key}={text}" for key in ("root", "machine", "cores", "celsius", "throttled", "python", "numpy"))
    answer = Ran(0, f"{said}\nonnxruntime=1.{text}\ndf=a b c {text} e f\n".encode(), b"")
    monkeypatch.setattr(HereConnection, "run", lambda self, command: answer)
    facts, target = probe.ask(HereConnection(), TargetConfig(name="odd")), TargetConfig(name="odd")
    assert (facts.cores, facts.celsius, facts.free_bytes) == (None, None, None)
    assert probe.missing(facts, target, 20)
    assert not probe.unfit(facts, target)
    throttling(facts)  # any bits, and no error


def test_a_profile_comes_back_nothing_is_sent_twice_and_clean_removes_all(pi):
    pi.be(ms={"int8": 0.5})
    found = measured(pi.target(threads=2))
    assert {r.model: r.summary.percentiles["p50_ms"] for r in found.results} == {"fp32": 1.0, "int8": 0.5}
    assert found.architecture == "resnet:1-1-1/4-6-8"
    assert pi.left() == []
    sent = [command for command in pi.commands if command.startswith("cat >")]
    assert len(sent) == len(JOB.files)
    measured(pi.target(threads=2))
    assert [command for command in pi.commands if command.startswith("cat >")] == sent
    with Device(pi.target()) as device:
        assert device.cleaned()
        assert not device.cleaned()
    assert list(pi.home.iterdir()) == []


def test_candidates_are_removed_after_they_were_measured(pi):
    measured(pi.target(), keep=False)
    assert pi.left() == []
    assert list(pi.root.glob("files/*")) == []


@pytest.mark.parametrize(
    ("piece", "moment"),
    [
        ("uname", "before"),  # while it is asked
        (".part", "middle"),  # in the middle of a file
        ("Popen", "after"),  # the measurement has begun, and we are not told
        ("elif ! test -e pid", "before 2"),  # while it measures
        ("/profile.json", "after"),  # on the way back
    ],
)
def test_a_cut_link_is_taken_up_where_it_broke_and_nothing_is_left(pi, piece, moment):
    pi.cut = {piece: moment}
    found = measured(pi.target())
    assert pi.cut == {}
    assert len(found.results) == 2
    assert pi.left() == []
    sent = [command for command in pi.commands if command.startswith("cat >")]
    assert len(sent) == len(JOB.files) + (piece == ".part")
    assert sum("Popen" in command for command in pi.commands) == 1


def test_a_device_that_stays_away_is_named_with_the_way_to_go_on(pi):
    pi.is_gone = True
    with pytest.raises(TargetError, match=r"^pi5 dropped out: .*`edgestill resume`.*`edgestill target clean pi5`") as e:
        measured(pi.target())
    assert len(str(e.value).splitlines()) == 1
    assert len(pi.commands) == 3


def test_a_measurement_whose_process_was_killed_there_is_begun_again(pi):
    pi.command(
        "python3",
        f"""
case "$2" in *profile_device*) test -e {pi.home}/once || {{ touch {pi.home}/once; kill -9 0; }} ;; esac
exec {sys.executable} -S -E {pi.bin}/stand_in.py "$@" """,
    )
    assert len(measured(pi.target()).results) == 2
    assert pi.left() == []


FAULTS = {
    "slow": ({"seconds": 20.0}, {"limit_s": 0.3}, "it is slow: no end after 0.3 s"),
    "old runtime": ({"onnxruntime": "1.10.0"}, {}, "its onnxruntime 1.10.0 is older than 1.17, which reads files of"),
    "no runtime": ({"onnxruntime": ""}, {}, "cannot import onnxruntime .*`edgestill target check pi5 --install`"),
    "old Python": ({"python": "3.7.1"}, {}, "its Python 3.7.1 is too old"),
    "another device": ({}, {"architecture": "aarch65"}, "was to be aarch65: another device answers at ssh://"),
    "no OpenVINO": ({}, {"formats": ["openvino"]}, "cannot import openvino; `edgestill target check pi5 --install`"),
    "refused file": (
        {"error": "int8: Unsupported model IR version"},
        {},
        "it cannot measure: int8: Unsupported model",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_device_that_cannot_measure_is_told_in_one_sentence_and_keeps_no_files(pi, fault):
    state, changes, sentence = FAULTS[fault]
    pi.be(**state)
    with pytest.raises((TargetError, ExportError), match=f"^pi5: .*{sentence}") as error:
        measured(pi.target(**changes))
    assert len(str(error.value).splitlines()) == 1
    assert pi.left() == []
    assert list(pi.root.glob("files/*")) == []


@pytest.mark.parametrize(
    ("command", "script", "sentence"),
    [
        ("df", "echo x; echo /dev/x 100 90 1000 90% /", "its disk is full: 1,024,000 bytes are free and"),
        ("sort", "echo 91000", "it is hot: 91 °C, above max_celsius 80"),
        ("mv", "echo mv: No space left on device >&2; exit 1", "cannot be used: mv: No space left on device"),
    ],
)
def test_a_hot_or_full_device_is_told_in_one_sentence_and_keeps_no_files(pi, command, script, sentence):
    pi.command(command, script)
    with pytest.raises(TargetError, match=f"^pi5: .*{sentence}"):
        measured(pi.target())
    assert pi.left() == []


def test_an_unknown_host_key_is_refused_with_the_way_to_accept_it(pi):
    pi.known_hosts.write_text("")
    with pytest.raises(TargetError) as error:
        measured(pi.target())
    assert "does not know (ssh-ed25519 SHA256:" in str(error.value)
    assert f"`ssh-keyscan -p {pi.port} 127.0.0.1 >> {pi.known_hosts}`" in str(error.value)
    assert pi.commands == []


def test_a_host_key_other_than_the_known_one_is_refused(pi):
    pi.accept(asyncssh.generate_private_key("ssh-ed25519"))
    with pytest.raises(TargetError, match=r"shows another host key .*something else answers"):
        measured(pi.target())
    assert pi.commands == []


def test_a_refused_login_says_how_to_bring_a_key(pi, tmp_path):
    other = tmp_path / "other"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(other)
    with pytest.raises(TargetError, match=f"lets no key of yours in; `ssh-copy-id -p {pi.port} tester@127.0.0.1`"):
        measured(pi.target(identity=other))


def test_a_device_that_sends_without_end_is_given_up(pi, monkeypatch):
    monkeypatch.setattr(ssh, "MOST_BYTES", 10_000)
    pi.command("uname", "yes | head -c 1000000")
    with pytest.raises(TargetError, match="it sends more than 10,000 bytes"):
        measured(pi.target())


def test_a_profile_of_other_files_is_refused(pi):
    pi.command("sha", "")
    (pi.bin / "stand_in.py").write_text(
        (pi.bin / "stand_in.py").read_text().replace("hashlib.sha256(data)", "hashlib.sha256(b'x')")
    )
    with pytest.raises(TargetError, match=r"^pi5: the profile is not of the file fp32.onnx that was sent"):
        measured(pi.target())


def test_installing_asks_the_devices_own_pip_and_stays_in_our_folder(pi):
    venv = 'case "$3" in venv) mkdir -p "$4/bin"; cp {bin}/python3 "$4/bin/python" ;; pip) echo "$@" > {home}/pip ;; *)'
    given = venv.format(bin=pi.bin, home=pi.home)
    pi.command("python3", f'{given} exec {sys.executable} -S -E {pi.bin}/stand_in.py "$@" ;; esac')
    with Device(pi.target(formats=["litert_int8"])) as device:
        device.install(device.asked())
        facts = device.asked()
        assert facts.interpreter == str(pi.root / "venv/bin/python")
        assert (pi.home / "pip").read_text().split()[-3:] == ["numpy", "onnxruntime", "ai-edge-litert"]
        device.cleaned()
    assert not pi.root.exists()


def test_a_phone_measures_by_adb_and_a_pulled_cable_is_waited_for(phone):
    phone.be(ms={"int8": 0.25})
    phone.cut("/profile.json")
    found = measured(phone.target(repeats=1, threads=2))
    assert {r.model: r.summary.percentiles["p50_ms"] for r in found.results} == {"fp32": 1.0, "int8": 0.25}
    assert phone.left() == []


@pytest.mark.parametrize(
    ("command", "answer", "sentence"),
    [
        ("uname", "yes | head -c 100000", "it sends more than 500 bytes"),
        ("wc", LIAR.replace("SAID", "²"), "profile.json cannot be read there: ²"),
        ("wc", LIAR.replace("SAID", "9"), "at most 500 are read"),
    ],
)
def test_a_phone_fills_no_memory_by_what_it_sends(phone, monkeypatch, command, answer, sentence):
    monkeypatch.setattr(adb, "MOST_BYTES", 500)
    phone.command(command, answer)
    with pytest.raises(TargetError, match=sentence):
        measured(phone.target(repeats=1, threads=2))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("R58M12ABC              unauthorized transport_id:1", "is unauthorized: unlock it and allow USB debugging"),
        ("R58M12ABC              no permissions (user in plugdev group); see [http://x] usb:1", "allow USB access"),
        ("R58M12ABC              offline transport_id:1", "is offline: plug it in again"),
        ("", "adb sees no device R58M12ABC; it sees none"),
    ],
)
def test_a_phone_that_is_not_ready_is_told(phone, line, sentence):
    phone.shows(line)
    with pytest.raises(TargetError, match=sentence):
        measured(phone.target())


def test_the_list_of_adb_is_read_in_its_short_and_long_form():
    long = "List of devices attached\nemulator-5554          device product:sdk model:x transport_id:2\n\n"
    assert listed(long) == {"emulator-5554": "device"}
    assert listed("* daemon started successfully\nList of devices attached\nA1\tdevice\nB2\tunauthorized\n") == {
        "A1": "device",
        "B2": "unauthorized",
    }


@pytest.mark.engines
def test_the_shipped_script_itself_measures_over_ssh_in_each_files_own_runtime(pi, make_task, tmp_path):
    """The device's Python is this one, so that numpy and onnxruntime are the true ones."""
    pi.command("python3", f'exec {sys.executable} "$@"')
    task = make_task()
    network = CifarResNet((1, 1, 1), (4, 6, 8), num_classes=3, mean=task.mean, std=task.std)
    data = to_onnx(network, task.inputs, 20)
    sent = {"fp32": Sent(data, "fp32", "fp32")}
    if FORMATS["openvino"].missing() is None:
        (tmp_path / "fp32.onnx").write_bytes(data)
        xml, weights = (
            FORMATS["openvino"]
            .build(Source(tmp_path / "fp32.onnx", network, task, np.zeros(0)), ExportConfig())
            .values()
        )
        sent["openvino"] = Sent(xml, "openvino", "fp32", ".xml", ((".bin", weights),))
    found = measured(pi.target(formats=[*sent]), make_job(sent, Timed((1,), (1,), 0.02, 1)))
    assert found.results[0].summary.n >= 70
    assert found.device.cores >= 1
    assert found.runtime.name.startswith("onnxruntime ")
    assert [(name, (model.runtime or "onnxruntime").partition(" ")[0]) for name, model in found.models.items()] == [
        ("fp32", "onnxruntime"), *([("openvino", "openvino")] if "openvino" in sent else [])
    ]  # fmt: skip
    if "openvino" in sent:
        assert found.models["openvino"].size_bytes == len(xml) + len(weights)
    assert pi.left() == []


def test_seconds_for_a_file_grow_with_it():
    assert connection.seconds_for(5_000_000) == connection.COMMAND_S + 100
    assert Path(JOB.models["fp32"]).suffix == ".onnx"
