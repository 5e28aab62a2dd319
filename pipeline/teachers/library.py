"""Settings and loading that the libraries of networks, timm and torchvision, share."""

import importlib
from statistics import fmean
from typing import Any

from pydantic import Field, model_validator
from torch import nn

from edgestill.pipeline.errors import CheckpointError, MissingDependencyError, first_line
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.adapted.family import ForeignTeacher, WhiteConfig
from edgestill.pipeline.teachers.adapted.network import Adapted
from edgestill.pipeline.teachers.adapted.pixels import Sight
from edgestill.pipeline.teachers.adapted.weights import Held, held_by, load_backbone
from edgestill.pipeline.torchvision_compat import repair


class LibraryConfig(WhiteConfig):
    model: str = Field(description="name of the network in the library, such as resnet50")
    pretrained: bool = Field(False, description="take the library's published weights, from its cache or the network")
    finetune: bool = Field(False, description="train a new head and all the rest here, from weights or pretrained")

    @model_validator(mode="after")
    def _one_source(self) -> "LibraryConfig":
        if self.pretrained and self.weights is not None:
            raise ValueError("weights and pretrained are both given; choose one")
        if self.finetune and not self.pretrained and self.weights is None:
            raise ValueError("finetune starts from weights or pretrained; without both it is trained here anyway")
        return self


class LibraryTeacher(ForeignTeacher):
    """A network by its name in a library: with a file of weights, with published ones, or trained here."""

    short = "model"
    library: str
    config: LibraryConfig

    @property
    def title(self) -> str:
        return self.config.model

    @property
    def source_name(self) -> str:
        return f"{self.library}'s own weights" if self.config.pretrained else super().source_name

    @property
    def is_trained(self) -> bool:
        return not self.config.finetune and (self.config.pretrained or self.config.weights is not None)

    def sight(self, task: Task) -> Sight:
        """Return the library's sight; a network that is trained here from the start takes the data's.

        Weights of a first convolution of one channel take grey pixels, normalised by the published means' mean.
        """
        if not self.config.pretrained and self.config.weights is None:
            return Sight(3, None, mean=_thrice(task.mean), std=_thrice(task.std))
        sight, path = self.published_sight(), self.config.weights
        if path is None or not path.is_file() or held_by(path, self.stem).channels in (None, sight.channels):
            return sight
        return sight._replace(channels=1, mean=_mean(sight.mean), std=_mean(sight.std))

    def published_sight(self) -> Sight:
        raise NotImplementedError

    def published_outputs(self) -> int:
        """Number of classes of the published weights."""
        return 1000

    def fetched(self, outputs: int | None) -> nn.Module:
        """Make the network with published weights; None keeps the published head."""
        raise NotImplementedError

    def read(self, task: Task) -> nn.Module:
        if not self.config.pretrained:
            return super().read(task)
        return self.wrapped(self._published(None), task)

    def build(self, task: Task) -> nn.Module:
        if not self.config.finetune:
            return super().build(task)
        if self.config.pretrained:
            network = self.wrapped(self._published(task.num_classes), task)
        else:
            assert self.config.weights is not None
            held = held_by(self.config.weights, self.stem)
            network = self._adapted(task, Held(task.num_classes, held.channels))
            load_backbone(network.model, self.config.weights, network.parts.classifier)
        _draw_anew(network.get_classifier())
        return network

    def _held(self) -> Held | None:
        if self.config.finetune:
            return None
        if self.config.pretrained:
            return Held(self.published_outputs(), None)
        return super()._held()

    def _adapted(self, task: Task, held: Held | None) -> Adapted:
        require(self.library)
        return super()._adapted(task, held)

    def _published(self, outputs: int | None) -> nn.Module:
        require(self.library)
        try:
            return self.fetched(outputs)
        except Exception as error:  # of the network, of the hub, of a name
            raise CheckpointError(
                f"the published weights of {self.library}:{self.config.model} cannot be had ({first_line(error)}); "
                "give a file in teacher.weights, which needs no network"
            ) from None


def _draw_anew(head: nn.Module) -> None:
    """Draw a new head's weights as torch draws a Linear's, by its inputs.

    timm and torchvision draw an EfficientNet's by its outputs. With 10 classes the first logits are then so large that
    the first steps spoil the published weights: 64.1 against 77.5 % on CIFAR-10 (`benchmarks/new_head.py`).
    """
    if isinstance(head, nn.Linear):
        head.reset_parameters()


def _mean(values: tuple[float, ...] | None) -> tuple[float, ...] | None:
    return None if values is None else (fmean(values),)


def require(library: str) -> Any:
    """Import a library of networks.

    Raises:
        MissingDependencyError: it is not installed.
    """
    repair()
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise MissingDependencyError(
            f"the teacher needs the library {library}: pip install 'edgestill[timm]' ({error})"
        ) from None


def imagenet_names() -> tuple[str, ...]:
    """Names of ImageNet's 1000 classes, in order."""
    models = require("torchvision.models")
    return tuple(models.get_model_weights("resnet18").DEFAULT.meta["categories"])


def _thrice(values: tuple[float, ...]) -> tuple[float, ...]:
    return values * 3 if len(values) == 1 else values
