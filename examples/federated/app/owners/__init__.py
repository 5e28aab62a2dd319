"""Flower app of the example."""
