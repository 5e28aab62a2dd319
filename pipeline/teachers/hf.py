"""Networks of the library transformers for images, texts and prompts: `teacher: hf:path/to/folder` or `hf:owner/name`.

Any architecture that the library has a classifier or a causal language model of. Weights are read from safetensors
alone; config.json goes through the library's own configuration class without the keys that name code, kernels or other
files.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from torch import Tensor, nn

from edgestill.pipeline.data.tokens import has_marks
from edgestill.pipeline.errors import CheckpointError, EdgestillError, MissingDependencyError, first_line
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.networks.encoder_layers import EncoderSizes
from edgestill.pipeline.runs.checkpoint import load_weights
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.adapted.causal import CausalAdapted, StartAt, mark_ids
from edgestill.pipeline.teachers.adapted.family import ForeignConfig, ForeignTeacher
from edgestill.pipeline.teachers.adapted.hf_model import library, model_of, remote_model
from edgestill.pipeline.teachers.adapted.network import Adapted
from edgestill.pipeline.teachers.adapted.pixels import Sight
from edgestill.pipeline.teachers.adapted.tracing import Call
from edgestill.pipeline.teachers.adapted.weights import Held
from edgestill.pipeline.teachers.encoder_sizes import sizes_described
from edgestill.pipeline.teachers.hf_folder import (
    INDEX,
    PIXELS,
    names_of,
    sight_of,
)
from edgestill.pipeline.teachers.huggingface_folder import TOKENIZER, description
from edgestill.pipeline.teachers.metadata_checks import require_tokenizer

_CAUSAL = ("ForCausalLM", "LMHeadModel")  # ends of the names of language models
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
    start: StartAt = Field(
        "front",
        description="place of the mark <s> as a language model reads it: front puts it before the text, as such models "
        "are trained; between leaves it before the answer, as the data has it",
    )

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out `start` where it is the default, so that digests of earlier versions' runs stay the same."""
        written: dict[str, Any] = handler(self)
        return {key: value for key, value in written.items() if (key, value) != ("start", "front")}

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
    kinds: ClassVar[frozenset[str]] = frozenset({"image", "text", "lm"})
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
    def exports(self) -> bool:
        return not self._is_causal

    @property
    def _is_causal(self) -> bool:
        """True of a language model, as far as its config.json tells."""
        try:
            named = description(_folder(self.config)).get("architectures")
        except EdgestillError:
            return False
        return any(str(name).endswith(_CAUSAL) for name in named or ())

    @property
    def call(self) -> Call:
        return _call

    def read(self, task: Task) -> nn.Module:
        return self._made(task, with_weights=True)

    def build(self, task: Task) -> nn.Module:
        return self._made(task, with_weights=False)

    def _made(self, task: Task, *, with_weights: bool) -> nn.Module:
        folder = _folder(self.config)
        if task.inputs.continues:
            return self._causal(folder, task, with_weights=with_weights)
        remote = self.config.trust_remote_code
        return self.wrapped(
            remote_model(folder, task) if remote else model_of(folder, task, with_weights=with_weights), task
        )

    def _causal(self, folder: Path, task: Task, *, with_weights: bool) -> nn.Module:
        if self.config.trust_remote_code:
            raise CheckpointError("teacher.trust_remote_code does not go with language models; leave it out")
        described = description(folder)
        if not (folder / TOKENIZER).is_file():
            raise CheckpointError(f"no {TOKENIZER} in {folder}; save it there: tokenizer.save_pretrained(folder)")
        assert task.vocab_size is not None
        begin, end = mark_ids(described, self.who)
        return CausalAdapted(
            model_of(folder, task, with_weights=with_weights),
            task.vocab_size,
            begin,
            end,
            has_marks=has_marks(folder / TOKENIZER),
            start=self.config.start,
            who=self.who,
        )

    def load(self, task: Task, path: Path) -> nn.Module:
        network = self.build(task)
        load_weights(network, path)
        return network

    def count(self, task: Task) -> tuple[int, int] | None:
        return None if task.inputs.continues else super().count(task)

    def encoder_sizes(self) -> EncoderSizes | None:
        return sizes_described(description(_folder(self.config)), library())

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
