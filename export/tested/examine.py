"""A close look at the test split, while the report has it open."""

# N examples, K classes

import numpy as np
import torch
from torch import nn

from edgestill.export.run import Run
from edgestill.export.tested.disagreements import disagreements
from edgestill.export.tested.reliability import reliability
from edgestill.export.tested.result import Examined
from edgestill.export.tested.robustness import robustness
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.data.tokens import Coder
from edgestill.pipeline.networks.network import evaluating
from edgestill.pipeline.task import Task
from edgestill.pipeline.training.fidelity import fidelity


def examine(
    teacher: nn.Module,
    teacher_logits: np.ndarray,
    run: Run,
    logits: np.ndarray,
    test: ImageSplit,
    task: Task,
    device: torch.device,
    tokenizer: str | None = None,
) -> Examined:
    """Look at confidences, disagreements and shifted examples.

    Args:
        teacher_logits: [N, K] of the network on the whole split.
        run: of the shipped file; logits: its own [N, K].
        tokenizer: JSON of a text task's tokenizer.
    """
    coder, targets = None if tokenizer is None else Coder(tokenizer), test.targets.numpy()
    return Examined(
        teacher=reliability(teacher_logits, targets),
        student=reliability(logits, targets),
        fidelity=fidelity(teacher_logits, logits, targets),
        disagreements=disagreements(teacher_logits, logits, test, task, None if coder is None else coder.decode),
        robustness=robustness(network_run(teacher, device), run, test, task, coder) if _answers_any(teacher) else None,
    )


def network_run(network: nn.Module, device: torch.device) -> Run:
    """Call a network as a file is called: arrays in, logits out."""

    def run(inputs: np.ndarray) -> np.ndarray:
        with evaluating(network), torch.inference_mode():
            logits: np.ndarray = network(torch.from_numpy(inputs).to(device)).float().cpu().numpy()
        return logits

    return run


def _answers_any(teacher: nn.Module) -> bool:
    """True if a teacher answers inputs other than the data's own."""
    return "inputs" in getattr(teacher, "gives", ("inputs",))
