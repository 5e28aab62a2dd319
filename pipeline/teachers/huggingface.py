"""A teacher from a local Hugging Face folder: a sequence classifier with its own tokenizer, read without internet.

The library `transformers` builds the network from plain sizes of the folder's config.json, and is given the tensors of
model.safetensors. It opens no file of the folder itself, so no key of the configuration can make it load other weights,
code, adapters or kernels. Encoder, head and last Linear have other names in each family, so the families are listed.
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

from edgestill.pipeline.errors import CheckpointError, MissingDependencyError, first_line
from edgestill.pipeline.foreign import read_json_bounded
from edgestill.pipeline.input_kind.text import PADDING
from edgestill.pipeline.runs.checkpoint import read_weights
from edgestill.pipeline.task import Task, distinct_names

WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"


# Sizes of a network, by the families' names, grouped by the factor that each is multiplied with in the weights.
_NARROW = ("vocab_size", "max_position_embeddings", "type_vocab_size")  # by the embedding's width
_WIDE = ("hidden_size", "dim", "embedding_size", "intermediate_size", "hidden_dim", "num_labels")  # by the width
_DEEP = ("num_hidden_layers", "n_layers")  # by its square


class _Family(NamedTuple):
    name: str  # of transformers' classes: BertConfig, BertForSequenceClassification
    keys: tuple[str, ...]  # of the configuration that define the network
    encoder: Callable[[Any], nn.Module]
    embed: Callable[[Any, Tensor], Tensor]  # (model, features [B, T, D]) to the embedding that the last Linear reads
    classifier: Callable[[Any], nn.Module]


_KEYS = ("vocab_size", "max_position_embeddings", "pad_token_id", "initializer_range")
_BERT_KEYS = (
    *_KEYS, "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "hidden_dropout_prob", "attention_probs_dropout_prob", "type_vocab_size", "layer_norm_eps", "classifier_dropout",
)  # fmt: skip
_DISTILBERT_KEYS = (
    *_KEYS, "n_layers", "n_heads", "dim", "hidden_dim", "activation", "dropout", "attention_dropout",
    "seq_classif_dropout", "sinusoidal_pos_embds",
)  # fmt: skip
_FAMILIES = {  # by the folder's model_type
    "bert": _Family(
        "Bert", _BERT_KEYS, lambda m: m.bert, lambda m, features: m.bert.pooler(features), lambda m: m.classifier
    ),
    "distilbert": _Family(
        "DistilBert",
        _DISTILBERT_KEYS,
        lambda m: m.distilbert,
        lambda m, features: F.relu(m.pre_classifier(features[:, 0])),
        lambda m: m.classifier,
    ),
    "electra": _Family(
        "Electra",
        (*_BERT_KEYS, "embedding_size"),
        lambda m: m.electra,
        lambda m, features: F.gelu(m.classifier.dense(features[:, 0])),
        lambda m: m.classifier.out_proj,
    ),
}
_ELSEWHERE = {  # keys that can change the network or its weights without changing sizes: their harmless values
    "transformers_weights": (WEIGHTS,),
    "quantization_config": (),
    "pruned_heads": ({},),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "position_embedding_type": ("absolute",),
}


class HuggingFaceTeacher(nn.Module):
    """Classifier of token ids [B, T]; its embedding is the input of the last Linear, without dropout."""

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
    """Build the folder's architecture with fresh weights.

    Raises:
        CheckpointError: no such folder, a family that is not known here, or another task than the data's.
        MissingDependencyError: `transformers` is not installed.
    """
    model_class, config, family = _prepared(folder, task)
    try:
        model = model_class(config)
    except Exception as error:  # sizes and names that do not go together are errors of any kind
        raise CheckpointError(f"{folder / 'config.json'} describes no {family.name}: {first_line(error)}") from error
    return HuggingFaceTeacher(model, family)


def load_from_folder(folder: Path, task: Task) -> HuggingFaceTeacher:
    """Load the folder's network with its weights.

    Raises:
        CheckpointError, MissingDependencyError: as `build_from_folder`; or weights are missing or do not fit.
    """
    model_class, config, family = _prepared(folder, task)
    tensors = read_weights(weights_file(folder))
    given = {"state_dict": tensors, "output_loading_info": True, "dtype": torch.float32}
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            model, found = model_class.from_pretrained(None, config=config, **given)
    except Exception as error:  # a damaged file leads the libraries into errors of any kind
        raise CheckpointError(f"{folder / WEIGHTS} does not fit: {first_line(error)}") from error
    lacking = sorted(found["missing_keys"])
    if lacking:  # the library would draw these at random
        raise CheckpointError(f"{folder / WEIGHTS} lacks {', '.join(lacking[:3])}; it is no fine-tuned classifier")
    return HuggingFaceTeacher(model, family)


def _prepared(folder: Path, task: Task) -> tuple[Any, Any, _Family]:
    """Return transformers' classifier class, its configuration and its family, checked to fit the task."""
    described = _description(folder)
    _require_fitting_sizes(folder, described)
    family = _FAMILIES.get(str(described.get("model_type")))
    if family is None:
        raise CheckpointError(
            f"{folder} holds a model of type {described.get('model_type')!r}; those known here are "
            f"{', '.join(_FAMILIES)}"
        )
    _require_same_task(folder, described, task)
    for key, harmless in _ELSEWHERE.items():
        if described.get(key) is not None and described[key] not in harmless:
            raise CheckpointError(
                f"{folder / 'config.json'} has {key}: {str(described[key])[:40]!r}, and what is read here is the plain "
                f"network with the weights of {WEIGHTS}; load the model once and save it without"
            )
    try:
        import transformers
    except ImportError as error:
        raise MissingDependencyError(
            f"teacher.folder needs the library transformers: pip install 'edgestill[transformers]' ({error})"
        ) from None
    sizes = {key: described[key] for key in family.keys if isinstance(described.get(key), int | float | str)}
    # Eager: the library's fused attention has no ONNX form for every mask.
    config_class = getattr(transformers, f"{family.name}Config")
    try:
        config = config_class(**sizes, num_labels=task.num_classes, attn_implementation="eager")
    except Exception as error:  # the library's own errors
        raise CheckpointError(f"{folder / 'config.json'} describes no {family.name}: {first_line(error)}") from None
    return getattr(transformers, f"{family.name}ForSequenceClassification"), config, family


def weights_file(folder: Path) -> Path:
    """Return the path of the folder's weights.

    Raises:
        CheckpointError: the folder has none, or only a pickle.
    """
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
    """Refuse sizes that need more weights than the file holds, before a network of these sizes is built.

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
    except Exception as error:  # the library's own errors
        raise CheckpointError(f"{path} does not fit: {first_line(error, 'damaged')[:200]}") from None


def _require_same_task(folder: Path, described: dict[str, Any], task: Task) -> None:
    (length,) = task.input_shape
    longest = _whole(folder, described, "max_position_embeddings", length)
    if length > longest:
        raise CheckpointError(f"{folder} reads {longest} tokens at most; set data.max_length to that or below")
    ids = task.vocab_size or 0
    known = _whole(folder, described, "vocab_size", ids)
    if ids > known:
        raise CheckpointError(f"{folder} knows {known:,} token ids, and its {TOKENIZER} gives {ids:,}")
    theirs = _labels(folder, described)
    count = len(theirs) or _whole(folder, described, "num_labels", 2)
    if count != task.num_classes:
        raise CheckpointError(f"{folder} tells {count} classes apart, and the data has {task.num_classes}")
    if theirs != task.labels and set(theirs) == set(task.labels):
        raise CheckpointError(
            f"{folder} has the classes in the order {', '.join(theirs)}, and the data as {', '.join(task.labels)}; "
            f"set data.labels to [{', '.join(theirs)}]"
        )


def _whole(folder: Path, described: dict[str, Any], key: str, otherwise: int) -> int:
    value = otherwise if described.get(key) is None else described[key]
    if type(value) is not int or value < 1:
        raise CheckpointError(
            f"{folder / 'config.json'} has {key}: {str(value)[:40]!r}; a whole number is needed there"
        )
    return value


def _labels(folder: Path, described: dict[str, Any]) -> tuple[str, ...]:
    """Names of the classes in order; empty where the folder does not name them."""
    names = described.get("id2label") or {}
    try:
        labels = tuple(names[str(number)] for number in range(len(names)))
        return distinct_names(tuple(map(str, labels)))
    except (TypeError, KeyError):
        raise CheckpointError(f"{folder / 'config.json'} has an id2label that does not name classes 0, 1, …") from None
    except ValueError as error:
        raise CheckpointError(f"{folder / 'config.json'}, id2label: {error}") from None
