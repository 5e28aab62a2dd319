"""Checks of a method: it keeps its contract, and what it says of itself is so."""

from edgestill.distill.conformance.contract import CONTRACT, outside_bounds, plain_and_shipped
from edgestill.distill.conformance.facts import FACTS
from edgestill.distill.conformance.prepared import prepared
from edgestill.pipeline.conformance.suite import Check

CHECKS: tuple[Check, ...] = (*CONTRACT, *FACTS)

__all__ = ["CHECKS", "outside_bounds", "plain_and_shipped", "prepared"]
