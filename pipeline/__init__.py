"""What the stages share; the order of the stages is in `flows/chain.py`, not here.

Tasks, networks, data, the one training loop, the one stopwatch and the run directory.
"""
