"""Checks that every plug-in of a table must pass, ours and others'; a package has those of its own tables."""
