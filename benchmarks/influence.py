"""Whether KD-AIF's influence finds wrong labels, and what its weights are worth beside controls.

    python benchmarks/influence.py --data FOLDER --out FOLDER --seeds 5

On the `mnist_noisy_*` tasks, whose flipped labels are known here and to `oracle` alone: AUROC of the influence for
flips, by reference loss; then test accuracy of plain KD and of KD-AIF, each at three weights of the labels of which
validation takes the best, and at that weight of KD-AIF with its weights shuffled, of the oracle (flips dropped from the
start) and of a filter that drops as many examples as are flipped, those of the largest loss at the same moments (it is
told the noise rate; KD-AIF is not). All weigh both terms under the teacher that memorised the flips, and the
cross-entropy alone elsewhere. `clean` has no flips. Every training is kept in FOLDER/influence.jsonl as it ends, and is
not repeated.
"""

import argparse
import copy
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
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
KINDS = ("kd", "kd_aif")
WEIGHTS = (0.5, 0.9, 1.0)  # b, of the teacher's answers
CONTROLS: dict[str, tuple[str, dict[str, Any]]] = {
    "kd_aif, reference ce": ("kd_aif", {"reference_loss": "ce"}),
    "kd_aif, drop": ("kd_aif", {"weight_map": "drop"}),
    "shuffled": ("kd_aif", {"control": "shuffled"}),
    "small loss": ("small loss", {}),
    "oracle": ("oracle", {}),
}

Row = dict[str, float]  # accuracies in per cent: test, last (epoch), validation; auroc, ess


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
    first = f"--first-seed {arguments.first_seed} --seeds {arguments.seeds}"
    print(f"    python benchmarks/influence.py {first} --data DATA --out OUT\n")
    print(f"{machine['cpu']}, 1 thread, torch {torch.__version__}; seeds {seeds[0]} to {seeds[-1]}, n = {len(seeds)}.")
    for regime in arguments.regimes:
        print("\n".join(_table(regime, _regime(regime, seeds, arguments))), flush=True)


def _regime(regime: str, seeds: Sequence[int], arguments: argparse.Namespace) -> dict[str, list[Row]]:
    """A row of every seed, by method; the controls have the weight that is best for KD-AIF on validation."""
    run = _Trainings(regime, arguments)
    rows: dict[str, list[Row]] = {}
    for kind in ("kd", "kd_aif"):
        for b in WEIGHTS:
            rows[_label(kind, b)] = [run(kind, {"distill_weight": b}, seed) for seed in seeds]
    b = max(WEIGHTS, key=lambda b: _mean(rows[_label("kd_aif", b)], "validation"))
    for name, (kind, settings) in CONTROLS.items():
        rows[name] = [run(kind, {"distill_weight": b, **settings}, seed) for seed in seeds]
    rows["teacher"] = [run("teacher", {}, seed) for seed in seeds]
    return rows


class _Trainings:
    """Trains on demand, one seed's data and teacher at a time in memory, and keeps what came out."""

    def __init__(self, regime: str, arguments: argparse.Namespace) -> None:
        self._regime, self._arguments = regime, arguments
        self._journal: Path = arguments.out / "influence.jsonl"
        known = self._journal.read_text().splitlines() if self._journal.exists() else []
        self._kept: dict[str, Row] = {line["key"]: line["row"] for line in map(json.loads, known)}
        self._seed, self._made = -1, None

    def __call__(self, kind: str, settings: dict[str, Any], seed: int) -> Row:
        settings = dict(self._arguments.set) | settings
        key = json.dumps([self._regime, kind, settings, seed], sort_keys=True)
        if key not in self._kept:
            row = self._train(kind, settings, seed)
            with self._journal.open("a") as file:
                file.write(json.dumps({"key": key, "row": row}) + "\n")
            self._kept[key] = row
            print(f"{self._regime} {seed} {kind} {settings}: {row['test']:.2f}", file=sys.stderr)
        return self._kept[key]

    def _train(self, kind: str, settings: dict[str, Any], seed: int) -> Row:
        teacher, share, apply_to = _REGIMES[self._regime]
        if self._seed != seed:
            self._made = bench_of(teacher, seed, self._arguments.data, self._arguments.out, share)
            self._seed = seed
        assert self._made is not None
        bench, noisy = self._made
        if kind == "teacher":
            accuracy = 100 * evaluate(bench.teacher, noisy.test, _CPU).accuracy
            return {"test": accuracy, "last": accuracy, "validation": math.nan, "auroc": math.nan, "ess": math.nan}
        flipped = noisy.splits.train.targets != noisy.right
        if kind == "kd":
            return _train(bench, noisy, KD(KDConfig.model_validate(settings)), flipped, seed)
        config = KDAIFConfig.model_validate({"apply_to": apply_to} | settings)
        methods = {"kd_aif": lambda: KDAIF(config)}
        methods |= {"small loss": lambda: SmallLoss(config, flipped), "oracle": lambda: Oracle(config, flipped)}
        return _train(bench, noisy, methods[kind](), flipped, seed)


def _train(bench: Bench, noisy: Noisy, method: Method, flipped: Tensor, seed: int) -> Row:
    student, recipe = bench.make_student(seed), Recipe([method])
    teacher, splits = frozen(copy.deepcopy(bench.teacher)), bench.splits
    context = Context(
        splits.task,
        teacher,
        student,
        splits.train,
        splits.reference,
        _CPU,
        seed,
        lambda: recipe.deployable(student),
        recipe.look_at_teacher,
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


def _table(regime: str, rows: dict[str, list[Row]]) -> list[str]:
    """Markdown; the best of plain KD and of KD-AIF are those of the highest mean validation accuracy."""
    plain, ours = (max((_label(k, b) for b in WEIGHTS), key=lambda m: _mean(rows[m], "validation")) for k in KINDS)
    lines = ["", f"### {regime}", "", f"Best by validation: `{plain}`, `{ours}`, whose weight the controls have.", ""]
    lines += [
        "| method | test | against best plain KD | last epoch | against plain KD's | AUROC for flips | ESS / n |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, own in rows.items():
        test = [row["test"] for row in own]
        figures = [[row[key] for row in own if not math.isnan(row[key])] for key in ("auroc", "ess")]
        shown = [f"{statistics.fmean(values):.3f}" if values else "–" for values in figures]
        lowest = f" (lowest {min(figures[0]):.3f})" if figures[0] else ""
        against = [_against(rows, name, plain, key) if name != plain else "–" for key in ("test", "last")]
        lines.append(
            f"| {name} | {_mean(own, 'test'):.2f} ± {_std(test):.2f} | {against[0]} | {_mean(own, 'last'):.2f} | "
            f"{against[1]} | {shown[0]}{lowest} | {shown[1]} |"
        )
    for key, when in (("test", "At the epoch that validation chose"), ("last", "At the last epoch")):
        gained, most = (_mean(rows[name], key) - _mean(rows[plain], key) for name in (ours, "oracle"))
        share = f", {100 * gained / most:.0f} % of the oracle's" if most > 0 and regime == "memorised" else ""
        others = "; ".join(f"over {name} {_against(rows, ours, name, key)}" for name in ("small loss", "shuffled"))
        lines += ["", f"{when}, KD-AIF gains {_against(rows, ours, plain, key)} over plain KD{share}; {others}."]
    return lines


def _against(rows: Mapping[str, list[Row]], name: str, other: str, key: str) -> str:
    return _interval([mine[key] - theirs[key] for mine, theirs in zip(rows[name], rows[other], strict=True)])


def _mean(rows: list[Row], key: str) -> float:
    return statistics.fmean(row[key] for row in rows)


def _label(kind: str, b: float) -> str:
    return f"{kind}(distill_weight={b})"


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
    parser.add_argument("--set", nargs="*", type=_setting, default=[], help="key=value of kd_aif's configuration")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="where trained teachers are kept")
    return parser.parse_args()


if __name__ == "__main__":
    main()
