"""Files of a local Hugging Face folder, which may be anybody's: weights, config.json and its fit to a task."""

import json
import math
from pathlib import Path
from typing import Any

from safetensors import safe_open

from edgestill.pipeline.errors import CheckpointError, first_line
from edgestill.pipeline.foreign import read_json_bounded
from edgestill.pipeline.task import Task, distinct_names

WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"

# Sizes of a network, by the families' names, grouped by the factor that each is multiplied with in the weights.
_NARROW = ("vocab_size", "max_position_embeddings", "type_vocab_size")  # by the embedding's width
_WIDE = ("hidden_size", "dim", "embedding_size", "intermediate_size", "hidden_dim", "num_labels")  # by the width
_DEEP = ("num_hidden_layers", "n_layers")  # by its square


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


def description(folder: Path) -> dict[str, Any]:
    """Read the folder's config.json.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
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


def require_fitting_sizes(folder: Path, described: dict[str, Any]) -> None:
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


def require_same_task(folder: Path, described: dict[str, Any], task: Task) -> None:
    """Refuse a folder for texts of another length, another vocabulary or other classes than the task's.

    Raises:
        CheckpointError: with the setting to change, where one helps.
    """
    (length,) = task.input_shape
    longest = _whole(folder, described, "max_position_embeddings", length)
    if length > longest:
        raise CheckpointError(f"{folder} reads {longest} tokens at most; set data.max_length to that or below")
    ids = task.vocab_size or 0
    known = _whole(folder, described, "vocab_size", ids)
    if ids > known:
        raise CheckpointError(f"{folder} knows {known:,} token ids, and its {TOKENIZER} gives {ids:,}")
    theirs = labels_of(folder, described)
    count = len(theirs) or _whole(folder, described, "num_labels", 2)
    if count != task.num_classes:
        raise CheckpointError(f"{folder} tells {count} classes apart, and the data has {task.num_classes}")
    if theirs != task.labels and set(theirs) == set(task.labels):
        raise CheckpointError(
            f"{folder} has the classes in the order {', '.join(theirs)}, and the data as {', '.join(task.labels)}; "
            f"set data.labels to [{', '.join(theirs)}]"
        )


def _count_weights(path: Path) -> int:
    try:
        with safe_open(path, framework="np") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except Exception as error:  # the library's own errors
        raise CheckpointError(f"{path} does not fit: {first_line(error, 'damaged')[:200]}") from None


def _whole(folder: Path, described: dict[str, Any], key: str, otherwise: int) -> int:
    value = otherwise if described.get(key) is None else described[key]
    if type(value) is not int or value < 1:
        raise CheckpointError(
            f"{folder / 'config.json'} has {key}: {str(value)[:40]!r}; a whole number is needed there"
        )
    return value


def labels_of(folder: Path, described: dict[str, Any]) -> tuple[str, ...]:
    """Names of the classes in order; empty where the folder does not name them."""
    names = described.get("id2label") or {}
    try:
        labels = tuple(names[str(number)] for number in range(len(names)))
        return distinct_names(tuple(map(str, labels)))
    except (TypeError, KeyError):
        raise CheckpointError(f"{folder / 'config.json'} has an id2label that does not name classes 0, 1, …") from None
    except ValueError as error:
        raise CheckpointError(f"{folder / 'config.json'}, id2label: {error}") from None
