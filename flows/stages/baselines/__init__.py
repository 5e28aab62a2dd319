"""Trainings beside the student's, and the worth of teacher and search by them."""
