"""Parts that several benchmarks share, and the longer benchmarks are made of."""
