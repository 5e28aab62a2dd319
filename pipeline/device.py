"""The device, the number of threads and GPUs, and the precision of computations."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast
from urllib.parse import urlsplit

import torch
from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, field_validator, model_serializer
from torch import Tensor, nn

from edgestill.pipeline.engines import LOCAL, AnyEngineConfig
from edgestill.pipeline.errors import UserError
from edgestill.pipeline.free_memory import keep_freed_memory
from edgestill.pipeline.frozen import Frozen, without_none
from edgestill.pipeline.networks.network import Classifier

Precision = Literal["fp32", "bf16", "fp16"]
CompileMode = Literal["off", "auto", "on"]


class DeviceConfig(Frozen):
    model_config = ConfigDict(hide_input_in_errors=True)
    names_services: ClassVar[tuple[str, ...]] = ("studies",)

    accelerator: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="device to compute on; auto takes a GPU if there is one"
    )
    threads: int = Field(
        0, ge=0, le=1024, description="torch threads on the CPU; 0 leaves torch's choice, 1 repeats bit for bit"
    )
    precision: Precision = Field(
        "fp32", description="training precision; bf16 and fp16 are mixed, evaluation stays fp32"
    )
    compile: CompileMode = Field(
        "off", description="compile training steps: auto where that saves more time than it takes; bits then differ"
    )
    gpus: int = Field(
        1, ge=0, le=64, description="number of GPUs that share each training batch; 0 takes all there are"
    )
    processes: int = Field(
        1, ge=1, le=64, description="processes that share each training batch: over gloo, or NCCL with a GPU each"
    )
    engine: AnyEngineConfig = Field(
        LOCAL,
        description="where candidates are scored and trials, entrants and baselines trained; results are the same with "
        "any",
    )

    studies: str | None = Field(
        None,
        max_length=500,
        description="PostgreSQL server of tuning's studies, postgresql://HOST:5432/DATABASE, without a password; null: "
        "EDGESTILL_STUDIES of the environment, else a file in the run",
    )

    @field_validator("studies")
    @classmethod
    def _holds_no_password(cls, address: str | None) -> str | None:
        if address is None:
            return None
        found = urlsplit(address)
        if found.scheme not in ("postgresql", "postgres"):
            raise ValueError("is no address of PostgreSQL; write postgresql://HOST:5432/DATABASE")
        if found.password is not None or "password" in found.query:
            raise ValueError(
                "holds a password, which the run's files would keep; put it into PGPASSWORD, or the whole address into "
                "EDGESTILL_STUDIES"
            )
        return address

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is at its default, so that configurations of earlier versions' runs stay the same."""
        written: dict[str, Any] = without_none(handler(self), "studies")
        if self.engine == LOCAL:
            written.pop("engine", None)
        if self.processes == 1:
            written.pop("processes", None)
        return written


def select_device(config: DeviceConfig) -> torch.device:
    """Return the device to compute on; as side effects, set torch's thread count and call `keep_freed_memory`.

    Raises:
        UserError: the configuration asks for CUDA or for more GPUs than there are, or for fp16 without CUDA.
    """
    keep_freed_memory()
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.accelerator == "cuda" and not torch.cuda.is_available():
        raise UserError("device.accelerator is 'cuda', but torch sees no CUDA device; use 'auto' or 'cpu'")
    use_cuda = config.accelerator != "cpu" and torch.cuda.is_available()
    there = torch.cuda.device_count() if use_cuda else 0
    if config.gpus > max(1, there):
        raise UserError(f"device.gpus is {config.gpus}, but torch sees {there}; 0 takes all there are")
    if use_cuda and config.processes > there:
        raise UserError(f"device.processes is {config.processes}, and each takes a GPU, of which torch sees {there}")
    if config.processes > 1 and config.gpus != 1:
        raise UserError("device.gpus and device.processes both share a batch; leave device.gpus out")
    if config.precision == "fp16" and not use_cuda:
        raise UserError("device.precision 'fp16' needs a CUDA device; use 'bf16' or 'fp32'")
    return torch.device("cuda" if use_cuda else "cpu")


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Compute on `count` threads.

    On one thread, sums have the same order on any machine. Parallel processes make up for the lost speed.
    """
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(threads)


def _untold(sentence: str) -> None:
    """Tell nobody. A function with a name, so that a `Compute` can be sent to another process."""


@dataclass(frozen=True)
class Compute:
    """Precision, GPUs and compilation of a training step; weights and optimizer always stay fp32 on one device."""

    precision: Precision = "fp32"
    gpus: int = 1  # 0: all there are
    compile: CompileMode = "off"
    tell: Callable[[str], None] = _untold  # is given what a training did without
    processes: int = 1  # `pipeline.training.processes` shares a batch between them

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Context for the forward pass and the loss; losses compute their softmaxes in fp32 by themselves."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16 if self.precision == "bf16" else torch.float16)

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Return a scaler that keeps fp16 gradients from vanishing, and does nothing in other precisions."""
        return torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")

    def spread(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Return the network itself, or one that computes features on several GPUs, each for its share of a batch."""
        count = self.gpus or torch.cuda.device_count()
        is_whole = hasattr(network, "look")  # it gives its view in one pass, and cannot go on from features
        return network if device.type != "cuda" or count < 2 or is_whole else _Spread(network, count)


FP32 = Compute()


def full_precision(device: torch.device) -> torch.autocast:
    """Turn mixed precision off within, where half precision would lose too much or speed does not matter."""
    return torch.autocast(device.type, enabled=False)


class FeaturesElsewhere(nn.Module):
    """A classifier whose features are computed in another way; its head is the network's own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward_features(self, inputs: Tensor) -> Tensor:
        raise NotImplementedError

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        return cast(Classifier, self.network).forward_head(features, pre_logits)

    def get_classifier(self) -> nn.Module:
        return cast(Classifier, self.network).get_classifier()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(inputs))


class _Spread(FeaturesElsewhere):
    """A classifier whose features are computed on several GPUs; pooling, logits and losses see the whole batch.

    So comparisons within a batch, and anything that a method keeps, are as on one GPU. Batch norm sees the share of its
    GPU alone. The first GPU's running statistics are kept, as with torch's DataParallel.
    """

    def __init__(self, network: nn.Module, count: int) -> None:
        super().__init__(network)
        self._gpus = list(range(count))

    def forward_features(self, inputs: Tensor) -> Tensor:
        features: Tensor = nn.parallel.data_parallel(_Features(self.network, inputs.device), inputs, self._gpus)
        return features


class _Features(nn.Module):
    """Features of a network, in the precision that was active when this was made.

    torch's data_parallel enters autocast in its threads too, but in autocast's default type, fp16.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.network, self._type = network, device.type
        self._mixed, self._dtype = torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast(self._type, self._dtype, enabled=self._mixed):
            return cast(Classifier, self.network).forward_features(inputs)
