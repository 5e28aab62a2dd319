"""Data given to `compress` as Python objects, as a configuration that a resumed run can read again."""

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from edgestill.flows.config.explaining import explain
from edgestill.flows.config.loading import load_config
from edgestill.flows.config.model import RunConfig
from edgestill.pipeline.cache import cache_folder
from edgestill.pipeline.data.datasets.base import DatasetConfig
from edgestill.pipeline.data.datasets.stored import KIND, StoredConfig, keep
from edgestill.pipeline.errors import ConfigError, DataError
from edgestill.pipeline.frozen import canonical_json, digest


def config_with(data: Any, config: RunConfig | None, preset: str | None, settings: Sequence[str]) -> RunConfig:
    """Return the configuration, or the preset with its settings, with the data that were given in place of its own.

    Raises:
        ConfigError: the settings have a problem.
        DataError: the data are of no known kind, or cannot be kept.
    """
    to_be_kept = {"name": "stored", "path": str(cache_folder() / KIND), "content": ""}
    kind = _saved(data) if _is_of_datasets(data) else to_be_kept
    if config is None:
        chosen = load_config(None, preset, [f"data={canonical_json(kind)}", *settings])
    else:
        chosen = _replaced(config, kind)
    if isinstance(chosen.data, StoredConfig):
        chosen = chosen.model_copy(update={"data": keep(chosen.data, data)})
    return chosen


def _replaced(config: RunConfig, kind: dict[str, str]) -> RunConfig:
    is_of_images = config.data.kind == "image" and "text_column" not in kind
    shared = {name: getattr(config.data, name) for name in DatasetConfig.model_fields} if is_of_images else {}
    raw = {**dict(config), "data": {**shared, **kind}}
    try:
        return RunConfig.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(explain(error, raw)) from None


def _is_of_datasets(data: Any) -> bool:
    return type(data).__module__.partition(".")[0] == "datasets" and hasattr(data, "save_to_disk")


def _saved(data: Any) -> dict[str, str]:
    """Save a data set of Hugging Face's library in the cache, and return the settings that read it."""
    parts = list(data.values()) if hasattr(data, "values") else [data]
    folder = cache_folder() / KIND / digest([part._fingerprint for part in parts])[:32]
    if not (folder / "dataset_dict.json").is_file() and not (folder / "state.json").is_file():
        data.save_to_disk(str(folder))
    features = parts[0].features
    if any(type(feature).__name__ == "Image" for feature in features.values()):
        return {"name": "huggingface", "path": str(folder)}
    texts = [name for name, each in features.items() if getattr(each, "dtype", None) in ("string", "large_string")]
    texts = [name for name in texts if name not in ("label", "labels")]
    if len(texts) != 1:
        raise DataError(
            f"the data set has the columns {', '.join(features)}: one of pictures (datasets.Image) or one of texts is "
            "needed; leave others out with select_columns"
        )
    return {"name": "huggingface", "path": str(folder), "text_column": texts[0]}
