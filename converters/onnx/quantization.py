"""int8 ONNX without zero points, by ONNX Runtime's quantizer, and what every int8 ONNX file needs.

Both kinds of int8 files are in QDQ form: QuantizeLinear and DequantizeLinear around every operator. Weights are int8
with a scale for each channel, activations int8 with a scale for each tensor; input and output stay float32. Runtimes
fuse each pair into their integer kernels: ONNX Runtime on CPUs and NPUs, OpenVINO, and TensorRT where zero points are 0
(https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html).
"""

from __future__ import annotations

import collections
import contextlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import CheckFailed
from converters.files import temporary_folder
from converters.native_logs import log_level, suppress_native_logs


def static_int8(content: bytes, images: np.ndarray, *, symmetric: bool) -> bytes:
    """The int8 file of a float ONNX model of batch 1, by ONNX Runtime's quantizer.

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
    with temporary_folder() as folder:
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
                made = onnx.load_model(quantized)
                unshare_constants(made.graph)
                onnx.checker.check_model(made)
        except Exception as error:  # the quantizer raises exceptions of many kinds
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise CheckFailed(f"ONNX Runtime's quantizer cannot convert the model to int8: {lines[0][:300]}") from error
        return made.SerializeToString()


def read_integers(graph: Any) -> None:
    """Let a Cast read the integers of an int8 tensor, as TensorFlow Lite's does: tf2onnx gives it their real values.

    Tables of functions without an int8 operator, such as a sine, are indexed so.
    """
    makers = {node.output[0]: node for node in graph.node}
    for node in graph.node:
        maker = makers.get(node.input[0]) if node.op_type == "Cast" else None
        if maker is not None and maker.op_type == "DequantizeLinear":
            node.input[0] = maker.input[0]


def unshare_constants(graph: Any) -> None:
    """Give each reader of an int8 constant a constant of its own.

    ONNX Runtime with `session.x64quantprecision` cannot load a file in which several operators read one int8 constant:
    it makes uint8 of the constant once for each and finds the first in the place of the second.
    """
    import onnx

    constants = {constant.name: constant for constant in graph.initializer}
    readers = collections.defaultdict(list)
    for node in graph.node:
        for i, name in enumerate(node.input):
            readers[name].append((node, i))
    for place, node in reversed(list(enumerate(graph.node))):
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            for number, (reader, i) in enumerate(readers[node.output[0]][1:], 1):
                copy = type(node)()
                copy.CopyFrom(node)
                copy.name, copy.output[0] = f"{node.name}_{number}", f"{node.output[0]}_{number}"
                reader.input[i] = copy.output[0]
                graph.node.insert(place, copy)
    read: collections.Counter[str] = collections.Counter()
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name in constants and constants[name].data_type == onnx.TensorProto.INT8:
                read[name] += 1
                if read[name] > 1:
                    own = graph.initializer.add()
                    own.CopyFrom(constants[name])
                    own.name = node.input[i] = f"{name}_{read[name]}"
