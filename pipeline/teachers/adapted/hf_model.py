"""A network of the library transformers from the files of a folder, without code of the folder's own unless asked."""

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgestill.pipeline.errors import CheckpointError, MissingDependencyError, first_line
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.hf_folder import cleaned, require_honest, require_room, tensors_of
from edgestill.pipeline.teachers.huggingface_folder import description
from edgestill.pipeline.torchvision_compat import repair

_MAPPINGS = {"text": "SEQUENCE_CLASSIFICATION", "image": "IMAGE_CLASSIFICATION", "lm": "CAUSAL_LM"}
_MADE = {"lm": "language model"}


def model_of(folder: Path, task: Task, *, with_weights: bool) -> nn.Module:
    """Build the folder's network for the task with transformers; it opens no file of the folder.

    Raises:
        CheckpointError: no architecture of the library's, or weights that do not fit it.
    """
    described = description(folder)
    tensors = tensors_of(folder)
    require_honest(folder, described, sum(t.numel() for t in tensors.values()))
    require_room(folder, described, task)
    transformers, kind = library(), str(described.get("model_type"))
    clean = cleaned(described)
    try:
        config = transformers.CONFIG_MAPPING[kind].from_dict(clean | {"attn_implementation": "eager"})
        with torch.device("meta"):
            wanted = sum(p.numel() for p in _class(type(config), task, described)(config).parameters())
        if wanted > 2 * sum(t.numel() for t in tensors.values()):
            raise CheckpointError(f"{folder / 'config.json'} asks for more weights than the file holds")
        kind_of_model = _class(type(config), task, described)
        if not with_weights:
            return kind_of_model(config)  # type: ignore[no-any-return]
        given = {"state_dict": tensors, "output_loading_info": True, "dtype": torch.float32}
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            model, found = kind_of_model.from_pretrained(None, config=config, **given)
    except CheckpointError:
        raise
    except Exception as error:  # the library's own errors, of any kind
        code = "; it brings code of its own, which teacher.trust_remote_code runs" if "auto_map" in described else ""
        made = _MADE.get(task.kind, f"classifier of {task.inputs.plural}")
        raise CheckpointError(
            f"{folder} holds no {made} that transformers builds: {first_line(error)[:200]}{code}"
        ) from error
    lacking = sorted(found["missing_keys"])
    if lacking or found.get("mismatched_keys"):  # the library would draw these at random
        made, without = _MADE.get(task.kind, "fine-tuned classifier"), ", ".join(lacking[:3]) or "some that fit"
        raise CheckpointError(f"the weights in {folder} lack {without}; it is no {made}")
    return model  # type: ignore[no-any-return]


def remote_model(folder: Path, task: Task) -> nn.Module:
    """Let transformers load the folder with the code that it holds; the user asked for that by hand."""
    kind = "AutoModelForSequenceClassification" if task.kind == "text" else "AutoModelForImageClassification"
    try:
        return getattr(library(), kind).from_pretrained(  # type: ignore[no-any-return]
            folder, trust_remote_code=True, use_safetensors=True, local_files_only=True, dtype=torch.float32
        )
    except Exception as error:  # the folder's code
        raise CheckpointError(f"{folder} cannot be loaded with its own code: {first_line(error)[:200]}") from error


def library() -> Any:
    repair()
    try:
        import transformers
    except ImportError as error:
        raise MissingDependencyError(
            f"teacher hf needs the library transformers: pip install 'edgestill[transformers]' ({error})"
        ) from None
    return transformers


def _class(config_class: Any, task: Task, described: Mapping[str, Any]) -> Any:
    from transformers.models.auto import modeling_auto as auto

    found = getattr(auto, f"MODEL_FOR_{_MAPPINGS[task.kind]}_MAPPING")[config_class]
    if not isinstance(found, tuple):
        return found
    named = described.get("architectures") or []
    return next((one for one in found if one.__name__ in named), found[0])
