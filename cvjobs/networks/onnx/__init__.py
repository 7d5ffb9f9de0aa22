"""Models in ONNX files: what a file holds, and what its outputs mean."""
