"""What pruning to a share of the parameters costs after equal fine-tuning, by criterion, beside two controls.

    python benchmarks/prune.py RUN [RUN …] [--keep 0.5 --methods l1 fpgm taylor --fine-tune 60 --rounds 1]

RUN is a finished run of `edgestill run`, whose distilled student is pruned; several of one configuration and different
seeds make the spread. Each criterion prunes the same student, and all are fine-tuned with the run's recipe for the same
epochs. The controls: the whole student fine-tuned likewise (what the epochs alone are worth), and with --from-scratch
fresh students of the pruned shape, distilled for the epochs of both (what the weights that stayed are worth).
Accuracies are on the test images, of the epoch that is best on validation. What a folder holds is not trained again.
"""

import argparse
import copy
import hashlib
import statistics
import time
from pathlib import Path
from typing import cast

import torch
from torch import nn

from edgestill.distill.compression.narrow import narrow, widths_of
from edgestill.distill.compression.prune import prune
from edgestill.distill.config import DistillConfig, PruneConfig
from edgestill.distill.result import DistillResult, TuneResult
from edgestill.distill.train import distill
from edgestill.distill.tune import with_hyperparameters
from edgestill.flows.chain import results_of
from edgestill.flows.config import RunConfig
from edgestill.flows.stages.context import StageContext
from edgestill.flows.stages.prune import scoring_batches
from edgestill.flows.stages.students import distilled, networks
from edgestill.flows.stages.training import fine_tuning
from edgestill.pipeline.data.loading import load_test
from edgestill.pipeline.frozen import digest
from edgestill.pipeline.networks.cost import measure_cost
from edgestill.pipeline.networks.network import Classifier, initialise
from edgestill.pipeline.runs.checkpoint import load_weights, weights_bytes, write_atomic
from edgestill.pipeline.runs.provenance import describe_machine
from edgestill.pipeline.runs.rundir import RunDir
from edgestill.pipeline.training.metrics import evaluate
from edgestill.pipeline.training.state import EpochRecord


class Bench:
    """One finished run: its data, teacher, student and recipe, and further trainings that are kept in a folder."""

    def __init__(self, root: Path, folder: Path, views: int) -> None:
        run = RunDir.view(root)
        self.stage = StageContext(run, run.config(RunConfig), lambda done, total, note: None)
        self.distilled = run.read("distill", DistillResult)
        self.point = distilled(self.stage, results_of(run, self.stage.config))
        best = run.read("tune", TuneResult).best
        recipe = with_hyperparameters(self.stage.config.distill, best)
        training = recipe.training.model_copy(update={"patience": 0, "views": views})  # equal epochs for all rows
        self.recipe = recipe.model_copy(update={"training": training})
        self.splits = self.stage.splits()
        self.test = load_test(self.stage.config.read_data, self.stage.config.seed, self.stage.tokenizer())
        self.teacher = self.stage.teacher(self.splits.task)
        self.folder = folder / root.resolve().name

    @property
    def epochs(self) -> int:
        return len(self.distilled.curve)

    def student(self) -> nn.Module:
        """As the run distilled it."""
        student, shipped = networks(self.stage, self.point, self.splits.task)
        if student is not shipped:
            raise SystemExit("this benchmark prunes students that train no head of their own, such as plain KD's")
        return student

    def fresh(self) -> nn.Module:
        return self.stage.fresh_student(self.point.architecture, self.splits.task)

    def trained(self, name: str, student: nn.Module, config: DistillConfig) -> nn.Module:
        """The student after distillation, from the folder where it is there."""
        start_from = hashlib.sha256(weights_bytes(student)).hexdigest()  # which earlier rounds decide
        path = self.folder / f"{name}-{digest(config, start_from)[:8]}.safetensors"
        if path.is_file():
            load_weights(student, path)
            return student
        start = time.perf_counter()
        done = distill(
            student,
            copy.deepcopy(self.teacher),
            self.splits,
            config,
            seed=self.stage.seed("prune", config.training.epochs),  # the same images in the same order for all rows
            device=self.stage.device,
            compute=self.stage.compute,
            observe=lambda record: _tell(name, record),
        )
        write_atomic(path, weights_bytes(done.student.cpu()))
        seconds = time.perf_counter() - start
        print(f"  {name}: {seconds:.0f} s, {self.accuracy(done.student):.2%} on test", flush=True)
        return done.student

    def pruned(self, student: nn.Module, config: PruneConfig, learning_rate_factor: float) -> nn.Module:
        """After the last round, before its fine-tuning."""
        whole = sum(parameter.numel() for parameter in student.parameters())
        batches, seed = scoring_batches(self.stage, self.splits, config), self.stage.seed("prune", "speed-up")
        short = fine_tuning(self.recipe, config.round_epochs, learning_rate_factor)
        for number, share in enumerate(config.shares, 1):
            found = prune(student, cast(Classifier, student).get_classifier(), config, batches, seed, share * whole)
            student = narrow(copy.deepcopy(student), found.widths)
            student.load_state_dict(found.state)
            if number < config.rounds:
                student = self.trained(f"{config.method}_round{number}of{config.rounds}", student, short)
        return student

    def accuracy(self, network: nn.Module) -> float:
        return evaluate(copy.deepcopy(network).to(self.stage.device), self.test, self.stage.device).accuracy

    def cost(self, network: nn.Module) -> tuple[int, int]:
        counted = measure_cost(lambda: copy.deepcopy(network).cpu(), self.splits.task.input_shape)
        return counted.params, counted.flops


def _tell(name: str, record: EpochRecord) -> None:
    if record.epoch % 10 == 0:
        print(f"  {name}: epoch {record.epoch}, {record.validation_accuracy:.2%} on validation", flush=True)


def main() -> None:
    arguments = _arguments()
    rows: dict[str, list[tuple[int, int, float, float, float]]] = {}
    for root in arguments.runs:
        bench = Bench(root, arguments.folder, arguments.views)
        print(
            f"{describe_machine()['cpu']}, {bench.stage.device}, torch {torch.__version__}; "
            f"{len(bench.splits.train):,} training and {len(bench.test):,} test images; seed "
            f"{bench.stage.config.seed}, student {bench.distilled.architecture}, {bench.epochs} epochs, then "
            f"{arguments.fine_tune} of fine-tuning",
            flush=True,
        )
        for name, row in _rows(bench, arguments).items():
            rows.setdefault(name, []).append(row)
    _table(rows, len(bench.test))


def _rows(bench: Bench, arguments: argparse.Namespace) -> dict[str, tuple[int, int, float, float, float]]:
    """Parameters, FLOPs, and accuracy before, after pruning and after fine-tuning; by row of the table."""
    short = fine_tuning(bench.recipe, arguments.fine_tune, arguments.learning_rate_factor)
    student = bench.student()
    before = bench.accuracy(student)
    rows = {}
    for method in arguments.methods:
        wanted = PruneConfig(
            method=method, keep=arguments.keep, rounds=arguments.rounds, round_epochs=arguments.round_epochs
        )
        pruned = bench.pruned(student, wanted, arguments.learning_rate_factor)
        one_shot = bench.accuracy(pruned)
        tuned = bench.trained(f"{method}{arguments.rounds}", pruned, short)
        rows[method] = (*bench.cost(tuned), before, one_shot, bench.accuracy(tuned))
        if arguments.from_scratch:
            fresh = narrow(bench.fresh(), widths_of(tuned))
            initialise(fresh, "kaiming", bench.stage.seed("prune", method, "fresh"))
            both = fine_tuning(bench.recipe, bench.epochs + arguments.fine_tune, 1.0)
            fresh = bench.trained(f"scratch_{method}", fresh, both)
            rows[f"shape of {method}, from scratch"] = (*bench.cost(fresh), before, float("nan"), bench.accuracy(fresh))
    whole = bench.trained("whole", copy.deepcopy(student), short)
    return rows | {"whole, fine-tuned": (*bench.cost(student), before, before, bench.accuracy(whole))}


def _table(rows: dict[str, list[tuple[int, int, float, float, float]]], n: int) -> None:
    print(f"\nTest accuracy in percent, mean and range over {len(next(iter(rows.values())))} run(s), n = {n:,}\n")
    print("| | parameters | FLOPs | student | pruned | fine-tuned | change, points |")
    print("|---|---|---|---|---|---|---|")
    for name, found in rows.items():
        params, flops, before, pruned, after = zip(*found, strict=True)
        change = [100 * (a - b) for a, b in zip(after, before, strict=True)]
        spread = f"{statistics.mean(change):+.2f} [{min(change):+.2f}, {max(change):+.2f}]"
        cells = [f"{statistics.mean(params):,.0f}", f"{statistics.mean(flops):,.0f}"]
        print(f"| {name} | {' | '.join([*cells, *map(_percent, (before, pruned, after))])} | {spread} |")


def _percent(values: tuple[float, ...]) -> str:
    low, high = 100 * min(values), 100 * max(values)
    return "–" if low != low else f"{100 * statistics.mean(values):.2f} [{low:.2f}, {high:.2f}]"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--methods", nargs="+", default=["l1", "fpgm", "taylor"])
    parser.add_argument("--keep", type=float, default=0.5, help="share of the parameters")
    parser.add_argument("--fine-tune", type=int, default=60, help="epochs")
    parser.add_argument(
        "--learning-rate-factor", type=float, default=RunConfig.model_fields["prune"].default.learning_rate_factor
    )
    parser.add_argument("--rounds", type=int, default=1, help="of pruning, with fine-tuning in between")
    parser.add_argument("--round-epochs", type=int, default=4, help="of the fine-tuning in between")
    parser.add_argument("--views", type=int, default=0, help="crops of each image that take turns; 0 draws afresh")
    parser.add_argument("--from-scratch", action="store_true", help="also train the pruned shapes afresh")
    parser.add_argument("--folder", type=Path, default=Path("prune_runs"), help="keeps what was trained")
    return parser.parse_args()


if __name__ == "__main__":
    main()
