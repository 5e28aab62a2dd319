"""JSON, images, tokenizers, configurations and weights that mean harm."""

import json
import os
import pickle
import struct
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hostile import Bomb, card, numpy_pickle, one_sentence, rewritten, torch_pickle

from edgestill.export.bundle.predict import predict
from edgestill.export.bundle.read import open_bundle
from edgestill.export.strict_json import parse_json
from edgestill.pipeline.data.tokens import Coder
from edgestill.pipeline.errors import BundleError, ConfigError, DataError, UserError

JSON = {
    "NaN": b'{"a": NaN}',
    "infinity": b"[-Infinity]",
    "a number beyond all bounds": b"[1e999]",
    "an integer of a million digits": b"[" + b"9" * 10**6 + b"]",
    "a key twice": b'{"a": 1, "a": 2}',
    "depth beyond the stack": b"[" * 10**6,
    "depth within the stack": b"[" * 40 + b"]" * 40,
    "half of a surrogate pair": b'["\\ud800"]',
    "a byte-order mark": b"\xef\xbb\xbf{}",
    "Latin-1": b'["\xe9"]',
    "a second value": b"{} {}",
    "a YAML tag": b"!!python/object/apply:os.system ['true']",
}


def test_a_key_twice_among_very_many_is_found_at_once():
    keys = [f'"{number}": 0' for number in range(200_000)]
    began = time.perf_counter()
    with pytest.raises(BundleError, match="the key '199999' is there twice"):
        parse_json(f"{{{', '.join([*keys, keys[-1]])}}}".encode(), "x.json")
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("name", JSON)
def test_hostile_json_has_no_meaning(name):
    with pytest.raises(BundleError, match=r"^x\.json is not JSON that is read here") as caught:
        parse_json(JSON[name], "x.json")
    one_sentence(caught.value)


def hostile_images(folder, canary):
    numpy_pickle(folder / "objects.npy", canary)
    np.savez(folder / "archive.npz", np.array([Bomb(canary)], dtype=object))
    (folder / "pickle.png").write_bytes(pickle.dumps(Bomb(canary)))
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117) + b"\n"
    (folder / "enormous.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    code = b"{'descr': __import__('os').system('touch canary'), 'fortran_order': False, 'shape': (1,)}".ljust(117)
    (folder / "code.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(code)) + code)
    size = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
    (folder / "enormous.png").write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + size + bytes(4))
    script = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({canary}) (w) file closefile\n"
    (folder / "script.eps").write_text(script)
    os.mkfifo(folder / "pipe.png")
    return sorted(path for path in folder.iterdir())


def test_hostile_images_are_refused_by_predict(bundles, tmp_path, canary):
    (tmp_path / "images").mkdir()
    paths = hostile_images(tmp_path / "images", canary)
    assert len(paths) == 8
    with open_bundle(bundles(3).folder) as opened:
        for path in [*paths, Path("/dev/zero")]:
            with pytest.raises(DataError, match="not an image that is read here") as caught:
                predict(opened, [str(path)])
            assert " object at 0x" not in one_sentence(caught.value)


@pytest.mark.parametrize(
    "data", [b"{}", b'{"model": {"type": "Exec"}}', b"[" * 10**5, b"\xff\xfe", b'{"version": "9"}']
)
def test_a_hostile_tokenizer_is_refused(text_bundle, copy_of, data):
    folder = copy_of(text_bundle)
    rewritten(folder, tokenizer__json=data)
    with pytest.raises(UserError) as caught, open_bundle(folder) as opened:
        predict(opened, ["a film"])
    one_sentence(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t["truncation"].update(max_length=10**12), "cuts at 1000000000000 tokens"),
        (lambda t: (t["model"]["vocab"].clear(), t["added_tokens"].clear()), "tokenizer.json"),
        (lambda t: t["model"]["vocab"].update({"evil": 10**6}), "gives 1,000,001 ids"),
        (lambda t: t.pop("truncation"), "does not say at which length it cuts"),
    ],
)
def test_a_tokenizer_that_does_not_fit_the_model_opens_nowhere(text_bundle, copy_of, change, reason):
    folder = copy_of(text_bundle)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    change(content)
    rewritten(folder, tokenizer__json=json.dumps(content).encode())
    with pytest.raises(BundleError) as caught:
        open_bundle(folder)
    assert reason in one_sentence(caught.value)


def test_another_tokenizer_of_the_same_size_is_found_by_its_digest(text_bundle, copy_of):
    folder, sha256 = copy_of(text_bundle), Coder((text_bundle.folder / "tokenizer.json").read_text("utf-8")).sha256
    known = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))["task"]
    card(folder, task=known | {"tokenizer_sha256": sha256})
    open_bundle(folder).close()
    card(folder, task=known | {"tokenizer_sha256": "0" * 64})
    with pytest.raises(BundleError, match=r"is another one than bundle\.json says"):
        open_bundle(folder)


def test_ids_beyond_the_vocabulary_are_not_given_to_the_model(text_bundle, copy_of):
    folder = copy_of(text_bundle)
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[E]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"[E]": {"id": "[E]", "ids": [10**6], "tokens": ["[E]"]}},
    }
    rewritten(folder, tokenizer__json=json.dumps(content).encode())
    with open_bundle(folder) as opened, pytest.raises(BundleError, match="gives the id 1000000; the model has ids"):
        predict(opened, ["a film"])


def test_yaml_tags_in_a_configuration_run_nothing(tmp_path, canary):
    from edgestill.flows.config import load_config

    laughs = "device: [&a [x]"
    for before, after in pairwise("abcdefghij"):
        laughs += f", &{after} [" + ", ".join([f"*{before}"] * 9) + "]"
    laughs += "]\nseed: *j"  # 9^9 elements to whoever follows it
    for text in (
        f"!!python/object/apply:pathlib.Path.touch [{canary}]",
        f"seed: !!python/object/apply:os.system ['touch {canary}']",
        "seed: !!python/name:os.system",
        "name: !evil x",
        "[" * 5000,
        laughs,
    ):
        (tmp_path / "run.yaml").write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_config(tmp_path / "run.yaml")
        for problem in caught.value.problems:
            one_sentence(problem)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "weights.npz"])
def test_weights_that_are_pickles_run_nothing(name, tmp_path, canary):
    from edgestill.pipeline.runs.checkpoint import read_weights

    torch_pickle(tmp_path / name, canary)
    with pytest.raises(UserError) as caught:
        read_weights(tmp_path / name)
    one_sentence(caught.value)
