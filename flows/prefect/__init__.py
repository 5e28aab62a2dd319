"""The chain as a Prefect flow, its deployment and its server."""
