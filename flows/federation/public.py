"""The part of a federation's configuration that all machines share: its driver's settings and the public pool."""

from dataclasses import replace
from typing import cast

import torch

from edgestill.distill.drivers.federated import FederatedConfig
from edgestill.flows.config.model import RunConfig
from edgestill.pipeline.data.splits import UNLABELLED, ImageSplit, Splits
from edgestill.pipeline.errors import ConfigError


def driver_of(config: RunConfig) -> FederatedConfig:
    """Return the driver's settings.

    Raises:
        ConfigError: the configuration has another driver, or no public pool.
    """
    problems = []
    if not isinstance(config.distill.driver, FederatedConfig):
        problems.append(f"distill.driver is {config.distill.driver.name!r}; a federation needs federated")
    if getattr(config.data, "unlabelled", None) is None:
        problems.append("data.unlabelled is not set; it is the public pool that all machines have alike")
    if problems:
        raise ConfigError(problems)
    return cast(FederatedConfig, config.distill.driver)


def pool_of(splits: Splits) -> ImageSplit:
    """Return the public pool."""
    pool = splits.pool
    assert pool is not None, "data.unlabelled is set"
    return replace(pool, targets=torch.full_like(pool.targets, UNLABELLED), role="")
