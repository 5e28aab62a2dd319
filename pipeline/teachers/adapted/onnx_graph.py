"""An ONNX classifier from elsewhere, joined with what comes before and after it: the data's pixels in, logits out."""

# C channels, H W height and width, K classes

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from edgestill.pipeline.errors import CheckpointError, first_line
from edgestill.pipeline.input_kind import Images
from edgestill.pipeline.networks.network import Normalize
from edgestill.pipeline.teachers.adapted.pixels import Pixels

(INPUT,), LOGITS, EMBEDDING = Images.ports, "logits", "embedding"
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
_CHANNELS = (1, 3, 4)
_OURS, _GIVEN = "edgestill_", "given_"
_MOST_BYTES = 2**31


class Graph(NamedTuple):
    model: Any  # onnx's ModelProto
    input: str
    shape: tuple[int | None, ...]  # of an image, None where it is not fixed
    output: str
    prefix: str = ""  # of its tensors, in addition to their names in the file


def read_graph(data: bytes, path: Path) -> Graph:
    """Parse a classifier of images.

    Raises:
        CheckpointError: it is damaged, keeps weights elsewhere, or is no classifier of images.
    """
    import onnx

    if len(data) > _MOST_BYTES:
        raise CheckpointError(f"{path} has {len(data):,} bytes; at most {_MOST_BYTES:,} are read")
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's
        raise CheckpointError(f"{path} is no ONNX file: {first_line(error)[:200]}") from None
    graph = model.graph
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer):
        raise CheckpointError(f"{path} keeps its weights in other files; save it as one file")
    foreign = sorted({node.domain for node in graph.node} - set(_DOMAINS))
    if foreign or model.functions:
        raise CheckpointError(f"{path} uses operators of {', '.join(foreign) or 'its own functions'}, not ONNX's own")
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [one for one in graph.input if one.name not in weights]
    if len(inputs) != 1 or not graph.output:
        raise CheckpointError(f"{path} has {len(inputs)} inputs; a teacher takes one, images [batch, C, H, W]")
    kind = inputs[0].type.tensor_type
    sides = tuple(side.dim_value or None for side in kind.shape.dim)
    if len(sides) != 4 or kind.elem_type != onnx.TensorProto.FLOAT:
        found = f"{_type_name(kind)} [{', '.join('?' if side is None else str(side) for side in sides)}]"
        raise CheckpointError(f"{path} takes {found}, not float32 images [batch, C, H, W]; export it so")
    if sides[3] in _CHANNELS and sides[1] not in _CHANNELS:
        raise CheckpointError(f"{path} takes images [batch, H, W, C]; export it with channels first, [batch, C, H, W]")
    return Graph(model, inputs[0].name, sides[1:], _answers(graph, path))


def _answers(graph: Any, path: Path) -> str:
    """Name the output with the logits: the first of floats [batch, classes], or else of floats.

    Raises:
        CheckpointError: none is of floats.
    """
    floats = [one for one in graph.output if _type_name(one.type.tensor_type) in ("float", "undefined")]
    flat = [one for one in floats if len(one.type.tensor_type.shape.dim) == 2]
    if not floats:
        found = ", ".join(f"{one.name} of {_type_name(one.type.tensor_type)}" for one in graph.output)
        raise CheckpointError(
            f"{path} answers with {found}, and logits in float32 are needed; export it without argmax"
        )
    name: str = (flat or floats)[0].name
    return name


def _type_name(kind: Any) -> str:
    import onnx

    name: str = onnx.TensorProto.DataType.Name(kind.elem_type)
    return name.lower()


def joined(
    given: Graph, pixels: Pixels, shape: Sequence[int], *, log: bool, order: Sequence[int] | None, embedding: str | None
) -> bytes:
    """Put pixels before the graph, and after it the logarithm of probabilities and the data's order of classes.

    Args:
        shape: C, H, W of the data.
        embedding: name of a node or of a tensor; a second output gives it.

    Raises:
        CheckpointError: there is no such node.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    given = _renamed(given)
    model = onnx.ModelProto()
    model.CopyFrom(given.model)
    graph, steps = model.graph, _Steps(numpy_helper, helper)
    seen = steps.before(pixels, INPUT)
    first = [*steps.nodes, helper.make_node("Identity", [seen], [given.input])]
    steps.nodes = []
    found = given.output
    if log:
        found = steps.add("Log", steps.add("Max", found, steps.constant(np.float32(1e-38))))
    if order is not None:
        found = steps.add("Gather", found, steps.constant(np.array(order, np.int64)), axis=1)
    last = [*steps.nodes, helper.make_node("Identity", [found], [LOGITS])]
    outputs = [helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["batch", None])]
    if embedding is not None:
        tensor = _tensor_of(graph, embedding, given.prefix)
        last.append(helper.make_node("Flatten", [tensor], [EMBEDDING], axis=1))
        outputs.append(helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, ["batch", None]))
    nodes = [*first, *graph.node, *last]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(steps.constants)
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", *shape]))
    graph.output.extend(outputs)
    data: bytes = model.SerializeToString()
    return data


def _renamed(given: Graph) -> Graph:
    """Return the graph with other names for its tensors if one of them has a name of ours."""
    import onnx.compose

    graph = given.model.graph
    names = {name for node in graph.node for name in (*node.input, *node.output)} | {given.input, given.output}
    if not names & {INPUT, LOGITS, EMBEDDING}:
        return given
    model = onnx.compose.add_prefix(given.model, _GIVEN, rename_nodes=False)
    return Graph(model, _GIVEN + given.input, given.shape, _GIVEN + given.output, _GIVEN)


def for_export(data: bytes) -> bytes:
    """Return the joined graph with logits as its only output."""
    import onnx

    model = onnx.load_model_from_string(data)
    for node in [node for node in model.graph.node if EMBEDDING in node.output]:
        model.graph.node.remove(node)
    for output in [output for output in model.graph.output if output.name == EMBEDDING]:
        model.graph.output.remove(output)
    stripped: bytes = model.SerializeToString()
    return stripped


def count_graph(data: bytes) -> tuple[int, int]:
    """Count weights, and multiply-accumulates of one image in convolutions and matrix products."""
    import onnx

    model = onnx.load_model_from_string(data)
    for one in model.graph.input:
        one.type.tensor_type.shape.dim[0].dim_value = 1
    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # a graph whose shapes are not known counts its weights alone
        inferred = model.graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in inferred.value_info}
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    held = [dims for name, dims in weights.items() if not name.startswith(_OURS) and dims]
    macs = sum(_macs(node, shapes | weights) for node in model.graph.node if not node.name.startswith(_OURS))
    return sum(math.prod(dims) for dims in held), macs


def _macs(node: Any, shapes: dict[str, list[int]]) -> int:
    made = math.prod(shapes.get(node.output[0], [0]))
    if node.op_type == "Conv":
        return made * math.prod(shapes.get(node.input[1], [0, 0])[1:])
    if node.op_type in ("MatMul", "Gemm"):
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return made * shapes.get(node.input[0], [0])[0 if transposed else -1]
    return 0


def _tensor_of(graph: Any, name: str, prefix: str) -> str:
    """Return the name of the tensor that a node of this name makes, or of the tensor itself, before its prefix."""
    for node in graph.node:
        if node.name == name:
            return str(node.output[0])
    if any(prefix + name in node.output for node in graph.node):
        return prefix + name
    known = [node.name or node.output[0] for node in graph.node][-6:]
    raise CheckpointError(f"teacher.embedding: the file has no node {name!r}; its last are {', '.join(known)}")


class _Steps:
    """Nodes and constants that are added to a graph, under names of our own."""

    def __init__(self, numpy_helper: Any, helper: Any) -> None:
        self._numpy, self._helper = numpy_helper, helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: np.ndarray | np.float32) -> str:
        name = f"{_OURS}constant_{len(self.constants)}"
        self.constants.append(self._numpy.from_array(np.asarray(value), name))
        return name

    def add(self, kind: str, *given: str, **attributes: Any) -> str:
        name = f"{_OURS}{kind.lower()}_{len(self.nodes)}_{len(self.constants)}"
        self.nodes.append(self._helper.make_node(kind, list(given), [name], name=name, **attributes))
        return name

    def before(self, pixels: Pixels, images: str) -> str:
        if pixels.greys is not None:
            shares = np.array(pixels.greys, np.float32).reshape(1, -1, 1, 1)
            images = self.add("Conv", images, self.constant(shares))
        for name, buffer in pixels.named_buffers(recurse=False):
            weights = self.constant((buffer if name == "rows" else buffer.T).contiguous().numpy())
            images = self.add("MatMul", *((weights, images) if name == "rows" else (images, weights)))
        if pixels.repeats:
            images = self.add("Concat", *[images] * 3, axis=1)
        if isinstance(pixels.normalize, Normalize):
            mean, std = (self.constant(_numbers(pixels.normalize, name)) for name in ("mean", "std"))
            images = self.add("Div", self.add("Sub", images, mean), std)
        return images


def _numbers(module: nn.Module, name: str) -> np.ndarray:
    tensor: Tensor = module.get_buffer(name)
    found: np.ndarray = tensor[None].numpy()
    return found
