"""int8 ONNX in QDQ form: QuantizeLinear and DequantizeLinear around every operator, by ONNX Runtime's quantizer.

Weights are int8 with a scale for each channel, activations int8 with a scale for each tensor; input and output stay
float32. Runtimes fuse each pair into their integer kernels: ONNX Runtime on CPUs and NPUs, OpenVINO, and TensorRT
where zero points are 0 (https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html).
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import CheckFailed
from converters.native_logs import log_level, suppress_native_logs


def static_int8(content: bytes, images: np.ndarray, *, symmetric: bool = False) -> bytes:
    """The int8 file of a float ONNX model of batch 1.

    Args:
        content: the float file.
        images: calibration images `(n, height, width, 3)` in the range that the model takes.
        symmetric: whether activations have zero point 0.
    """
    import onnx
    from onnxruntime import quantization

    class Images(quantization.CalibrationDataReader):
        def __init__(self, name: str) -> None:
            self._feeds = ({name: image[None].astype(np.float32)} for image in images)

        def get_next(self) -> dict[str, Any] | None:
            return next(self._feeds, None)

    model = onnx.load_model_from_string(content)
    with tempfile.TemporaryDirectory(prefix="edge_cv_") as folder:
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        onnx.save_model(model, Path(folder) / "float.onnx")
        try:
            with suppress_native_logs(), log_level("root"), warnings.catch_warnings(), contextlib.chdir(folder):
                warnings.simplefilter("ignore")
                quantization.shape_inference.quant_pre_process(
                    Path(folder) / "float.onnx", prepared, skip_symbolic_shape=True
                )
                quantization.quantize_static(
                    prepared,
                    quantized,
                    Images(model.graph.input[0].name),
                    quant_format=quantization.QuantFormat.QDQ,
                    per_channel=True,
                    activation_type=quantization.QuantType.QInt8,
                    weight_type=quantization.QuantType.QInt8,
                    calibrate_method=quantization.CalibrationMethod.MinMax,
                    extra_options={"ActivationSymmetric": symmetric},
                )
                onnx.checker.check_model(onnx.load_model(quantized))
        except Exception as error:  # the quantizer raises exceptions of many kinds
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise CheckFailed(f"ONNX Runtime's quantizer cannot convert the model to int8: {lines[0][:300]}") from error
        return quantized.read_bytes()
