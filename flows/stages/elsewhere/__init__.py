"""Trainings by the workers of the configured engine."""
