"""Mutations of files that fuzz.py gives to readers: of bytes, and of what the formats are made of."""
# ruff: noqa: E501 - tables of values

import copy
import io
import json
import os
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

MARKER = Path(os.environ.get("FUZZ_MARKER", "/tmp/edgestill-fuzz-marker"))  # what code in a file would leave behind


class Bomb:
    """A pickle of this runs code when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (MARKER,)


_EXTREMES: list[Any] = [
    0, 1, -1, 2, 2**31, 2**31 - 1, 2**63, -(2**63), 10**8, 10**12, 10**400, 0.0, -0.0, 0.5, 1e308, -1e308, 1e-320, True,
    None, "", " ", "0", "10000000000", "x" * 20_000, "\x1b[2J\x07", "\u202e", "\ud7ff\ufffe", "a\nb", "../../etc/passwd",
    "/etc/passwd", "/dev/zero", "~", "NaN", "\0", [], {}, [[]], {"": {}}, [0] * 3000, ["x"] * 3000, [[0] * 50] * 50,
]  # fmt: skip
_OPERATORS = (
    "Relu", "Tile", "Expand", "ConstantOfShape", "NonZero", "Concat", "MatMul", "Gemm", "Conv", "Reshape", "Resize", "Pad",
    "Loop", "If", "Scan", "StringConcat", "StringSplit", "SequenceConstruct", "Unique", "Range", "OneHot", "GatherND",
    "ScatterND", "Einsum", "HannWindow", "AffineGrid", "ImageDecoder", "Identity", "Transpose", "TopK", "CumSum", "STFT",
)  # fmt: skip


def mutate(name: str, data: bytes, rng: random.Random) -> bytes:
    """Another file in the place of one: by its format mostly, by its bytes else, by code in a pickle now and then."""
    chance = rng.random()
    if chance < 0.02:
        return pickle.dumps(Bomb(), protocol=rng.choice([0, 2, 4]))
    form = _FORMS.get(Path(name).suffix)
    if chance < 0.7 and form is not None:
        try:
            return form(data, rng)
        except (ValueError, struct.error, zlib.error, KeyError, IndexError, OverflowError, TypeError):
            pass  # the mutation cannot be written
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        data = _bytes(data, rng)
    return data


def _bytes(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    size = min(rng.choice([1, 1, 2, 4, 8, 64, 1000]), len(data) - place)
    match rng.randrange(7):
        case 0:
            return data[:place]
        case 1:
            return data[:place] + data[place + size :]
        case 2:
            return data[:place] + data[place : place + size] * rng.choice([2, 10, 1000]) + data[place + size :]
        case 3:
            return (
                data[:place]
                + rng.choice([b"\xff", b"\0", b"\x80", b"[", b"{", b"\xff\xff\xff\x7f"]) * max(1, size)
                + data[place + size :]
            )
        case 4:
            return (
                data[:place]
                + rng.choice([b"9" * 5000, b"[" * 10**5, b"\xef\xbb\xbf", b"\r", b"\0" * 10**5])
                + data[place:]
            )
        case _:
            flipped = bytearray(data)
            for _ in range(rng.choice([1, 1, 4, 32])):
                if flipped:
                    flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
            return bytes(flipped)


def _value(value: Any, rng: random.Random) -> Any:
    """The value with one of its nodes replaced, removed, repeated or renamed."""
    value = copy.deepcopy(value)
    holders = [item for item in _nodes(value) if isinstance(item, dict | list) and item]
    if not holders:
        return rng.choice(_EXTREMES)
    for _ in range(rng.choice([1, 1, 1, 3])):
        holder = rng.choice(holders)
        key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
        if key not in holder and isinstance(holder, dict):
            continue
        match rng.randrange(8):
            case 0:
                del holder[key]
                if not holder:
                    break
            case 1 if isinstance(holder, dict):
                holder[rng.choice(["", "\x1b[31m", "x" * 3000, "name", "1"])] = holder.pop(key)
            case 2 if isinstance(holder, list) and len(holder) < 10**4:
                holder += [holder[key]] * rng.choice([1, 100, 1000])
            case 3:
                deep: Any = holder[key]
                for _ in range(rng.choice([3, 40, 300])):
                    deep = [deep]
                holder[key] = deep
            case _:
                holder[key] = copy.deepcopy(rng.choice(_EXTREMES))
    return value


def _nodes(value: Any) -> list[Any]:
    found, waiting = [], [value]
    while waiting and len(found) < 5000:
        found.append(item := waiting.pop())
        waiting += list(item.values()) if isinstance(item, dict) else item if isinstance(item, list) else []
    return found


def _json(data: bytes, rng: random.Random) -> bytes:
    changed = _value(json.loads(data), rng)
    text = json.dumps(changed, indent=rng.choice([None, 1]), ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.1 and isinstance(changed, dict) and changed:
        key = rng.choice(list(changed))
        text = text.replace("{", "{" + json.dumps(key) + ": 0, ", 1)
    return text.encode("utf-8", "replace")


def _yaml(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.25:
        line = rng.choice([
            f"name: !!python/object/apply:os.system ['touch {MARKER}']", "!!python/name:os.system : 1", "seed: 2001-02-30",
            "seed: &a [*a]", "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nd: [*c,*c]", "seed: 0x" + "f" * 5000, "seed: 1_0:59:59",
            "? [a, b]\n: 1", "<<: {seed: 1}", "seed: !!binary x", "seed: !!set {a, b}", "seed: .inf", "- x", "%YAML 9.9\n---",
            "seed: |\n" + " x\n" * 5000, "\tseed: 1", "seed: '", "seed: 1\n---\nseed: 2", "&a *a", "seed: 9" + "9" * 5000,
        ])  # fmt: skip
        lines = data.decode().splitlines()
        lines.insert(rng.randrange(len(lines) + 1), line)
        return "\n".join(lines).encode()
    return yaml.safe_dump(_value(yaml.safe_load(data), rng), sort_keys=False, allow_unicode=True).encode()


def _onnx(data: bytes, rng: random.Random) -> bytes:
    import onnx

    model = onnx.load_model_from_string(data)
    graph, node = model.graph, rng.choice(list(model.graph.node))
    side = rng.choice([0, -1, 2**31, 2**40, 10**5, 3])
    match rng.randrange(9):
        case 0:
            node.op_type = rng.choice(_OPERATORS)
        case 1:
            graph.node.remove(node)
        case 2 if node.input:
            names = [name for other in graph.node for name in other.output] + [t.name for t in graph.initializer]
            node.input[rng.randrange(len(node.input))] = rng.choice(names)
        case 3 if node.attribute:
            attribute = rng.choice(list(node.attribute))
            attribute.ints[:] = [rng.choice([side, 2**63 - 1]) for _ in attribute.ints]
            attribute.i, attribute.f = rng.choice([side, 2**62]), rng.choice([float("nan"), 1e38, 0.0])
        case 4 if graph.initializer:
            tensor = rng.choice(list(graph.initializer))
            tensor.dims[:] = rng.choice([[side], [side, side], [1] * 5000, [], list(tensor.dims)[::-1]])
        case 5 if graph.initializer:
            tensor = rng.choice(list(graph.initializer))
            values = bytearray(tensor.raw_data or b"\0")
            values[: max(4, len(values) // 2)] = rng.choice([b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\0\0\x80\x7f"])
            tensor.raw_data = bytes(values)
            tensor.data_type = rng.choice([tensor.data_type, tensor.data_type, 7, 8, 10, 99])
        case 6:
            value = rng.choice([*graph.input, *graph.output])
            for _ in range(rng.choice([1, 5000])):
                value.type.tensor_type.shape.dim.add(dim_value=side)
        case 7:
            for number in range(rng.choice([2, 60, 2000])):
                last = f"grown{number - 1}" if number else graph.input[0].name
                kind = rng.choice(["Concat", "Concat", "Relu", "MatMul", "Expand"])
                given = [last] if kind == "Relu" else [last, last]
                graph.node.append(
                    onnx.helper.make_node(kind, given, [f"grown{number}"], **({"axis": -1} if kind == "Concat" else {}))
                )
        case _:
            graph.initializer.add(
                name=node.input[0] if node.input else "w", dims=[4], data_type=1, data_location=1
            ).external_data.add(key="location", value="/etc/passwd")
    written: bytes = model.SerializeToString()
    return written


def _png(data: bytes, rng: random.Random) -> bytes:
    chunks, position = [], 8
    while position + 8 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        chunks.append([data[position + 4 : position + 8], data[position + 8 : position + 8 + length]])
        position += length + 12
    chosen = rng.choice(chunks)
    match rng.randrange(6):
        case 0:
            sides = [rng.choice([0, 1, 7, 2**15, 2**16, 2**31 - 1, 2**32 - 1]) for _ in range(2)]
            chunks[0][1] = struct.pack(">II", *sides) + chunks[0][1][8:]
        case 1:
            chunks[0][1] = chunks[0][1][:8] + bytes(rng.choice([0, 1, 2, 3, 4, 6, 8, 16, 255]) for _ in range(5))
        case 2:
            chosen[1] = zlib.compress(bytes(rng.choice([0, 1, 2, 3, 4, 5])) + bytes(rng.choice([10, 10**4, 10**8])), 9)
        case 3:
            kind = rng.choice([b"iCCP", b"zTXt", b"iTXt", b"tRNS", b"PLTE", b"acTL", b"fdAT", b"eXIf", b"gAMA"])
            chunks.insert(
                rng.randrange(1, len(chunks)), [kind, b"x\0\0" + zlib.compress(bytes(rng.choice([10, 10**7])))]
            )
        case 4:
            chunks += [chosen] * rng.choice([1, 100, 10**5])
        case _:
            chosen[1] = _bytes(chosen[1], rng)
    packed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return data[:8] + b"".join(packed)


def _npy(data: bytes, rng: random.Random) -> bytes:
    header = rng.choice([
        "{'descr': '|u1', 'fortran_order': False, 'shape': (100000, 100000, 3), }", "{'descr': '|O', 'shape': (1,), }",
        "{'descr': '<f8', 'fortran_order': True, 'shape': (-1, 4), }", "(" * 4000, "-" * 9000 + "1", "{" * 300, "[" * 150,
        "{'descr': '(1000000,)f8', 'fortran_order': False, 'shape': (1000,), }", "{'descr': '<f4', 'fortran_order': 0, 'shape': 3}",
        "{'descr': [('a', 'O')], 'fortran_order': False, 'shape': (2,), }", "{'descr': '<U9999999', 'fortran_order': False, 'shape': (9,), }",
        "{'descr': '<c16', 'fortran_order': False, 'shape': (), }", "{'descr': '<f2', 'fortran_order': False, 'shape': (1,) * 3}",
    ]).encode()  # fmt: skip
    start = 10 + int.from_bytes(data[8:10], "little")
    return data[:8] + struct.pack("<H", len(header) + 1) + header + b"\n" + data[start:]


def _npz(data: bytes, rng: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = rng.choice(list(members))
    match rng.randrange(5):
        case 0:
            del members[chosen]
        case 1:
            members[rng.choice(["../../evil", "x_train", "\x1b[2J.npy", "/etc/x.npy"])] = members.pop(chosen)
        case 2:
            array = io.BytesIO()
            np.save(
                array,
                rng.choice(
                    [
                        np.zeros((3, 0)),
                        np.array([Bomb()], object),
                        np.zeros(10**7, np.uint8),
                        np.full(9, np.nan),
                        np.array(["x"]),
                    ]
                ),
            )
            members[chosen] = array.getvalue()
        case _:
            members[chosen] = rng.choice([_npy, _bytes])(members[chosen], rng)
    packed = io.BytesIO()
    with zipfile.ZipFile(
        packed, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
    ) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def _safetensors(data: bytes, rng: random.Random) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header = _json(data[8 : 8 + size], rng)
    length = rng.choice([len(header), len(header), len(header), 2**63, 2**40, 0, len(header) - 1])
    return struct.pack("<Q", length) + header + data[8 + size :]


def _table(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    place = rng.randrange(len(lines))
    lines[place] = rng.choice([
        b'"', b"," * 10**5 + b"\n", b"x" * 10**6 + b"\n", b"\0\n", b"\xff\xfe\n", b"\x1b[2J,\x1b[31m\n", b'a,"b\nc"\n', b"\r", b"=1+1,2\n", b"",
    ])  # fmt: skip
    return b"".join(lines)


def _lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    place = rng.randrange(len(lines))
    lines[place] = rng.choice([_json(lines[place].rstrip(b"\n"), rng) + b"\n", _bytes(lines[place], rng), b"[" * 10**5])
    return b"".join(lines)


_FORMS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    ".json": _json, ".yaml": _yaml, ".onnx": _onnx, ".png": _png, ".npy": _npy, ".npz": _npz, ".csv": _table,
    ".jsonl": _lines,
    ".safetensors": _safetensors, ".sig": _json,
}  # fmt: skip
