"""Measures on a device: standard library, numpy and onnxruntime only; profile_device.py holds its text."""
