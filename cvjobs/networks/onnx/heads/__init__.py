"""What detectors in ONNX files put out, kind by kind, as boxes in pixels of the model's input.

Each kind is a module with a function ``candidates(outputs, size, conf, ...)``. ``outputs`` are the tensors by their
names in the file, in the order that the function asks for; ``size`` is the (height, width) of the input in pixels.
"""
