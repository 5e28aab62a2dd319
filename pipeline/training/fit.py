"""The training loop: the teacher and every distillation method run this one.

All randomness in an epoch (order, augmentation, dropout) comes from a seed derived from the run's seed and the
epoch's number. So a run resumed from its last epoch computes the same as an undisturbed one.
"""

# B batch, K classes

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edgestill.pipeline.data.ahead import batches_ahead
from edgestill.pipeline.data.augmentation import Augmentation
from edgestill.pipeline.data.splits import Batch, ImageSplit
from edgestill.pipeline.device import FP32, Compute
from edgestill.pipeline.errors import TrainingError
from edgestill.pipeline.frozen import Frozen, derive_seed
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.training.balance import class_weights
from edgestill.pipeline.training.compiled import Compilation
from edgestill.pipeline.training.config import TrainingConfig
from edgestill.pipeline.training.metrics import Metrics, evaluate
from edgestill.pipeline.training.objective import Moment, Objective
from edgestill.pipeline.training.processes import spreading
from edgestill.pipeline.training.state import EpochRecord, TrainingState

_ADVICE = "try a lower learning_rate"


class FitResult(Frozen):
    best_epoch: int  # from 1
    best: Metrics  # on validation
    stopped_early: bool
    curve: tuple[EpochRecord, ...]


def fit(
    network: nn.Module,
    objective: Objective,
    train: ImageSplit,
    validation: ImageSplit,
    config: TrainingConfig,
    *,
    seed: int,
    device: torch.device,
    augmentation: Augmentation | None = None,
    observe: Callable[[EpochRecord], None] = lambda _: None,
    save: Callable[[dict[str, Any]], None] = lambda _: None,
    resume: dict[str, Any] | None = None,
    compute: Compute = FP32,
) -> FitResult:
    """Train in place and leave the network (and the objective) at its best epoch on validation.

    The best epoch has the highest validation accuracy, or balanced accuracy if `config.metric` says so. Ties go to the
    later one, whose learning rate is lower: on a small validation split many epochs reach the same accuracy, and the
    early ones among them were lucky.

    Args:
        observe: is given every epoch's record; an exception from it ends the training, as Optuna's pruning does.
        save: is given the state after every epoch; a large one after fewer, so that it takes a twentieth of the time.
        resume: a state that `save` was given, to go on from.
        compute: mixed precision, several GPUs or processes, in training; validation is in fp32 and in this process.

    Raises:
        TrainingError: the loss, in training or on validation, became NaN or infinite.
        FailedError: one of several processes ended.
    """
    network.to(device)
    train, validation = train.to(device), validation.to(device)
    parameters = [*network.parameters(), *objective.parameters()]
    optimizer = _optimizer(parameters, config)
    scaler = compute.scaler(device)
    state = TrainingState(network, objective, optimizer, scaler)
    if resume is not None:
        state.load(resume)
    steps = _steps_per_epoch(len(train), config.batch_size)
    first = torch.arange(min(len(train), config.batch_size))
    mode = "off" if compute.gpus != 1 or compute.processes != 1 else compute.compile
    compilation = Compilation(network, mode, lambda: train.batch(first, device).inputs, compute.tell)
    if state.is_compiled is not None and mode != "off":
        compilation.is_on = state.is_compiled
    weights = None if config.balance == "none" else class_weights(train.targets.cpu())
    saves = _Saves(save, sum(parameter.numel() for parameter in parameters))
    with spreading(compute, network, device) as spread:
        while len(state.curve) < config.epochs and not state.out_of_patience(config.patience):
            epoch = len(state.curve)
            if compilation.decide(state.curve[-1].seconds if epoch else None, config.epochs - epoch):
                state.is_compiled = compilation.is_on
                if epoch:
                    saves.now(state)  # a kill from here on repeats the epoch with the same decision
            start = time.perf_counter()
            running = compilation.network()
            step = _Step(running, spread(running), network, objective, optimizer, scaler, compute, device)
            with drawn_from(derive_seed(seed, "dropout", epoch)):
                terms = _train_epoch(step, train, config, steps, epoch, seed, augmentation, weights)
                objective.end_epoch(epoch, network)
                metrics = evaluate(
                    objective.deployable(network), validation, device, balanced=config.metric == "balanced_accuracy"
                )
            if not math.isfinite(metrics.cross_entropy):
                raise TrainingError(
                    f"the validation loss became {metrics.cross_entropy} in epoch {epoch + 1}; {_ADVICE}"
                )
            record = EpochRecord(
                epoch=epoch + 1,
                learning_rate=optimizer.param_groups[0]["lr"],
                loss=sum(terms.values()),
                terms=terms,
                validation_accuracy=metrics.accuracy,
                validation_cross_entropy=metrics.cross_entropy,
                seconds=time.perf_counter() - start,
                validation_balanced_accuracy=metrics.balanced_accuracy,
            )
            state.add(record, metrics)
            observe(record)  # before the save: an epoch that a kill repeats is observed again rather than never
            saves.if_due(state, is_last=len(state.curve) == config.epochs)
    stopped = len(state.curve) < config.epochs
    state.restore_best()
    return FitResult(best_epoch=state.best_epoch, best=state.best, stopped_early=stopped, curve=tuple(state.curve))


class _Saves:
    """Save the state of a training; that of many parameters not so often that it costs a twentieth of the time.

    A kill then costs at most twenty times what saving takes.
    """

    def __init__(self, save: Callable[[dict[str, Any]], None], parameters: int) -> None:
        self._save, self._is_small = save, parameters < _MANY
        self._took_s, self._last = 0.0, time.perf_counter()

    def if_due(self, state: TrainingState, is_last: bool) -> None:
        """Save the state if it is time to; that of the last epoch always, as another training may go on from it."""
        if self._is_small or is_last or time.perf_counter() - self._last >= 20 * self._took_s:
            self.now(state)

    def now(self, state: TrainingState) -> None:
        start = time.perf_counter()
        self._save(state.dump())
        self._last = time.perf_counter()
        self._took_s = self._last - start


_MANY = 1_000_000  # parameters: 12 MB of a state, saved in some 50 ms


class _Step:
    """One step of the optimizer on one batch.

    Args:
        running: the network itself, or one that computes the same faster.
        spread: the running one, or one whose features are computed by several GPUs or processes.
    """

    def __init__(
        self,
        running: nn.Module,
        spread: nn.Module,
        network: nn.Module,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        compute: Compute,
        device: torch.device,
    ) -> None:
        self.running, self.network, self.objective, self.optimizer = running, network, objective, optimizer
        self._scaler, self._compute, self.device, self._spread = scaler, compute, device, spread

    def __call__(self, batch: Batch, generator: torch.Generator) -> tuple[Mapping[str, Tensor], Batch]:
        """Take the step, and return the terms of its loss and the batch as the objective prepared it."""
        with self._compute.autocast(self.device):
            batch = self.objective.prepare_batch(batch, generator)
            terms = self.objective.loss(self._spread, batch)
        self.optimizer.zero_grad(set_to_none=True)
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.objective.backward(terms, self._scaler.scale, parameters)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        return {name: term.detach() for name, term in terms.items()}, batch


def _train_epoch(
    step: _Step,
    train: ImageSplit,
    config: TrainingConfig,
    steps: int,
    epoch: int,
    seed: int,
    augmentation: Augmentation | None,
    weights: Tensor | None,
) -> dict[str, float]:
    """Train on as many images as there are, and return the mean of each loss term over the steps."""
    step.network.train()
    step.running.train()
    generator = torch.Generator().manual_seed(derive_seed(seed, "epoch", epoch))
    order = step.objective.order(epoch, generator)
    if order is None:
        order = _order(len(train), weights if config.balance == "sampling" else None, generator)
    totals: dict[str, Tensor] = {}
    chosen = torch.split(order, config.batch_size)[: _steps_per_epoch(len(order), config.batch_size)]
    if not chosen:
        raise TrainingError(f"the methods chose {len(order)} examples for epoch {epoch + 1}, too few for a step")
    for number, batch in enumerate(batches_ahead(train, chosen, step.device)):
        _set_learning_rate(step.optimizer, config, _epochs_done(epoch, number, len(chosen), config))
        if weights is not None and config.balance == "weights":
            batch = batch._replace(weight=weights[chosen[number]].to(batch.targets.device, torch.float32))
        if augmentation is not None:
            batch = augmentation(batch, epoch, generator)
        terms, batch = step(batch, generator)
        progress = (epoch * len(chosen) + number + 1) / (len(chosen) * config.epochs)
        step.objective.tick(Moment(epoch * steps + number + 1, progress, epoch, terms, batch, step.network))
        for name, value in terms.items():
            totals[name] = totals.get(name, torch.zeros((), device=value.device)) + value
    means = {name: float(total) / len(chosen) for name, total in totals.items()}
    if not all(math.isfinite(value) for value in means.values()):
        raise TrainingError(
            f"the loss became {means} in epoch {epoch + 1} at learning rate "
            f"{step.optimizer.param_groups[0]['lr']:.3g}; {_ADVICE}"
        )
    return means


def _order(count: int, weights: Tensor | None, generator: torch.Generator) -> Tensor:
    """Order of an epoch's images: each once, or as many drawn by weight, with replacement."""
    if weights is None:
        return torch.randperm(count, generator=generator)
    ends = weights.cumsum(0)
    return torch.searchsorted(ends, torch.rand(count, generator=generator, dtype=torch.float64) * ends[-1])


def _steps_per_epoch(examples: int, batch_size: int) -> int:
    """Number of steps an epoch. A last batch of a single image is left out: batch norm cannot train on it."""
    whole, rest = divmod(examples, batch_size)
    return whole + (1 if rest > 1 else 0)


def _epochs_done(epoch: int, number: int, steps: int, config: TrainingConfig) -> float:
    """Moment, in epochs, of a step's learning rate: the end of the step, where the last step's rate is 0.

    A training of a single step uses its middle, or it would learn nothing.
    """
    if steps * config.epochs == 1:
        return 0.5
    return (epoch * steps + number + 1) / steps


def _set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainingConfig, epochs_done: float) -> None:
    """Set the learning rate: linear warm-up to the configured rate, then half a cosine down to 0 at the last step.

    A warm-up that is as long as the training, or longer, is left out.
    """
    warmup = config.warmup_epochs if config.warmup_epochs < config.epochs else 0.0
    if epochs_done < warmup:
        factor = epochs_done / warmup
    else:
        factor = 0.5 * (1 + math.cos(math.pi * (epochs_done - warmup) / (config.epochs - warmup)))
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * factor


def _optimizer(parameters: list[nn.Parameter], config: TrainingConfig) -> torch.optim.Optimizer:
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        parameters, lr=config.learning_rate, momentum=0.9, nesterov=True, weight_decay=config.weight_decay
    )
