"""Whether KD-AIF's influence finds wrong labels, and what its weights are worth beside controls.

    python benchmarks/influence.py --data FOLDER --out FOLDER --seeds 5

On the `mnist_noisy_*` tasks, whose flipped labels are known here and to `oracle` alone: AUROC of the influence for
flips, by reference loss; then test accuracy of plain KD at three weights of the labels, of KD-AIF, of its weights
shuffled, of the oracle (flips dropped from the start) and of a filter that drops as many examples as are flipped, those
of the largest loss after the same warm-up (it is told the noise rate; KD-AIF is not). All weigh both terms under the
teacher that memorised the flips, and the cross-entropy alone elsewhere. `clean` regimes have no flips.
"""

import argparse
import copy
import math
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import scipy.stats
import torch
import torch.nn.functional as F
from bench import Bench
from sklearn.metrics import roc_auc_score
from tasks._mnist_noisy import Noisy, bench_of
from torch import Tensor, nn

from distill.methods import Method
from distill.methods.base import Context
from distill.methods.kd import KD, KDConfig
from distill.methods.kd_aif import KDAIF, KDAIFConfig, Weighing
from distill.recipe import Recipe
from pipeline.device import DeviceConfig, select_device
from pipeline.metrics import evaluate
from pipeline.provenance import describe_machine
from pipeline.teacher import frozen
from pipeline.training import EpochRecord, fit

_CPU = torch.device("cpu")
_REGIMES = {  # teacher, share of flipped labels, what is weighed
    "memorised": ("memorised", 0.2, "both"),
    "noisy": ("noisy", 0.2, "ce"),
    "good": ("good", 0.2, "ce"),
    "clean": ("noisy", 0.0, "ce"),
}


class Oracle(KDAIF):
    """Weights 0 for flips and equal elsewhere, from the first epoch."""

    def __init__(self, config: KDAIFConfig, flipped: Tensor) -> None:
        super().__init__(config)
        self._flipped = flipped

    def prepare(self, context: Context) -> None:
        super().prepare(context)
        self._student.weight = (~self._flipped).float() / (~self._flipped).float().mean()

    def end_epoch(self, epoch: int, student: nn.Module) -> None:
        pass


class SmallLoss(KDAIF):
    """Drops the examples of the largest cross-entropy after the warm-up, as many as are flipped."""

    def __init__(self, config: KDAIFConfig, flipped: Tensor) -> None:
        super().__init__(config)
        self._count = int(flipped.sum())

    def _update(self, weighing: Weighing, network: nn.Module, deployable: nn.Module) -> None:
        network.eval()
        with torch.no_grad():
            batches = self._context.train.batches(512)
            losses = torch.cat([F.cross_entropy(network(b.inputs), b.targets, reduction="none") for b in batches])
        network.train()
        kept = torch.ones_like(losses)
        kept[losses.argsort(descending=True)[: self._count]] = 0
        weighing.influence, weighing.weight, weighing.updates = losses, kept / kept.mean(), 1


def main() -> None:
    arguments = _arguments()
    select_device(DeviceConfig(accelerator="cpu", threads=1))
    arguments.out.mkdir(parents=True, exist_ok=True)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    machine = describe_machine()
    print(f"    python benchmarks/influence.py --data DATA --out OUT --seeds {arguments.seeds}\n")
    print(f"{machine['cpu']}, 1 thread, torch {torch.__version__}; seeds {seeds[0]} to {seeds[-1]}, n = {len(seeds)}.")
    for regime in arguments.regimes:
        rows = [_seed(regime, seed, arguments) for seed in seeds]
        print("\n".join(_table(regime, rows)), flush=True)


def _seed(regime: str, seed: int, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Test and validation accuracy by method, in per cent, and the AUROC of what it ranked the examples by."""
    teacher, share, apply_to = _REGIMES[regime]
    bench, noisy = bench_of(teacher, seed, arguments.data, arguments.out, share)
    flipped = noisy.splits.train.targets != noisy.right
    base: dict[str, Any] = {"apply_to": apply_to} | dict(arguments.set)

    def aif(**settings: Any) -> KDAIFConfig:
        return KDAIFConfig.model_validate(base | settings)

    methods: dict[str, Method] = {
        **{f"kd(distill_weight={b})": KD(KDConfig(distill_weight=b)) for b in (0.5, 0.9, 1.0)},
        "kd_aif": KDAIF(aif()),
        "kd_aif, reference ce": KDAIF(aif(reference_loss="ce")),
        "kd_aif, drop": KDAIF(aif(weight_map="drop")),
        "shuffled": KDAIF(aif(control="shuffled")),
        "small loss": SmallLoss(aif(), flipped),
        "oracle": Oracle(aif(), flipped),
    }
    chosen = {name: method for name, method in methods.items() if not arguments.methods or name in arguments.methods}
    rows = {name: _train(bench, noisy, method, flipped, seed) for name, method in chosen.items()}
    teacher_accuracy = 100 * evaluate(bench.teacher, noisy.test, _CPU).accuracy
    rows["teacher"] = {
        "test": teacher_accuracy,
        "last": teacher_accuracy,
        "validation": math.nan,
        "auroc": math.nan,
        "ess": math.nan,
    }
    print(f"{regime} {seed}: " + "  ".join(f"{k} {v['test']:.2f}" for k, v in rows.items()), file=sys.stderr)
    return rows


def _train(bench: Bench, noisy: Noisy, method: Method, flipped: Tensor, seed: int) -> dict[str, float]:
    student, recipe = bench.make_student(seed), Recipe([method])
    teacher, splits = frozen(copy.deepcopy(bench.teacher)), bench.splits
    context = Context(
        splits.task, teacher, student, splits.train, splits.reference, _CPU, seed, lambda: recipe.deployable(student)
    )
    recipe.prepare(context, cache=True)
    last: list[float] = []

    def observe(record: EpochRecord) -> None:
        if record.epoch == bench.training.epochs:
            last.append(100 * evaluate(student, noisy.test, _CPU).accuracy)

    fitted = fit(
        student, recipe, splits.train, splits.validation, bench.training, seed=seed, device=_CPU, observe=observe
    )
    told: Mapping[str, Any] = recipe.state_dict().get("kd_aif", {}).get("student", {})
    ranked = bool(told) and told["updates"] > 0 and bool(flipped.any())
    return {
        "test": 100 * evaluate(student, noisy.test, _CPU).accuracy,
        "last": last[0],
        "validation": 100 * fitted.best.accuracy,
        "auroc": float(roc_auc_score(flipped.numpy(), told["influence"].numpy())) if ranked else math.nan,
        "ess": recipe.measures().get("kd_aif.effective_sample_size", math.nan),
    }


def _table(regime: str, rows: list[dict[str, dict[str, float]]]) -> list[str]:
    """Markdown; the best plain KD is the one of the highest mean validation accuracy."""
    names = list(rows[0])
    plain = [name for name in names if name.startswith("kd(")]
    best = max(plain, key=lambda name: statistics.fmean(row[name]["validation"] for row in rows))
    lines = ["", f"### {regime}", "", f"Best plain KD, by validation: `{best}`.", ""]
    lines += [
        "| method | test | against best plain KD | last epoch | against plain KD's | AUROC for flips | ESS / n |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in names:
        test = [row[name]["test"] for row in rows]
        difference = _interval([row[name]["test"] - row[best]["test"] for row in rows]) if name != best else "–"
        figures = [[row[name][key] for row in rows if not math.isnan(row[name][key])] for key in ("auroc", "ess")]
        shown = [f"{statistics.fmean(values):.3f}" if values else "–" for values in figures]
        lowest = f" (lowest {min(figures[0]):.3f})" if figures[0] else ""
        mean = f"{statistics.fmean(test):.2f} ± {_std(test):.2f}"
        ends = statistics.fmean(row[name]["last"] for row in rows)
        later = _interval([row[name]["last"] - row[best]["last"] for row in rows]) if name != best else "–"
        lines.append(f"| {name} | {mean} | {difference} | {ends:.2f} | {later} | {shown[0]}{lowest} | {shown[1]} |")
    if "oracle" in names and "kd_aif" in names:
        gained, most = (statistics.fmean(r[n]["test"] - r[best]["test"] for r in rows) for n in ("kd_aif", "oracle"))
        lines += ["", f"KD-AIF closes {100 * gained / most:.0f} % of the oracle's gap."] if most > 0 else []
    if "small loss" in names and "kd_aif" in names:
        pairs = [row["kd_aif"]["test"] - row["small loss"]["test"] for row in rows]
        lines += ["", f"KD-AIF against the small-loss filter: {_interval(pairs)}."]
    return lines


def _interval(values: list[float]) -> str:
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:+.2f}"
    half = float(scipy.stats.t.ppf(0.975, len(values) - 1)) * _std(values) / math.sqrt(len(values))
    return f"{mean:+.2f} ± {half:.2f}"


def _std(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _setting(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regimes", nargs="+", choices=list(_REGIMES), default=list(_REGIMES))
    parser.add_argument("--methods", nargs="*", default=[], help="some of the table's; default: all")
    parser.add_argument("--set", nargs="*", type=_setting, default=[], help="key=value of kd_aif's configuration")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="where trained teachers are kept")
    return parser.parse_args()


if __name__ == "__main__":
    main()
