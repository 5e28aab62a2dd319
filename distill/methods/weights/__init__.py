"""Methods that weigh labels and teacher, example by example or in all."""
