"""Turns the student into files that ship, and proves on each file that it is right and how fast it is."""
