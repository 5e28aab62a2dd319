"""Checks of search spaces, scorers and strategies."""
