"""Conversion of image classifiers to TFLite and ONNX, each result measured against its source model.

    from converters import to_tflite, verify
    conversion = to_tflite("model.keras", "int8", calibration=images)
    conversion.save("model_int8.tflite")

Accepts Keras 3 and tf_keras models, `.keras`, `.h5` and float `.tflite` files and SavedModels. Importing it loads no
TensorFlow.
"""

from __future__ import annotations

import importlib

_HOME = {
    "CalibrationQuality": "calibration_quality",
    "CheckFailed": "errors",
    "Conversion": "conversion",
    "DynamicInt8": "schemes",
    "Float16": "schemes",
    "Float32": "schemes",
    "InputError": "errors",
    "Int16x8": "schemes",
    "Int8": "schemes",
    "Mixed": "schemes",
    "Parity": "parity",
    "Preprocessing": "images.preprocessing",
    "assess_calibration": "calibration_quality",
    "check": "devices.targets",
    "convert_all": "side_by_side",
    "import_layers": "sources",
    "load": "sources",
    "Record": "record",
    "read_metadata": "record",
    "read_record": "record",
    "to_onnx": "convert",
    "to_tflite": "convert",
    "verify": "convert",
}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"converters.{_HOME[name]}"), name)
    raise AttributeError(f"module 'converters' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
