"""Running an untrusted TFLite file once in a process of its own: a corrupt one may end the process that runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import InputError
from converters.memory import limit_memory, memory_for

SECONDS = 60  # for an image of zeros and one of noise
_REFUSED = 2  # the exit code of a process that found an error
_ROOT = Path(__file__).parents[2]


def try_once(content: bytes, shape: Sequence[int] | None = None) -> None:
    """Run a TFLite file on an image of zeros and on noise in a process of its own, with limited memory.

    Args:
        content: the file.
        shape: of its first input, where that is resized.

    Raises:
        InputError: the runtime refuses the file, ends with it, or takes too long or too much memory.
    """
    path = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "converters.tflite.trial", *map(str, shape or ())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,  # Ctrl-C interrupts this process, which then ends the other
    )
    try:
        reason = process.communicate(content, timeout=SECONDS)[0].decode(errors="replace")
    except subprocess.TimeoutExpired as error:
        raise InputError(f"the model must classify an image in {SECONDS} s. Received: one that takes longer") from error
    finally:
        process.kill()
        process.wait()
    if process.returncode == _REFUSED:
        raise InputError(f"the TFLite runtime rejects the model: {' '.join(reason.split())[:200]}")
    if process.returncode:
        end = signal.Signals(-process.returncode).name if process.returncode < 0 else f"code {process.returncode}"
        raise InputError(f"the TFLite runtime ends with {end} when it runs the model: it is corrupt, or memory ran out")


def run(content: bytes, shape: Sequence[int]) -> None:
    """Run a TFLite file on an image of zeros and on noise. A corrupt file may end this process."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # The delegates change a graph, so that a file that is resized is run without them, as it will be.
    without = {"experimental_op_resolver_type": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES} if shape else {}
    interpreter = Interpreter(model_content=content, **without)
    if shape:
        interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], list(shape))
    interpreter.allocate_tensors()
    rng = np.random.default_rng(0)
    for highest in (1, 256):
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], _values(detail, rng, highest))
        interpreter.invoke()
    for detail in interpreter.get_output_details():
        interpreter.get_tensor(detail["index"])


def _values(detail: dict[str, Any], rng: np.random.Generator, highest: int) -> np.ndarray:
    return rng.integers(0, highest, detail["shape"], np.uint8).astype(detail["dtype"])


def _main() -> int:
    content = sys.stdin.buffer.read()
    limit_memory(memory_for(len(content)))
    try:
        run(content, [int(size) for size in sys.argv[1:]])
    except MemoryError:
        print("memory ran out")
        return _REFUSED
    except Exception as error:  # the runtime raises errors of several kinds
        print(error or type(error).__name__)
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(_main())
