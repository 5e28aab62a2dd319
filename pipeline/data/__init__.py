"""Data sets, their splits and batches, augmentation, tokens."""
