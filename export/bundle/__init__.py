"""The bundle: written, read, verified, signed, asked."""
