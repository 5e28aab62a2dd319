"""Cautions on a configuration, valid as it is."""

from collections.abc import Iterator

from edgestill.flows.config.model import RunConfig


def cautions_of(config: RunConfig) -> Iterator[str]:
    """Yield a sentence for each thing that a person should know before the run's figures are read."""
    if config.smoke:
        yield "this is a smoke run, on a handful of examples: it shows that the stages work, and no figure counts"
    if not config.search.budget.is_set:
        yield (
            "no budget is set: the search takes the best-scored student of any size and speed; set "
            "search.budget.max_latency_ms, max_params or another limit"
        )
