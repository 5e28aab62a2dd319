"""Checks of the metadata of a teacher's weights, for the families that need them."""

from collections.abc import Mapping
from pathlib import Path

from edgestill.pipeline.errors import CheckpointError
from edgestill.pipeline.task import Task


def require_image_size(metadata: Mapping[str, str], task: Task, path: Path) -> None:
    """Refuse weights that were trained on images of another size, where `input_shape` says one.

    Raises:
        CheckpointError: the sizes differ.
    """
    trained_at = metadata.get("input_shape", "")
    sizes = [int(n) for n in trained_at.split("x") if n.isdecimal() and len(n) < 10]
    if sizes and sizes[-1] != task.input_shape[-1]:
        raise CheckpointError(
            f"{path} was trained on images of {sizes[-1]} x {sizes[-1]} pixels, and the data's are "
            f"{task.input_shape[1]} x {task.input_shape[2]}; resize the data, or train a teacher by leaving out "
            "teacher.weights"
        )


def require_tokenizer(metadata: Mapping[str, str], task: Task, path: Path) -> None:
    """Refuse weights that were trained with another tokenizer, where `tokenizer_sha256` says one.

    Raises:
        CheckpointError: the tokenizers differ.
    """
    trained_with = metadata.get("tokenizer_sha256")
    if trained_with and task.tokenizer_sha256 and trained_with != task.tokenizer_sha256:
        raise CheckpointError(
            f"{path} was trained with another tokenizer than the data's, so its token ids mean other words; give the "
            "data/tokenizer.json of the run that trained it in data.tokenizer.file"
        )
