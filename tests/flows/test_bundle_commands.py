"""verify, predict, sign, keygen and bundle export, on the bundle of a whole run."""

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgestill.flows.cli.main import execute

pytestmark = pytest.mark.engines

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the command in this process and gives exit code, output and errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = execute([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def bundle(finished_run: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(finished_run / "bundle", tmp_path / "copy"))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    np.save(tmp_path / "image.npy", np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8))
    return tmp_path / "image.npy"


def test_what_the_run_shipped_is_verified_by_the_digest_that_it_shows(finished_run: Path, call: Call) -> None:
    _, shown, _ = call("show", finished_run)
    digest = next(line.split()[1] for line in shown.splitlines() if line.startswith("digest"))
    code, said, _ = call("verify", finished_run / "bundle", "--digest", digest)
    assert code == 0
    assert digest in said
    assert "model.onnx: logits within" in said
    assert said.splitlines()[-1].endswith("bundle: as it was shipped")


def test_only_a_key_or_a_digest_from_elsewhere_says_that_it_is_as_it_was_shipped(
    bundle: Path, tmp_path: Path, call: Call
) -> None:
    def last(*more: object) -> str:
        code, said, _ = call("verify", bundle, *more)
        assert code == 0
        return said.splitlines()[-1].removeprefix(f"{bundle}: ")

    assert last().startswith("undamaged; unsigned")
    call("keygen", tmp_path / "ours")
    call("sign", bundle, "--key", tmp_path / "ours.pem")
    assert last() == "undamaged; signed, and only --public-key can tell by whom"
    assert last("--public-key", tmp_path / "ours.pub.pem") == "as it was shipped"
    digest = json.loads((bundle / "manifest.json").read_text())["digest"]
    assert last("--digest", digest) == "as it was shipped"
    (bundle / "labels.txt").write_text("mine")
    assert call("verify", bundle, "--digest", digest)[1].splitlines()[-1].endswith("differs from what was shipped")


def test_a_difference_is_told_in_plain_lines_and_exits_with_one(bundle: Path, call: Call) -> None:
    (bundle / "labels.txt").write_text("mine")
    (bundle / "extra.txt").write_text("")
    code, said, _ = call("verify", bundle)
    assert code == 1
    assert [line for line in said.splitlines() if line.startswith("differs: ")] == [
        f"differs: labels.txt has 4 bytes; the manifest says {len(''.join(f'{k}' + chr(10) for k in range(10)))}",
        "differs: extra.txt does not belong to it: the manifest does not list it",
    ]


@pytest.mark.parametrize("command", [["verify"], ["predict", "image.png"], ["bundle", "export", "--out", "b.zip"]])
def test_the_users_mistakes_exit_with_two(command: list[str], tmp_path: Path, call: Call) -> None:
    name, *rest = command if command[0] != "bundle" else ["bundle export", *command[2:]]
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "config.yaml").write_text("")
    (tmp_path / "unfinished" / "manifest.json").write_text("{}")
    for path, words in (("nothing", "there is no bundle"), ("unfinished", "has no bundle: it is not finished")):
        code, _, error = call(*name.split(), tmp_path / path, *rest)
        assert code == 2
        assert words in error
        assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["latest", "1", "runs/1"])
def test_a_run_stands_for_its_bundle(bundle: Path, tmp_path: Path, call: Call, image: Path, monkeypatch, name) -> None:
    run = tmp_path / "runs" / "1"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("")
    (run / "manifest.json").write_text("{}")
    bundle.rename(run / "bundle")
    monkeypatch.chdir(tmp_path)
    call("keygen", "ours")
    for command in (["sign", name, "--key", "ours.pem"], ["verify", name], ["predict", name, image]):
        code, _, error = call(*command)
        assert (code, error) == (0, "")
    assert call("bundle", "export", name)[0] == 0
    assert call("verify", run / "bundle.zip")[0] == 0
    assert call("bundle", "export", name, "--format", "oci-layout")[0] == 0
    assert (run / "bundle.tar").is_file()


@pytest.mark.parametrize("command", ["verify {}", "sign {} --key ours.pem", "bundle export {}", "predict {} x.png"])
def test_a_run_whose_bundle_is_a_link_is_refused(
    bundle: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    run = tmp_path / "runs" / "1"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("")
    (run / "manifest.json").write_text("{}")
    (run / "bundle").symlink_to(bundle)
    monkeypatch.chdir(tmp_path)
    call("keygen", "ours")
    code, _, error = call(*command.format("runs/1").split())
    assert code == 2
    assert "runs/1/bundle is a link" in error
    assert not (bundle / "manifest.sig").exists()


def test_nothing_is_written_among_a_bundles_own_files(bundle: Path, call: Call, monkeypatch) -> None:
    monkeypatch.chdir(bundle)
    for command in (["bundle", "export", ".", "--out", "b.zip"], ["profile", ".", "--out", "p.json"]):
        code, _, error = call(*command)
        assert code == 2
        assert "lies among the files of a bundle" in error
    assert call("profile", ".", "--duration", "0.02", "--repeats", "1", "--warmup", "0")[0] == 0
    assert (bundle.parent / "profile.json").is_file()
    assert call("verify", ".")[0] == 0


def test_a_zip_is_not_exported_onto_itself(bundle: Path, call: Call) -> None:
    assert call("bundle", "export", bundle)[0] == 0
    code, _, error = call("bundle", "export", bundle.with_suffix(".zip"))
    assert code == 2
    assert "name another file with --out" in error


def test_predict_says_what_run_py_says_with_probabilities(finished_run: Path, image: Path, call: Call) -> None:
    import subprocess
    import sys

    bundle = finished_run / "bundle"
    script = subprocess.run([sys.executable, bundle / "run.py", image], capture_output=True, text=True, check=True)
    code, said, _ = call("predict", bundle, image)
    assert code == 0
    label, probability = said.split()
    assert label == script.stdout.strip()
    code, said, _ = call("predict", bundle, image, image, "--json")
    first, second = json.loads(said)
    assert first == second
    assert first["label"] == label
    assert first["probability"] == pytest.approx(float(probability), abs=1e-4)
    assert sum(k["probability"] for k in first["classes"]) == pytest.approx(1)
    assert max(first["classes"], key=lambda k: k["probability"])["label"] == label


def test_predict_refuses_a_bundle_that_was_altered(bundle: Path, image: Path, call: Call) -> None:
    data = bytearray((bundle / "model.onnx").read_bytes())
    data[100] ^= 1
    (bundle / "model.onnx").write_bytes(data)
    code, said, error = call("predict", bundle, image)
    assert (code, said) == (2, "")
    assert error == "error: model.onnx was altered: its SHA-256 is not the manifest's\n"


def test_a_signed_bundle_goes_through_a_zip_and_is_verified_by_the_public_key(
    bundle: Path, tmp_path: Path, call: Call
) -> None:
    assert call("keygen", tmp_path / "ours")[0] == 0
    assert stat.S_IMODE((tmp_path / "ours.pem").stat().st_mode) == 0o600
    assert call("sign", bundle, "--key", tmp_path / "ours.pem")[0] == 0
    assert call("bundle", "export", bundle, "--out", tmp_path / "b.zip")[0] == 0
    code, said, _ = call("verify", tmp_path / "b.zip", "--public-key", tmp_path / "ours.pub.pem")
    assert code == 0
    assert "the one that was given" in said
    call("keygen", tmp_path / "theirs")
    assert call("verify", tmp_path / "b.zip", "--public-key", tmp_path / "theirs.pub.pem")[0] == 1
    code, _, error = call("verify", tmp_path / "b.zip", "--public-key", tmp_path / "ours.pem")
    assert code == 2
    assert "no public key" in error


def test_a_key_is_never_overwritten(tmp_path: Path, call: Call) -> None:
    call("keygen", tmp_path / "ours")
    kept = (tmp_path / "ours.pem").read_bytes()
    code, _, error = call("keygen", tmp_path / "ours")
    assert code == 2
    assert "exists already" in error
    assert (tmp_path / "ours.pem").read_bytes() == kept


def test_two_exports_are_equal_and_an_unknown_format_is_named(bundle: Path, tmp_path: Path, call: Call) -> None:
    for kind in ("zip", "oci-layout"):
        for name in ("one", "two"):
            assert call("bundle", "export", bundle, "--format", kind, "--out", tmp_path / f"{name}.{kind}")[0] == 0
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()
    code, _, error = call("bundle", "export", bundle, "--format", "rar", "--out", tmp_path / "b")
    assert code == 2
    assert "unknown 'rar'" in error
