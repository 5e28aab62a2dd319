"""The training loop, its state, and metrics."""
