"""The registry of a folder of runs: the promoted run, its candidates, and the reason of every decision."""
