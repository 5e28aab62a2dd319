"""Classifiers of the library transformers, of images and of texts: `teacher: hf:path/to/folder` or `hf:owner/name`.

Any architecture that the library has a classifier of. Weights are read from safetensors alone; config.json goes
through the library's own configuration class without the keys that name code, kernels or other files.
"""

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import Tensor, nn

from edgestill.pipeline.errors import CheckpointError, EdgestillError, MissingDependencyError, first_line
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.networks.encoder_layers import EncoderSizes
from edgestill.pipeline.runs.checkpoint import load_weights
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.adapted.family import ForeignConfig, ForeignTeacher
from edgestill.pipeline.teachers.adapted.network import Adapted
from edgestill.pipeline.teachers.adapted.pixels import Sight
from edgestill.pipeline.teachers.adapted.tracing import Call
from edgestill.pipeline.teachers.adapted.weights import Held
from edgestill.pipeline.teachers.encoder_sizes import sizes_described
from edgestill.pipeline.teachers.hf_folder import (
    INDEX,
    PIXELS,
    cleaned,
    names_of,
    require_honest,
    require_room,
    sight_of,
    tensors_of,
)
from edgestill.pipeline.teachers.huggingface_folder import TOKENIZER, description
from edgestill.pipeline.teachers.metadata_checks import require_tokenizer
from edgestill.pipeline.torchvision_compat import repair

_WANTED = ("config.json", "*.safetensors", INDEX, PIXELS, TOKENIZER)


class HfConfig(ForeignConfig):
    names_code: ClassVar[tuple[str, ...]] = ("trust_remote_code",)
    names_places: ClassVar[tuple[str, ...]] = ("model",)

    name: Literal["hf"] = "hf"
    model: str = Field(description="local folder, as save_pretrained writes it, or id on the hub: owner/name")
    revision: str | None = Field(None, description="commit, tag or branch on the hub; null: main")
    trust_remote_code: bool = Field(False, description="run the code that the folder or the hub holds: it can do all")
    features: str | None = Field(None, description="name of the module with the features; null finds it by tracing")
    classifier: str | None = Field(None, description="name of the last Linear; null finds it by tracing")

    @field_validator("model")
    @classmethod
    def _is_there(cls, model: str, info: ValidationInfo) -> str:
        if not (info.context or {}).get("check_files"):
            return model
        folder = Path(model).expanduser()
        if not folder.is_dir() and (model.startswith((".", "~", "/")) or model.count("/") > 1):
            raise ValueError(f"no folder at {folder}")
        if folder.is_dir() and not (folder / "config.json").is_file():
            raise ValueError(f"no config.json in {folder}; give a folder that save_pretrained(folder) wrote")
        return str(folder.absolute()) if folder.is_dir() else model

    @model_validator(mode="after")
    def _is_in_the_cache(self, info: ValidationInfo) -> "HfConfig":
        """Fetch a model of the hub before anything is done: its tokenizer makes the data's inputs."""
        if (info.context or {}).get("check_files") and not Path(self.model).is_dir():
            try:
                _fetched(self)
            except EdgestillError as error:
                raise ValueError(str(error)) from None
        return self


class HfTeacher(ForeignTeacher):
    name: ClassVar[str] = "hf"
    short = "model"
    kinds: ClassVar[frozenset[str]] = frozenset({"image", "text"})
    Config: ClassVar[type[Frozen]] = HfConfig
    config: HfConfig  # type: ignore[assignment]

    @property
    def title(self) -> str:
        return Path(self.config.model).name

    @property
    def source(self) -> Path | None:
        return None

    @property
    def source_name(self) -> str:
        return self.config.model

    @property
    def hub_id(self) -> str | None:
        return None if Path(self.config.model).expanduser().is_dir() else self.config.model

    @property
    def is_trained(self) -> bool:
        return True

    @property
    def tokenizer(self) -> Path | None:
        """The folder's tokenizer, if it is a model of texts; of a model on the hub, once it is in the cache."""
        folder = Path(self.config.model)
        if not folder.is_dir():
            try:
                folder = _fetched(self.config, cached_only=True)
            except (CheckpointError, MissingDependencyError):
                return None
        return folder / TOKENIZER if (folder / TOKENIZER).is_file() else None

    @property
    def call(self) -> Call:
        return _call

    def read(self, task: Task) -> nn.Module:
        folder = _folder(self.config)
        model = _remote(folder, task) if self.config.trust_remote_code else _model(folder, task, with_weights=True)
        return self.wrapped(model, task)

    def build(self, task: Task) -> nn.Module:
        folder = _folder(self.config)
        model = _remote(folder, task) if self.config.trust_remote_code else _model(folder, task, with_weights=False)
        return self.wrapped(model, task)

    def load(self, task: Task, path: Path) -> nn.Module:
        network = self.build(task)
        load_weights(network, path)
        return network

    def encoder_sizes(self) -> EncoderSizes | None:
        return sizes_described(description(_folder(self.config)), _library())

    def make(self, task: Task, outputs: int, held: Held | None) -> nn.Module:
        raise NotImplementedError

    def wrapped(self, model: nn.Module, task: Task) -> Adapted:
        try:
            return super().wrapped(model, task)
        except (EdgestillError, MemoryError):
            raise
        except Exception as error:  # a network may fail by any error on inputs that are not its own
            raise CheckpointError(
                f"{self.who} cannot take the data's {task.inputs.plural}: {first_line(error)}"
            ) from error

    def names(self, outputs: int) -> tuple[str, ...] | None:
        return names_of(_folder(self.config))

    def sight(self, task: Task) -> Sight:
        return sight_of(_folder(self.config))

    def metadata(self, task: Task) -> dict[str, str]:
        return {**super().metadata(task), "tokenizer_sha256": task.tokenizer_sha256 or ""}

    def check(self, metadata: Mapping[str, str], task: Task, path: Path) -> None:
        require_tokenizer(metadata, task, path)

    def _held(self) -> Held | None:
        return None


def _call(model: nn.Module, inputs: Tensor) -> Any:
    if inputs.is_floating_point():
        return model(pixel_values=inputs)
    return model(input_ids=inputs, attention_mask=(inputs != PADDING).long())


def _folder(config: HfConfig) -> Path:
    folder = Path(config.model)
    return folder if folder.is_dir() else _fetched(config)


def _fetched(config: HfConfig, cached_only: bool = False) -> Path:
    """Fetch a model of the hub into its cache; nothing is asked of the network for one that is there."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingDependencyError(
            f"teacher hf needs the library transformers: pip install 'edgestill[transformers]' ({error})"
        ) from None
    patterns = [*_WANTED, *(["*.py"] if config.trust_remote_code else [])]
    for local in (True,) if cached_only else (True, False):
        try:
            return Path(
                snapshot_download(
                    config.model, revision=config.revision, allow_patterns=patterns, local_files_only=local
                )
            )
        except Exception as error:  # the hub's own errors, and the network's
            problem = first_line(error)
    raise CheckpointError(
        f"{config.model} is no folder here, and cannot be had from the hub ({problem[:200]}); give a local folder in "
        "teacher.model, as save_pretrained(folder) writes it"
    )


def _model(folder: Path, task: Task, *, with_weights: bool) -> nn.Module:
    """Build the folder's classifier with transformers; it opens no file of the folder.

    Raises:
        CheckpointError: no architecture of the library's, or weights that do not fit it.
    """
    described = description(folder)
    tensors = tensors_of(folder)
    require_honest(folder, described, sum(t.numel() for t in tensors.values()))
    require_room(folder, described, task)
    transformers, kind = _library(), str(described.get("model_type"))
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
        raise CheckpointError(
            f"{folder} holds no classifier of {task.inputs.plural} that transformers builds: {first_line(error)[:200]}"
            f"{code}"
        ) from error
    lacking = sorted(found["missing_keys"])
    if lacking or found.get("mismatched_keys"):  # the library would draw these at random
        raise CheckpointError(
            f"the weights in {folder} lack {', '.join(lacking[:3]) or 'some that fit'}; it is no fine-tuned classifier"
        )
    return model  # type: ignore[no-any-return]


def _remote(folder: Path, task: Task) -> nn.Module:
    """Let transformers load the folder with the code that it holds; the user asked for that by hand."""
    kind = "AutoModelForSequenceClassification" if task.kind == "text" else "AutoModelForImageClassification"
    try:
        return getattr(_library(), kind).from_pretrained(  # type: ignore[no-any-return]
            folder, trust_remote_code=True, use_safetensors=True, local_files_only=True, dtype=torch.float32
        )
    except Exception as error:  # the folder's code
        raise CheckpointError(f"{folder} cannot be loaded with its own code: {first_line(error)[:200]}") from error


def _library() -> Any:
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

    kind = "SEQUENCE" if task.kind == "text" else "IMAGE"
    found = getattr(auto, f"MODEL_FOR_{kind}_CLASSIFICATION_MAPPING")[config_class]
    if not isinstance(found, tuple):
        return found
    named = described.get("architectures") or []
    return next((one for one in found if one.__name__ in named), found[0])
