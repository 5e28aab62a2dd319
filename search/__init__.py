"""Student search: spaces of architectures, scores without training, and search within a budget."""
