"""Files of a Hugging Face folder for any architecture: a cleaned configuration, tensors, class names and pixels."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from edgestill.pipeline.errors import CheckpointError, first_line
from edgestill.pipeline.foreign import read_json_bounded
from edgestill.pipeline.runs.checkpoint import read_weights
from edgestill.pipeline.task import Task, distinct_names
from edgestill.pipeline.teachers.adapted.pixels import Interpolation, Sight
from edgestill.pipeline.teachers.huggingface_folder import WEIGHTS, description

INDEX, PIXELS = "model.safetensors.index.json", "preprocessor_config.json"
_LEFT_OUT = {  # keys that name code, kernels, files or another type of number
    "auto_map", "_name_or_path", "name_or_path", "attn_implementation", "_attn_implementation",
    "_attn_implementation_internal", "experts_implementation", "use_kernels", "dtype", "torch_dtype", "return_dict",
    "torchscript", "transformers_version", "architectures", "use_pretrained_backbone", "custom_pipelines",
}  # fmt: skip
_REFUSED = ("transformers_weights", "quantization_config", "adapters")
_MOST_LAYERS = 1000


def cleaned(value: Any) -> Any:
    """Leave out the keys that name code, kernels or files, at every depth."""
    if isinstance(value, dict):
        return {key: cleaned(one) for key, one in value.items() if key not in _LEFT_OUT}
    return [cleaned(one) for one in value] if isinstance(value, list) else value


def require_honest(folder: Path, value: Any, held: int, key: str = "") -> None:
    """Refuse sizes that no such file of weights can have, and keys that change what is loaded."""
    if isinstance(value, dict):
        for name, one in value.items():
            if name in _REFUSED and one:
                raise CheckpointError(
                    f"{folder / 'config.json'} has {name}, and what is read here is the plain network; load the model "
                    "once and save it without"
                )
            require_honest(folder, one, held, str(name))
    elif isinstance(value, list):
        for one in value:
            require_honest(folder, one, held, key)
    elif isinstance(value, int) and not isinstance(value, bool):
        is_deep = any(word in key for word in ("layers", "depth", "blocks"))
        if value > (_MOST_LAYERS if is_deep else max(held, 10_000)) and key not in ("label2id",):
            raise CheckpointError(
                f"{folder / 'config.json'} has {key} {str(value)[:40]}, which asks for more weights than the "
                f"{held:,} that its file holds; put the folder's own files back"
            )


def require_room(folder: Path, described: Mapping[str, Any], task: Task) -> None:
    """Refuse texts that are longer than the model reads, or of more token ids than it knows."""
    longest = described.get("max_position_embeddings", described.get("n_positions"))
    known = None if task.inputs.continues else described.get("vocab_size")  # a language task's ids are its own
    if task.vocab_size is None:
        return
    if isinstance(longest, int) and 0 < longest < task.input_shape[0]:
        raise CheckpointError(f"{folder} reads {longest} tokens at most; set data.max_length to that or below")
    if isinstance(known, int) and known < task.vocab_size:
        raise CheckpointError(
            f"{folder} knows {known:,} token ids, and the data's tokenizer gives {task.vocab_size:,}; set "
            "data.tokenizer.file to the tokenizer.json that it was trained with"
        )


def tensors_of(folder: Path) -> dict[str, Tensor]:
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        path = folder / WEIGHTS
        if not path.is_file():
            pickled = " but a pytorch_model.bin, which is a pickle" * (folder / "pytorch_model.bin").exists()
            raise CheckpointError(
                f"no {WEIGHTS} in {folder}{pickled}; load the model once and save it with save_pretrained(folder)"
            )
        return read_weights(path)
    try:
        names = set(json.loads(read_json_bounded(folder / INDEX, CheckpointError))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{folder / INDEX} lists no files") from None
    tensors: dict[str, Tensor] = {}
    for name in sorted(map(str, names)):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{folder / INDEX} names {name[:80]!r}; safetensors beside it alone are read")
        tensors |= read_weights(folder / name)
    return tensors


def names_of(folder: Path) -> tuple[str, ...] | None:
    names = description(folder).get("id2label") or {}
    try:
        return distinct_names(tuple(str(names[str(number)]) for number in range(len(names)))) or None
    except (TypeError, KeyError, ValueError):
        raise CheckpointError(f"{folder / 'config.json'} has an id2label that does not name classes 0, 1, …") from None


def sight_of(folder: Path) -> Sight:
    """Read size, crop, interpolation and normalisation from the folder's preprocessor_config.json."""
    described = description(folder)
    channels = described.get("num_channels", 3)
    side = described.get("image_size")
    own = (side, side) if isinstance(side, int) else tuple(side) if isinstance(side, list) else None
    found: dict[str, Any] = {}
    if (folder / PIXELS).is_file():
        try:
            found = json.loads(read_json_bounded(folder / PIXELS, CheckpointError))
        except ValueError as error:
            raise CheckpointError(f"{folder / PIXELS} cannot be read: {first_line(error)}") from None
    if not isinstance(found, dict) or not isinstance(channels, int):
        raise CheckpointError(f"{folder / PIXELS} is no mapping")
    try:
        return _described_sight(found, channels, own)
    except (TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder / PIXELS} describes no images: {first_line(error)}") from None


def _described_sight(found: Mapping[str, Any], channels: int, own: tuple[int, int] | None) -> Sight:
    size = found.get("size") if found.get("do_resize", True) else None
    shorter, target, stretch = None, own, True
    if isinstance(size, int):
        target = (size, size)
    elif isinstance(size, dict) and "shortest_edge" in size:
        shorter = int(size["shortest_edge"])
        target, stretch = (shorter, shorter), False
    elif isinstance(size, dict) and "height" in size:
        target = (int(size["height"]), int(size["width"]))
    crop = 1.0
    cut = found.get("crop_size") if found.get("do_center_crop") else None
    if cut is not None and target is not None:
        kept = (cut, cut) if isinstance(cut, int) else (int(cut["height"]), int(cut["width"]))
        crop, target = min(1.0, kept[0] / target[0]), kept
    elif shorter is not None and found.get("crop_pct"):
        crop = float(found["crop_pct"])  # ConvNeXt's: the size is the cropped one
    rescales = float(found.get("rescale_factor", 1 / 255)) * 255 if found.get("do_rescale", True) else 255.0
    normalises = found.get("do_normalize", bool(found.get("image_mean")))
    how: Interpolation = {0: "nearest", 3: "bicubic"}.get(int(found.get("resample", 2)), "bilinear")  # type: ignore[assignment]
    return Sight(
        channels,
        target,
        crop=crop,
        stretch=stretch,
        interpolation=how,
        mean=_each(found["image_mean"], channels) if normalises else None,
        std=_each(found["image_std"], channels) if normalises else None,
        range=(0.0, rescales),
    )


def _each(value: Any, channels: int) -> tuple[float, ...]:
    return tuple(map(float, value)) if isinstance(value, list) else (float(value),) * channels
