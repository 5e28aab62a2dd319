"""Networks of teachers that go on from their own features, apart from their last Linear, to cut students from."""

# B batch, T tokens, D width

from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn

from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.networks.encoder_layers import find_layers
from edgestill.pipeline.networks.network import Classifier
from edgestill.pipeline.teachers.adapted.network import Adapted
from edgestill.pipeline.teachers.encoder_sizes import HF_IMAGE_TYPES, HF_TEXT_TYPES
from edgestill.pipeline.teachers.huggingface import MODEL_TYPES

FITTING = (
    "the built-in text transformers, classifiers of Hugging Face of the types "
    f"{', '.join((*HF_TEXT_TYPES, *HF_IMAGE_TYPES))}, timm's vision transformers, and networks of your own with equal "
    "layers that have forward_features and forward_head as timm's do"
)


class _Whole(nn.Module):
    """A foreign network between the task's inputs and its embedding; it goes on from its features."""

    def __init__(
        self,
        before: nn.Module,
        model: nn.Module,
        features: Callable[[Any, Tensor], Tensor],
        embedding: Callable[[Any, Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.before, self.model = before, model
        self._features, self._embedding = features, embedding

    def forward_features(self, inputs: Tensor) -> Tensor:
        return self._features(self.model, self.before(inputs))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        return self._embedding(self.model, features)


def whole_of(network: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """Take a teacher's network apart, in place: all of it but the classifier, and the classifier.

    Raises:
        ConfigError: it has no equal layers, or does not go on from its features.
    """
    whole, linear, path = _adapted(network) if isinstance(network, Adapted) else _own(network)
    if whole is None or not isinstance(linear, nn.Linear) or find_layers(whole) is None:
        raise ConfigError(
            [f"search.space: layers of the teacher are those of {FITTING}; this teacher has none of them"]
        )
    holder, _, name = path.rpartition(".")
    setattr(whole.get_submodule(holder), name, nn.Identity())
    return whole, linear


def _own(network: nn.Module) -> tuple[nn.Module, nn.Module | None, str]:
    found = network.get_classifier() if isinstance(network, Classifier) else None
    return network, found, next((name for name, module in network.named_modules() if module is found), "")


def _adapted(network: Adapted) -> tuple[nn.Module | None, nn.Module, str]:
    model, place = network.model, network.parts.classifier
    linear = network.get_classifier().requires_grad_(True)
    own = None if place is None else model.get_submodule(place)
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    if model_type in (*HF_TEXT_TYPES, *HF_IMAGE_TYPES):
        has_one = type(model).__name__.endswith(("ForSequenceClassification", "ForImageClassification"))
        embedding = MODEL_TYPES[model_type].embed if model_type in HF_TEXT_TYPES else _first
        whole = _Whole(network.before, model, _hf_features, embedding) if has_one else None
    else:
        goes_on = isinstance(model, Classifier) and model.get_classifier() is own
        whole = _Whole(network.before, model, _timm_features, _timm_embedding) if goes_on else None
    return whole, linear, f"model.{place}"


def _hf_features(model: Any, inputs: Tensor) -> Tensor:
    if inputs.is_floating_point():
        return cast(Tensor, model.base_model(pixel_values=inputs).last_hidden_state)
    mask = (inputs != PADDING).long()
    return cast(Tensor, model.base_model(input_ids=inputs, attention_mask=mask).last_hidden_state)


def _first(model: Any, features: Tensor) -> Tensor:
    return features[:, 0]


def _timm_features(model: Any, inputs: Tensor) -> Tensor:
    return cast(Tensor, model.forward_features(inputs))


def _timm_embedding(model: Any, features: Tensor) -> Tensor:
    return cast(Tensor, model.forward_head(features, pre_logits=True))
