"""The command line: a module for each group of commands, joined by the table in `app.py`.

A command imports what it works with when it is called, so `--help` answers at once.
"""
