"""Compression steps, one file each: parameters and `apply(model, task, context) -> model`.

A network step takes and gives a torch module, a graph step an ONNX model. None changes the model it is given.
"""
