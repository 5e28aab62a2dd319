"""In which order the stages run and where to: the CLI, the Prefect flow, the configuration, the report."""
