"""Pruning, narrowing and fake quantisation of a student."""
