"""Methods that train a second head beside the student's own."""
