"""Words on results: for the terminal, `show` and the report."""
