"""Latency model and its file: JSON data, never executed."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field, ValidationError, model_validator

from edgestill.pipeline.errors import DataError
from edgestill.pipeline.foreign import read_json_bounded
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.networks.trace import Trace, trace_network
from edgestill.pipeline.task import Task
from edgestill.search.latency.features import RUNS, Runs, operation_features
from edgestill.search.latency.fit import Choice, Correction, Fit, choose, cross_validate, fit, kendall_tau, predict
from edgestill.search.space import Architecture, SearchSpace

SCHEMA = "edgestill.latency/1"
FEWEST_SAMPLES = 12
LARGE_ERROR = 0.15  # median error above which a model is hardly fit to choose students
_REMEDY = "; `edgestill calibrate` makes one for this search"

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Prediction(NamedTuple):
    latency_ms: float
    error: float  # relative; in cross-validation nine predictions in ten were at least as close

    @property
    def interval_ms(self) -> tuple[float, float]:
        return self.latency_ms / (1 + self.error), self.latency_ms * (1 + self.error)


class CrossValidation(Frozen):
    """Errors of predictions for samples left out of the fit."""

    median_error: Finite  # relative to the measured latency
    p90_error: Finite
    kendall_tau: Finite


class SmoothCorrection(Frozen):
    """Gaussian process on the residuals of the costs; `search/latency/fit.py` has the formula."""

    scale: tuple[Finite, ...]
    centre: tuple[Finite, ...]
    spread: tuple[Finite, ...]
    support: tuple[tuple[Finite, ...], ...]
    weights: tuple[Finite, ...]
    length: float = Field(gt=0, allow_inf_nan=False)


class LatencyModel(Frozen):
    """Model of the latency of a space's students on one device."""

    schema_name: str = Field(SCHEMA, alias="schema")
    space: str
    space_options: dict[str, Any]
    input_shape: tuple[int, ...]
    num_classes: int
    device: str  # name for people
    machine: dict[str, str | int] | None  # on which `edgestill calibrate` measured; None: latencies from a file
    runtime: str | None
    threads: int | None
    batch: int
    unit: str = Field("ms", pattern="^ms$")
    n: int = Field(ge=1)
    cross_validation: CrossValidation
    runs: Runs
    features: tuple[str, ...]
    costs: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...]  # a constant, then one for each feature; ms
    correction: SmoothCorrection | None = None

    @model_validator(mode="after")
    def _sizes_agree(self) -> "LatencyModel":
        if len(self.costs) != len(self.features) + 1:
            raise ValueError(
                f"{len(self.features)} features need {len(self.features) + 1} costs, not {len(self.costs)}"
            )
        if (found := self.correction) is not None:
            width = sum(spread > 0 for spread in found.spread)
            if {len(found.scale), len(found.centre), len(found.spread)} != {len(self.features)} or any(
                len(row) != width for row in found.support
            ):
                raise ValueError("the correction's sizes do not agree with the features")
            if len(found.support) != len(found.weights) or min(found.scale, default=1.0) <= 0:
                raise ValueError("the correction's sizes or scales do not agree")
        return self

    def predict(self, trace: Trace) -> Prediction:
        """Predict the latency of a traced network."""
        found = predict(self._fit(), [operation_features(trace, self.runs)])
        return Prediction(float(found[0]), self.cross_validation.p90_error)

    def require_space(self, space: SearchSpace, name: str) -> None:
        """Refuse to predict for another space.

        Raises:
            DataError: the model was fitted for another space; names the remedy.
        """
        if self.space != space.name:
            raise DataError(f"{name} predicts students of space {self.space!r}, not of {space.name!r}{_REMEDY}")

    def require_input(self, task: Task, name: str) -> None:
        """Refuse to predict for inputs of another shape.

        Raises:
            DataError: the model was fitted for another shape; names the remedy.
        """
        if self.input_shape != tuple(task.input_shape):
            ours, theirs = ("x".join(map(str, shape)) for shape in (task.input_shape, self.input_shape))
            raise DataError(f"{name} predicts for inputs of {theirs}, and the data's are {ours}{_REMEDY}")

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1) + "\n"

    def _fit(self) -> Fit:
        correction = self.correction
        return Fit(
            self.features,
            np.array(self.costs),
            None
            if correction is None
            else Correction(
                np.array(correction.scale),
                np.array(correction.centre),
                np.array(correction.spread),
                np.array(correction.support),
                np.array(correction.weights),
                correction.length,
            ),
        )


def fit_latency_model(
    space: SearchSpace,
    options: Mapping[str, Any],
    task: Task,
    samples: Sequence[tuple[Architecture, float]],
    *,
    device: str,
    machine: Mapping[str, str | int] | None = None,
    runtime: str | None = None,
    threads: int | None = None,
    batch: int = 1,
) -> LatencyModel:
    """Fit a model to measured latencies in ms; cross-validation over these samples chooses the form of the model.

    Raises:
        DataError: there are fewer than FEWEST_SAMPLES.
    """
    if len(samples) < FEWEST_SAMPLES:
        raise DataError(f"{len(samples)} measured students are too few to fit latencies; {FEWEST_SAMPLES} is the least")
    tables: dict[Runs, list[dict[str, float]]] = {runs: [] for runs in RUNS}
    for architecture, _ in samples:
        trace = trace_student(space, architecture, task)
        for runs, table in tables.items():
            table.append(operation_features(trace, runs))
    latency = np.array([value for _, value in samples])
    choice = choose(tables, latency)
    fitted = fit(tables[choice.runs], latency, choice)
    return LatencyModel(
        schema=SCHEMA,
        space=space.name,
        space_options=dict(options),
        input_shape=task.input_shape,
        num_classes=task.num_classes,
        device=device,
        machine=None if machine is None else dict(machine),
        runtime=runtime,
        threads=threads,
        batch=batch,
        n=len(samples),
        cross_validation=_validation(tables[choice.runs], latency, choice),
        runs=choice.runs,
        features=fitted.names,
        costs=tuple(map(float, fitted.costs)),
        correction=_written(fitted.correction),
    )


def read_latency_model(path: Path) -> LatencyModel:
    """Read a model's file.

    Raises:
        DataError: the file is missing, not JSON, of another version, or incomplete.
    """
    try:
        found = json.loads(read_json_bounded(path, lambda problem: DataError(f"the latency model {problem}")))
    except DataError:
        raise
    except (ValueError, RecursionError):
        raise DataError(f"{path} is no latency model: it is not JSON; `edgestill calibrate` makes one") from None
    schema = found.get("schema") if isinstance(found, dict) else None
    if schema != SCHEMA:
        raise DataError(
            f"{path} is no latency model that this version reads: its schema is {str(schema)[:80]!r} and not {SCHEMA!r}"
            "; `edgestill calibrate` makes one"
        )
    try:
        return LatencyModel.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise DataError(
            f"{path} is a damaged latency model ({where}: {first['msg']}); `edgestill calibrate` makes one"
        ) from None


def trace_student(space: SearchSpace, architecture: Architecture, task: Task) -> Trace:
    """Trace one forward pass of a fresh student on one input."""
    inputs = torch.zeros(1, *task.input_shape, dtype=task.input_dtype)
    return trace_network(lambda: space.build(architecture, task), inputs)


def _validation(table: Sequence[Mapping[str, float]], latency: np.ndarray, choice: Choice) -> CrossValidation:
    """Cross-validate on other folds than those used for the choice."""
    predicted = cross_validate(table, latency, choice, seed=1)
    errors = np.abs(predicted / latency - 1)
    return CrossValidation(
        median_error=float(np.median(errors)),
        p90_error=float(np.quantile(errors, 0.9)),
        kendall_tau=kendall_tau(predicted, latency),
    )


def _written(correction: Correction | None) -> SmoothCorrection | None:
    if correction is None:
        return None
    return SmoothCorrection(
        scale=tuple(map(float, correction.scale)),
        centre=tuple(map(float, correction.centre)),
        spread=tuple(map(float, correction.spread)),
        support=tuple(tuple(map(float, row)) for row in correction.support),
        weights=tuple(map(float, correction.weights)),
        length=correction.length,
    )
