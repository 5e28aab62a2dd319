"""Measures every format of a bundle side by side."""
