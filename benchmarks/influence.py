"""Whether KD-AIF's influence finds wrong labels, and what its weights are worth beside controls.

    python benchmarks/influence.py --data FOLDER --out FOLDER --seeds 5

On the `mnist_noisy_*` tasks, whose flipped labels are known here and to `oracle` alone: AUROC of the influence for
flips, by reference loss; then test accuracy of plain KD and of KD-AIF, each at six weights of the teacher's answers, 0
among them, and three temperatures, of which validation takes the best; and at those of KD-AIF with its weights
shuffled, of the oracle (flips dropped from the start) and of a filter that drops as many examples as are flipped, those
of the largest loss at the same moments (it is told the noise rate; KD-AIF is not). All weigh both terms under the
teacher that memorised the flips, and the cross-entropy alone elsewhere. `clean` has no flips. Every training is kept
in FOLDER/influence.jsonl as it ends, and is not repeated.
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

import torch
from lib.bench import Bench, shown_command, shown_difference, spread
from lib.influence_controls import Oracle, SmallLoss
from sklearn.metrics import roc_auc_score
from tasks._mnist_noisy import TRAINING, Noisy, bench_of
from torch import Tensor

from edgestill.distill.methods import Method
from edgestill.distill.methods.base import Context, MethodConfig
from edgestill.distill.methods.kd import KD, KDConfig
from edgestill.distill.methods.kd_aif.method import KDAIF, KDAIFConfig
from edgestill.distill.recipe import Recipe
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.device import DeviceConfig, select_device
from edgestill.pipeline.frozen import digest
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.runs.yaml_text import read_yaml
from edgestill.pipeline.teachers.teacher import frozen
from edgestill.pipeline.training.fit import EpochRecord, fit
from edgestill.pipeline.training.metrics import evaluate

_CPU = torch.device("cpu")
_REGIMES = {  # teacher, share of flipped labels, what is weighed
    "memorised": ("memorised", 0.2, "both"),
    "noisy": ("noisy", 0.2, "ce"),
    "good": ("good", 0.2, "ce"),
    "clean": ("noisy", 0.0, "ce"),
}
WEIGHTS = (0.0, 0.1, 0.3, 0.5, 0.9, 1.0)  # b, of the teacher's answers
TEMPERATURES = (1.0, 4.0, 8.0)
CONTROLS: dict[str, tuple[str, dict[str, Any]]] = {
    "kd_aif, reference ce": ("kd_aif", {"reference_loss": "ce"}),
    "kd_aif, drop": ("kd_aif", {"weight_map": "drop"}),
    "shuffled": ("kd_aif", {"control": "shuffled"}),
    "small loss": ("small loss", {}),
    "oracle": ("oracle", {}),
}

Row = dict[str, float]  # accuracies in per cent: test, last (epoch), validation; auroc, ess


def main() -> None:
    arguments = _arguments()
    select_device(DeviceConfig(accelerator="cpu", threads=1))
    arguments.out.mkdir(parents=True, exist_ok=True)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    machine = describe_machine()
    print(f"    {shown_command()}\n")
    print(f"{machine['cpu']}, 1 thread, torch {torch.__version__}; seeds {seeds[0]} to {seeds[-1]}, n = {len(seeds)}.")
    for regime in arguments.regimes:
        print("\n".join(_table(regime, _regime(regime, seeds, arguments))), flush=True)


def _regime(regime: str, seeds: Sequence[int], arguments: argparse.Namespace) -> dict[str, list[Row]]:
    """A row of every seed, by method; the controls have the setting that is best for KD-AIF on validation."""
    run = _Trainings(regime, arguments)
    grid = [(b, t) for b in WEIGHTS for t in (TEMPERATURES if b else (KDConfig().temperature,))]  # T is idle at b = 0
    told = {(kind, b, t): {"distill_weight": b, "temperature": t} for kind in ("kd", "kd_aif") for b, t in grid}
    tried = {_label(*key): (key[0], settings) for key, settings in told.items()}
    rows = {label: [run(kind, settings, seed) for seed in seeds] for label, (kind, settings) in tried.items()}
    best = tried[_best(rows, "kd_aif")][1]
    for name, (kind, settings) in CONTROLS.items():
        rows[name] = [run(kind, best | settings, seed) for seed in seeds]
    rows["teacher"] = [run("teacher", {}, seed) for seed in seeds]
    return rows


class _Trainings:
    """Trains on demand, one seed's data and teacher at a time in memory, and keeps what came out."""

    def __init__(self, regime: str, arguments: argparse.Namespace) -> None:
        self._regime, self._arguments = regime, arguments
        self._journal: Path = arguments.out / "influence.jsonl"
        known = self._journal.read_text(encoding="utf-8").splitlines() if self._journal.exists() else []
        self._kept: dict[str, Row] = {line["key"]: line["row"] for line in map(json.loads, known)}
        self._seed = -1
        self._made: tuple[Bench, Noisy] | None = None

    def __call__(self, kind: str, settings: dict[str, Any], seed: int) -> Row:
        config = config_of(self._regime, kind, settings, dict(self._arguments.set))
        temperature = settings.get("temperature", KDConfig().temperature)
        key = key_of(self._regime, kind, config, seed, temperature)
        if key not in self._kept:
            row = self._train(kind, config, temperature, seed)
            told = {"regime": self._regime, "kind": kind, "settings": settings, "seed": seed}
            with self._journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, **told, "row": row}) + "\n")
            self._kept[key] = row
            print(f"{self._regime} {seed} {kind} {settings}: {row['test']:.2f}", file=sys.stderr)
        return self._kept[key]

    def _train(self, kind: str, config: MethodConfig | None, temperature: float, seed: int) -> Row:
        teacher, share, _ = _REGIMES[self._regime]
        if self._seed != seed:
            self._made = bench_of(teacher, seed, self._arguments.data, self._arguments.out, share)
            self._seed = seed
        assert self._made is not None
        bench, noisy = self._made
        if config is None:
            accuracy = 100 * evaluate(bench.teacher, noisy.test, _CPU).accuracy
            return {"test": accuracy, "last": accuracy, "validation": math.nan, "auroc": math.nan, "ess": math.nan}
        flipped = noisy.splits.train.targets != noisy.right
        methods = [_method(kind, config, flipped)]
        if kind != "kd":  # which divides its own logits
            methods.append(KD(KDConfig(temperature=temperature)))
        return _train(bench, noisy, methods, flipped, seed)


def config_of(regime: str, kind: str, settings: Mapping[str, Any], told: Mapping[str, Any]) -> MethodConfig | None:
    """What is trained; `told` is for KD-AIF and its controls. None is the teacher as it is."""
    if kind == "teacher":
        return None
    if kind == "kd":
        return KDConfig.model_validate(settings)
    own = {name: value for name, value in settings.items() if name != "temperature"}  # which is KD's, beside it
    return KDAIFConfig.model_validate({"apply_to": _REGIMES[regime][2], **told, **own})


def key_of(
    regime: str, kind: str, config: MethodConfig | None, seed: int, temperature: float = KDConfig().temperature
) -> str:
    """Names a training by all that it was told, defaults included, so that one that changes is another training."""
    beside = () if kind in ("kd", "teacher") or temperature == KDConfig().temperature else (temperature,)
    return digest(regime, _REGIMES[regime], kind, config, TRAINING, seed, *beside)[:16]


def _method(kind: str, config: Any, flipped: Tensor) -> Method:
    if kind == "small loss":
        return SmallLoss(config, flipped)
    if kind == "oracle":
        return Oracle(config, flipped)
    return KD(config) if kind == "kd" else KDAIF(config)


def _train(bench: Bench, noisy: Noisy, methods: Sequence[Method], flipped: Tensor, seed: int) -> Row:
    student, recipe = bench.make_student(seed), Recipe(methods)
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
    recipe.prepare(context, Augmentation())
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
    plain, ours = _best(rows, "kd"), _best(rows, "kd_aif")
    lines = ["", f"### {regime}", "", f"Best by validation: `{plain}`, `{ours}`, whose setting the controls have.", ""]
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
            f"| {name} | {_mean(own, 'test'):.2f} ± {spread(test):.2f} | {against[0]} | {_mean(own, 'last'):.2f} | "
            f"{against[1]} | {shown[0]}{lowest} | {shown[1]} |"
        )
    for key, when in (("test", "At the epoch that validation chose"), ("last", "At the last epoch")):
        gained, most = (_mean(rows[name], key) - _mean(rows[plain], key) for name in (ours, "oracle"))
        share = f", {100 * gained / most:.0f} % of the oracle's" if most > 0 and regime == "memorised" else ""
        others = "; ".join(f"over {name} {_against(rows, ours, name, key)}" for name in ("small loss", "shuffled"))
        lines += ["", f"{when}, KD-AIF gains {_against(rows, ours, plain, key)} over plain KD{share}; {others}."]
    return lines


def _against(rows: Mapping[str, list[Row]], name: str, other: str, key: str) -> str:
    return shown_difference([row[key] for row in rows[name]], [row[key] for row in rows[other]])


def _best(rows: Mapping[str, list[Row]], kind: str) -> str:
    """The one of a kind's tried settings that validation takes."""
    return max((label for label in rows if label.startswith(f"{kind}(")), key=lambda m: _mean(rows[m], "validation"))


def _mean(rows: list[Row], key: str) -> float:
    return statistics.fmean(row[key] for row in rows)


def _label(kind: str, b: float, temperature: float) -> str:
    at = f",temperature={temperature:g}" if b else ""
    return f"{kind}(distill_weight={b:g}{at})"


def _setting(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    return key, read_yaml(value, key)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regimes", nargs="+", choices=list(_REGIMES), default=list(_REGIMES))
    parser.add_argument("--set", nargs="*", type=_setting, default=[], help="key=value for kd_aif and its controls")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="where trained teachers are kept")
    return parser.parse_args()


if __name__ == "__main__":
    main()
