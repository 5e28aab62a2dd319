"""Distillation of the student: one equation with seven slots, the methods that fill them, and their tuning."""
