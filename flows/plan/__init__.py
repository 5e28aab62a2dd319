"""Before a run: its estimate, checks of this machine, and the names that a configuration may use."""
