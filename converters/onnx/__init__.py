"""ONNX export and ONNX quantization."""
