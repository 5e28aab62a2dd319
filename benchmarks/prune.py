"""What pruning to a share of the parameters costs after equal fine-tuning, by criterion, beside two controls.

    python benchmarks/prune.py --data cifar10.npz --teacher-weights resnet56.th [--student 3-3-3/16-32-64] \\
        [--epochs 200 --fine-tune 60 --seeds 0 1 2 --keep 0.5 --methods l1 fpgm taylor] [--folder prune_runs]

A seed's student is distilled once by plain KD; each criterion prunes that same student, and all are fine-tuned with the
same recipe for the same epochs. The controls: the whole student fine-tuned likewise (what the epochs alone are worth),
and fresh students of the pruned shape, distilled for the epochs of both (what the weights that stayed are worth).
Accuracies are on the test images, of the epoch that is best on validation. What a folder holds is not trained again.
"""

import argparse
import copy
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from distill.config import DistillConfig, PruneConfig
from distill.narrow import narrow, widths_of
from distill.prune import prune
from distill.train import distill
from flows.config import RunConfig, load_config
from flows.pruning import fine_tuning
from flows.stage import drawn_from
from pipeline.checkpoint import load_weights, weights_bytes, write_atomic
from pipeline.cost import measure_cost
from pipeline.data import ImageSplit, Splits, load_splits, load_test
from pipeline.device import Compute, select_device
from pipeline.frozen import derive_seed, digest
from pipeline.metrics import evaluate
from pipeline.network import initialise
from pipeline.provenance import describe_machine
from pipeline.teacher import load_teacher
from search.spaces import ResNetConfig, make_space


class Bench:
    """One configuration: the data, the teacher, and trainings that are kept in a folder."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.config = load_config(preset="cifar10", settings=_settings(arguments))
        self.device = select_device(self.config.device)
        self.splits = _part(load_splits(self.config.read_data, self.config.seed), arguments.images)
        self.test = load_test(self.config.read_data, self.config.seed)
        assert self.config.teacher.weights is not None
        self.teacher = load_teacher(self.config.teacher, self.splits.task, self.config.teacher.weights)
        space = make_space(ResNetConfig())
        self.architecture = space.parse(arguments.student)
        self._build = lambda: space.build(self.architecture, self.splits.task)

    def fresh(self, seed: int) -> nn.Module:
        with drawn_from(derive_seed(seed, "student")):
            return self._build()

    def trained(self, name: str, student: nn.Module, config: DistillConfig, seed: int) -> nn.Module:
        """The student after distillation, from the folder where it is there."""
        key = digest(config, self.arguments.student, self.arguments.images, self.arguments.keep, widths_of(student))
        path = Path(self.arguments.folder) / f"{name}-{key[:8]}.safetensors"
        if path.is_file():
            load_weights(student, path)
            return student
        start = time.perf_counter()
        done = distill(
            student,
            copy.deepcopy(self.teacher),
            self.splits,
            config,
            seed=derive_seed(seed, config.training.epochs),  # the same images in the same order for all rows
            device=self.device,
            compute=Compute(self.config.device.precision, self.config.device.gpus),
        )
        write_atomic(path, weights_bytes(done.student.cpu()))
        print(f"  {name}: {time.perf_counter() - start:.0f} s", flush=True)
        return done.student

    def accuracy(self, network: nn.Module) -> float:
        return evaluate(copy.deepcopy(network).to(self.device), self.test, self.device).accuracy

    def cost(self, network: nn.Module) -> tuple[int, int]:
        counted = measure_cost(lambda: copy.deepcopy(network).cpu(), self.splits.task.input_shape)
        return counted.params, counted.flops


def main() -> None:
    arguments = _arguments()
    bench = Bench(arguments)
    machine = describe_machine()
    print(
        f"{machine['cpu']}, {bench.device}, torch {torch.__version__}; {len(bench.splits.train):,} training and "
        f"{len(bench.test):,} test images; student {arguments.student}, {arguments.epochs} epochs, then "
        f"{arguments.fine_tune} of fine-tuning",
        flush=True,
    )
    rows: dict[str, list[tuple[int, int, float, float, float]]] = {}
    for seed in arguments.seeds:
        print(f"seed {seed}", flush=True)
        for name, row in _seed(bench, seed).items():
            rows.setdefault(name, []).append(row)
    _table(rows, len(bench.test))


def _seed(bench: Bench, seed: int) -> dict[str, tuple[int, int, float, float, float]]:
    """Parameters, FLOPs, and accuracy before, after pruning and after fine-tuning; by row of the table."""
    arguments, config = bench.arguments, bench.config.distill
    short = fine_tuning(config, arguments.fine_tune, arguments.learning_rate_factor)
    student = bench.trained(f"distilled-{seed}", bench.fresh(seed), config, seed)
    before = bench.accuracy(student)
    whole = bench.trained(f"whole-{seed}", copy.deepcopy(student), short, seed)
    rows = {"whole, fine-tuned": (*bench.cost(student), before, before, bench.accuracy(whole))}
    examples = list(_shuffled(bench.splits.reference, seed).batches(64))[:16]
    for method in arguments.methods:
        wanted = PruneConfig(method=method, keep=arguments.keep)
        found = prune(student, _classifier(student), wanted, examples, seed)
        pruned = narrow(copy.deepcopy(student), found.widths)
        pruned.load_state_dict(found.state)
        one_shot = bench.accuracy(pruned)
        tuned = bench.trained(f"{method}-{seed}", pruned, short, seed)
        rows[method] = (*bench.cost(tuned), before, one_shot, bench.accuracy(tuned))
        if arguments.from_scratch:
            fresh = narrow(bench.fresh(seed), widths_of(tuned))
            initialise(fresh, "kaiming", derive_seed(seed, method, "fresh"))
            both = config.training.model_copy(update={"epochs": arguments.epochs + arguments.fine_tune})
            longer = config.model_copy(update={"training": both})
            fresh = bench.trained(f"scratch_{method}-{seed}", fresh, longer, seed)
            rows[f"shape of {method}, from scratch"] = (*bench.cost(fresh), before, float("nan"), bench.accuracy(fresh))
    return rows


def _table(rows: dict[str, list[tuple[int, int, float, float, float]]], n: int) -> None:
    print(f"\nTest accuracy in percent, mean and range over {len(next(iter(rows.values())))} seed(s), n = {n:,}\n")
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


def _classifier(network: nn.Module) -> nn.Module:
    classifier: nn.Module = network.get_classifier()  # type: ignore[operator]
    return classifier


def _shuffled(split: ImageSplit, seed: int) -> ImageSplit:
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(derive_seed(seed, "images")))
    return ImageSplit(split.images[order], split.targets[order])


def _part(splits: Splits, images: int | None) -> Splits:
    if images is None:
        return splits
    train = ImageSplit(splits.train.images[:images], splits.train.targets[:images], splits.train.role)
    return Splits(**(vars(splits) | {"train": train}))


def _settings(arguments: argparse.Namespace) -> list[str]:
    return [
        "data.name=npz",
        f"data.path={arguments.data}",
        f"teacher.weights={arguments.teacher_weights}",
        f"device.threads={arguments.threads}",
        f"device.precision={arguments.precision}",
        f"distill.training.epochs={arguments.epochs}",
        "distill.training.patience=0",
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10 as x_train, y_train, x_test, y_test")
    parser.add_argument("--teacher-weights", type=Path, required=True, help="of a ResNet-56 with option-A shortcuts")
    parser.add_argument("--student", default="3-3-3/16-32-64", help="of space resnet")
    parser.add_argument("--methods", nargs="+", default=["l1", "fpgm", "taylor"])
    parser.add_argument("--keep", type=float, default=0.5, help="share of the parameters")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--fine-tune", type=int, default=60, help="epochs")
    parser.add_argument(
        "--learning-rate-factor", type=float, default=RunConfig.model_fields["prune"].default.learning_rate_factor
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--from-scratch", action="store_true", help="also train the pruned shapes afresh")
    parser.add_argument("--images", type=int, help="train on the first so many")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--folder", default="prune_runs", help="keeps what was trained")
    return parser.parse_args()


if __name__ == "__main__":
    main()
