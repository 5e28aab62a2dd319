"""Federated distillation: clients with data of their own exchange answers to a public pool, and no weights."""
