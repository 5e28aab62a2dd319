"""The one typed configuration of a run."""

from edgestill.flows.config.loading import commented_yaml, config_of, load_config, preset_names, preset_text
from edgestill.flows.config.model import RunConfig

__all__ = ["RunConfig", "commented_yaml", "config_of", "load_config", "preset_names", "preset_text"]
