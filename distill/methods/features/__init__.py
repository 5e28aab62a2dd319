"""Methods that add losses on features and embeddings."""
