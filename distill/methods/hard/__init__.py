"""HARD, its augmentors and its control."""
