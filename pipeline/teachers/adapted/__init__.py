"""Foreign networks as classifiers of a task: pixels made theirs, classes made the data's, parts found by tracing."""
