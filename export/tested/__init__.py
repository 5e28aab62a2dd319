"""What the page tells of the test split beyond accuracy: confidence, disagreements, shifts of the inputs."""
