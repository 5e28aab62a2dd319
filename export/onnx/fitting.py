"""Resize, crop and borders as ONNX operators: the rule of `pipeline/data/pixels.py` inside a file.

ONNX's own Resize is not used: OpenVINO ignores its `antialias`, and ONNX Runtime was up to 13 levels of 255 away from
Pillow. Here the weights are computed from the picture's size, in whole numbers of 22 bits as Pillow's. Two products of
floats apply their upper and lower halves: sums of whole numbers below 2^24, hence exact, in every runtime. Where a side
shrinks to less than a sixteenth, lower halves are rounded.
"""

# B batch, C channels, H W height and width of the picture

from collections.abc import Callable
from typing import Any

import numpy as np

from edgestill.pipeline.data.pixels import fitted
from edgestill.pipeline.errors import ExportError

_HALF = 1 << 11  # of the weights' 22 bits
_TRIED = ((1, 1), (40, 30), (37, 90), (150, 41), (64, 64))  # heights and widths


class Fitting:
    """Operators from a picture, uint8 [B, H, W, C], to whole floats [B, C, height, width] of 0 to 255."""

    def __init__(self, height: int, width: int, resize: str, picture: str) -> None:
        """Make the operators.

        Args:
            picture: name of the graph's input.
        """
        self.picture = picture
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        self._resize = resize
        old = [self._size(axis) for axis in (1, 2)]
        inner = self._inner(old, (height, width))
        narrow = self._along(
            self._float(self._add("Transpose", picture, perm=[0, 3, 1, 2])), old[1], inner[1], width, 0
        )
        self.output = self._along(narrow, old[0], inner[0], height, 1)

    def _size(self, axis: int) -> str:
        return self._add("Squeeze", self._add("Shape", self.picture, start=axis, end=axis + 1))

    def _inner(self, old: list[str], sides: tuple[int, int]) -> list[str]:
        """Return the sides that the picture is resized to, as `pixels.inner_size` computes them."""
        whole = [self._whole(side) for side in sides]
        if self._resize == "stretch":
            return whole
        found = []
        for axis, other in ((0, 1), (1, 0)):
            share = self._add("Mul", self._whole(2 * sides[other]), old[axis])
            share = self._add("Div", self._add("Add", share, old[other]), self._add("Mul", self._whole(2), old[other]))
            covering = self._add("Max" if self._resize == "crop" else "Min", whole[axis], share)
            found.append(self._add("Max", self._whole(1), covering))
        return found

    def _along(self, pixels: str, old: str, inner: str, side: int, old_axis: int) -> str:
        """Resize [B, C, H, W] along W if `old_axis` is 0, else along H.

        Args:
            old_axis: axis of the old places in the weights.
        """
        sums = [
            self._add("MatMul", *((pixels, half) if old_axis == 0 else (half, pixels)))
            for half in self._weights(old, inner, side, old_axis)
        ]
        carried = self._add("Add", sums[1], self._tensor(np.float32(_HALF * _HALF // 2)))
        total = self._add("Add", sums[0], self._shifted(carried))
        return self._shifted(total)

    def _weights(self, old: str, inner: str, side: int, old_axis: int) -> tuple[str, str]:
        """Return upper and lower halves of each old pixel's weight in each new one, as `pixels._weights` has them."""
        places = self._tensor(np.expand_dims(np.arange(side), old_axis))
        places = self._add("Add", places, self._first(inner, side))
        pixels = self._add("Range", self._whole(0), old, self._whole(1))
        if old_axis == 0:
            pixels = self._add("Unsqueeze", pixels, self._tensor(np.array([1])))
        far = self._add("Sub", self._add("Mul", self._odd(pixels), inner), self._add("Mul", self._odd(places), old))
        reach = self._add("Mul", self._whole(2), self._add("Max", old, inner))
        near = self._add("Max", self._add("Sub", reach, self._add("Abs", far)), self._whole(0))
        if self._resize == "pad":
            near = self._add("Where", self._is_within(places, inner), near, self._whole(0))
        total = self._add("ReduceSum", near, self._tensor(np.array([old_axis])), keepdims=1)
        total = self._add("Max", total, self._whole(1))
        large = self._add("Mul", near, self._whole(_HALF))
        upper = self._add("Div", large, total)
        rest = self._add("Sub", large, self._add("Mul", upper, total))
        rest = self._add("Add", self._add("Mul", rest, self._whole(2 * _HALF)), total)
        lower = self._add("Div", rest, self._add("Mul", self._whole(2), total))
        return self._float(upper), self._float(lower)

    def _is_within(self, places: str, inner: str) -> str:
        return self._add("And", self._add("GreaterOrEqual", places, self._whole(0)), self._add("Less", places, inner))

    def _first(self, inner: str, side: int) -> str:
        """Return the place in the resized picture that the first pixel of the result has; below 0 in a border."""
        if self._resize == "pad":
            return self._add("Neg", self._half(self._add("Sub", self._whole(side), inner)))
        return self._half(self._add("Sub", inner, self._whole(side)))

    def _half(self, name: str) -> str:
        return self._add("Div", name, self._whole(2))

    def _odd(self, name: str) -> str:
        return self._add("Add", self._add("Mul", self._whole(2), name), self._whole(1))

    def _shifted(self, name: str) -> str:
        """Divide floats by 2^11, rounded down."""
        return self._add("Floor", self._add("Div", name, self._tensor(np.float32(_HALF))))

    def _float(self, name: str) -> str:
        return self._add("Cast", name, to=1)

    def _whole(self, value: int) -> str:
        return self._tensor(np.int64(value))

    def _tensor(self, value: Any) -> str:
        from onnx import numpy_helper

        name = f"fitting_constant_{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _add(self, operator: str, *given: str, **attributes: Any) -> str:
        from onnx import helper

        name = f"fitting_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(given), [name], **attributes))
        return name


def check_fitting(
    fitting: Fitting, sides: tuple[int, int, int], resize: str, opset: int, open_session: Callable[[bytes], Any]
) -> None:
    """Compare the operators with the rule on pictures of several sizes.

    Args:
        sides: height, width and channels of the result.
        open_session: makes a runtime's session of a model.

    Raises:
        ExportError: a value differs.
    """
    from onnx import TensorProto, helper

    height, width, channels = sides
    given = helper.make_tensor_value_info(fitting.picture, TensorProto.UINT8, ["batch", "height", "width", channels])
    answer = helper.make_tensor_value_info(fitting.output, TensorProto.FLOAT, None)
    graph = helper.make_graph(fitting.nodes, "fitting", [given], [answer], fitting.tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    session, rng = open_session(model.SerializeToString()), np.random.default_rng(0)
    for size in (*_TRIED, (height, width)):
        picture = rng.integers(0, 256, (*size, channels), np.uint8)
        (found,) = session.run(None, {fitting.picture: picture[None]})
        expected = fitted(picture, channels, height, width, resize).astype(np.float32)
        off = np.abs(found[0].transpose(1, 2, 0) - expected)
        if off.any():
            raise ExportError(
                f"the file resizes a picture of {size[1]}x{size[0]} otherwise than training did: "
                f"{np.count_nonzero(off) / off.size:.1%} of the values are off, by up to {off.max():.3g} of 255"
            )
