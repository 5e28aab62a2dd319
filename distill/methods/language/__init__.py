"""Methods for language models alone."""
