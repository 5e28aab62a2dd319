"""Exports a network to one checked ONNX file with a dynamic batch."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from edgestill.export.onnx.sessions import OUTPUT
from edgestill.export.onnx.translations import kept_translations
from edgestill.pipeline.errors import ExportError, first_line
from edgestill.pipeline.input_kind import InputKind
from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.input_kind.lm import PAST, PRESENT
from edgestill.pipeline.networks.attention import Cache
from edgestill.pipeline.networks.causal_transformer import CausalTransformer
from edgestill.pipeline.randomness import drawn_from


def to_onnx(network: nn.Module, inputs: InputKind, opset: int) -> bytes:
    """Export the network in evaluation mode as ONNX fp32: the inputs' ports to `logits` [batch, K].

    Images are [batch, C, H, W]. Of texts, `input_ids` and `attention_mask` are [batch, length], and `length` may differ
    from call to call; a token where the mask is 0 is padding, whatever its id.

    Raises:
        ExportError: an operator has no ONNX form, the checker refuses the graph, or it holds training-mode nodes.
    """
    import onnx

    own = getattr(network, "onnx_bytes", None)  # of a teacher that torch does not run
    if own is not None:
        return bytes(own)
    network = network.cpu().eval()
    _require_evaluation_mode(network)
    network, example, dynamic = signature(network, inputs)
    has_cache = len(example) > len(inputs.ports)
    try:
        with warnings.catch_warnings(), _quiet(), kept_translations(), drawn_from(0):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                example,
                input_names=[*inputs.ports, PAST] if has_cache else list(inputs.ports),
                output_names=[OUTPUT, PRESENT] if has_cache else [OUTPUT],
                opset_version=opset,
                dynamo=True,
                dynamic_shapes=dynamic,
                external_data=False,
                verbose=False,
            )
            assert program is not None
            model = _stripped(program.model_proto)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ExportError(f"the network has no ONNX form: {first_line(error)}") from error
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"onnx.checker refuses the exported graph: {str(error).splitlines()[0]}") from error
    training = [node.name for node in model.graph.node if _in_training_mode(node)]
    if training:
        raise ExportError(f"the exported graph holds nodes in training mode: {', '.join(training[:3])}")
    data: bytes = model.SerializeToString()
    return data


def _require_evaluation_mode(network: nn.Module) -> None:
    """Refuse modules still in training mode: one with its own `train` may ignore `eval`."""
    training = [name or type(module).__name__ for name, module in network.named_modules() if module.training]
    if training:
        raise ExportError(
            f"modules stay in training mode after eval(), and would answer otherwise on a device: "
            f"{', '.join(training[:3])}; let their train() pass on the mode"
        )


Signature = tuple[nn.Module, tuple[Tensor, ...], tuple[dict[int, Any], ...]]


def signature(network: nn.Module, inputs: InputKind) -> Signature:
    """Return the network that takes the inputs' ports, an example of each, and their dynamic sides."""
    return _SIGNATURES[inputs.name](network, inputs, torch.export.Dim("batch"))


def _of_images(network: nn.Module, inputs: InputKind, batch: Any) -> Signature:
    example = torch.rand(2, *inputs.shape, generator=torch.Generator().manual_seed(0))
    return network, (example,), ({0: batch},)


def _of_texts(network: nn.Module, inputs: InputKind, batch: Any) -> Signature:
    longest = max(2, inputs.length)
    sides = {0: batch, 1: torch.export.Dim("length", max=longest)}
    # torch.export would take a side of 1 for a constant, and one tensor given twice for one input.
    ids, mask = (torch.ones(2, longest, dtype=torch.int64) for _ in range(2))
    return _Masked(network).eval(), (ids, mask), (sides, sides)


def _of_prompts(network: nn.Module, inputs: InputKind, batch: Any) -> Signature:
    """Signature with a cache, for networks that have one; others run a whole text for each token."""
    shape = getattr(network, "cache_shape", None)
    if shape is None:
        return _of_texts(network, inputs, batch)
    _, (ids, mask), sides = _of_texts(network, inputs, batch)
    layers, heads, width = shape
    past = torch.zeros(len(ids), layers, 2, heads, 3, width)
    steps = {0: batch, 4: torch.export.Dim("past_length", min=0)}
    return _Continued(network).eval(), (ids, mask, past), (*sides, steps)


_SIGNATURES = {"image": _of_images, "text": _of_texts, "lm": _of_prompts}  # by kind of input


class _Masked(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits: Tensor = self.network(torch.where(attention_mask != 0, input_ids, PADDING))
        return logits


class _Continued(nn.Module):
    """A decoder with its cache: ids, their mask and the past to the next token's logits, and the past of a next call.

    A past has no padding: texts of unlike lengths go on one by one.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Tensor, attention_mask: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        cache, decoder = Cache(past), cast(CausalTransformer, self.network)
        states = decoder.states(torch.where(attention_mask != 0, input_ids, PADDING), cache)
        return decoder.forward_head(states), cache.present()


def _stripped(model: Any) -> Any:
    """Remove the exporter's notes: a fifth of a small file, with stack traces that name this machine's folders."""
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
    """Silence the exporter's prints and logs of its progress."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
