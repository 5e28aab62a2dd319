"""Pre- and post-processing inside the file: an 8-bit image in, probabilities out.

`raw` takes float32 [B, C, H, W] in [0, 1] (or token ids) and gives logits. `image` takes uint8 [B, H, W, C], as a
camera or a decoder has it, and gives probabilities, with the logits beside them. Where the task says how pictures are
resized, H and W are any, and the file resizes them. The surgery is on the ONNX file, so it serves every precision; the
operators between stay as they were.
"""

# B batch, C channels, H W height and width, K classes

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgestill.export.onnx.ends import Ends
from edgestill.export.onnx.fitting import Fitting, check_fitting
from edgestill.export.onnx.sessions import IMAGE, INPUT, OUTPUT, PROBABILITIES, Interface, open_session, to_pixels
from edgestill.pipeline.errors import ExportError
from edgestill.pipeline.task import Task

_ELEMENTS = {"float32": "FLOAT", "int64": "INT64"}  # ONNX's names
_WHITE = "image_white"  # a constant of the file
Part = tuple[list[Any], list[Any]]  # operators, and the constants that they take
MAX_DIFFERENCE = 1e-5  # between the two files' logits, relative to the largest; they compute the same


def with_interface(data: bytes, interface: Interface, examples: np.ndarray, resize: str | None = None) -> bytes:
    """Return the ONNX model with the given interface, after comparing both models on examples.

    Args:
        resize: rule by which the file with the interface `image` resizes pictures; None: it takes one size.

    Raises:
        ExportError: the model cannot have the interface, or would not compute the same with it.
    """
    if interface == "raw":
        return data
    wrapped = with_image_interface(data, resize)
    check_image_interface(data, wrapped, examples)
    return wrapped


def with_image_interface(data: bytes, resize: str | None = None) -> bytes:
    """Change an ONNX model to take `image` uint8 [B, H, W, C] and give `probabilities` and `logits`, float32 [B, K].

    Args:
        resize: rule for pictures of any H and W; None: they have the model's size.

    Raises:
        ExportError: the model does not take `images` [B, C, H, W] and give `logits`, or would resize otherwise.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load_model_from_string(data)
    graph = model.graph
    if [value.name for value in graph.input] != [INPUT] or [value.name for value in graph.output] != [OUTPUT]:
        names = ", ".join(value.name for value in (*graph.input, *graph.output))
        raise ExportError(f"interface image needs a file from `{INPUT}` to `{OUTPUT}`; this one has {names}")
    sides = graph.input[0].type.tensor_type.shape.dim
    batch, channels, height, width = (side.dim_param or side.dim_value for side in sides)
    before, tensors = _bytes_to_floats()
    if resize is not None:
        opset = next(opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx"))
        before, tensors = _picture_to_floats((height, width, channels), resize, opset)
        height, width = "height", "width"
    nodes = [*before, *graph.node, helper.make_node("Softmax", [OUTPUT], [PROBABILITIES], axis=1)]
    given = helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, [batch, height, width, channels])
    answer = helper.make_tensor_value_info(
        PROBABILITIES, TensorProto.FLOAT, [side.dim_param or side.dim_value for side in _sides(graph.output[0])]
    )
    outputs, weights = [answer, graph.output[0]], [*graph.initializer, *tensors]
    wrapped = helper.make_graph(nodes, graph.name, [given], outputs, weights, value_info=graph.value_info)
    result = helper.make_model(wrapped, opset_imports=model.opset_import, ir_version=model.ir_version)
    result.producer_name, result.producer_version = model.producer_name, model.producer_version
    try:
        onnx.checker.check_model(result, full_check=True)
    except Exception as error:  # the error types of checker and inference share no base class
        raise ExportError(f"onnx.checker refuses the file with its interface: {str(error).splitlines()[0]}") from error
    return bytes(result.SerializeToString())


def preprocessing(task: Task, opset: int) -> bytes:
    """Return an ONNX model of the operators alone from `image`, as the interface has it, to the task's `images`.

    Raises:
        ExportError: they would resize otherwise than training did.
    """
    from onnx import TensorProto, helper

    channels, *sides = task.input_shape
    shape: list[Any] = ["batch", *sides, channels]
    before, tensors = _bytes_to_floats()
    if task.resize is not None:
        before, tensors = _picture_to_floats((sides[0], sides[1], channels), task.resize, opset)
        shape = ["batch", "height", "width", channels]
    given = helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, shape)
    images = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", channels, *sides])
    graph = helper.make_graph(before, "preprocessing", [given], [images], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return bytes(model.SerializeToString())


def _bytes_to_floats() -> Part:
    """Return the operators from pixels of the model's size to its input."""
    from onnx import TensorProto, helper

    cast = helper.make_node("Cast", [IMAGE], ["image_float"], to=TensorProto.FLOAT)
    scaled = helper.make_node("Div", ["image_float", _WHITE], ["image_unit"])
    return [cast, scaled, helper.make_node("Transpose", ["image_unit"], [INPUT], perm=[0, 3, 1, 2])], [_white()]


def _picture_to_floats(sides: tuple[int, int, int], resize: str, opset: int) -> Part:
    """Return the operators from a picture of any size to the model's input, after comparing them with the rule."""
    from onnx import helper

    height, width, _ = sides
    fitting = Fitting(height, width, resize, IMAGE)
    check_fitting(fitting, sides, resize, opset, open_session)
    scaled = helper.make_node("Div", [fitting.output, _WHITE], [INPUT])
    return [*fitting.nodes, scaled], [*fitting.tensors, _white()]


def _white() -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array(255, np.float32), _WHITE)


def check_image_interface(raw: bytes, wrapped: bytes, examples: np.ndarray) -> float:
    """Compare the two files on examples rounded to bytes, on black and on white; return the largest logit difference.

    Args:
        examples: [N, C, H, W] float32 in [0, 1].

    Raises:
        ExportError: a logit differs, or the probabilities are not the softmax of the logits.
    """
    without, with_it = open_session(raw), open_session(wrapped)
    return compare_interfaces(
        lambda images: without.run([OUTPUT], {INPUT: images})[0],
        lambda pixels: with_it.run([OUTPUT, PROBABILITIES], {IMAGE: pixels}),
        examples,
    )


def compare_interfaces(
    raw: Callable[[np.ndarray], np.ndarray],
    wrapped: Callable[[np.ndarray], Sequence[np.ndarray]],
    examples: np.ndarray,
) -> float:
    """Compare files as `check_image_interface` does, in any runtime.

    Args:
        raw: images [N, C, H, W] in [0, 1] to logits.
        wrapped: pixels, uint8 [N, H, W, C], to logits and probabilities.
    """
    pixels = to_pixels(np.concatenate([examples, np.zeros_like(examples[:1]), np.ones_like(examples[:1])]))
    unit = np.ascontiguousarray((pixels / np.float32(255)).transpose(0, 3, 1, 2))
    expected, (logits, probabilities) = raw(unit), wrapped(pixels)
    difference = float(np.abs(logits - expected).max())
    powers = np.exp(expected - expected.max(1, keepdims=True))
    spread = float(np.abs(probabilities - powers / powers.sum(1, keepdims=True)).max())
    allowed = MAX_DIFFERENCE * max(1.0, float(np.abs(expected).max()))
    if not (difference <= allowed and spread <= max(MAX_DIFFERENCE, allowed)):  # NaN is refused too
        raise ExportError(
            f"the file with the interface `image` differs from the one without it: logits differ by up to "
            f"{difference:.2g}, probabilities by {spread:.2g} (allowed {allowed:.2g})"
        )
    return difference


def describe_input(task: Task, interface: Interface = "raw") -> dict[str, Any]:
    """Describe the file's inputs for `bundle.json`."""
    if not _takes_bytes(task, interface):
        return task.inputs.description()
    channels, height, width = task.input_shape
    told = {"name": IMAGE, "dtype": "uint8", "shape": ["batch", height, width, channels], "range": [0, 255]}
    if task.resize is None:
        return told
    return told | {"shape": ["batch", "height", "width", channels], "resize": task.resize, "size": [height, width]}


def describe_output(task: Task, interface: Interface = "raw") -> dict[str, Any]:
    """Describe the file's output for `bundle.json`."""
    name = PROBABILITIES if interface == "image" else OUTPUT
    return {"name": name, "dtype": "float32", "shape": ["batch", task.num_classes]}


def ends_of(task: Task, interface: Interface = "raw") -> Ends:
    """Return the inputs and outputs of the task's ONNX files."""
    logits = {OUTPUT: ("FLOAT", (task.num_classes,))}
    if not _takes_bytes(task, interface):
        kind = task.inputs
        given, more = (
            {name: (_ELEMENTS[dtype], sides) for name, (dtype, sides) in ports.items()}
            for ports in (kind.inputs_of_file(), kind.outputs_of_file())
        )
        return Ends(given, logits | more)
    channels, height, width = task.input_shape
    any_size = () if task.resize is None else (0, 1)
    return Ends({IMAGE: ("UINT8", (height, width, channels))}, logits | {PROBABILITIES: logits[OUTPUT]}, any_size)


def _takes_bytes(task: Task, interface: Interface) -> bool:
    return interface == "image" and interface in task.inputs.interfaces


def _sides(value: Any) -> Any:
    return value.type.tensor_type.shape.dim
