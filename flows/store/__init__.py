"""Copies of runs in a store of objects."""
