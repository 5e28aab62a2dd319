"""Sizes of a teacher's equal encoder layers, as its configuration and files tell before any task is known."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from edgestill.pipeline.errors import CheckpointError, first_line
from edgestill.pipeline.networks.encoder_layers import EncoderSizes, find_layers
from edgestill.pipeline.networks.network import Classifier
from edgestill.pipeline.teachers.hf_folder import cleaned

HF_IMAGE_TYPES = ("vit", "deit")  # of config.json, whose features begin with the class token
HF_TEXT_TYPES = ("bert", "distilbert", "electra")


def sizes_in(network: nn.Module) -> EncoderSizes | None:
    """Read the sizes off a network; None if it has no equal layers, or no single last Linear."""
    found = find_layers(network)
    linear = network.get_classifier() if isinstance(network, Classifier) else None
    if found is None or not isinstance(linear, nn.Linear):
        return None
    return EncoderSizes(None, found.depth, found.heads, linear.in_features)


def sizes_described(described: Mapping[str, Any], library: Any) -> EncoderSizes | None:
    """Read the sizes of a Hugging Face classifier from its config.json; None for a type that is not known here.

    Args:
        library: transformers, which knows the sizes that a file leaves out.

    Raises:
        CheckpointError: the configuration is damaged.
    """
    model_type = described.get("model_type")
    if model_type not in (*HF_IMAGE_TYPES, *HF_TEXT_TYPES):
        return None
    try:
        config = library.CONFIG_MAPPING[model_type].from_dict(cleaned(dict(described)))
        sizes = [int(n) for n in (config.num_hidden_layers, config.num_attention_heads, config.hidden_size)]
    except Exception as error:  # the library's own errors, of any kind
        raise CheckpointError(f"the teacher's config.json describes no {model_type}: {first_line(error)}") from error
    return EncoderSizes("image" if model_type in HF_IMAGE_TYPES else "text", *sizes)
