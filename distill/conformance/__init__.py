"""Checks of a method: it keeps its contract, and what it says of itself is so."""
