"""The stages, their order, and the ways to run and see them: configuration, CLI, Prefect flow, report."""
