"""Targets of a run: their state, what is sent to them, and the measurements of a run on them."""
