"""Finds the student: spaces of architectures, scores that need no training, and search within a budget."""
