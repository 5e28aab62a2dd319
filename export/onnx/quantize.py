"""Quantises an fp32 ONNX file with ONNX Runtime's own quantiser: QDQ nodes, 8-bit weights and activations."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgestill.export.onnx.bias import corrected
from edgestill.export.onnx.sessions import feed
from edgestill.export.quiet import quiet
from edgestill.pipeline.errors import ExportError, first_line

METHODS = ("minmax", "entropy", "percentile")
_BATCH = 32  # the histograms keep every activation of a batch

# Quantised sums and pools pay where they keep integers from one convolution to the next (ResNets 2.3 instead of 2.1
# times fp32's speed). Elsewhere the conversions around each cost more than it saves (NAS-Bench-201 cells 0.24 instead
# of 0.87).
_PRODUCTS = ("Conv", "Gemm", "MatMul")
_CHAINS = ("Add", "Relu", "Clip", "MaxPool", "GlobalAveragePool", "Concat", "Flatten", "Reshape", "Transpose", "Pad")
_FOLLOWERS = {"Relu", "Clip", "MaxPool", "Flatten", "Reshape", "Transpose"}  # quantised where their input is
_NO_CHAINS = {"AveragePool", "Softmax", "LayerNormalization"}
_TABLES = ("Gather",)  # a vocabulary's embedding is most of a small text student


class Scheme(NamedTuple):
    """Quantisation for a target's integer kernels; weights are always symmetric QInt8, with a scale per channel."""

    signed_activations: bool
    options: dict[str, Any]


FOR_CPU = Scheme(signed_activations=False, options={"ActivationSymmetric": False, "CalibTensorRangeSymmetric": False})
FOR_TENSORRT = Scheme(
    signed_activations=True,
    options={
        "ActivationSymmetric": True,
        "CalibTensorRangeSymmetric": True,
        "QuantizeBias": False,
        "AddQDQPairToWeight": True,
    },
)


class Calibration(NamedTuple):
    """Examples, and the way to find the ranges of activations on them."""

    examples: np.ndarray  # [N, *input_shape]
    method: str  # of METHODS
    percentile: float  # share of the values inside a range, in percent; for the method `percentile` alone


def quantize(
    source: Path,
    examples: np.ndarray,
    method: str,
    percentile: float,
    scheme: Scheme,
    weight_bits: int = 7,
    correct_s: float = 0,
) -> bytes:
    """Return the file with 8-bit weights and activations.

    Args:
        examples, method, percentile: as in `Calibration`.
        weight_bits: 7 keeps weights within ±64, so that no processor saturates (`saturation.py`); 8 within ±127.
        correct_s: seconds to correct its biases in (`bias.py`); 0: they are not corrected.

    Raises:
        ExportError: the quantiser refuses the graph, or found nothing in it to quantise.
    """
    with quantizer(source, Calibration(examples, method, percentile), scheme, weight_bits, correct_s) as made:
        return made.whole()


@contextlib.contextmanager
def quantizer(
    source: Path, calibration: Calibration, scheme: Scheme, weight_bits: int = 7, correct_s: float = 0
) -> Iterator["Quantizer"]:
    """Prepare a file to be quantised, whole or in part.

    Args:
        weight_bits, correct_s: as for `quantize`.

    Raises:
        ExportError: the quantiser refuses the graph.
    """
    with tempfile.TemporaryDirectory() as folder:
        yield Quantizer(source, calibration, scheme, weight_bits, correct_s, Path(folder))


class Quantizer:
    """One file, to be quantised whole or in part; for parts, the ranges are found once."""

    def __init__(
        self,
        source: Path,
        calibration: Calibration,
        scheme: Scheme,
        weight_bits: int,
        correct_s: float,
        folder: Path,
    ) -> None:
        from onnxruntime import quantization as ort

        self._calibration, self._scheme, self._bits = calibration, scheme, weight_bits
        self._correct_s = correct_s
        self._prepared, self._target = folder / "prepared.onnx", folder / "quantized.onnx"
        self._ranges = folder / "ranges.json"
        with _refusals():  # the exporter wrote shapes
            ort.quant_pre_process(str(source), str(self._prepared), skip_symbolic_shape=True)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the operators that may be quantised of themselves, in the graph's order."""
        import onnx

        kinds = {*_op_types(self._prepared)} - _FOLLOWERS
        return tuple(n.name for n in onnx.load(self._prepared).graph.node if n.op_type in kinds and n.name)

    def whole(self) -> bytes:
        """Return the file with all of its layers quantised.

        Raises:
            ExportError: the quantiser refuses the graph, or found nothing in it to quantise.
        """
        return self._corrected(self._quantized({}))

    def part(self, *, only: Sequence[str] = (), without: Sequence[str] = ()) -> bytes:
        """Return the file with some layers quantised: those of `only`, if it names any, less those of `without`.

        Biases of a file of `only` are not corrected: it is made to see the damage that these layers do.

        Raises:
            ExportError: as for `whole`.
        """
        chosen = {"nodes_to_quantize": list(only), "nodes_to_exclude": list(without)}
        made = self._quantized({**chosen, "calibration_cache_path": self._ranges})
        return made if only else self._corrected(made)

    def _corrected(self, made: bytes) -> bytes:
        if not self._correct_s:
            return made
        return corrected(made, self._prepared.read_bytes(), self._calibration.examples, self._correct_s)[0]

    def _quantized(self, chosen: dict[str, Any]) -> bytes:
        from onnxruntime import quantization as ort

        kinds = {
            "minmax": ort.CalibrationMethod.MinMax,
            "entropy": ort.CalibrationMethod.Entropy,
            "percentile": ort.CalibrationMethod.Percentile,
        }
        examples, method, percentile = self._calibration
        with _refusals():
            ort.quantize_static(
                self._prepared,
                self._target,
                _Examples(examples),
                op_types_to_quantize=_op_types(self._prepared),
                per_channel=True,
                activation_type=ort.QuantType.QInt8 if self._scheme.signed_activations else ort.QuantType.QUInt8,
                weight_type=ort.QuantType.QInt8,
                reduce_range=self._bits == 7,
                calibrate_method=kinds[method],
                extra_options={
                    "WeightSymmetric": True,
                    "MatMulConstBOnly": True,  # the products inside attention stay in float
                    "CalibStridedMinMax": 1,  # batch by batch, whatever the method
                    "CalibPercentile": percentile,
                    **self._scheme.options,
                },
                **chosen,
            )
        return _finished(self._target)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Silence the quantiser, and raise its errors as an ExportError; their types share no base class."""
    try:
        with quiet():
            yield
    except Exception as error:
        raise ExportError(f"the quantiser refuses the network: {first_line(error)}") from error


class _Examples:
    """Calibration data reader for ONNX Runtime; it looks at the methods, not at the class."""

    def __init__(self, examples: np.ndarray) -> None:
        self._batches = [examples[start : start + _BATCH] for start in range(0, len(examples), _BATCH)]
        self._range = iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._range = iter(self._batches[start_index:end_index])

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._range, None)
        return None if batch is None else feed(batch)


def _op_types(path: Path) -> list[str]:
    import onnx

    present = {node.op_type for node in onnx.load(path).graph.node}
    chains = () if present & _NO_CHAINS else _CHAINS
    tables = _TABLES if "LayerNormalization" in present else ()
    return [*_PRODUCTS, *chains, *tables]


def _finished(path: Path) -> bytes:
    """Return the file's bytes without things no runtime needs: inferable shapes, metadata, unused operator sets."""
    import onnx

    model = onnx.load(path)
    if not any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        raise ExportError("the quantiser changed nothing: the network has no convolution or product with weights")
    used = {node.domain for node in model.graph.node} | {""}
    for imported in [imported for imported in model.opset_import if imported.domain not in used]:
        model.opset_import.remove(imported)
    del model.graph.value_info[:]
    del model.metadata_props[:]
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data
