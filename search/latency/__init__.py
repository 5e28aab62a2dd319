"""Latency models, and the measured latency of a winner."""
