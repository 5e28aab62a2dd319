"""Small files that ask for much: each is refused in a sentence, and what reads it keeps within bounds."""

import json
import struct
import sys
import time
import tracemalloc
import zlib
from itertools import pairwise

import numpy as np
import pytest
from hostile import model_with, one_sentence, rewritten
from onnx import helper, numpy_helper
from PIL import Image

from edgestill.export.bundle.foreign_run import run_bounded
from edgestill.export.bundle.predict import predict
from edgestill.export.bundle.read import open_bundle
from edgestill.export.bundle.scripts import run_images as _run
from edgestill.export.onnx.admission import check_onnx_bytes
from edgestill.pipeline.child import ChildError
from edgestill.pipeline.errors import BundleError, DataError

node = helper.make_node


def constants(**values):
    return [numpy_helper.from_array(np.array(value), name) for name, value in values.items()]


def with_sides(count):
    model = model_with()
    for _ in range(count):
        model.graph.input[0].type.tensor_type.shape.dim.add(dim_value=1)
    return model


def reshaped_to(count):
    return model_with(node("Reshape", ["x", "s"], ["a"]), node("Relu", ["a"], ["y"]), tensors=constants(s=[1] * count))


def mean_of(operator, *given, **attributes):
    nodes = node(operator, list(given), ["w"], **attributes), node("ReduceMean", ["w"], ["m"], keepdims=0)
    return *nodes, node("Add", ["x", "m"], ["y"])


def chained(operator, count, first, **attributes):
    names = [first, *(f"n{step}" for step in range(count))]
    grown = [node(operator, [name, name], [after], **attributes) for name, after in pairwise(names)]
    return *grown, node("Relu", ["x"], ["y"])


def outer_products(count):
    nodes, name = [], "x"
    for step in range(count):
        nodes += [
            node("Unsqueeze", [name, "first"], [f"rows{step}"]),
            node("Unsqueeze", [name, "last"], [f"columns{step}"]),
            node("Mul", [f"rows{step}", f"columns{step}"], [f"all{step}"]),
            node("Reshape", [f"all{step}", "flat"], [f"next{step}"]),
        ]
        name = f"next{step}"
    return model_with(*nodes, node("Relu", ["x"], ["y"]), tensors=constants(first=[1], last=[2], flat=[1, -1]))


NOT_TOLD = "how large it becomes cannot be told"
GROWING = {
    "an input of 20,000 sides": (lambda: with_sides(20_000), "with more than 16 sides"),
    "a shape of 20,000 sides": (lambda: reshaped_to(20_000), "with more than 16 sides"),
    "text that doubles": (
        lambda: model_with(*chained("StringConcat", 40, "s"), tensors=constants(s=np.array(["a"], object))),
        NOT_TOLD,
    ),
    "a window": (
        lambda: model_with(*mean_of("HannWindow", "n"), tensors=constants(n=10**9)), "of 1,000,000,000 elements"
    ),
    "a grid": (
        lambda: model_with(
            *mean_of("AffineGrid", "t", "n"),
            tensors=constants(t=np.ones((1, 2, 3), np.float32), n=[1, 1, 10**5, 10**5]),
        ),
        "of 20,000,000,000 elements",
    ),
    "places of what is not zero": (
        lambda: model_with(node("NonZero", ["x"], ["n"]), *chained("Concat", 9, "n", axis=1)), NOT_TOLD
    ),
    "a tensor that doubles": (lambda: model_with(*chained("Concat", 40, "x", axis=1)), "of 536,870,912 elements"),
    "outer products": (lambda: outer_products(6), "elements; at most"),
    "a sequence": (lambda: model_with(node("SequenceConstruct", ["x"], ["s"]), node("Relu", ["x"], ["y"])), NOT_TOLD),
    "what differs": (lambda: model_with(node("Unique", ["x"], ["u"]), node("Relu", ["x"], ["y"])), NOT_TOLD),
    "one of ONNX Runtime's own that no rule knows": (
        lambda: model_with(
            node("QLinearReduceMean", ["x"], ["u"], domain="com.microsoft"),
            node("Relu", ["x"], ["y"]),
            domains=["com.microsoft"],
        ),
        NOT_TOLD,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GROWING)
def test_a_model_of_unknown_or_enormous_tensors_is_refused_by_default(name):
    made, reason = GROWING[name]
    with pytest.raises(BundleError) as caught:
        check_onnx_bytes(made().SerializeToString(), "model.onnx", batches=(1,))
    assert reason in one_sentence(caught.value)


def test_the_sizes_of_a_quantized_models_own_operators_are_told():
    """By ONNX Runtime's documentation of its contributed operators, each of a tensor [1, 4]."""
    scale = constants(s=np.float32(0.1), z=np.uint8(3))
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"], domain="com.microsoft"),
        node("QLinearAdd", ["q", "s", "z", "q", "s", "z", "s", "z"], ["a"], domain="com.microsoft"),
        node("QLinearConcat", ["s", "z", "a", "s", "z", "q", "s", "z"], ["c"], domain="com.microsoft", axis=1),
        node("DequantizeLinear", ["c", "s", "z"], ["y"], domain="com.microsoft"),
    ]
    model = model_with(*nodes, tensors=scale, answer=(1, 8), domains=["com.microsoft"])
    check_onnx_bytes(model.SerializeToString(), "model.onnx", batches=(1,))


@pytest.mark.skipif(sys.platform != "linux", reason="bounds of memory are Linux's")
def test_running_a_model_takes_no_more_memory_than_it_is_given(monkeypatch):
    """Twenty tensors of 1 GiB at once, each within the bound of one."""
    monkeypatch.setattr("edgestill.export.bundle.foreign_run._MEMORY", 2**30)
    names = [f"c{number}" for number in range(20)]
    wide = [node("ConstantOfShape", ["s"], [name]) for name in names]
    model = model_with(
        *wide, node("Sum", names, ["z"]), node("ReduceMean", ["z"], ["m"], keepdims=0), node("Add", ["x", "m"], ["y"]),
        tensors=constants(s=[2**14, 2**14]), given=("b", 4), answer=("b", 4),
    )  # fmt: skip
    model.graph.node.insert(0, node("Identity", ["images"], ["x"]))
    model.graph.input[0].name = "images"
    with pytest.raises(ChildError):
        run_bounded(model.SerializeToString(), np.zeros((1, 4), np.float32), ("y",))


def png(width, height, raw, colour=2):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def npy(header):
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n"


def shaped(shape, dtype="<f4"):
    return npy(f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode())


def tiny_chunks():
    return png(1, 1, bytes(4))[:33] + struct.pack(">I4sI", 0, b"IDAT", 0) * 200_000


IMAGES = {
    "no width": lambda: png(0, 20_000_000, bytes([4]) * 20_000_000),
    "no height": lambda: png(7, 0, b""),
    "a line of 2^26 pixels": lambda: png(2**26, 1, bytes(2**26 + 1), colour=0),
    "10^8 pixels": lambda: png(10_000, 10_000, bytes(30_001)),
    "more chunks than pixels": tiny_chunks,
    "an unknown filter": lambda: png(1, 1, bytes([7, 0, 0, 0])),
    "a netpbm of 10^6 digits": lambda: b"P5 " + b"9" * 10**6 + b" 1 255\n",
    "a netpbm of blanks": lambda: b"P6" + b" " * 10**7,
    "a netpbm of no width": lambda: b"P5 0 9 255\n",
    "an array of 8 GB": lambda: shaped("(100000, 20000, 1)"),
    "an array of more than 64 bits": lambda: shaped((2**40, 2**40)),
    "an array of fewer than none": lambda: shaped("(-1, 4)"),
    "an array of text": lambda: shaped("(2,)", "<U9"),
    "an array of arrays": lambda: shaped("(2,)", "(1000000,)f8"),
    "a header of parentheses": lambda: npy(b"(" * 5000 + b")" * 5000),
    "a header of signs": lambda: npy(b"-" * 9000 + b"1"),
    "a header that does not end": lambda: npy(b"{'descr': (" * 3),
}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_that_asks_for_much_is_refused_at_once(name):
    data, began = IMAGES[name](), time.process_time()
    with pytest.raises(_run.UNREADABLE) as caught:
        _run.decode(data)
    assert time.process_time() - began < 1
    assert len(_run.reason_of(caught.value)) <= 200
    assert _run.reason_of(caught.value).isprintable()


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("shape", [(1, 2**15, 3), (2**15, 1, 3)])
def test_a_picture_of_one_line_is_fitted_in_little_memory(shape, resize):
    """Covering 64 x 64, it would have 400 MB: what is cut off is not computed."""
    tracemalloc.start()
    found = _run.fit_to(np.full(shape, 255, np.uint8), (3, 64, 64), resize, "image")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.max() == 1
    assert found.min() == (0 if resize == "pad" else 1)
    assert peak < 2**26


def test_a_large_photograph_is_read_within_a_small_multiple_of_its_pixels(bundles, tmp_path):
    image = Image.new("RGB", (6000, 4000), (9, 99, 199))
    image.save(tmp_path / "photograph.jpg")
    with open_bundle(bundles(3).folder) as opened:
        (large,) = predict(opened, [str(tmp_path / "photograph.jpg")])
        image.resize((8, 10)).save(tmp_path / "small.png")
        (small,) = predict(opened, [str(tmp_path / "small.png")])
    assert large.label == small.label


def changed_tokenizer(folder, change):
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    change(content)
    rewritten(folder, tokenizer__json=json.dumps(content).encode())


def replacing(count):
    """Each turns a letter into ten: 10^count letters."""
    return [{"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10} for _ in range(count)]


@pytest.mark.skipif(sys.platform != "linux", reason="bounds of memory are Linux's")
def test_a_tokenizer_of_chained_replacements_ends_no_process_of_ours(text_bundle, copy_of):
    folder = copy_of(text_bundle)
    changed_tokenizer(folder, lambda t: t.update(normalizer={"type": "Sequence", "normalizers": replacing(12)}))
    with (
        open_bundle(folder) as opened,
        pytest.raises(BundleError, match="cannot turn the text into token ids") as caught,
    ):
        predict(opened, ["aaaa"])
    assert "MiB of memory" in one_sentence(caught.value)


def test_a_tokenizer_whose_pattern_looks_back_for_ever_is_stopped(text_bundle, copy_of, monkeypatch):
    monkeypatch.setattr("edgestill.pipeline.data.tokens.SECONDS", 1)
    folder = copy_of(text_bundle)
    split = {"type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": "Isolated", "invert": False}
    changed_tokenizer(folder, lambda t: t.update(pre_tokenizer=split))
    began = time.monotonic()
    with open_bundle(folder) as opened:
        try:
            predict(opened, ["x" * 40])
        except BundleError as error:
            one_sentence(error)
    assert time.monotonic() - began < 60


def test_padding_to_10_9_tokens_is_no_mistake_of_ours(text_bundle, copy_of):
    folder = copy_of(text_bundle)
    padding = {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
               "pad_type_id": 0, "pad_token": "[PAD]"}  # fmt: skip
    changed_tokenizer(folder, lambda t: t.update(padding=padding))
    with open_bundle(folder) as opened, pytest.raises((BundleError, DataError)) as caught:
        predict(opened, ["a film"])
    one_sentence(caught.value)


def test_json_of_very_many_values_is_refused_before_it_is_parsed():
    from edgestill.export.strict_json import parse_json

    with pytest.raises(BundleError, match="holds more than 524,288 values"):
        parse_json(b"[" + b"0," * 600_000 + b"0]", "bundle.json")
