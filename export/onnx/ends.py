"""The inputs and outputs that a file must have."""

from collections.abc import Mapping
from typing import NamedTuple


class Ends(NamedTuple):
    """Inputs and outputs of a file by name: ONNX's name of the dtype, and the sides after the batch."""

    inputs: Mapping[str, tuple[str, tuple[int, ...]]]
    outputs: Mapping[str, tuple[str, tuple[int, ...]]]
    any_size: tuple[int, ...] = ()  # places after the batch at which the inputs must be open; given is a usual size
