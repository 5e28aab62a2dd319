"""Hard limits on a student's cost."""

from pydantic import Field

from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.networks.cost import Cost
from edgestill.pipeline.quantities import Bytes, Count, Milliseconds

_UNCOUNTED = 1e9


class Budget(Frozen):
    """Hard limits on a student's cost; a student above one is never returned."""

    max_params: Count | None = Field(None, ge=1, description="maximum number of trainable parameters")
    max_flops: Count | None = Field(None, ge=1, description="maximum multiply-accumulates for one input")
    max_size_bytes: Bytes | None = Field(
        None, ge=1, description="maximum size of every exported file in bytes; the search counts the fp32 ONNX file"
    )
    max_peak_activation_bytes: Bytes | None = Field(
        None,
        ge=1,
        description="maximum memory of activations for one input in float32, in bytes (docs/explanation/hardware.md)",
    )
    max_latency_ms: Milliseconds | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="maximum median latency of one ONNX call in ms, or {FORMAT@TARGET: ms}; source: search.latency",
    )

    @property
    def is_set(self) -> bool:
        """True if anything is limited."""
        return any(limit is not None for _, limit in self)

    def violations(self, cost: Cost) -> list[str]:
        """Return a clause for each exceeded limit; if there is none, for each limit with an unknown figure."""
        return self.exceeded(cost) or [f"its {name} is not known" for name in self._uncounted(cost)]

    def exceeded(self, cost: Cost) -> list[str]:
        """Return a clause for each limit exceeded by a counted figure."""
        return [
            f"{name} {_figure(value)} is above max_{name} {_figure(limit)}"
            for name, value, limit in self._limits(cost)
            if value > limit
        ]

    def excess(self, cost: Cost) -> float:
        """Return the relative excess over the limits, summed; 0 is feasible.

        A dear figure is not counted if a cheaper limit is exceeded. It then weighs more than any excess, so that a
        descent first reaches the cheap limits, then the dear ones.
        """
        over = sum(max(0.0, value / limit - 1) for _, value, limit in self._limits(cost))
        return over + _UNCOUNTED * len(self._uncounted(cost))

    def _limits(self, cost: Cost) -> list[tuple[str, float, float]]:
        return [
            (name, value, limit)
            for name, value, limit in self._figures(cost)
            if value is not None and limit is not None
        ]

    def _uncounted(self, cost: Cost) -> list[str]:
        return [name for name, value, limit in self._figures(cost) if value is None and limit is not None]

    def _figures(self, cost: Cost) -> tuple[tuple[str, float | None, float | None], ...]:
        return (
            ("params", cost.params, self.max_params),
            ("flops", cost.flops, self.max_flops),
            ("size_bytes", cost.size_bytes, self.max_size_bytes),
            ("peak_activation_bytes", cost.peak_activation_bytes, self.max_peak_activation_bytes),
            ("latency_ms", cost.latency_ms, self.max_latency_ms),
        )


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
