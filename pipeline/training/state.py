"""The state of a training after an epoch, from which it can be resumed or restarted."""

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from pydantic import SerializerFunctionWrapHandler, model_serializer
from torch import Tensor, nn

from edgestill.pipeline.frozen import Frozen, Share, without_none
from edgestill.pipeline.training.metrics import Metrics

_NO_METRICS = Metrics(accuracy=0.0, cross_entropy=math.inf, n=1)  # no better than any measured


class EpochRecord(Frozen):
    """A row of the learning curve."""

    epoch: int  # from 1
    learning_rate: float  # at the end of the epoch
    loss: float  # mean over the epoch's steps
    terms: dict[str, float]  # the loss by its terms, likewise
    validation_accuracy: Share
    validation_cross_entropy: float
    seconds: float
    validation_balanced_accuracy: Share | None = None  # where it chooses

    @property
    def validation_score(self) -> float:
        """Figure that chooses, higher is better."""
        balanced = self.validation_balanced_accuracy
        return self.validation_accuracy if balanced is None else balanced

    @model_serializer(mode="wrap")
    def _without_what_was_not_asked(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_none(handler(self), "validation_balanced_accuracy")


class _Stateful(Protocol):
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class TrainingState:
    """State of a training after an epoch, with its best epoch so far."""

    def __init__(
        self,
        network: nn.Module,
        objective: _Stateful,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
    ) -> None:
        self._network, self._objective, self._optimizer, self._scaler = network, objective, optimizer, scaler
        self.curve: list[EpochRecord] = []
        self.best = _NO_METRICS
        self.best_epoch = 0
        self.is_compiled: bool | None = None  # None: not decided
        self._best_weights: dict[str, Any] = {}

    def add(self, record: EpochRecord, metrics: Metrics) -> None:
        self.curve.append(record)
        if metrics.score >= self.best.score:
            self.best, self.best_epoch = metrics, record.epoch
            self._best_weights = {
                "network": _copied(self._network.state_dict()),
                "objective": _copied(self._objective.state_dict()),
            }

    def out_of_patience(self, patience: int) -> bool:
        return 0 < patience <= len(self.curve) - self.best_epoch

    def restore_best(self) -> None:
        self._network.load_state_dict(self._best_weights["network"])
        self._objective.load_state_dict(self._best_weights["objective"])

    def dump(self) -> dict[str, Any]:
        return {
            "network": self._network.state_dict(),
            "objective": self._objective.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "best_weights": self._best_weights,
            "best": self.best.model_dump(),
            "best_epoch": self.best_epoch,
            "curve": [record.model_dump() for record in self.curve],
            **({} if self.is_compiled is None else {"is_compiled": self.is_compiled}),
        }

    def load(self, state: dict[str, Any]) -> None:
        self._network.load_state_dict(state["network"])
        self._objective.load_state_dict(state["objective"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self._best_weights = state["best_weights"]
        self.best = Metrics.model_validate(state["best"])
        self.best_epoch = state["best_epoch"]
        self.curve = [EpochRecord.model_validate(record) for record in state["curve"]]
        self.is_compiled = state.get("is_compiled")


def restarted(state: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a finished training's last state into one to `resume` from: a new schedule, begun at its best weights."""
    return {
        **state["best_weights"],
        "scaler": state["scaler"],
        "optimizer": state["optimizer"] | {"state": {}},  # momentum belongs to the weights that it was gathered on
        "best_weights": {},
        "best": _NO_METRICS.model_dump(),
        "best_epoch": 0,
        "curve": [],
    }


def _copied(state: Any) -> Any:
    """Copy a state, so that later steps do not change it; a method's is nested one level deeper than a network's."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {name: _copied(value) for name, value in state.items()}
    return [_copied(value) for value in state] if isinstance(state, list) else state
