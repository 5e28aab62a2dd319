"""Our on-policy distillation beside TRL's GKDTrainer: the same loss, and tokens a second of a step of each.

    pip install --no-deps --target FOLDER trl==1.16.0
    python benchmarks/peers/gkd.py --trl FOLDER [--turns 10] [--threads 1]

Loss: both get the same drawn logits [8, 32, 500] with a mask, in float32, at five betas, of which 0 and 1 are forward
and reverse KL. Shown is the largest difference of value and gradient over five draws, relative to the largest of
theirs. Beyond 1e-4 the command ends with 1.

Step: 32 prompts of 16 tokens are continued by up to 32, teacher and student are read there, and AdamW takes a step on
their JSD. Ours is the recipe that a run trains by; theirs is `generate_on_policy_outputs`, the arithmetic of
`compute_loss` and a step of torch's AdamW, without what the Trainer itself adds. Ours trains its decoder, theirs
GPT-2's, of as many blocks, heads and channels and the same vocabulary, both with tied weights. Both sides take turns; a
turn is the median of three steps. The ratio's interval is Student's, of the mean logarithm over turns.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from epoch import ratio_words
from torch import Tensor, nn

from edgestill.distill.config import DistillConfig
from edgestill.distill.methods.base import Context
from edgestill.distill.methods.targets.divergence import DivergenceConfig, between
from edgestill.pipeline.data.sequences import Sequences
from edgestill.pipeline.device import DeviceConfig, select_device
from edgestill.pipeline.input_kind.lm import END, START
from edgestill.pipeline.networks.causal_transformer import CausalTransformer
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.torchvision_compat import repair

MOST = 1e-4
_BETAS, _DRAWS, _SIZES = (0.0, 0.1, 0.5, 0.9, 1.0), 5, (8, 32, 500)
_TEXTS, _PROMPT, _NEW, _VOCABULARY = 32, 16, 32, 256
_STUDENT, _TEACHER = (2, 4, 32), (4, 4, 64)  # blocks, heads, head width
_STEPS, _BETA, _RATE = 3, 0.5, 1e-4

_CLOCKS = {"the clock": time.perf_counter, "the processor": time.process_time}  # which other work does not slow down

Step = Callable[[], int]  # takes a step and returns the number of tokens that it learnt from


class Side(NamedTuple):
    step: Step
    params: int


def main() -> None:
    given = _arguments()
    select_device(DeviceConfig(accelerator="cpu", threads=given.threads))
    theirs = trainer(given.trl)
    machine = describe_machine()
    print(f"{machine['cpu']}, {given.threads} thread(s), python {machine['python']}, torch {torch.__version__}\n")
    found = {beta: differences(theirs.generalized_jsd_loss, beta) for beta in _BETAS}
    print("| beta | value | gradient |\n" + "|" + " --- |" * 3)
    for beta, (value, gradient) in found.items():
        print(f"| {beta:g} | {value:.0e} | {gradient:.0e} |")
    print("\n" + table({"edgestill": our_side(), "TRL": their_side(theirs)}, given.turns))
    sys.exit(0 if max(max(pair) for pair in found.values()) <= MOST else 1)


def trainer(folder: Path) -> Any:
    """Return TRL's class GKDTrainer from a folder that it was installed into."""
    repair()
    sys.path.append(str(folder.resolve()))
    from trl.experimental.gkd import GKDTrainer

    return GKDTrainer


def our_loss(student: Tensor, teacher: Tensor, labels: Tensor, beta: float) -> Tensor:
    """Mean divergence of the rows with a label, of logits [B, T, V]."""
    kept = labels != -100
    kind = {0.0: "forward_kl", 1.0: "reverse_kl"}.get(beta, "js")
    config = DivergenceConfig.model_validate({"kind": kind} | ({"beta": beta} if kind == "js" else {}))
    return between(teacher[kept].log_softmax(1), student[kept].log_softmax(1), config).mean()


def differences(theirs: Callable[..., Tensor], beta: float) -> tuple[float, float]:
    """Largest relative difference of value and of gradient."""
    values, gradients = [], []
    for seed in range(_DRAWS):
        generator = torch.Generator().manual_seed(seed)
        student, teacher = (3 * torch.randn(_SIZES, generator=generator) for _ in range(2))
        labels = torch.where(torch.rand(_SIZES[:2], generator=generator) < 0.6, 1, -100)
        student.requires_grad_()
        both = our_loss(student, teacher, labels, beta), theirs(student, teacher, labels=labels, beta=beta)
        values.append(_apart(both[0].detach(), both[1].detach()))
        gradients.append(_apart(*(torch.autograd.grad(loss, student)[0] for loss in both)))
    return max(values), max(gradients)


def _apart(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-12))


def our_side() -> Side:
    width = _PROMPT + _NEW
    labels = tuple(f"token {number}" for number in range(_VOCABULARY))
    task = Task(kind="lm", labels=labels, input_shape=(width,), vocab_size=_VOCABULARY)
    student, teacher = (
        CausalTransformer(task, depth=depth, heads=heads, head_width=each, feed_forward=4, tied=1)
        for depth, heads, each in (_STUDENT, _TEACHER)
    )
    ids = torch.randint(3, _VOCABULARY, (_TEXTS, width), generator=torch.Generator().manual_seed(0))
    ids[:, _PROMPT - 1] = START
    split = Sequences(ids, torch.zeros(_TEXTS, dtype=torch.int64), "train")
    method = {"name": "divergence", "kind": "js", "beta": _BETA, "temperature": 1.0, "distill_weight": 1.0}
    recipe = DistillConfig.model_validate({"methods": [method], "driver": "rollout"}).recipe()
    device = torch.device("cpu")
    context = Context(
        task, frozen(teacher), student.train(), split, split, device, 0, lambda: student, recipe.look_at_teacher
    )
    recipe.prepare(context)
    batch, generator = split.batch(torch.arange(_TEXTS)), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(student.parameters(), lr=_RATE)

    def step() -> int:
        own = recipe.prepare_batch(batch, generator)
        terms = recipe.loss(student, own)
        optimizer.zero_grad()
        recipe.backward(terms, lambda loss: loss, list(student.parameters()))
        optimizer.step()
        return len(own.targets)

    return Side(step, _params(student))


def their_side(theirs: Any) -> Side:
    from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

    student, teacher = (
        GPT2LMHeadModel(
            GPT2Config(
                vocab_size=_VOCABULARY, n_positions=_PROMPT + _NEW, n_embd=heads * each, n_layer=depth, n_head=heads,
                resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=START, eos_token_id=END, pad_token_id=0,
            )
        )
        for depth, heads, each in (_STUDENT, _TEACHER)
    )  # fmt: skip
    frozen(teacher)
    prompts = torch.randint(3, _VOCABULARY, (_TEXTS, _PROMPT), generator=torch.Generator().manual_seed(0))
    inputs = {"prompts": prompts, "prompt_attention_mask": torch.ones_like(prompts)}
    how = GenerationConfig(
        max_new_tokens=_NEW, do_sample=True, top_k=0, temperature=1.0, pad_token_id=0, eos_token_id=END
    )
    optimizer = torch.optim.AdamW(student.parameters(), lr=_RATE)

    def step() -> int:
        student.eval()
        with torch.no_grad():
            ids, mask, labels = theirs.generate_on_policy_outputs(student, inputs, how)
        student.train()
        logits = student(input_ids=ids, attention_mask=mask).logits[:, :-1]
        with torch.no_grad():
            told = teacher(input_ids=ids, attention_mask=mask).logits[:, :-1]
        loss = theirs.generalized_jsd_loss(logits, told, labels=labels[:, 1:], beta=_BETA)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return int((labels[:, 1:] != -100).sum())

    return Side(step, _params(student))


def _params(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def table(sides: dict[str, Side], turns: int) -> str:
    for side in sides.values():
        side.step()
    rates: dict[str, dict[str, list[float]]] = {clock: {name: [] for name in sides} for clock in _CLOCKS}
    for _ in range(turns):
        for name, side in sides.items():
            steps = [_rates(side.step) for _ in range(_STEPS)]
            for clock, column in zip(_CLOCKS, zip(*steps, strict=True), strict=True):
                rates[clock][name].append(statistics.median(column))
    lines = [
        "| tokens a second | parameters | of | median | lowest | highest | edgestill's over it |",
        "|" + " --- |" * 7,
    ]
    for clock, by_side in rates.items():
        ours = by_side["edgestill"]
        for name, found in by_side.items():
            ratio = "1" if name == "edgestill" else ratio_words([a / b for a, b in zip(ours, found, strict=True)])
            figures = f"{statistics.median(found):,.0f} | {min(found):,.0f} | {max(found):,.0f}"
            lines.append(f"| {name} | {sides[name].params:,} | {clock} | {figures} | {ratio} |")
    return "\n".join(lines)


def _rates(step: Step) -> list[float]:
    """Tokens of a step over its seconds, by each clock."""
    starts = [clock() for clock in _CLOCKS.values()]
    tokens = step()
    return [tokens / (clock() - start) for clock, start in zip(_CLOCKS.values(), starts, strict=True)]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", type=Path, required=True, help="the folder that TRL was installed into")
    parser.add_argument("--turns", type=int, default=10, help="in each of which both sides are timed")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
