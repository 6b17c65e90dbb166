"""Running TFLite and ONNX content on arrays of images, here, on all cores."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from converters.errors import InputError
from converters.native_logs import suppress_native_logs

_remarked = False  # the runtime announces its delegate once a process


def interpreter(content: bytes, *, threads: int = 1) -> Any:
    """An allocated LiteRT interpreter; InputError when the runtime refuses the content."""
    from ai_edge_litert.interpreter import Interpreter

    global _remarked
    try:
        made = Interpreter(model_content=content, num_threads=threads)
        with contextlib.nullcontext() if _remarked else suppress_native_logs():
            made.allocate_tensors()
        _remarked = True
    except (ValueError, RuntimeError) as error:
        raise InputError(f"the TFLite runtime refuses the model: {str(error).strip().splitlines()[0][:200]}") from error
    return made


def dequantize(values: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    """The real numbers, float32, that a tensor's integers stand for; float values as they are."""
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    scale, zero_point = detail["quantization"]
    return np.float32(scale) * (values.astype(np.float32) - np.float32(zero_point))


def to_input(images: np.ndarray, detail: dict[str, Any], pixel_offset: int | None) -> np.ndarray:
    """Images, in the range that the model takes, as the input tensor wants them.

    Args:
        images: float or integer array of any shape.
        detail: the tensor's entry in `get_input_details()`.
        pixel_offset: what is added to a pixel 0..255 to give the tensor's integer, where the artifact takes pixels;
            None where its own scale and zero point say how to quantize.
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
    """Run every image through every model on all cores and call `look(index, interpreter, ...)` after each image.

    `look` runs in several threads at once, each with interpreters of its own, and images in no fixed order.

    Args:
        models: pairs of TFLite content and its pixel offset, see `to_input`.
        images: `(n, height, width, 3)` in the range that the models take.
        look: called with the image's index and an interpreter a model, which holds that image's outputs.
    """
    local = threading.local()

    def one(index: int) -> None:
        if not hasattr(local, "interpreters"):
            local.interpreters = [interpreter(content) for content, _ in models]
        for at, (_, pixel_offset) in zip(local.interpreters, models, strict=True):
            detail = at.get_input_details()[0]
            at.set_tensor(detail["index"], to_input(images[index : index + 1], detail, pixel_offset))
            at.invoke()
        look(index, *local.interpreters)

    with ThreadPoolExecutor(max_workers=max(1, min(os.cpu_count() or 1, len(images)))) as pool:
        for _ in pool.map(one, range(len(images))):
            pass


def predict(content: bytes, images: np.ndarray, *, pixel_offset: int | None = None) -> np.ndarray:
    """Outputs `(n, classes)`, float32 and dequantized, of TFLite content for images `(n, height, width, 3)`."""
    rows: list[np.ndarray | None] = [None] * len(images)

    def look(index: int, at: Any) -> None:
        detail = at.get_output_details()[0]
        rows[index] = dequantize(at.get_tensor(detail["index"]), detail).reshape(-1)

    visit([(content, pixel_offset)], images, look)
    return np.stack(rows)


def predict_onnx(content: bytes, images: np.ndarray) -> np.ndarray:
    """Outputs `(n, classes)`, float32, of an ONNX model of batch 1 for images `(n, height, width, 3)`."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # nobody asked for it, and it writes into the temporary folder
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # x86 without VNNI adds pairs of int8 products in 16 bits, which overflow: 8 dB where 20 dB are right
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    rows: Sequence[np.ndarray] = [
        np.asarray(session.run(None, {name: images[i : i + 1].astype(np.float32)})[0]).reshape(-1)
        for i in range(len(images))
    ]
    return np.stack(rows).astype(np.float32)
