"""The stages, a module each; `flows/chain.py` has their order."""
