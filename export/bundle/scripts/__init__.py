"""Scripts of a bundle: they run without edgestill."""
