"""Small published networks of timm, by a list: a model, and the side of the images that it sees.

Members are the list's models at each resolution. A student resizes its input itself, so the resize is in the exported
graph and in the latency. Another width or depth of a family is another model of the list. `distill.start: pretrained`
gives students the published weights, from a folder or from timm's hub.
"""

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator
from torch import nn

from edgestill.pipeline.errors import CheckpointError, ConfigError, MissingDependencyError, first_line, nearest
from edgestill.pipeline.frozen import Frozen, GivenPath, existing_path
from edgestill.pipeline.runs.checkpoint import load_tensors, read_weights
from edgestill.pipeline.runs.rundir import file_digest
from edgestill.pipeline.task import Task
from edgestill.search.space import Architecture, Gene, SearchSpace
from edgestill.search.spaces.backbone_networks import Backbone, created, embedding_width, known, plain, published

ENDINGS = (".safetensors", ".pth", ".bin", ".pt")
_LARGEST = 1024  # pixels a side
_FORM = "MODEL or MODEL@PIXELS of the configured models, such as"

ModelName = Annotated[str, Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)?$", max_length=80)]
Side = Annotated[int, Field(ge=8, le=_LARGEST)]

DEFAULT = (
    "mobilenetv3_small_050",
    "mobilenetv3_small_075",
    "mobilenetv3_small_100",
    "mobilenetv4_conv_small",
    "lcnet_050",
    "lcnet_100",
    "tinynet_e",
    "ghostnet_100",
    "mnasnet_small",
    "tf_efficientnet_lite0",
    "resnet10t",
    "resnet14t",
    "convnext_atto",
    "tiny_vit_5m_224",
)


class BackbonesConfig(Frozen):
    """Small published networks of timm, with their weights where distill.start is pretrained."""

    name: Literal["backbones"] = "backbones"
    models: tuple[ModelName, ...] = Field(DEFAULT, min_length=1, max_length=1000, description="names of timm's models")
    resolution: tuple[Side | None, ...] = Field(
        (64, 96, 128, 160, 224),
        min_length=1,
        description="choices for the shorter side that students resize their images to, in pixels; null: the data's",
    )
    weights: Literal["hub"] | GivenPath | None = Field(
        None,
        description="published weights for distill.start=pretrained: hub (timm's cache, or a download), or a folder of "
        "files MODEL.safetensors, .pth, .bin or .pt",
    )

    @field_validator("models")
    @classmethod
    def _are_of_timm(cls, models: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if (info.context or {}).get("check_files"):
            try:
                _require_known(models)
            except (ConfigError, MissingDependencyError) as error:
                raise ValueError(str(error)) from None
        return models

    @field_validator("weights")
    @classmethod
    def _is_there(cls, weights: Path | str | None, info: ValidationInfo) -> Path | str | None:
        return existing_path(weights, info) if isinstance(weights, Path) else weights


class BackbonesSpace(SearchSpace):
    name: ClassVar[str] = "backbones"
    starts: ClassVar[frozenset[str]] = frozenset({"pretrained"})

    def __init__(self, config: BackbonesConfig | None = None) -> None:
        self.config = config or BackbonesConfig()
        self._models = tuple(dict.fromkeys(self.config.models))
        sides = {side or 0 for side in self.config.resolution}  # 0: the data's own
        self.genes = (Gene("model", tuple(range(len(self._models)))), Gene("resolution", tuple(sorted(sides))))

    def require(self, task: Task) -> None:
        super().require(task)
        channels = task.input_shape[0]
        if channels not in (1, 3):
            raise ConfigError(
                [f"search.space: {self.name} reads images of 1 or 3 channels; the data's have {channels}"]
            )
        _require_known(self._models)

    def build(self, architecture: Architecture, task: Task) -> Backbone:
        self.require(task)
        return Backbone(self._model(architecture), architecture.choices["resolution"], task)

    def pretrain(self, network: nn.Module, architecture: Architecture, task: Task) -> None:
        assert isinstance(network, Backbone)
        found = self._published(self._model(architecture))
        network.body.load_state_dict(plain(found, network.side).state_dict())

    def require_weights(self, task: Task | None = None) -> None:
        if self.config.weights is None:
            raise ConfigError(
                [
                    "distill.start 'pretrained' takes published weights, and search.space.weights is not set; set it "
                    f"to hub, or to a folder of files such as {self._models[0]}.safetensors"
                ]
            )
        missing = [] if self.config.weights == "hub" else [model for model in self._models if self._file(model) is None]
        if missing:
            raise ConfigError(
                [
                    f"search.space.weights: {self.config.weights} has no weights of {', '.join(missing)}; add them as "
                    f"{missing[0]}.safetensors (or {', '.join(ENDINGS[1:])}), or leave them out of search.space.models"
                ]
            )
        for model in self._models if task is not None else ():
            self._published(model)

    def weights_digests(self) -> tuple[str, ...]:
        found = [] if self.config.weights == "hub" else [self._file(model) for model in self._models]
        return tuple(file_digest(path) for path in found if path is not None)

    def format(self, architecture: Architecture) -> str:
        side = architecture.choices["resolution"]
        return self._model(architecture) + (f"@{side}" if side else "")

    def describe(self, architecture: Architecture) -> str:
        side = architecture.choices["resolution"]
        return f"timm's {self._model(architecture)}" + (f" on images resized to {side} pixels" if side else "")

    def parse(self, text: str) -> Architecture:
        found = re.fullmatch(r"([a-z0-9_.]+)(?:@(\d{1,5}))?", text.strip())
        if found is None:
            raise self.error(text, f"expected {_FORM} {self._models[0]}@96")
        if found[1] not in self._models:
            raise self.error(text, f"expected {_FORM} {self._models[0]}@96; {nearest(found[1], self._models)}")
        side = int(found[2] or 0)
        if found[2] and not 8 <= side <= _LARGEST:
            raise self.error(text, f"the resolution is {side}; it goes from 8 to {_LARGEST}")
        return self.make({"model": self._models.index(found[1]), "resolution": side})

    def embedding_dims(self) -> frozenset[int]:
        return frozenset(map(embedding_width, self._models))

    def _model(self, architecture: Architecture) -> str:
        return self._models[architecture.choices["model"]]

    def _file(self, model: str) -> Path | None:
        folder = self.config.weights
        assert folder != "hub"
        places = () if folder is None else (Path(folder) / f"{model}{ending}" for ending in ENDINGS)
        return next((path for path in places if path.is_file()), None)

    def _published(self, model: str) -> nn.Module:
        """Make timm's network with its published weights, without a classifier.

        Raises:
            CheckpointError: they are missing, or a file's do not fit.
        """
        if self.config.weights == "hub":
            try:
                return created(model, pretrained=True)
            except Exception as error:  # of the network, of the hub, of a model without weights
                raise CheckpointError(
                    f"the published weights of {model} cannot be had ({first_line(error)[:200]}); give a folder of "
                    "files in search.space.weights, which needs no network"
                ) from None
        path = self._file(model)
        if path is None:
            raise CheckpointError(f"there are no weights of {model}: search.space.weights is {self.config.weights}")
        network = created(model)
        load_tensors(network, published(model, read_weights(path), network.state_dict()), path)
        return network


def _require_known(models: tuple[str, ...]) -> None:
    """Refuse names that timm does not know.

    Raises:
        ConfigError: names the first, and those like it.
        MissingDependencyError: timm is not installed.
    """
    for model in models:
        why = known(model)
        if why is not None:
            raise ConfigError([f"search.space.models: {why}"])
