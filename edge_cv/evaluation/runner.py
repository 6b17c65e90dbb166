"""Runs one model file and prints its measurements. This script stands alone, so that a device can run a copy of it.

    python runner.py MODEL [--threads 1,2] [--runs 50] [--warmup 10] [--seed 0] [--golden FILE] [--runtime compiled]
    python runner.py MODEL --serve

It needs Python 3.8, numpy and a runtime: ai-edge-litert, tflite-runtime, TensorFlow or (for .onnx) onnxruntime. It
imports nothing of this project. Each line on stdout is a JSON object with the key "event":

    model     the runtime, the machine, and the model's inputs and outputs
    memory    peak resident memory in bytes because of the model, with one thread
    golden    the outputs for each input in FILE (raw tensors, one after the other), or for the seeded random input;
              not dequantized
    sensors   temperature in degrees Celsius, clock in MHz and a Raspberry Pi's throttling bits, each null if the system
              does not report it; once before the first timed inference and once after the last
    progress  threads, done, total, and the milliseconds of every inference since the previous progress
    latency   threads, and the processor time of all their inferences
    outputs   with --serve: number of images, bytes of their outputs, and seconds spent in inferences
    error     the reason, in one line, why nothing more follows; the exit code is then 2

With --serve, the script reads requests from stdin: the number of images (4 bytes, big-endian) and their raw inputs. The
answer to each request is an event, followed by the raw outputs. The script ends after the number 0, or when stdin ends.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import time
from glob import glob
from typing import TYPE_CHECKING, Any

try:
    import numpy as np
except ImportError:
    if __name__ != "__main__":
        raise
    print(json.dumps({"event": "error", "message": "numpy is not installed: pip install numpy ai-edge-litert"}))
    sys.exit(2)


class ModelError(ValueError):
    """The file cannot be run."""


class Tensor:
    """A model's description of an input or an output.

    Attributes:
        shape: dimensions; a dynamic one is 1.
        dtype: a numpy dtype.
        scale, zero_point: real value = scale * (stored - zero_point); None for a tensor that is not quantized.
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
    """A .tflite file, open in an interpreter. Inputs and outputs have the file's own types."""

    def __init__(self, path: str, threads: int = 1) -> None:
        package, interpreter_class = _tflite_interpreter()
        with open(path, "rb") as file:
            if file.read(8)[4:] != b"TFL3":
                raise ModelError("it is not a TFLite model (no TFL3 at byte 4)")
        try:
            with _quiet_stderr():  # the runtime prints the name of its delegate
                self._interpreter = interpreter_class(
                    **_source(path, "model_path", "model_content"), num_threads=threads
                )
                self._interpreter.allocate_tensors()
            inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        except (ValueError, RuntimeError, TypeError, UnicodeDecodeError) as error:
            raise ModelError(_one_line(error)) from error
        for details in inputs:
            _check_size(details["name"], details.get("shape_signature", details["shape"]), TFLITE_SIZE)
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
        try:  # no public function reports the delegate
            return any("XNNPack" in op["op_name"] or op["op_name"] == "DELEGATE" for op in self._operators())
        except (AttributeError, KeyError, TypeError):
            return False

    def _operators(self) -> list:
        return self._interpreter._get_ops_details()


class CompiledModel:
    """A .tflite file, open in LiteRT's CompiledModel on the CPU."""

    def __init__(self, path: str, threads: int = 1) -> None:
        package, interpreter_class = _tflite_interpreter()
        try:
            with _quiet_stderr():  # it names its accelerators
                from ai_edge_litert import compiled_model, options
        except ImportError as error:
            raise ModelError("LiteRT's CompiledModel needs ai-edge-litert 2.3: pip install ai-edge-litert") from error
        try:
            with open(path, "rb") as file:
                content = file.read()
            with _quiet_stderr():
                described = interpreter_class(model_content=content)  # it has the quantization of the tensors
                inputs, outputs = described.get_input_details(), described.get_output_details()
                del described
                cpu = options.CpuOptions(num_threads=threads)
                self._model = compiled_model.CompiledModel.from_buffer(
                    content, options=options.Options(cpu_options=cpu)
                )
                self._inputs = self._model.create_input_buffers(0)
                self._outputs = self._model.create_output_buffers(0)
                for position, details in enumerate(inputs):  # the first write names the accelerators again
                    self._inputs[position].write(np.zeros(details["shape"], details["dtype"]))
        except (ValueError, RuntimeError, TypeError) as error:
            raise ModelError(_one_line(error)) from error
        for details in inputs:
            _check_size(details["name"], details.get("shape_signature", details["shape"]), TFLITE_SIZE)
        self.inputs = [_tflite_tensor(details) for details in inputs]
        self.outputs = [_tflite_tensor(details) for details in outputs]
        self.runtime = package + " CompiledModel"

    def set_input(self, value: np.ndarray, position: int = 0) -> None:
        self._inputs[position].write(value)

    def invoke(self) -> None:
        self._model.run_by_index(0, self._inputs, self._outputs)

    def output(self, position: int = 0) -> np.ndarray:
        tensor = self.outputs[position]
        values = self._outputs[position].read(int(np.prod(tensor.shape)), tensor.dtype.type)
        return values.reshape(tensor.shape)


class OnnxModel:
    """An .onnx file, open in a session on the CPU."""

    def __init__(self, path: str, threads: int = 1) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ModelError("onnxruntime is not installed: pip install onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # x86 without VNNI adds pairs of int8 products in 16 bits, which overflow: 8 dB where 20 dB are right
        options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            source = _source(path, "path_or_bytes", "path_or_bytes")
            self._session = onnxruntime.InferenceSession(
                **source, sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions derive from Exception directly
            raise ModelError(_one_line(error)) from error
        for value in self._session.get_inputs():
            _check_size(value.name, value.shape, ONNX_SIZE)
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


def _source(path: str, by_path: str, by_content: str) -> dict:
    """The argument that names a file, or that holds its content where the name is not UTF-8, which runtimes need."""
    try:
        path.encode()
        return {by_path: path}
    except UnicodeEncodeError:
        with open(path, "rb") as file:
            return {by_content: file.read()}


if TYPE_CHECKING:
    Model = TFLiteModel | CompiledModel | OnnxModel
RUNTIMES: dict[str, type[TFLiteModel] | type[CompiledModel]] = {"interpreter": TFLiteModel, "compiled": CompiledModel}
"""The ways in which LiteRT runs a .tflite file."""


def open_model(path: str, threads: int = 1, runtime: str = "interpreter") -> Model:
    """Open a file whose suffix is `.onnx`, or else a TFLite file, to run with `threads` threads.

    `runtime` is a key of RUNTIMES, for TFLite files.

    Raises ModelError if the runtime refuses the file. A corrupt file may also kill the process.
    """
    try:
        return (OnnxModel if path.lower().endswith(".onnx") else RUNTIMES[runtime])(path, threads)
    except OSError as error:
        raise ModelError(error.strerror or str(error)) from error


def cpu_name() -> str:
    """The name of the processor, "AMD EPYC 7B13", or of the board, "Raspberry Pi 5 Model B Rev 1.0"."""
    with contextlib.suppress(OSError), open("/proc/device-tree/model", encoding="utf-8", errors="replace") as file:
        return file.read().strip("\0 \n")
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        fields = dict(line.split(":", 1) for line in file.read().splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in fields.items()}
        for key in ("model name", "Hardware", "cpu model"):
            if fields.get(key):
                return fields[key]
    return platform.processor() or platform.machine()


def cpu_count() -> int:
    """Number of processors available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def system_name() -> str:
    """The operating system, e.g. "Debian GNU/Linux 12 (bookworm)"."""
    with contextlib.suppress(OSError), open("/etc/os-release", encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, value = line.strip().partition("=")
            if name == "PRETTY_NAME":
                return value.strip("\"'")
    return platform.system()


def sensors() -> dict:
    """`temperature_c`, `clock_mhz` and `throttled` (bits of a Raspberry Pi's `vcgencmd`), each None if unknown."""
    zones = {zone: _read(zone + "/type") or "" for zone in glob("/sys/class/thermal/thermal_zone*")}
    chosen = [zone for zone, kind in zones.items() if "cpu" in kind.lower() or kind == "x86_pkg_temp"] or list(zones)
    degrees = [number / 1000 for number in map(_number, (zone + "/temp" for zone in chosen)) if number is not None]
    clock = _number("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    return {
        "temperature_c": max(degrees) if degrees else None,
        "clock_mhz": None if clock is None else clock / 1000,
        "throttled": _throttled(),
    }


def _throttled() -> int | None:
    tool = shutil.which("vcgencmd")
    if tool is None:
        return None
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):
        output = subprocess.run([tool, "get_throttled"], stdout=subprocess.PIPE, timeout=5, check=True).stdout.decode()
        return int(output.strip().partition("=")[2], 16)
    return None


def _read(path: str) -> str | None:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read().strip()
    return None


def _number(path: str) -> int | None:
    with contextlib.suppress(ValueError):
        return int(_read(path) or "")
    return None


def random_input(tensor: Tensor, seed: int) -> np.ndarray:
    """Random pixels of the tensor's shape and type: 0..255, or -128..127 for int8."""
    pixels = np.random.RandomState(seed).randint(0, 256, tensor.shape)  # equal in every version of numpy
    return (pixels - 128 if tensor.dtype == np.int8 else pixels).astype(tensor.dtype)


def measure(
    path: str,
    threads: list,
    runs: int,
    warmup: int,
    seed: int,
    emit: Any,
    golden: str | None = None,
    runtime: str = "interpreter",
) -> None:
    """Emit the events in the module's docstring, in that order. With 0 runs, nothing is timed."""
    _import_runtime(path)  # so that its memory is not counted as the model's
    _limit_memory(path, max(threads))
    _reset_peak_memory()
    before = _resident_bytes("VmRSS")
    model = open_model(path, 1, runtime)
    emit(event="model", **_description(model))
    _set_inputs(model, seed)
    _invoke(model)
    _invoke(model)
    peak = _resident_bytes("VmHWM")
    emit(event="memory", peak_memory_bytes=None if before is None or peak is None else max(0, peak - before))
    emit(event="golden", outputs=[_values(model)] if golden is None else _golden(model, golden))
    del model
    if not runs:
        return
    emit(event="sensors", **sensors())
    for count in threads:
        model = open_model(path, count, runtime)
        _set_inputs(model, seed)
        for _ in range(warmup):
            _invoke(model)
        cpu = time.process_time()
        _time(model, runs, count, emit)
        emit(event="latency", threads=count, cpu_ms=1e3 * (time.process_time() - cpu))
        del model
    emit(event="sensors", **sensors())


def serve(path: str, emit: Any, requests: Any, answers: Any) -> None:
    """Answer the requests of one binary stream on another, with one image in memory at a time."""
    _import_runtime(path)
    _limit_memory(path, cpu_count())
    model = open_model(path, cpu_count())
    _check_single(model)
    emit(event="model", **_description(model))
    tensor = model.inputs[0]
    size = int(np.prod(tensor.shape)) * tensor.dtype.itemsize
    while True:
        count = requests.read(4)
        count = struct.unpack(">I", count)[0] if len(count) == 4 else 0
        if not count:
            return
        outputs, seconds = [], 0.0
        for _ in range(count):
            content = requests.read(size)
            if len(content) < size:
                return
            model.set_input(np.frombuffer(content, tensor.dtype).reshape(tensor.shape))
            start = time.perf_counter()
            _invoke(model)
            seconds += time.perf_counter() - start
            outputs.append(model.output().tobytes())
        emit(event="outputs", images=count, bytes=sum(map(len, outputs)), seconds=seconds)
        answers.write(b"".join(outputs))
        answers.flush()


def _description(model: Model) -> dict:
    return {
        "runtime": model.runtime,
        "cpu": cpu_name(),
        "cores": cpu_count(),
        "machine": platform.machine(),
        "system": system_name(),
        "python": platform.python_version(),
        "inputs": [tensor.to_dict() for tensor in model.inputs],
        "outputs": [tensor.to_dict() for tensor in model.outputs],
    }


def _check_single(model: Model) -> None:
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError(
            f"it must have one input and one output. Received: {len(model.inputs)} and {len(model.outputs)}"
        )


def _golden(model: Model, file: str) -> list:
    _check_single(model)
    tensor = model.inputs[0]
    values = np.fromfile(file, tensor.dtype)
    if not values.size or values.size % int(np.prod(tensor.shape)):
        raise ModelError(f"the golden inputs must be whole tensors of {tensor.shape}. Received: {values.size} numbers")
    outputs = []
    for value in values.reshape((-1, *tensor.shape)):
        model.set_input(value)
        _invoke(model)
        outputs.append(_values(model))
    return outputs


def _values(model: Model) -> list:
    return [number for i in range(len(model.outputs)) for number in model.output(i).ravel().tolist()]


def _time(model: Model, runs: int, threads: int, emit: Any) -> None:
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
            if end - reported > 250_000_000 or done == runs:  # seldom, because writing evicts the model from the caches
                reported = end
                emit(event="progress", threads=threads, done=done, total=runs, samples_ms=samples)
                samples = []
    except (ValueError, RuntimeError) as error:
        raise ModelError(_one_line(error)) from error
    finally:
        if collecting:
            gc.enable()


def _set_inputs(model: Model, seed: int) -> None:
    try:
        for position, tensor in enumerate(model.inputs):
            model.set_input(random_input(tensor, seed + position), position)
    except (ValueError, RuntimeError) as error:
        raise ModelError(_one_line(error)) from error


def _invoke(model: Model) -> None:
    try:
        model.invoke()
    except Exception as error:  # onnxruntime's exceptions derive from Exception directly
        raise ModelError(_one_line(error)) from error


def _tflite_interpreter() -> tuple:
    """The name and version of the runtime, and its Interpreter class."""
    for package, module in _RUNTIMES:
        try:
            interpreter = getattr(importlib.import_module(module), "Interpreter")  # noqa: B009
        except ImportError as error:
            if not isinstance(error, ModuleNotFoundError) or error.name != module.partition(".")[0]:
                raise ModelError(f"{package} is installed but does not work: {_one_line(error)}") from error
            continue
        return f"{package} {_version(package)}", interpreter
    raise ModelError("no TFLite runtime is installed: pip install ai-edge-litert")


_RUNTIMES = (
    ("ai-edge-litert", "ai_edge_litert.interpreter"),
    ("tflite-runtime", "tflite_runtime.interpreter"),
    ("tensorflow", "tensorflow.lite"),
)


def _import_runtime(path: str) -> None:
    if not path.lower().endswith(".onnx"):
        _tflite_interpreter()
        return
    with contextlib.suppress(ImportError):  # OnnxModel raises the error
        import onnxruntime  # noqa: F401


def _version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "of unknown version"


ONNX_SIZE = (
    "set it by python -m onnxruntime.tools.make_dynamic_shape_fixed --input_name NAME --input_shape 1,3,224,224 "
    "MODEL.onnx FIXED.onnx"
)
TFLITE_SIZE = "convert the model again with a fixed size"


def _check_size(name: str, sizes: Any, remedy: str) -> None:
    """Raise ModelError for an image of a free height, width or depth, which would be run on a single pixel."""
    written = [str(n) if isinstance(n, (int, np.integer)) and n >= 0 else "free" for n in sizes]
    if len(sizes) > 2 and "free" in written[1:]:
        raise ModelError(f"its input {name} must have one size. Received: ({', '.join(written)}); {remedy}")


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
    """`VmRSS` (current) or `VmHWM` (peak) resident memory of this process; None without Linux's /proc.

    getrusage's ru_maxrss is unsuitable: a process inherits it from its parent.
    """
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return None


def _limit_memory(path: str, threads: int) -> None:
    """Let this process take memory in proportion to the file, so that one that declares more ends it and not others.

    2.4 GB are for activations, 0.1 GB for each thread, and the weights are unpacked and copied.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):  # some systems cannot limit it
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        limit = size + 2_400_000_000 + 100_000_000 * threads + 8 * os.path.getsize(path)
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


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
    return " ".join(str(error).split())[:300] or type(error).__name__


def main(arguments: list | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure one model file and print one JSON object a line.")
    parser.add_argument("model")
    parser.add_argument("--threads", default="1", help="thread counts, e.g. 1,2,4")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="seed of the random input")
    parser.add_argument("--golden", help="file of raw input tensors whose outputs are reported")
    parser.add_argument("--runtime", default="interpreter", choices=sorted(RUNTIMES), help="LiteRT's, for .tflite")
    parser.add_argument("--serve", action="store_true", help="run the model on inputs from stdin")
    options = parser.parse_args(arguments)
    try:
        threads = [int(count) for count in options.threads.split(",")]
    except ValueError:
        parser.error(f"--threads must be whole numbers separated by commas. Received: {options.threads}")
    if min(threads) < 1 or options.runs < 0 or options.warmup < 0:
        parser.error("--threads must be 1 or more, --runs and --warmup 0 or more")
    # Output of the runtime itself goes to stderr, so that it does not mix with the events.
    with os.fdopen(os.dup(1), "wb") as stream:
        os.dup2(2, 1)

        def emit(**event: Any) -> None:
            stream.write(json.dumps(event).encode() + b"\n")
            stream.flush()

        try:
            if options.serve:
                serve(options.model, emit, sys.stdin.buffer, stream)
            else:
                counts = (threads, options.runs, options.warmup, options.seed)
                measure(options.model, *counts, emit, options.golden, options.runtime)
        except ModelError as error:
            emit(event="error", message=str(error))
            return 2
        except MemoryError:
            emit(event="error", message="memory ran out")
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
