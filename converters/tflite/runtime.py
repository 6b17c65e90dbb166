"""Running TFLite and ONNX files on arrays of images, on all cores of this machine."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from converters.errors import CheckFailed, InputError
from converters.native_logs import suppress_native_logs

_announced = False  # whether the runtime has logged its delegate, which it does once in a process


def interpreter(content: bytes, *, threads: int = 1) -> Any:
    """An allocated LiteRT interpreter; InputError when the runtime rejects the content."""
    from ai_edge_litert.interpreter import Interpreter

    global _announced
    try:
        allocated = Interpreter(model_content=content, num_threads=threads)
        with contextlib.nullcontext() if _announced else suppress_native_logs():
            allocated.allocate_tensors()
        _announced = True
    except (ValueError, RuntimeError) as error:
        raise InputError(f"the TFLite runtime rejects the model: {' '.join(str(error).split())[:200]}") from error
    return allocated


def dequantize(values: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    """The real values, float32, of a tensor's integers; float values are returned as float32."""
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    scale, zero_point = detail["quantization"]
    return np.float32(scale) * (values.astype(np.float32) - np.float32(zero_point))


def to_input(images: np.ndarray, detail: dict[str, Any], pixel_offset: int | None) -> np.ndarray:
    """Convert images to the type of the input tensor.

    Args:
        images: float or integer array of any shape, in the range that the model takes.
        detail: the tensor's entry in `get_input_details()`.
        pixel_offset: what is added to a pixel 0..255 to make the tensor's integer, where the file takes pixels; None
            quantizes by the tensor's scale and zero point.
    """
    dtype = np.dtype(detail["dtype"])
    if dtype.kind == "f":
        return images.astype(dtype)
    scale, zero_point = (1.0, -pixel_offset) if pixel_offset is not None else detail["quantization"]
    values = np.rint(images.astype(np.float32) / np.float32(scale)) + (
        pixel_offset if pixel_offset is not None else zero_point
    )
    limits = np.iinfo(dtype)
    return np.clip(values, limits.min, limits.max).astype(dtype)


def visit(models: Sequence[tuple[bytes, int | None]], images: np.ndarray, look: Callable[..., None]) -> None:
    """Run every image through every model on all cores.

    Args:
        models: pairs of a TFLite file and its pixel offset, see `to_input`.
        images: `(n, height, width, 3)` in the range that the models take.
        look: called after each image with its index and one interpreter for each model, which holds the image's
            outputs. It runs in several threads, each with its own interpreters, and in no fixed order of images.
    """
    local = threading.local()

    def one(index: int) -> None:
        if not hasattr(local, "interpreters"):
            local.interpreters = [interpreter(content) for content, _ in models]
        for at, (_, pixel_offset) in zip(local.interpreters, models, strict=True):
            detail = at.get_input_details()[0]
            image = to_input(images[index : index + 1], detail, pixel_offset)
            at.set_tensor(detail["index"], image.reshape(image.shape[: len(detail["shape"])]))  # grey may lack channels
            try:
                at.invoke()
            except (ValueError, RuntimeError) as error:
                raise InputError(
                    f"the TFLite runtime cannot run the model: {' '.join(str(error).split())[:200]}"
                ) from error
        look(index, *local.interpreters)

    with ThreadPoolExecutor(max_workers=_workers(len(images))) as pool:
        for _ in pool.map(one, range(len(images))):
            pass


def predict(content: bytes, images: np.ndarray, *, pixel_offset: int | None = None) -> np.ndarray:
    """Dequantized outputs `(n, classes)`, float32, of a TFLite file for images `(n, height, width, 3)`."""
    rows: dict[int, np.ndarray] = {}

    def look(index: int, at: Any) -> None:
        detail = at.get_output_details()[0]
        rows[index] = dequantize(at.get_tensor(detail["index"]), detail).reshape(-1)

    visit([(content, pixel_offset)], images, look)
    return np.stack([rows[index] for index in range(len(images))])


def predict_onnx(content: bytes, images: np.ndarray) -> np.ndarray:
    """Outputs `(n, classes)`, float32, of an ONNX model for images `(n, height, width, 3)`, one at a time.

    Raises:
        CheckFailed: ONNX Runtime cannot run the model.
    """

    def row(index: int) -> np.ndarray:
        return np.asarray(session.run(None, {name: images[index : index + 1].astype(np.float32)})[0]).reshape(-1)

    try:
        session = onnx_session(content)
        name = session.get_inputs()[0].name
        with ThreadPoolExecutor(max_workers=_workers(len(images))) as pool:
            return np.stack(list(pool.map(row, range(len(images))))).astype(np.float32)
    except Exception as error:  # of ONNX Runtime, one class for each of its states
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckFailed(f"ONNX Runtime cannot run the model: {lines[0][:300]}") from error


def onnx_session(content: bytes) -> Any:
    """An ONNX Runtime session on the CPU, of one thread: images in parallel use the cores better."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it is not asked for, and writes to the temporary folder
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # x86 without VNNI adds pairs of int8 products in 16 bits, which overflow: 8 dB where 20 dB are right
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _workers(count: int) -> int:
    return max(1, min(os.cpu_count() or 1, count))
