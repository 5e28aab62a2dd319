"""A network to one checked ONNX file with a dynamic batch."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from export.sessions import INPUT, OUTPUT, TOKENS
from pipeline.errors import ExportError


def to_onnx(network: nn.Module, input_shape: tuple[int, ...], opset: int, vocab_size: int | None = None) -> bytes:
    """The network in evaluation mode as ONNX fp32: `images` [batch, C, H, W] to `logits` [batch, K].

    With a vocabulary, `tokens` [batch, T] int64 go in.

    Raises:
        ExportError: an operator has no ONNX form, the checker refuses the graph, or it holds training-mode nodes.
    """
    import onnx

    network = network.cpu().eval()
    example = torch.rand(2, *input_shape)
    if vocab_size is not None:
        example = (example * vocab_size).long()
    batch = torch.export.Dim("batch")
    try:
        with warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (example,),
                input_names=[INPUT if vocab_size is None else TOKENS],
                output_names=[OUTPUT],
                opset_version=opset,
                dynamo=True,
                dynamic_shapes=({0: batch},),
                external_data=False,
                verbose=False,
            )
            assert program is not None
            model = _stripped(program.model_proto)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ExportError(f"the network has no ONNX form: {(str(error).splitlines() or [''])[0]}") from error
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"onnx.checker refuses the exported graph: {str(error).splitlines()[0]}") from error
    training = [node.name for node in model.graph.node if _in_training_mode(node)]
    if training:
        raise ExportError(f"the exported graph holds nodes in training mode: {', '.join(training[:3])}")
    data: bytes = model.SerializeToString()
    return data


def _stripped(model: Any) -> Any:
    """Without the exporter's notes: a fifth of a small file, and stack traces that name this machine's folders."""
    del model.metadata_props[:]
    model.doc_string = ""
    graph = model.graph
    for holder in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del holder.metadata_props[:]
        holder.doc_string = ""
    return model


def _in_training_mode(node: Any) -> bool:
    return node.op_type == "Dropout" or any(a.name == "training_mode" and a.i for a in node.attribute)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints and logs its progress; ours is the only voice."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
