"""The look at the test split beyond accuracy: confidence, disagreements, shifts of the inputs."""
