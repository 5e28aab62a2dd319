"""Whatever changes in a bundle is found, and a model that answers otherwise is found too."""

import json
import random
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.numpy import load, save

from edgestill.export.bundle.manifest import manifest_bytes
from edgestill.export.bundle.read import open_bundle
from edgestill.export.bundle.sign import make_keys, sign_manifest
from edgestill.export.bundle.verify import verify
from edgestill.export.files import zip_bytes
from edgestill.pipeline.errors import BundleError, ConfigError


@pytest.fixture(scope="module")
def keys():
    return make_keys()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rewrite(folder, **changes):
    """Change files as somebody would who knows the format: the manifest is made anew."""
    files = contents(folder) | {name.replace("__", "."): data for name, data in changes.items()}
    for name in ("manifest.json", "manifest.sig"):
        files.pop(name, None)
    files["manifest.json"] = manifest_bytes(files)
    shutil.rmtree(folder)
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def sign(folder, key):
    (folder / "manifest.sig").write_bytes(sign_manifest((folder / "manifest.json").read_bytes(), key)[0])


@pytest.mark.parametrize("kind", ["image", "raw", "text"])
def test_what_was_shipped_passes_as_a_folder_and_as_a_zip(bundles, text_bundle, kind, tmp_path):
    folder = text_bundle.folder if kind == "text" else bundles(3, kind).folder
    zipped = tmp_path / "bundle.zip"
    zipped.write_bytes(zip_bytes(contents(folder)))
    for path in (folder, zipped):
        verdict = verify(path)
        assert verdict.problems == ()
        assert any("logits within" in fact and "16 probe inputs" in fact for fact in verdict.facts)


def test_every_one_of_300_random_byte_flips_is_found(bundles, copy_of, keys):
    """In every file, the manifest and the signature included."""
    folder = copy_of(bundles(3))
    sign(folder, keys[0])
    assert verify(folder).problems == ()
    rng = random.Random(0)
    names = sorted(path.name for path in folder.iterdir())
    for number in range(300):
        path = folder / names[number % len(names)]
        whole = path.read_bytes()
        position = rng.randrange(len(whole))
        flipped = bytearray(whole)
        flipped[position] ^= rng.randrange(1, 256)
        path.write_bytes(flipped)
        assert verify(folder).problems, (path.name, position)
        path.write_bytes(whole)
    assert verify(folder).problems == ()


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sig"])
def test_another_spelling_of_the_same_content_is_refused(bundles, copy_of, keys, name):
    """Or a byte of white space could change unnoticed."""
    folder = copy_of(bundles(3))
    sign(folder, keys[0])
    whole = (folder / name).read_bytes()
    content = json.loads(whole)
    backwards = dict(reversed(content.items()))
    spellings = (json.dumps(content, indent=2), json.dumps(backwards, indent=1), whole.decode() + " ")
    for spelling in spellings:
        (folder / name).write_text(spelling)
        (problem,) = verify(folder).problems
        assert name in problem


def test_every_byte_of_the_signature_counts(bundles, copy_of, keys):
    folder = copy_of(bundles(3))
    sign(folder, keys[0])
    path = folder / "manifest.sig"
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(BundleError):
            open_bundle(folder)


def test_every_byte_of_a_zip_counts_its_headers_and_padding_included(bundles, tmp_path):
    whole = zip_bytes(contents(bundles(1).folder))
    path = tmp_path / "bundle.zip"
    rng = random.Random(1)
    directory = len(whole) - 900  # where the zip's own records are
    for position in [*rng.sample(range(len(whole)), 20), *rng.sample(range(directory, len(whole)), 40)]:
        path.write_bytes(whole[:position] + bytes([whole[position] ^ (1 << rng.randrange(8))]) + whole[position + 1 :])
        assert verify(path).problems, position


def test_all_differences_are_told_at_once_and_named(bundles, copy_of):
    folder = copy_of(bundles(3))
    (folder / "run.py").unlink()
    (folder / "notes.txt").write_text("mine")
    (folder / "labels.txt").write_bytes(b"x" * (folder / "labels.txt").stat().st_size)
    (folder / "MODEL_CARD.md").write_bytes(b"")
    said = "\n".join(verify(folder).problems)
    assert "run.py is missing" in said
    assert "notes.txt does not belong to it" in said
    assert "labels.txt was altered" in said
    assert "MODEL_CARD.md has 0 bytes" in said


def test_a_model_that_was_exchanged_together_with_the_manifest_answers_the_probes_otherwise(bundles, copy_of):
    folder = copy_of(bundles(3))
    model = onnx.load(folder / "model.onnx")
    weight = next(w for w in model.graph.initializer if w.name == "linear.weight")
    weight.raw_data = (-numpy_helper.to_array(weight)).tobytes()
    rewrite(folder, model__onnx=model.SerializeToString())
    (problem,) = verify(folder).problems
    assert "model.onnx: logits within" in problem
    assert "is allowed" in problem


def test_probes_are_what_the_model_answers_by_an_independent_session(bundles):
    import onnxruntime

    folder = bundles(3).folder
    probes = load((folder / "probes.safetensors").read_bytes())
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    assert probes["fp32"] == pytest.approx(session.run(["logits"], {"images": probes["inputs"]})[0], abs=1e-5)
    assert len(set(probes["fp32"].argmax(1))) > 1
    assert probes["inputs"].min() == 0
    assert probes["inputs"].max() == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: {"inputs": p["inputs"]},
        lambda p: p | {"fp32": p["fp32"][:, :2]},
        lambda p: p | {"fp32": p["fp32"] * np.nan},
        lambda p: p | {"inputs": p["inputs"][:, :, :2]},
        lambda p: p | {"inputs": p["inputs"].astype(np.float64)},
        lambda p: p | {"int8": p["fp32"]},
    ],
)
def test_probes_that_cannot_be_compared_are_a_difference(bundles, copy_of, spoil):
    folder = copy_of(bundles(3))
    spoilt = save(spoil(load((folder / "probes.safetensors").read_bytes())))
    (problem,) = verify(rewrite(folder, probes__safetensors=spoilt)).problems
    assert problem.startswith("probes.safetensors must hold 'inputs'")


def change_card(folder, **changes):
    card = json.loads((folder / "bundle.json").read_text(encoding="utf-8")) | changes
    return rewrite(folder, bundle__json=json.dumps(card).encode())


def test_a_card_for_programs_that_is_at_odds_with_the_files_is_a_difference(bundles, copy_of):
    folder = copy_of(bundles(3))
    models = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))["models"]
    change_card(folder, models={"fp32": models["fp32"] | {"bytes": 7}})
    (problem,) = verify(folder).problems
    assert "bundle.json says that the model fp32 has 7 bytes" in problem
    change_card(folder, models=models, interface="image")
    assert verify(folder).problems == ("bundle.json describes inputs or outputs that are not those of its task",)


@pytest.mark.parametrize("schema", ["edgestill.bundle/1", "edgestill.bundle/3", "", None, 2, ["edgestill.bundle/2"]])
def test_another_schema_is_said_in_one_sentence(bundles, copy_of, schema):
    (problem,) = verify(change_card(copy_of(bundles(3)), schema=schema)).problems
    assert "schema" in problem
    assert "edgestill.bundle/2" in problem


def test_a_bundle_of_the_first_schema_is_recognised_and_how_to_make_a_new_one_is_said(bundles, tmp_path):
    (tmp_path / "bundle.json").write_text('{"schema": "edgestill.bundle/1", "name": "old"}')
    (tmp_path / "model.onnx").write_bytes((bundles(3).folder / "model.onnx").read_bytes())
    (problem,) = verify(tmp_path).problems
    assert "older schema edgestill.bundle/1" in problem
    assert "`edgestill run`" in problem


# Signatures and digests


def test_unsigned_is_said_and_is_no_error_unless_a_key_is_asked_for(bundles, keys):
    folder = bundles(3).folder
    assert any(fact.startswith("not signed") for fact in verify(folder).facts)
    (problem,) = verify(folder, public_key=keys[1]).problems
    assert "not signed" in problem


def test_the_right_key_passes_and_another_does_not(bundles, copy_of, keys):
    folder = copy_of(bundles(3))
    sign(folder, keys[0])
    assert verify(folder, public_key=keys[1]).problems == ()
    (problem,) = verify(folder, public_key=make_keys()[1]).problems
    assert "is signed by the key" in problem


def test_a_signature_does_not_fit_a_manifest_that_was_made_anew(bundles, copy_of, keys):
    folder = copy_of(bundles(3))
    sign(folder, keys[0])
    signature = (folder / "manifest.sig").read_bytes()
    rewrite(folder, labels__txt=(folder / "labels.txt").read_bytes() + b"more\n")
    (folder / "manifest.sig").write_bytes(signature)
    (problem,) = verify(folder, public_key=keys[1]).problems
    assert "manifest.sig does not sign this manifest" in problem


def test_openssl_agrees_with_the_signature(bundles, copy_of, keys, tmp_path):
    """Ed25519 by another program, on the manifest's bytes."""
    import base64

    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    folder = copy_of(bundles(3))
    sign(folder, keys[0])
    (tmp_path / "key.pub.pem").write_bytes(keys[1])
    content = json.loads((folder / "manifest.sig").read_text())
    (tmp_path / "raw.sig").write_bytes(base64.b64decode(content["signature"]))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", tmp_path / "key.pub.pem", "-rawin"]
    files = ["-in", folder / "manifest.json", "-sigfile", tmp_path / "raw.sig"]
    assert subprocess.run([*command, *files], capture_output=True, timeout=30, check=False).returncode == 0


@pytest.mark.parametrize("key", [b"", b"no key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_a_wrong_key_file_is_the_users_mistake(bundles, key):
    with pytest.raises(ConfigError, match="key"):
        verify(bundles(3).folder, public_key=key)


def test_a_digest_kept_elsewhere_finds_another_bundle(bundles, copy_of):
    folder = copy_of(bundles(3))
    digest = json.loads((folder / "manifest.json").read_text())["digest"]
    assert verify(folder, digest=digest).problems == ()
    assert verify(folder, digest=f"sha256:{digest}").problems == ()
    rewrite(folder, MODEL_CARD__md=b"# Better than it is\n")
    (problem,) = verify(folder, digest=digest).problems
    assert "another bundle" in problem


# What is opened


def test_what_is_opened_are_the_bytes_that_were_hashed_whatever_happens_to_the_files_later(bundles, copy_of):
    folder = copy_of(bundles(3))
    whole = (folder / "model.onnx").read_bytes()
    with open_bundle(folder) as opened:
        (folder / "model.onnx").write_bytes(b"exchanged")
        assert opened.model_bytes() == whole
        private = opened.folder
        assert (private / "model.onnx").read_bytes() == whole
        assert private.stat().st_mode & 0o077 == 0
    assert not private.exists()


def test_an_unknown_model_is_refused_with_those_that_there_are(bundles):
    with open_bundle(bundles(3).folder) as opened, pytest.raises(BundleError, match="no model 'int3'; it has fp32"):
        opened.model("int3")


def test_verifying_does_not_run_the_scripts_of_the_bundle(bundles, copy_of, tmp_path):
    canary = tmp_path / "canary"
    folder = rewrite(copy_of(bundles(3)), run__py=f"open({str(canary)!r}, 'w')".encode())
    assert verify(folder).problems == ()
    assert not canary.exists()
    subprocess.run([sys.executable, folder / "run.py"], timeout=30, check=True)
    assert canary.exists()
