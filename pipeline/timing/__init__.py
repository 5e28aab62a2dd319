"""The stopwatch and its statistics."""
