"""Bundles' folders made to harm whoever opens them, by somebody who knows the format."""

import json
import os
import pickle
import struct

import numpy as np
import onnx
import pytest
from hostile import Bomb, card, external, model_with, one_sentence, rewritten
from onnx import TensorProto, helper, numpy_helper

from edgestill.export.bundle.manifest import canonical, manifest_bytes
from edgestill.export.bundle.predict import predict
from edgestill.export.bundle.read import open_bundle
from edgestill.export.bundle.verify import verify
from edgestill.export.files import MAX_FILES, MAX_TOTAL_BYTES
from edgestill.pipeline.errors import BundleError, ExportError


def first_model(folder, **changes):
    models = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))["models"]
    card(folder, models={"fp32": models["fp32"] | changes})


def models(folder, **added):
    known = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))["models"]
    card(folder, models=known | {name: known["fp32"] | changes for name, changes in added.items()})


def task(folder, **changes):
    known = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    described = known["task"] | changes
    channels, height, width = described["input_shape"]
    shape = ["batch", channels, height, width]
    card(folder, task=described, input=known["input"] | {"shape": shape})


def relabelled(folder, first):
    """Another name for the first class, wherever it stands."""
    known = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    labels = [first, *known["task"]["labels"][1:]]
    rewritten(folder, labels__txt="".join(f"{label}\n" for label in labels).encode())
    card(folder, task=known["task"] | {"labels": labels})
    figures_of(folder, first)


def figures_of(folder, first):
    quality = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))["quality"]
    quality["classes"][0]["label"] = first
    card(folder, quality=quality)


def exchanged(folder, model):
    """Another model, with the card's number of bytes."""
    data = model.SerializeToString()
    first_model(folder, bytes=len(data))
    rewritten(folder, model__onnx=data)


def classifier(classes, batch="batch", bias=0.0):
    """Images of the fixture's bundle to logits that are the mean of their pixels, and a bias."""
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, (batch, 3, 10, 8))
    answer = helper.make_tensor_value_info("logits", TensorProto.FLOAT, (batch, classes))
    constants = {"sides": np.array([1, 2, 3]), "last": np.array([1]), "w": np.full((1, classes), bias, np.float32)}
    nodes = [
        helper.make_node("ReduceMean", ["images", "sides"], ["m"], keepdims=0),
        helper.make_node("Unsqueeze", ["m", "last"], ["column"]),
        helper.make_node("Add", ["column", "w"], ["logits"]),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", [given], [answer], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def crowded_manifest(folder):
    (folder / "manifest.json").unlink()
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "manifest.json").write_bytes(manifest_bytes(files | {f"\x1b{n}": b"" for n in range(1000)}))


def manifest_with(folder, name, data=b"evil"):
    """A manifest that lists a file of this name, correctly sealed."""
    import hashlib

    files = json.loads((folder / "manifest.json").read_text())
    files.pop("digest")
    files["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    digest = hashlib.sha256(canonical(files)).hexdigest()
    (folder / "manifest.json").write_bytes(canonical(files | {"digest": digest}))


def linked(folder, target):
    (folder / "labels.txt").unlink()
    (folder / "labels.txt").symlink_to(target)


def twice(folder):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('{\n "digest"', '{\n "schema": "x",\n "digest"', 1))


def many(folder):
    for number in range(MAX_FILES + 1):
        (folder / f"file{number}").write_bytes(b"")


def oversized(folder):
    with (folder / "model.onnx").open("r+b") as file:
        file.truncate(MAX_TOTAL_BYTES + 1)


def enormous_probes():
    header = json.dumps({"inputs": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    return struct.pack("<Q", len(header)) + header


FOLDERS = {
    "a link to a file outside": lambda f, c: linked(f, "/etc/passwd"),
    "a link to a file inside": lambda f, c: linked(f, "run.py"),
    "a link to nothing": lambda f, c: linked(f, "nowhere"),
    "a folder in it": lambda f, c: (f / "sub").mkdir(),
    "a pipe in it": lambda f, c: os.mkfifo(f / "pipe"),
    "a hidden file": lambda f, c: (f / ".hidden").write_bytes(b""),
    "a file that the manifest does not list": lambda f, c: (f / "evil.py").write_bytes(b""),
    "a name that steers a terminal": lambda f, c: (f / "\x1b[2Jevil").write_bytes(b""),
    "too many files": lambda f, c: many(f),
    "an oversized file": lambda f, c: oversized(f),
    "a manifest that lists a file above the folder": lambda f, c: manifest_with(f, "../../etc/passwd"),
    "a manifest that lists an absolute path": lambda f, c: manifest_with(f, "/etc/passwd"),
    "a manifest of another schema": lambda f, c: (f / "manifest.json").write_text('{"schema": "other/9"}'),
    "a manifest with a key twice": lambda f, c: twice(f),
    "a manifest that nests without an end": lambda f, c: (f / "manifest.json").write_bytes(b'{"a":' * 10**5),
    "a manifest that is a list": lambda f, c: (f / "manifest.json").write_bytes(b"[]"),
    "an empty manifest": lambda f, c: (f / "manifest.json").write_bytes(b""),
    "no manifest": lambda f, c: (f / "manifest.json").unlink(),
    "a manifest in UTF-16": lambda f, c: (f / "manifest.json").write_bytes('{"schema": 1}'.encode("utf-16")),
    "a card of an unknown schema": lambda f, c: card(f, schema="edgestill.bundle/99"),
    "a card with a key that is not known": lambda f, c: card(f, hook="rm -rf /"),
    "a card with NaN": lambda f, c: card(f, created=float("nan")),
    "a card that nests deep": lambda f, c: card(f, methods=json.loads("[" * 200 + "]" * 200)),
    "a card with a YAML tag": lambda f, c: rewritten(
        f, bundle__json=f"!!python/object/apply:os.system ['touch {c}']".encode()
    ),
    "a card that is a pickle": lambda f, c: rewritten(f, bundle__json=pickle.dumps(Bomb(c))),
    "a card whose model lies outside": lambda f, c: first_model(f, file="../model.onnx"),
    "a card whose model lies at an absolute path": lambda f, c: first_model(f, file="/etc/passwd"),
    "a card whose model is the script": lambda f, c: first_model(f, file="run.py"),
    "a card that calls the model an engine": lambda f, c: first_model(f, runtime="tensorrt"),
    "a card of a format that is not known": lambda f, c: (
        (f / "model.ort").write_bytes(b"any"),
        models(f, x={"format": "x", "file": "model.ort", "bytes": 3}),
    ),
    "a card whose input is larger than memory": lambda f, c: task(f, input_shape=[3, 10**5, 10**5]),
    "a card whose input has no side": lambda f, c: task(f, input_shape=[3, 0, 8]),
    "a card with another number of bytes": lambda f, c: first_model(f, bytes=7),
    "a model of other inputs": lambda f, c: exchanged(f, model_with(given=("b", 4), answer=("b", 6))),
    "a model of more logits than labels": lambda f, c: exchanged(f, classifier(7)),
    "a model that only works for one image": lambda f, c: exchanged(f, classifier(6, batch=1)),
    "a manifest that steers a terminal": lambda f, c: manifest_with(f, "\x1b[2Jevil\x07"),
    "a manifest of a thousand files that are not there": lambda f, c: crowded_manifest(f),
    "a model of a domain that steers a terminal": lambda f, c: exchanged(
        f, model_with(helper.make_node("Run", ["x"], ["y"], domain="\x1b[2J"), domains=["\x1b[2J"])
    ),
    "a card without its default model": lambda f, c: card(f, default="int8"),
    "labels that are more lines than classes": lambda f, c: relabelled(f, "one\ntwo"),
    "labels that are more lines to some readers": lambda f, c: relabelled(f, "one\u2028two"),
    "a label that is blank": lambda f, c: relabelled(f, " "),
    "two labels that are the same": lambda f, c: relabelled(f, "dog"),
    "figures of other classes": lambda f, c: figures_of(f, "fish"),
    "labels that are not the card's": lambda f, c: rewritten(f, labels__txt=b"good\nbad\n"),
    "a model that is a pickle": lambda f, c: rewritten(f, model__onnx=pickle.dumps(Bomb(c))),
    "a model with external data": lambda f, c: rewritten(f, model__onnx=external("/etc/passwd").SerializeToString()),
    "a module that a library is called as": lambda f, c: rewritten(f, onnx__py=f"open({str(c)!r}, 'w')".encode()),
    "a compiled module": lambda f, c: rewritten(f, numpy__abi3__so=b"\x7fELF"),
    "a file that Python runs as it starts": lambda f, c: rewritten(
        f, edgestill__pth=f"import os; os.mkdir({str(c)!r})".encode()
    ),
    "settings of a library": lambda f, c: rewritten(f, matplotlibrc=b"text.usetex: True\n"),
    "a model of a format that is not known": lambda f, c: rewritten(f, model__exe=b"MZ"),
    "a second model that nothing speaks of": lambda f, c: rewritten(f, more__onnx=pickle.dumps(Bomb(c))),
    "probes that are a pickle": lambda f, c: rewritten(f, probes__safetensors=pickle.dumps(Bomb(c))),
    "probes of 2^40 elements": lambda f, c: rewritten(f, probes__safetensors=enormous_probes()),
    "probes with an endless header": lambda f, c: rewritten(f, probes__safetensors=struct.pack("<Q", 2**63) + b"{}"),
    "a signature that is a pickle": lambda f, c: (f / "manifest.sig").write_bytes(pickle.dumps(Bomb(c))),
    "a signature of nothing": lambda f, c: (f / "manifest.sig").write_bytes(
        canonical({"schema": "edgestill.signature/1", "public_key": "", "signature": ""})
    ),
    "a signature by a point that is no key": lambda f, c: (f / "manifest.sig").write_bytes(
        canonical({"schema": "edgestill.signature/1", "public_key": "/" * 42 + "8=", "signature": "A" * 86 + "=="})
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_hostile_folder_is_a_difference_for_verify_and_opens_nowhere(name, bundles, copy_of, canary):
    folder = copy_of(bundles(3))
    FOLDERS[name](folder, canary)
    problems = verify(folder).problems
    assert problems
    for problem in problems:
        one_sentence(problem)
    if "probes" not in name:  # which only verify reads
        with pytest.raises(BundleError):
            open_bundle(folder)


def test_many_problems_are_told_as_ten_and_a_number(bundles, copy_of):
    folder = copy_of(bundles(3))
    crowded_manifest(folder)
    assert len(verify(folder).problems) == 11
    with pytest.raises(BundleError, match=r"\nand 990 more$"):
        open_bundle(folder)


def test_a_model_whose_answers_are_not_numbers_is_an_error_in_words(bundles, copy_of, tmp_path):
    folder = copy_of(bundles(3))
    exchanged(folder, classifier(6, bias=np.nan))
    np.save(tmp_path / "image.npy", np.zeros((10, 8, 3), np.uint8))
    with open_bundle(folder) as opened, pytest.raises(ExportError, match=r"gives logits \[1, 6\], not \[1, 6\] finite"):
        predict(opened, [str(tmp_path / "image.npy")])
    assert "finite ones" in verify(folder).problems[0]


def test_probabilities_that_are_not_those_of_the_logits_are_a_difference(bundles, copy_of):
    folder = copy_of(bundles(3, "image"))
    model = onnx.load(folder / "model.onnx")
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    softmax.op_type = "Sigmoid"
    del softmax.attribute[:]
    exchanged(folder, model)
    (problem,) = verify(folder).problems
    assert "probabilities that are not the softmax of its logits" in problem


def test_there_are_at_least_fifty_hostile_folders():
    assert len(FOLDERS) >= 50
