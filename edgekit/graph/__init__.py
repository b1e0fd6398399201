"""The ONNX graph, through which every conversion goes: prepare it, describe it, run it."""
