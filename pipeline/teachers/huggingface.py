"""Teachers from local Hugging Face folders: sequence classifiers with their own tokenizers, read without internet.

The library `transformers` builds the network from plain sizes of the folder's config.json, and is given the tensors of
model.safetensors. It opens no file of the folder itself, so no key of the configuration can make it load other weights,
code, adapters or kernels. Encoder, head and last Linear have other names in each type of model, so these are listed.
"""

# B batch, T tokens, D width, K classes

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from edgestill.pipeline.errors import CheckpointError, MissingDependencyError, first_line
from edgestill.pipeline.frozen import Frozen, GivenPath
from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.networks.encoder_layers import EncoderSizes
from edgestill.pipeline.runs.checkpoint import read_weights
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.adapted.labels import match_labels
from edgestill.pipeline.teachers.encoder_sizes import sizes_described
from edgestill.pipeline.teachers.huggingface_folder import (
    TOKENIZER,
    WEIGHTS,
    description,
    labels_of,
    require_fitting_sizes,
    require_same_task,
    weights_file,
)
from edgestill.pipeline.teachers.metadata_checks import require_tokenizer
from edgestill.pipeline.teachers.teacher import Teacher
from edgestill.pipeline.torchvision_compat import repair


class ModelType(NamedTuple):
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
MODEL_TYPES = {  # by config.json's model_type
    "bert": ModelType(
        "Bert", _BERT_KEYS, lambda m: m.bert, lambda m, features: m.bert.pooler(features), lambda m: m.classifier
    ),
    "distilbert": ModelType(
        "DistilBert",
        _DISTILBERT_KEYS,
        lambda m: m.distilbert,
        lambda m, features: F.relu(m.pre_classifier(features[:, 0])),
        lambda m: m.classifier,
    ),
    "electra": ModelType(
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


class FolderNetwork(nn.Module):
    """Classifier of token ids [B, T]; its embedding is the input of the last Linear, without dropout."""

    def __init__(self, model: Any, model_type: ModelType) -> None:
        super().__init__()
        self.model = model
        self.cautions: tuple[str, ...] = ()
        self.num_classes: int = model.config.num_labels
        self._model_type = model_type
        self.embedding_dim: int = int(model_type.classifier(model).get_parameter("weight").shape[1])

    def forward_features(self, inputs: Tensor) -> Tensor:
        encoder = self._model_type.encoder(self.model)
        features: Tensor = encoder(input_ids=inputs, attention_mask=(inputs != PADDING).long()).last_hidden_state
        return features

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        embedding = self._model_type.embed(self.model, features)
        return embedding if pre_logits else self.get_classifier()(embedding)

    def get_classifier(self) -> nn.Module:
        return self._model_type.classifier(self.model)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(inputs))


class HuggingFaceConfig(Frozen):
    folder: GivenPath | None = Field(
        None, description="local Hugging Face folder of a text teacher; replaces architecture and weights"
    )

    @field_validator("folder")
    @classmethod
    def _is_whole(cls, folder: Path | None, info: ValidationInfo) -> Path | None:
        if folder is None or not (info.context or {}).get("check_files"):
            return folder
        for name in ("config.json", TOKENIZER):
            if not (folder / name).is_file():
                raise ValueError(f"no {name} in {folder}; save model and tokenizer there with save_pretrained(folder)")
        return folder.absolute()


class HuggingFaceTeacher(Teacher):
    Config: ClassVar[type[HuggingFaceConfig]] = HuggingFaceConfig
    kinds: ClassVar[frozenset[str]] = frozenset({"text"})

    def __init__(self, config: HuggingFaceConfig) -> None:
        super().__init__(config)
        assert config.folder is not None
        self._folder = config.folder

    @property
    def title(self) -> str:
        return self._folder.name

    @property
    def source(self) -> Path:
        return weights_file(self._folder)

    @property
    def source_name(self) -> str:
        return self._folder.name

    @property
    def tokenizer(self) -> Path:
        return self._folder / TOKENIZER

    def build(self, task: Task) -> nn.Module:
        """Build the folder's architecture.

        Raises:
            CheckpointError: no such folder, a type that is not known here, or another task than the data's.
            MissingDependencyError: `transformers` is not installed.
        """
        model_class, config, model_type = _prepared(self._folder, task)
        try:
            model = model_class(config)
        except Exception as error:  # sizes and names that do not go together are errors of any kind
            path = self._folder / "config.json"
            raise CheckpointError(f"{path} describes no {model_type.name}: {first_line(error)}") from error
        network = FolderNetwork(model, model_type)
        network.cautions = _cautions(self._folder, task)
        return network

    def load(self, task: Task, path: Path) -> nn.Module:
        """Load the folder's own weights by the library, which knows their names, and a run's copy as any network's.

        Raises:
            CheckpointError, MissingDependencyError: as `build`; or weights are missing or do not fit.
        """
        return _loaded(self._folder, task) if path == self.source else super().load(task, path)

    def encoder_sizes(self) -> EncoderSizes | None:
        return sizes_described(description(self._folder), _library())

    def metadata(self, task: Task) -> dict[str, str]:
        return super().metadata(task) | {"tokenizer_sha256": task.tokenizer_sha256 or ""}

    def check(self, metadata: Mapping[str, str], task: Task, path: Path) -> None:
        require_tokenizer(metadata, task, path)

    def refusal(self, task: Task, fitting: Sequence[str]) -> str:
        return f"teacher.folder: Hugging Face folders are read for text, and the data are {task.inputs.plural}"


def _cautions(folder: Path, task: Task) -> tuple[str, ...]:
    """Say if the folder's class names have nothing to do with the data's; their order is then taken on trust."""
    theirs = labels_of(folder, description(folder))
    try:
        caution = match_labels(theirs or None, task.labels, task.num_classes, f"the teacher {folder.name}").caution
    except CheckpointError as error:
        caution = f"{error}; they are taken in this order"
    return (caution,) if caution else ()


def _loaded(folder: Path, task: Task) -> nn.Module:
    model_class, config, model_type = _prepared(folder, task)
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
    return FolderNetwork(model, model_type)


def _prepared(folder: Path, task: Task) -> tuple[Any, Any, ModelType]:
    """Return transformers' classifier class, its configuration and the type of the model, checked to fit the task."""
    described = description(folder)
    require_fitting_sizes(folder, described)
    model_type = MODEL_TYPES.get(str(described.get("model_type")))
    if model_type is None:
        raise CheckpointError(
            f"{folder} holds a model of type {described.get('model_type')!r}; those known here are "
            f"{', '.join(MODEL_TYPES)}"
        )
    require_same_task(folder, described, task)
    for key, harmless in _ELSEWHERE.items():
        if described.get(key) is not None and described[key] not in harmless:
            raise CheckpointError(
                f"{folder / 'config.json'} has {key}: {str(described[key])[:40]!r}, and what is read here is the plain "
                f"network with the weights of {WEIGHTS}; load the model once and save it without"
            )
    transformers = _library()
    sizes = {key: described[key] for key in model_type.keys if isinstance(described.get(key), int | float | str)}
    # Eager: the library's fused attention has no ONNX form for every mask.
    config_class = getattr(transformers, f"{model_type.name}Config")
    try:
        config = config_class(**sizes, num_labels=task.num_classes, attn_implementation="eager")
    except Exception as error:  # the library's own errors
        raise CheckpointError(f"{folder / 'config.json'} describes no {model_type.name}: {first_line(error)}") from None
    return getattr(transformers, f"{model_type.name}ForSequenceClassification"), config, model_type


def _library() -> Any:
    repair()
    try:
        import transformers
    except ImportError as error:
        raise MissingDependencyError(
            f"teacher.folder needs the library transformers: pip install 'edgestill[transformers]' ({error})"
        ) from None
    return transformers
