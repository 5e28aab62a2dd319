"""Compilation of a network for its training steps, where the time saved exceeds the time of compiling.

torch.compile makes C++ code of a network's features for one shape of input. The head, losses and methods stay as they
are; a batch of another size, such as an epoch's last, is computed without it. Random draws are torch's own, so dropout
is the same. The rounding is not: a training is resumed bit for bit because its state holds the decision.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from edgestill.pipeline.device import CompileMode, FeaturesElsewhere
from edgestill.pipeline.errors import first_line
from edgestill.pipeline.networks.network import Classifier
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.timing.timing import brief_medians_ms

_SAVES = 0.15  # share of a step that compiling is hoped to save: a guess, which the timing of both steps then replaces
_TAKES_S = 30.0  # time that compiling is expected to take
_MARGIN = 0.97  # of a plain step's time that a compiled step may take at most


class CompiledFeatures(FeaturesElsewhere):
    """A classifier whose features are compiled for inputs of one shape."""

    def __init__(self, network: nn.Module, shape: torch.Size) -> None:
        super().__init__(network)
        self._shape = shape
        _keep_code_apart()
        on_cpu = all(parameter.device.type == "cpu" for parameter in network.parameters())
        self._features: Callable[[Tensor], Tensor] = torch.compile(
            cast(Classifier, network).forward_features,
            dynamic=False,
            options={"fallback_random": True, "cpp_wrapper": on_cpu},  # calls the kernels from C++ too
        )

    def forward_features(self, inputs: Tensor) -> Tensor:
        if inputs.shape == self._shape and self.training:
            return self._features(inputs)
        return cast(Classifier, self.network).forward_features(inputs)


class Compilation:
    """Decision of one training to compile or not, and the network that its steps run."""

    def __init__(
        self, network: nn.Module, mode: CompileMode, example: Callable[[], Tensor], tell: Callable[[str], None]
    ) -> None:
        """Take a function giving the inputs of a whole batch, on the device."""
        self._network, self._mode, self._example, self._tell = network, mode, example, tell
        self.is_on: bool | None = None if mode != "off" and not hasattr(network, "look") else False
        self._compiled: CompiledFeatures | None = None

    def decide(self, epoch_s: float | None, left: int) -> bool:
        """Decide, if it was not; True if this call did.

        Args:
            epoch_s: seconds of the last epoch; None before the first.
            left: number of epochs to come.
        """
        if self.is_on is not None or (self._mode == "auto" and epoch_s is None):
            return False
        hoped_s = _SAVES * left * (epoch_s or 0.0)
        self.is_on = self._mode == "on" or hoped_s > _TAKES_S
        if self.is_on:
            self.is_on = self._tried()
        return True

    def network(self) -> nn.Module:
        """Return the network for the steps."""
        if not self.is_on:
            return self._network
        if self._compiled is None:
            self._compiled = CompiledFeatures(self._network, self._example().shape)
        return self._compiled

    def _tried(self) -> bool:
        """Compile, and compare its steps with plain ones; the network is left as it was."""
        kept = {name: value.clone() for name, value in self._network.state_dict().items()}
        was_training, example = self._network.training, self._example()
        try:
            with drawn_from(0):
                compiled = self.network().train()
                calls = {"plain": _step(self._network, example), "compiled": _step(compiled, example)}
                calls["compiled"]()
                found = brief_medians_ms(calls)
        except Exception as error:  # of a compiler that is missing, or of a network that it cannot read
            self._compiled = None
            self._tell(f"the training step was not compiled ({type(error).__name__}: {first_line(error)[:200]})")
            return False
        finally:
            self._network.load_state_dict(kept)
            self._network.zero_grad(set_to_none=True)
            self._network.train(was_training)
        plain, ours = found["plain"], found["compiled"]
        if self._mode == "auto" and ours > _MARGIN * plain:
            self._compiled = None
            self._tell(f"the training step was not compiled: it takes {ours:.3g} ms so, and {plain:.3g} ms as it is")
            return False
        return True


def _step(network: nn.Module, inputs: Tensor) -> Callable[[], None]:
    def run() -> None:
        network.zero_grad(set_to_none=True)
        network(inputs).square().mean().backward()

    return run


def _keep_code_apart() -> None:
    """Have compiled code written below a folder of this process alone, and compiled without further processes."""
    import torch._inductor.config as settings

    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="edgestill-compiled-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    inductor: Any = settings
    inductor.compile_threads = 1
