"""Data given to `compress` as Python objects, as a configuration that a resumed run can read again."""

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from edgestill.flows.config.explaining import explain
from edgestill.flows.config.loading import load_config
from edgestill.flows.config.model import RunConfig
from edgestill.pipeline.data.datasets.base import DatasetConfig
from edgestill.pipeline.data.datasets.huggingface import is_of_datasets, save
from edgestill.pipeline.data.datasets.stored import StoredConfig, keep, unwritten
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.frozen import canonical_json


def config_with(data: Any, config: RunConfig | None, preset: str | None, settings: Sequence[str]) -> RunConfig:
    """Return the configuration, or the preset with its settings, with the data that were given in place of its own.

    Raises:
        ConfigError: the settings have a problem.
        DataError: the data are of no known kind, or cannot be kept.
    """
    kind = save(data) if is_of_datasets(data) else unwritten()
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
