"""ONNX: written, quantised, run, and admitted from elsewhere."""
