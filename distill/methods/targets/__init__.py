"""Methods of targets, divergences and objectives that need logits alone."""
