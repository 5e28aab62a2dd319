"""Choice of the method of distillation."""
