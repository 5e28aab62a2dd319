"""Networks of torchvision, by name: `teacher: torchvision:resnet50`."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import nn

from edgestill.pipeline.errors import CheckpointError, nearest
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.adapted.pixels import Sight
from edgestill.pipeline.teachers.adapted.weights import Held
from edgestill.pipeline.teachers.library import LibraryConfig, LibraryTeacher, imagenet_names, require

_IMAGENET = Sight(
    3, (224, 224), crop=224 / 256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)  # of its reference training scripts


class TorchvisionConfig(LibraryConfig):
    name: Literal["torchvision"] = "torchvision"


class TorchvisionTeacher(LibraryTeacher):
    name: ClassVar[str] = "torchvision"
    Config: ClassVar[type[Frozen]] = TorchvisionConfig
    example: ClassVar[Mapping[str, Any]] = {"model": "mobilenet_v3_small"}
    library = "torchvision"
    config: TorchvisionConfig

    def make(self, task: Task, outputs: int, held: Held | None) -> nn.Module:
        return self._models().get_model(self.config.model, weights=None, num_classes=outputs)  # type: ignore[no-any-return]

    def published_sight(self) -> Sight:
        try:
            found = self._weights().transforms()
            (kept,), (resized,) = found.crop_size, found.resize_size
        except (AttributeError, ValueError, TypeError):
            return _IMAGENET
        return Sight(
            3,
            (kept, kept),
            crop=min(1.0, kept / resized),
            interpolation="bicubic" if found.interpolation.value == "bicubic" else "bilinear",
            mean=tuple(found.mean),
            std=tuple(found.std),
        )

    def fetched(self, outputs: int | None) -> nn.Module:
        models = self._models()
        network = models.get_model(self.config.model, weights=self._weights())
        if outputs is None:
            return network  # type: ignore[no-any-return]
        fresh = models.get_model(self.config.model, weights=None, num_classes=outputs)
        own = fresh.state_dict()
        same = {name: t for name, t in network.state_dict().items() if name in own and own[name].shape == t.shape}
        fresh.load_state_dict(own | same)
        return fresh  # type: ignore[no-any-return]

    def names(self, outputs: int) -> tuple[str, ...] | None:
        return imagenet_names() if outputs == 1000 else None

    def _weights(self) -> Any:
        return self._models().get_model_weights(self.config.model).DEFAULT

    def _models(self) -> Any:
        """Return the library's networks, which have this one.

        Raises:
            CheckpointError: they do not.
        """
        models = require("torchvision.models")
        known = models.list_models(module=models)
        if self.config.model not in known:
            raise CheckpointError(
                f"torchvision knows no classifier {self.config.model!r}; {nearest(self.config.model, known)[:300]}"
            )
        return models
