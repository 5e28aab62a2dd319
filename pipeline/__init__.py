"""Code shared by all stages: tasks, networks, data, the one training loop, the one stopwatch, the run directory.

The order of the stages is in `flows/chain.py`, not here.
"""
