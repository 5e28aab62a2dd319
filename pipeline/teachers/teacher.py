"""The teacher: a CIFAR-style ResNet or a text transformer, trained here or loaded, or a local Hugging Face model."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import nn

from edgestill.pipeline.errors import CheckpointError, ConfigError
from edgestill.pipeline.frozen import Frozen, GivenPath, existing_file
from edgestill.pipeline.networks.blocks import CifarResNet, Shortcut
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.networks.text_transformer import TextTransformer
from edgestill.pipeline.runs.checkpoint import load_weights, read_metadata
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.huggingface import TOKENIZER, build_from_folder, load_from_folder, weights_file
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.metrics import Metrics
from edgestill.pipeline.training.state import EpochRecord

TEACHERS: dict[str, tuple[int, int, int]] = {  # blocks a stage; He et al. 2015, section 4.2, depth 6n + 2
    f"resnet{6 * n + 2}": (n, n, n) for n in (1, 2, 3, 5, 7, 9, 18)
}
_WIDTHS = (16, 32, 64)
TEXT_TEACHERS: dict[str, tuple[int, int, int]] = {  # depth, heads, head width
    "text_transformer_2x128": (2, 4, 32),
    "text_transformer_4x256": (4, 4, 64),
    "text_transformer_6x512": (6, 8, 64),
}
_FEED_FORWARD = 4

if TYPE_CHECKING:
    TeacherName = str
else:
    TeacherName = Literal[*TEACHERS, *TEXT_TEACHERS]


class TeacherConfig(Frozen):
    architecture: TeacherName = Field("resnet56", description="built in: CIFAR-style ResNets, text transformers")
    shortcut: Shortcut = Field("A", description="of ResNets: A pads with zeros, B projects with a 1x1 convolution")
    dropout: float = Field(0.1, ge=0, lt=1, description="of text transformers, in training")
    weights: GivenPath | None = Field(
        None, description=".safetensors or torch checkpoint; null trains the teacher here"
    )
    folder: GivenPath | None = Field(
        None, description="of text: a local Hugging Face folder, in the place of architecture and weights"
    )
    mean: tuple[float, ...] | None = Field(None, description="input normalisation; null takes the training pixels'")
    std: tuple[float, ...] | None = Field(None, description="as mean; give what foreign weights were trained with")
    image_size: int | None = Field(None, ge=1, description="side that foreign weights were trained at; checked")
    training: TrainingConfig = TrainingConfig()

    @field_validator("weights")
    @classmethod
    def _exists(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return path and existing_file(path, info)

    @field_validator("folder")
    @classmethod
    def _is_whole(cls, folder: Path | None, info: ValidationInfo) -> Path | None:
        if folder is None or not (info.context or {}).get("check_files"):
            return folder
        for name in ("config.json", TOKENIZER):
            if not (folder / name).is_file():
                raise ValueError(f"no {name} in {folder}; save model and tokenizer there with save_pretrained(folder)")
        return folder.absolute()

    @model_validator(mode="after")
    def _one_source(self) -> "TeacherConfig":
        if self.folder is not None and self.weights is not None:
            raise ValueError("weights and folder are both given; a folder brings its own weights")
        return self

    @property
    def title(self) -> str:
        return self.architecture if self.folder is None else self.folder.name

    @property
    def source(self) -> Path | None:
        """The file with the weights; None trains them here."""
        return self.weights if self.folder is None else weights_file(self.folder)

    @property
    def tokenizer(self) -> Path | None:
        """The tokenizer's file in the teacher's folder, which its weights need; None without a folder."""
        return None if self.folder is None else self.folder / TOKENIZER


class TeacherResult(Frozen):
    trained_here: bool
    validation: Metrics
    cost: Cost
    best_epoch: int | None
    curve: tuple[EpochRecord, ...]


def build_teacher(config: TeacherConfig, task: Task) -> nn.Module:
    """Build the teacher's network for a task, with fresh weights.

    Raises:
        ConfigError: the teacher reads another kind of input than the task's.
        CheckpointError: the configured normalisation has another number of channels than the images, or the folder
            does not fit the task.
    """
    _require_inputs(config, task)
    if config.folder is not None:
        return build_from_folder(config.folder, task)
    if task.kind == "text":
        depth, heads, head_width = TEXT_TEACHERS[config.architecture]
        return TextTransformer(
            task,
            depth=depth,
            heads=heads,
            head_width=head_width,
            feed_forward=_FEED_FORWARD,
            dropout=config.dropout,
        )
    mean, std = config.mean or task.mean, config.std or task.std
    if not len(mean) == len(std) == task.input_shape[0]:
        raise CheckpointError(
            f"teacher.mean and teacher.std hold {len(mean)} and {len(std)} values, but the images have "
            f"{task.input_shape[0]} channel(s); give a value a channel"
        )
    blocks = TEACHERS[config.architecture]
    return CifarResNet(blocks, _WIDTHS, num_classes=task.num_classes, mean=mean, std=std, shortcut=config.shortcut)


def load_teacher(config: TeacherConfig, task: Task, path: Path) -> nn.Module:
    """Build the teacher with the weights of a file.

    Raises:
        CheckpointError: the file does not fit, or was trained on images of another size or with another tokenizer.
    """
    if config.folder is not None and path == config.source:
        return load_from_folder(config.folder, task)
    network = build_teacher(config, task)
    load_weights(network, path)
    metadata = read_metadata(path)
    if task.kind == "text":
        _require_tokenizer(metadata, task, path)
        return network
    trained_at = metadata.get("input_shape", str(config.image_size or ""))
    sizes = [int(n) for n in trained_at.split("x") if n.isdecimal() and len(n) < 10]
    if sizes and sizes[-1] != task.input_shape[-1]:
        raise CheckpointError(
            f"{path} was trained on images of {sizes[-1]} x {sizes[-1]} pixels, and the data's are "
            f"{task.input_shape[1]} x {task.input_shape[2]}; resize the data, or train a teacher by leaving out "
            "teacher.weights"
        )
    return network


def teacher_metadata(config: TeacherConfig, task: Task) -> dict[str, str]:
    """Metadata of the teacher's weights, by which a later load is checked."""
    written = {"architecture": config.title, "input_shape": "x".join(str(n) for n in task.input_shape)}
    if task.kind == "text":
        return written | {"tokenizer_sha256": task.tokenizer_sha256 or ""}
    return written | {"shortcut": config.shortcut}


def _require_inputs(config: TeacherConfig, task: Task) -> None:
    if config.folder is not None:
        if task.kind != "text":
            raise ConfigError(["teacher.folder: Hugging Face folders are read for text, and the data are images"])
    elif config.architecture not in (TEXT_TEACHERS if task.kind == "text" else TEACHERS):
        fitting = ", ".join(TEXT_TEACHERS if task.kind == "text" else TEACHERS)
        raise ConfigError(
            [f"teacher.architecture: {config.architecture} takes no {task.kind}; those that do: {fitting}"]
        )


def _require_tokenizer(metadata: dict[str, str], task: Task, path: Path) -> None:
    trained_with = metadata.get("tokenizer_sha256")
    if trained_with and task.tokenizer_sha256 and trained_with != task.tokenizer_sha256:
        raise CheckpointError(
            f"{path} was trained with another tokenizer than the data's, so its token ids mean other words; give the "
            "data/tokenizer.json of the run that trained it in data.tokenizer.file"
        )


def frozen(network: nn.Module) -> nn.Module:
    """Put a network in evaluation mode and turn its gradients off, as a teacher is used."""
    return network.eval().requires_grad_(False)
