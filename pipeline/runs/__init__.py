"""The run directory, and files that are written whole and read back safely."""
