"""Our losses beside torchdistill's and those that the papers' authors released: value, gradient and time.

    python benchmarks/peers/losses.py [--torchdistill FOLDER] [--released FOLDER]

Both sides get the same drawn tensors, as networks might give them: [256, 100] logits, [256, 64] embeddings. Shown is
the largest difference of value and gradient over five draws, relative to theirs, in float64 (in float32 where their
code casts to it). A difference beyond 1e-6 ends the command with 1. Time is a forward and a backward pass of the loss
in float32, both sides in turn; the ratio's interval is that of the mean logarithm over turns (Student's t, 95 %).

- torchdistill: `pip install --no-deps --target FOLDER torchdistill==1.1.5`.
- authors' code: files of these repositories, in folders of these names below FOLDER. Classes, functions and lines of
  them are run as they stand, but on the CPU; what else the files import is not needed.

      sunshangquan/logit-standardization-KD   6083e2d  mdistiller/distillers/KD.py
      penghui-yang/DHKD                       c088f51  distiller_zoo/BinaryKLNorm.py, helper/optimizer.py
      WangYZ1608/Knowledge-Distillation-via-ND 3b2ff1b  CIFAR/utils.py
      SakanaAI/TAID                           a062892  src/distil_losses/taid.py, fkl.py
      Hao840/OFAKD                            12eeba8  distillers/ofa.py
      erjui/DHO                               4b24cf9  train_others.py
      hchoi71/MIX-KD                          72fab8a  distiller_zoo/MIXSTD.py
      fpcsong/BiLD                            4322056  distil_losses/BILD.py
"""

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple

import released_pairs
import torch
import torchdistill_pairs
from drawn import Draw, Loss, Pair, draw
from epoch import ratio_words
from released import NotHere
from torch import Tensor

from edgestill.pipeline.device import DeviceConfig, select_device
from edgestill.pipeline.runs.provenance import describe_machine

PAIRS = (*torchdistill_pairs.PAIRS, *released_pairs.PAIRS)
MOST = 1e-6
_SIZES, _DRAWS = (256, 100, 64), 5
_LEAST_SECONDS = 0.01  # of a side's turn


class Found(NamedTuple):
    pair: Pair
    value: float  # largest difference relative to theirs
    gradient: float | None  # None: no loss
    ours_ms: float | None = None
    theirs_ms: float | None = None
    ratio: str = ""

    @property
    def is_equal(self) -> bool:
        return max(self.value, self.gradient or 0.0) <= MOST


def main() -> None:
    given = _arguments()
    select_device(DeviceConfig(accelerator="cpu", threads=given.threads))
    folders = {"torchdistill": given.torchdistill, "released": given.released}
    found = []
    for pair in PAIRS:
        try:
            found.append(compared(pair, folders[pair.folder], given.turns))
        except NotHere as missing:
            print(f"{pair.ours}: {missing} is not here; see --help", file=sys.stderr)
    machine = describe_machine()
    print(f"{machine['cpu']}, {given.threads} thread(s), python {machine['python']}, torch {torch.__version__}\n")
    print(table(found))
    sys.exit(0 if all(one.is_equal for one in found) else 1)


def compared(pair: Pair, folder: Path | None, turns: int) -> Found:
    """Compare a pair's values and gradients, and time it.

    Raises:
        NotHere: their code is not in the folder, or there is no folder.
    """
    if folder is None:
        raise NotHere(f"--{pair.folder}")
    sides = pair.make(folder.resolve(), pair.dtype)
    differences = []
    for seed in range(_DRAWS):
        one = draw(*_SIZES, pair.dtype, seed)
        ours, theirs = sides.ours(one), sides.theirs(one)
        apart = 0.0 if sides.apart is None else sides.apart(one)
        value = difference(ours.detach() + apart, theirs.detach())
        differences.append((value, _gradient_difference(ours, theirs, one) if pair.is_timed else 0.0))
    value, gradient = (max(column) for column in zip(*differences, strict=True))
    if not pair.is_timed:
        return Found(pair, value, None)
    return Found(pair, value, gradient, *_times(pair, folder.resolve(), turns))


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, relative to the largest of theirs."""
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(torch.finfo(torch.float32).tiny))


def _gradient_difference(ours: Tensor, theirs: Tensor, drawn: Draw) -> float:
    """Largest difference of the gradients in the student's logits and embedding."""
    ends = drawn.student, drawn.own
    both = [torch.autograd.grad(loss, ends, allow_unused=True, materialize_grads=True) for loss in (ours, theirs)]
    return difference(*(torch.cat([part.flatten() for part in gradients]) for gradients in both))


def _times(pair: Pair, folder: Path, turns: int) -> tuple[float, float, str]:
    """Median milliseconds of a step of ours and of theirs, and the ratio in words."""
    sides, one = pair.make(folder, torch.float32), draw(*_SIZES, torch.float32, 0)
    losses = sides.ours, sides.theirs
    counts = [max(1, round(_LEAST_SECONDS / min(_seconds(loss, one, 1) for _ in range(3)))) for loss in losses]
    seconds = [[_seconds(loss, one, count) for loss, count in zip(losses, counts, strict=True)] for _ in range(turns)]
    ours, theirs = (sorted(column)[turns // 2] for column in zip(*seconds, strict=True))
    return 1e3 * ours, 1e3 * theirs, ratio_words([own / other for own, other in seconds])


def _seconds(loss: Loss, drawn: Draw, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        drawn.student.grad = drawn.own.grad = None
        loss(drawn).backward()  # type: ignore[no-untyped-call]
    return (time.perf_counter() - start) / count


def table(found: list[Found]) -> str:
    lines = ["| ours | theirs | in | value | gradient | ours, ms | theirs, ms | ours over theirs |", "|" + " --- |" * 8]
    for one in found:
        kind = str(one.pair.dtype).removeprefix("torch.")
        gradient = "–" if one.gradient is None else f"{one.gradient:.0e}"
        times = [f"{ms:.2f}" if ms is not None else "–" for ms in (one.ours_ms, one.theirs_ms)]
        cells = [one.pair.ours, one.pair.theirs, kind, f"{one.value:.0e}", gradient, *times, one.ratio or "–"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"\n{one.pair.ours}: {one.pair.note}" for one in found if one.pair.note]
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torchdistill", type=Path, help="the folder that torchdistill was installed into")
    parser.add_argument("--released", type=Path, help="the folder of the authors' repositories")
    parser.add_argument("--turns", type=int, default=30, help="of each pair, in which both sides are timed")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
