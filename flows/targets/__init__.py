"""Targets of a person and of a run: their file, their state, and the measurements of a run on them."""
