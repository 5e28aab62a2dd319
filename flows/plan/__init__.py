"""Estimates of a run before it is started: `edgestill plan`."""
