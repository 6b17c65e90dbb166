"""Quantization of float TFLite graphs."""
