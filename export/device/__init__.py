"""What measures on a device: standard library, numpy and onnxruntime only, for a bundle's profile.py holds its text."""
