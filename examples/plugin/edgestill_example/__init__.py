"""A method, a search space and a format for edgestill."""
