"""Runs one model file and prints what it measured: a script that stands alone, so that a device can run a copy of it.

    python runner.py MODEL [--threads 1,2] [--runs 50] [--warmup 10] [--seed 0]

It needs Python 3.8, numpy and a runtime: ai-edge-litert, tflite-runtime or (for .onnx) onnxruntime; nothing of this
project. Each line on stdout is one JSON object with the key "event":

    model     the runtime, the CPU, the model's input and output
    memory    peak resident memory in bytes that the model cost, at one thread
    golden    the output for the seeded random input, as the file gives it (not dequantized)
    progress  threads, done, total
    latency   threads, the milliseconds of every single inference, and the processor time that all of them took
    error     the one-line reason why there is nothing more; the exit code is then 2
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import platform
import sys
import time
from typing import Any

import numpy as np


class ModelError(ValueError):
    """The file cannot be run."""


class Tensor:
    """What a model says of its input or its output.

    Attributes:
        shape: dimensions; a free batch is 1.
        dtype: a numpy dtype.
        scale, zero_point: real value = scale * (stored - zero_point); None where the tensor is not quantized.
    """

    def __init__(self, shape: tuple, dtype: Any, scale: float | None = None, zero_point: int | None = None) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.dtype = np.dtype(dtype)
        self.scale = scale
        self.zero_point = zero_point

    def to_dict(self) -> dict:
        return {
            "shape": list(self.shape),
            "dtype": self.dtype.name,
            "scale": self.scale,
            "zero_point": self.zero_point,
        }


class TFLiteModel:
    """A .tflite file in an interpreter of its own, its inputs and outputs in the file's own types."""

    def __init__(self, path: str, threads: int = 1) -> None:
        package, interpreter_class = _tflite_interpreter()
        with open(path, "rb") as file:
            if file.read(8)[4:] != b"TFL3":
                raise ModelError("it is not a TFLite model (no TFL3 at byte 4)")
        try:
            with _quiet_stderr():  # the runtime announces its delegate there
                self._interpreter = interpreter_class(model_path=path, num_threads=threads)
                self._interpreter.allocate_tensors()
            inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        except (ValueError, RuntimeError, TypeError, UnicodeDecodeError) as error:
            raise ModelError(_one_line(error)) from error
        self.inputs = [_tflite_tensor(details) for details in inputs]
        self.outputs = [_tflite_tensor(details) for details in outputs]
        self._input_indices = [details["index"] for details in inputs]
        self._output_indices = [details["index"] for details in outputs]
        self.runtime = package + (" XNNPACK" if self._uses_xnnpack() else "")

    def set_input(self, value: np.ndarray, position: int = 0) -> None:
        self._interpreter.set_tensor(self._input_indices[position], value)

    def invoke(self) -> None:
        self._interpreter.invoke()

    def output(self, position: int = 0) -> np.ndarray:
        return self._interpreter.get_tensor(self._output_indices[position])

    def _uses_xnnpack(self) -> bool:
        try:  # no public call tells which delegate took the operators
            return any("XNNPack" in op["op_name"] or op["op_name"] == "DELEGATE" for op in self._operators())
        except (AttributeError, KeyError, TypeError):
            return False

    def _operators(self) -> list:
        return self._interpreter._get_ops_details()


class OnnxModel:
    """An .onnx file in a session of its own on the CPU."""

    def __init__(self, path: str, threads: int = 1) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ModelError("onnxruntime is not installed: pip install onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions derive from Exception directly
            raise ModelError(_one_line(error)) from error
        self.inputs = [_onnx_tensor(value) for value in self._session.get_inputs()]
        self.outputs = [_onnx_tensor(value) for value in self._session.get_outputs()]
        self._names = [value.name for value in self._session.get_inputs()]
        self._feed: dict = {}
        self._results: list = []
        self.runtime = f"onnxruntime {onnxruntime.__version__} CPUExecutionProvider"

    def set_input(self, value: np.ndarray, position: int = 0) -> None:
        self._feed[self._names[position]] = value

    def invoke(self) -> None:
        self._results = self._session.run(None, self._feed)

    def output(self, position: int = 0) -> np.ndarray:
        return self._results[position]


def open_model(path: str, threads: int = 1) -> TFLiteModel | OnnxModel:
    """The file at `path`, ready to run with so many threads; by its suffix `.onnx`, or else TFLite.

    Raises ModelError for what the runtime refuses. A corrupt file may also kill the process: run it in one of its own.
    """
    try:
        return (OnnxModel if path.lower().endswith(".onnx") else TFLiteModel)(path, threads)
    except OSError as error:
        raise ModelError(error.strerror or str(error)) from error


def cpu_name() -> str:
    """What the machine calls its processor, e.g. "AMD EPYC 7B13" or "Raspberry Pi 5 Model B Rev 1.0"."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        fields = dict(line.split(":", 1) for line in file.read().splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in fields.items()}
        for key in ("model name", "Hardware", "cpu model"):
            if fields.get(key):
                return fields[key]
    with contextlib.suppress(OSError), open("/proc/device-tree/model", encoding="utf-8", errors="replace") as file:
        return file.read().strip("\0 \n")
    return platform.processor() or platform.machine()


def cpu_count() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def random_input(tensor: Tensor, seed: int) -> np.ndarray:
    """Random pixels of the tensor's shape and type: 0..255, in int8 shifted to -128..127."""
    pixels = np.random.RandomState(seed).randint(0, 256, tensor.shape)  # the same numbers in every numpy
    return (pixels - 128 if tensor.dtype == np.int8 else pixels).astype(tensor.dtype)


def measure(path: str, threads: list, runs: int, warmup: int, seed: int, emit: Any) -> None:
    """Hands `emit` the events that the module's docstring lists, in that order."""
    _import_runtime(path)  # its own memory is not the model's
    _reset_peak_memory()
    before = _resident_bytes("VmRSS")
    model = open_model(path, 1)
    emit(
        event="model",
        runtime=model.runtime,
        cpu=cpu_name(),
        cores=cpu_count(),
        machine=platform.machine(),
        python=platform.python_version(),
        inputs=[tensor.to_dict() for tensor in model.inputs],
        outputs=[tensor.to_dict() for tensor in model.outputs],
    )
    _set_inputs(model, seed)
    _invoke(model)
    _invoke(model)
    peak = _resident_bytes("VmHWM")
    emit(event="memory", peak_memory_bytes=None if before is None or peak is None else max(0, peak - before))
    emit(event="golden", seed=seed, outputs=[model.output(i).ravel().tolist() for i in range(len(model.outputs))])
    del model
    for count in threads:
        model = open_model(path, count)
        _set_inputs(model, seed)
        for _ in range(warmup):
            _invoke(model)
        cpu = time.process_time()
        samples = _time(model, runs, count, emit)
        emit(event="latency", threads=count, samples_ms=samples, cpu_ms=1e3 * (time.process_time() - cpu))
        del model


def _time(model: TFLiteModel | OnnxModel, runs: int, threads: int, emit: Any) -> list:
    invoke, clock = model.invoke, time.perf_counter_ns
    samples, reported = [], clock()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for done in range(1, runs + 1):
            start = clock()
            invoke()
            end = clock()
            samples.append((end - start) / 1e6)
            if end - reported > 250_000_000 or done == runs:  # rarely: a write disturbs the next inference's caches
                reported = end
                emit(event="progress", threads=threads, done=done, total=runs)
    except (ValueError, RuntimeError) as error:
        raise ModelError(_one_line(error)) from error
    finally:
        if collecting:
            gc.enable()
    return samples


def _set_inputs(model: TFLiteModel | OnnxModel, seed: int) -> None:
    try:
        for position, tensor in enumerate(model.inputs):
            model.set_input(random_input(tensor, seed + position), position)
    except (ValueError, RuntimeError) as error:
        raise ModelError(_one_line(error)) from error


def _invoke(model: TFLiteModel | OnnxModel) -> None:
    try:
        model.invoke()
    except Exception as error:  # onnxruntime's derive from Exception directly
        raise ModelError(_one_line(error)) from error


def _tflite_interpreter() -> tuple:
    """The runtime's name with its version, and its Interpreter class."""
    try:
        from ai_edge_litert.interpreter import Interpreter

        return f"ai-edge-litert {_version('ai-edge-litert')}", Interpreter
    except ImportError:
        pass
    try:
        from tflite_runtime.interpreter import Interpreter

        return f"tflite-runtime {_version('tflite-runtime')}", Interpreter
    except ImportError as error:
        raise ModelError("no TFLite runtime is installed: pip install ai-edge-litert") from error


def _import_runtime(path: str) -> None:
    if not path.lower().endswith(".onnx"):
        _tflite_interpreter()
        return
    with contextlib.suppress(ImportError):  # OnnxModel says so in words
        import onnxruntime  # noqa: F401


def _version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "of unknown version"


def _tflite_tensor(details: dict) -> Tensor:
    scale, zero_point = details["quantization"]
    return Tensor(
        tuple(details["shape"]),
        details["dtype"],
        float(scale) if scale else None,
        int(zero_point) if scale else None,
    )


_ONNX_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


def _onnx_tensor(value: Any) -> Tensor:
    if value.type not in _ONNX_TYPES:
        raise ModelError(f"{value.name} must be a tensor of numbers. Received: {value.type}")
    return Tensor(tuple(n if isinstance(n, int) else 1 for n in value.shape), _ONNX_TYPES[value.type])


def _resident_bytes(field: str) -> int | None:
    """`VmRSS` (now) or `VmHWM` (peak) of this process; None where there is no Linux /proc.

    getrusage's ru_maxrss will not do: a process inherits it from the one that started it.
    """
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return None


def _reset_peak_memory() -> None:
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


@contextlib.contextmanager
def _quiet_stderr():
    sys.stderr.flush()
    saved, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _emit(**event: Any) -> None:
    print(json.dumps(event), flush=True)


def main(arguments: list | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure one model file; one JSON object a line on stdout.")
    parser.add_argument("model")
    parser.add_argument("--threads", default="1", help="thread counts, e.g. 1,2,4")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the random input")
    options = parser.parse_args(arguments)
    try:
        threads = [int(count) for count in options.threads.split(",")]
    except ValueError:
        parser.error(f"--threads must be whole numbers with commas between. Received: {options.threads}")
    if min(threads) < 1 or options.runs < 1 or options.warmup < 0:
        parser.error("--threads and --runs must be 1 or more, --warmup 0 or more")
    try:
        measure(options.model, threads, options.runs, options.warmup, options.seed, _emit)
    except ModelError as error:
        _emit(event="error", message=str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
