"""A teacher from a local Hugging Face folder: a sequence classifier with its own tokenizer, read without the network.

The library `transformers` builds the encoder; weights come from model.safetensors alone. Which part of a model is its
encoder, its head and its last Linear differs by family, so the families are listed.
"""

# B batch, T tokens, D width, K classes

import contextlib
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from pipeline.errors import CheckpointError, MissingDependencyError, first_line
from pipeline.foreign import read_json_bounded
from pipeline.task import PADDING, Task

WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"


# Sizes of a network, by each family's names: what they are multiplied with in its weights.
_NARROW = ("vocab_size", "max_position_embeddings", "type_vocab_size")  # by the embedding's width
_WIDE = ("hidden_size", "dim", "embedding_size", "intermediate_size", "hidden_dim", "num_labels")  # by the width
_DEEP = ("num_hidden_layers", "n_layers")  # by its square


class _Family(NamedTuple):
    encoder: Callable[[Any], nn.Module]
    embed: Callable[[Any, Tensor], Tensor]  # (model, features [B, T, D]) to the embedding that the last Linear reads
    classifier: Callable[[Any], nn.Module]


_FAMILIES = {  # by the folder's model_type
    "bert": _Family(lambda m: m.bert, lambda m, features: m.bert.pooler(features), lambda m: m.classifier),
    "distilbert": _Family(
        lambda m: m.distilbert, lambda m, features: F.relu(m.pre_classifier(features[:, 0])), lambda m: m.classifier
    ),
    "electra": _Family(
        lambda m: m.electra,
        lambda m, features: F.gelu(m.classifier.dense(features[:, 0])),
        lambda m: m.classifier.out_proj,
    ),
}


# Eager: the library's fused attention has no ONNX form for every mask.
_PLAIN = {"attn_implementation": "eager", "dtype": torch.float32}


class HuggingFaceTeacher(nn.Module):
    """Token ids [B, T] to logits; the embedding is what the last Linear reads, without dropout."""

    def __init__(self, model: Any, family: _Family) -> None:
        super().__init__()
        self.model = model
        self.num_classes: int = model.config.num_labels
        self._family = family
        self.embedding_dim: int = int(family.classifier(model).get_parameter("weight").shape[1])

    def forward_features(self, inputs: Tensor) -> Tensor:
        encoder = self._family.encoder(self.model)
        features: Tensor = encoder(input_ids=inputs, attention_mask=(inputs != PADDING).long()).last_hidden_state
        return features

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        embedding = self._family.embed(self.model, features)
        return embedding if pre_logits else self.get_classifier()(embedding)

    def get_classifier(self) -> nn.Module:
        return self._family.classifier(self.model)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(inputs))


def build_from_folder(folder: Path, task: Task) -> HuggingFaceTeacher:
    """The folder's architecture with fresh weights.

    Raises:
        CheckpointError: no such folder, a family that is not known here, or another task than the data's.
        MissingDependencyError: `transformers` is not installed.
    """
    model_class, config, family = _prepared(folder, task)
    return HuggingFaceTeacher(model_class.from_config(config, **_PLAIN), family)


def load_from_folder(folder: Path, task: Task) -> HuggingFaceTeacher:
    """The folder's network with its weights.

    Raises:
        CheckpointError, MissingDependencyError: as `build_from_folder`; or weights that are missing or do not fit.
    """
    weights_file(folder)
    model_class, config, family = _prepared(folder, task)
    given = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True, **_PLAIN}
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            model, found = model_class.from_pretrained(folder, config=config, **given)
    except Exception as error:  # a damaged file leads the libraries into errors of any kind
        raise CheckpointError(f"{folder / WEIGHTS} does not fit: {first_line(error)}") from error
    lacking = sorted(found["missing_keys"])
    if lacking:  # which the library would draw at random
        raise CheckpointError(f"{folder / WEIGHTS} lacks {', '.join(lacking[:3])}; it is no fine-tuned classifier")
    return HuggingFaceTeacher(model, family)


def _prepared(folder: Path, task: Task) -> tuple[Any, Any, _Family]:
    """transformers' class of classifiers, the folder's configuration and its family; both fit the task."""
    described = _description(folder)
    _require_fitting_sizes(folder, described)
    family = _FAMILIES.get(str(described.get("model_type")))
    if family is None:
        raise CheckpointError(
            f"{folder} holds a model of type {described.get('model_type')!r}; those known here are "
            f"{', '.join(_FAMILIES)}"
        )
    _require_same_task(folder, described, task)
    try:
        from transformers import AutoConfig, AutoModelForSequenceClassification
    except ImportError as error:
        raise MissingDependencyError(
            f"teacher.folder needs the library transformers: pip install 'edgestill[transformers]' ({error})"
        ) from None
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if config.num_labels != task.num_classes:
        raise CheckpointError(f"{folder} tells {config.num_labels} classes apart, and the data has {task.num_classes}")
    return AutoModelForSequenceClassification, config, family


def weights_file(folder: Path) -> Path:
    """Raises: CheckpointError: the folder has none, or only a pickle."""
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = " but a pytorch_model.bin, which is a pickle" * (folder / "pytorch_model.bin").exists()
        raise CheckpointError(
            f"no {WEIGHTS} in {folder}{pickled}; load the model once and save it with save_pretrained(folder)"
        )
    return path


def _description(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.exists():
        raise CheckpointError(f"no config.json in {folder}; give a folder that save_pretrained(folder) wrote")
    try:
        described = json.loads(read_json_bounded(path, CheckpointError))
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {first_line(error)[:200]}") from None
    if not isinstance(described, dict):
        raise CheckpointError(f"{folder / 'config.json'} is no mapping")
    return described


def _require_fitting_sizes(folder: Path, described: dict[str, Any]) -> None:
    """Refuse sizes that the weights do not have, before a network of them is built.

    Raises:
        CheckpointError: a size is no whole number, or asks for more weights than the file holds.
    """
    held = _count_weights(weights_file(folder))
    width = _whole(folder, described, "dim", _whole(folder, described, "hidden_size", 1))
    narrow = _whole(folder, described, "embedding_size", width)
    factors = dict.fromkeys(_NARROW, narrow) | dict.fromkeys(_WIDE, width) | dict.fromkeys(_DEEP, width * width)
    for name, factor in factors.items():
        value = _whole(folder, described, name, 1)
        if not 0 < value * factor <= max(held, factor):
            raise CheckpointError(
                f"{folder / 'config.json'} has {name} {str(value)[:40]}, which asks for more weights than the "
                f"{held:,} that {WEIGHTS} holds; put the folder's own files back"
            )


def _count_weights(path: Path) -> int:
    try:
        with safe_open(path, framework="np") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except Exception as error:  # the library's own kinds
        raise CheckpointError(f"{path} does not fit: {first_line(error, 'damaged')[:200]}") from None


def _whole(folder: Path, described: dict[str, Any], name: str, otherwise: int) -> int:
    value = otherwise if described.get(name) is None else described[name]
    if isinstance(value, bool) or not isinstance(value, int):
        raise CheckpointError(f"{folder / 'config.json'} has {name} {str(value)[:40]!r}, which is no whole number")
    return value


def _require_same_task(folder: Path, described: dict[str, Any], task: Task) -> None:
    (length,) = task.input_shape
    longest = _whole(folder, described, "max_position_embeddings", length)
    if length > longest:
        raise CheckpointError(f"{folder} reads {longest} tokens at most; set data.max_length to that or below")
    ids = task.vocab_size or 0
    known = _whole(folder, described, "vocab_size", ids)
    if ids > known:
        raise CheckpointError(f"{folder} knows {known:,} token ids, and its {TOKENIZER} gives {ids:,}")
    names = described.get("id2label") or {}
    if not isinstance(names, dict) or not all(str(key).isdecimal() and len(str(key)) < 10 for key in names):
        raise CheckpointError(f"{folder / 'config.json'} has an id2label that does not number its classes")
    theirs = tuple(str(names[key]) for key in sorted(names, key=int))
    if theirs != task.labels and set(theirs) == set(task.labels):
        raise CheckpointError(
            f"{folder} has the classes in the order {', '.join(theirs)}, and the data as {', '.join(task.labels)}; "
            f"set data.labels to [{', '.join(theirs)}]"
        )
