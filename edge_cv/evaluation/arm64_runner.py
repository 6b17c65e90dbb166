"""Runs a TFLite file on images: executed by an arm64 Python, in an emulation.

    python3 arm64_runner.py MODEL

It reads the raw input of one image after the other from stdin, and writes all outputs of the file for each to stdout as
.npy arrays, each after its length in bytes. A first line has the number of outputs.
"""

from __future__ import annotations

import io
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter

LENGTH_BYTES = 8  # of a length, big-endian


def main(path: str) -> None:
    """Answer until stdin ends."""
    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    (given,), wanted = interpreter.get_input_details(), interpreter.get_output_details()
    stdout, size = sys.stdout.buffer, int(np.prod(given["shape"])) * np.dtype(given["dtype"]).itemsize
    stdout.write(b"%d\n" % len(wanted))
    stdout.flush()
    while len(content := sys.stdin.buffer.read(size)) == size:
        interpreter.set_tensor(given["index"], np.frombuffer(content, given["dtype"]).reshape(given["shape"]))
        interpreter.invoke()
        for output in wanted:
            array = io.BytesIO()
            np.save(array, interpreter.get_tensor(output["index"]), allow_pickle=False)
            stdout.write(len(array.getvalue()).to_bytes(LENGTH_BYTES, "big") + array.getvalue())
        stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
