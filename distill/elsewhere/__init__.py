"""Trainings that any process can do, and trials of a study in batches of them."""
