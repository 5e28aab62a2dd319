"""Methods that choose or change the examples of a step."""
