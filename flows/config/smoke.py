"""A configuration made so small that every stage is over in seconds: `edgestill run --smoke`."""

from collections.abc import Mapping
from typing import Any

from edgestill.flows.config.model import RunConfig
from edgestill.pipeline.timing.latency_statistics import samples_needed

_TIMING = {"warmup_s": 0.02, "duration_s": 0.05, "min_samples": samples_needed(50)}
_ONE_EPOCH = {"epochs": 1, "batch_size": 32, "warmup_epochs": 0}
_MOST: dict[str, Any] = {  # the configured number counts where it is smaller
    "data": {"limit": 64},
    "teacher": {"training": _ONE_EPOCH},
    "rank_check": {"students": 4, "epochs": 1, "train_images": 64},
    "search": {
        "evaluations": 4,
        "batch_size": 16,
        "draws": 1,
        "workers": 1,
        "shortlist": 2,
        "latency": {"timing": _TIMING},
        "tournament": {"epochs": 1, "train_images": 64},
    },
    "tune": {"trials": 2, "epochs": 1, "min_epochs": 1, "startup_trials": 1},
    "distill": {"training": _ONE_EPOCH, "driver": {"rounds": 1, "budget": 4}},
    "prune": {"score_images": 32, "epochs": 1, "rounds": 2, "round_epochs": 1},
    "export": {"calibration": {"examples": 32}},
    "qat": {"epochs": 1},
    "profile": {"timing": _TIMING},
    "baselines": {"seeds": 2},
}


def smoke(config: RunConfig) -> RunConfig:
    """Return the configuration with few examples, epochs, candidates and trials, and all of its stages and formats."""
    small = _lowered(config.model_dump(mode="json"), _MOST)
    if small["teacher"].get("check") == "error":  # so few examples may condemn a good teacher
        small["teacher"]["check"] = "caution"
    if small["export"]["calibration"]["method"] == "auto":  # of three, of which the best is kept
        small["export"]["calibration"]["method"] = "minmax"
    named = {"name": f"smoke-{config.name.removeprefix('smoke-')}"[:41], "smoke": True}
    return RunConfig.model_validate(small | named, context={"check_files": True})


def _lowered(values: dict[str, Any], most: Mapping[str, Any]) -> dict[str, Any]:
    """Lower the numbers above their limits; keys that a plug-in's configuration lacks stay out."""
    lowered = {
        key: _lowered(values[key], limit) if isinstance(limit, dict) else _lower(values[key], limit)
        for key, limit in most.items()
        if key in values
    }
    return values | lowered


def _lower(value: Any, limit: float) -> Any:
    return limit if value is None or isinstance(value, str) else min(value, limit)
