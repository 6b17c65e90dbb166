"""The runtimes that can run one and the same model file on this machine, each in a process of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as ResultTimeoutError
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from converters.errors import InputError
from converters.packages import package_versions
from edge_cv.evaluation import arm64, browser

SECONDS = 60  # for one image: the reference kernels take a second for a network of 400 million MACs

# From the input of one image to all outputs of the file.
Invoke = Callable[[np.ndarray], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Executor:
    """A runtime with one choice of kernels.

    Attributes:
        name: for tables.
        suffix: of the files that it runs.
        package: its distribution on PyPI; empty where `found` looks for it.
        install: the command that installs it.
        open: opens a file's content for inference on one thread. What it returns may have a method `close`.
        found: the version of what is no package of PyPI; None if it is missing.
        is_emulated: whether its times say nothing.
    """

    name: str
    suffix: str
    package: str
    install: str
    open: Callable[[bytes], Invoke]
    found: Callable[[], str | None] | None = None
    is_emulated: bool = False

    @property
    def version(self) -> str | None:
        """The installed version; None if it is missing."""
        return package_versions([self.package]).get(self.package) if self.found is None else self.found()


def _interpreter(resolver: str) -> Callable[[bytes], Invoke]:
    """LiteRT's interpreter with the kernels of a resolver of operators."""

    def opened(content: bytes) -> Invoke:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        kernels = {"experimental_op_resolver_type": OpResolverType[resolver]}
        interpreter = Interpreter(model_content=content, num_threads=1, **kernels)
        interpreter.allocate_tensors()
        (given,), wanted = interpreter.get_input_details(), interpreter.get_output_details()

        def invoke(image: np.ndarray) -> list[np.ndarray]:
            interpreter.set_tensor(given["index"], image)
            interpreter.invoke()
            return [interpreter.get_tensor(output["index"]) for output in wanted]

        return invoke

    return opened


def _compiled(content: bytes) -> Invoke:
    """LiteRT's CompiledModel, on the CPU."""
    from ai_edge_litert.compiled_model import CompiledModel

    from converters.tflite.graph import Graph

    graph = Graph(content)
    wanted = [(int(np.prod(graph.shape(tensor))), np.dtype(graph.dtype(tensor))) for tensor in graph.outputs]
    model = CompiledModel.from_buffer(content)
    inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)

    def invoke(image: np.ndarray) -> list[np.ndarray]:
        inputs[0].write(image)
        model.run_by_index(0, inputs, outputs)
        return [buffer.read(count, dtype.type) for buffer, (count, dtype) in zip(outputs, wanted, strict=True)]

    return invoke


def _micro(content: bytes) -> Invoke:
    """TensorFlow Lite for Microcontrollers, with its reference kernels."""
    from tflite_micro import runtime

    from converters.devices.micro import memory
    from converters.tflite.graph import Graph

    count = len(Graph(content).outputs)
    arena_bytes = 2 * memory(content).arena_bytes + (1 << 16)  # a computer has more than the file needs
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=arena_bytes)

    def invoke(image: np.ndarray) -> list[np.ndarray]:
        interpreter.set_input(image, 0)
        interpreter.invoke()
        return [interpreter.get_output(position) for position in range(count)]

    return invoke


def _onnx(optimized: bool) -> Callable[[bytes], Invoke]:
    """ONNX Runtime on the CPU, with or without its changes of the graph."""

    def opened(content: bytes) -> Invoke:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # x86 without VNNI adds pairs of int8 products in 16 bits, which overflow
        options.add_session_config_entry("session.x64quantprecision", "1")
        if not optimized:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        return lambda image: session.run(None, {given.name: image})

    return opened


_LITERT = (".tflite", "ai-edge-litert", "pip install ai-edge-litert")
_ONNX_RUNTIME = (".onnx", "onnxruntime", "pip install onnxruntime")
# The first of a suffix is the one that all other commands measure with.
EXECUTORS = (
    Executor("LiteRT XNNPACK", *_LITERT, _interpreter("AUTO")),
    Executor("LiteRT kernels without XNNPACK", *_LITERT, _interpreter("BUILTIN_WITHOUT_DEFAULT_DELEGATES")),
    Executor("LiteRT reference kernels", *_LITERT, _interpreter("BUILTIN_REF")),
    Executor("LiteRT CompiledModel", *_LITERT, _compiled),
    Executor("TFLite Micro", ".tflite", "tflite-micro", "pip install 'edge-cv[micro]'", _micro),
    Executor("ONNX Runtime", *_ONNX_RUNTIME, _onnx(optimized=True)),
    Executor("ONNX Runtime without graph optimizations", *_ONNX_RUNTIME, _onnx(optimized=False)),
    Executor(
        "LiteRT on arm64, emulated", ".tflite", "", arm64.INSTALL, arm64.Emulated, arm64.version, is_emulated=True
    ),
    Executor("LiteRT.js in Chromium", ".tflite", "", browser.INSTALL, browser.Browser, browser.version),
)
# What runs a .tflite file elsewhere, and how.
ELSEWHERE = {
    "LiteRT on a board": "edge-cv benchmark FILE --device ssh://user@board",
    "TensorFlow Lite on Android": "edge-cv benchmark FILE --device adb, with the demo app on the phone",
}


def run(position: int, content: bytes, inputs: np.ndarray) -> tuple[list[np.ndarray], float]:
    """Run a file in this process, which a corrupt file may end.

    Args:
        position: of the executor in `EXECUTORS`.
        content: the file.
        inputs: `(n, ...)` in the type of the file's input, whose batch is 1.

    Returns:
        The values `(n, ...)` of each output in the file's type, flattened, and the mean seconds of one inference.

    Raises:
        InputError: the runtime refuses the file.
    """
    invoke: Invoke | None = None
    try:
        invoke = EXECUTORS[position].open(content)
        rows, seconds = [], 0.0
        for image in inputs:
            start = time.perf_counter()
            outputs = invoke(image[None])
            seconds += time.perf_counter() - start
            rows.append([np.array(output).reshape(-1) for output in outputs])
    except Exception as error:  # each runtime has classes of its own
        raise InputError(" ".join(str(error).split())[:200] or type(error).__name__) from None
    finally:
        getattr(invoke, "close", _nothing)()
    return [np.stack(values) for values in zip(*rows, strict=True)], seconds / len(inputs)


class ExecutorProcess:
    """An executor in a process of its own, as a context manager."""

    def __init__(self, executor: Executor) -> None:
        from edge_cv.parallel.processes import process_pool

        self._position = EXECUTORS.index(executor)
        self._pool: Any = process_pool(1, _silence)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self._pool.shutdown(wait=True, kill_workers=True)

    def run(self, content: bytes, inputs: np.ndarray) -> tuple[list[np.ndarray], float]:
        """As `run`; also raises InputError if the process ends, or takes longer than a minute for an image."""
        from loky.process_executor import BrokenProcessPool

        try:
            return self._pool.submit(run, self._position, content, inputs).result(SECONDS * (1 + len(inputs)))
        except ResultTimeoutError:
            raise InputError(f"it takes longer than {SECONDS} s for an image") from None
        except BrokenProcessPool:
            raise InputError("its process ended: the runtime crashed, or memory ran out") from None


def _nothing() -> None:
    """The `close` of runtimes that end with their objects."""


def _silence() -> None:
    """Send what native code logs nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
