"""Compiles an ONNX file by RKNN-Toolkit2, and runs it in the vendor's simulator.

    python rknn_runner.py JOB.json

The Python of the compiler's own environment executes it: nothing of this project is imported here.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ERROR = 3  # the exit code after `error.txt` was written


def main(job: dict[str, Any]) -> int:
    """Do a job, whose fields are those of `converters.devices.rknn`."""
    _limit(job["memory_bytes"], job["file_bytes"])
    try:
        _compile(job)
    except Exception as error:  # the toolkit raises what its own steps raise, with a traceback as text
        text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # colours
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        Path(job["error"]).write_text(lines[-1] if lines else type(error).__name__, encoding="utf-8")
        return ERROR
    return 0


def _limit(memory_bytes: int, file_bytes: int) -> None:
    import resource

    for kind, limit in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_FSIZE, file_bytes)):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _compile(job: dict[str, Any]) -> None:
    import numpy as np
    from rknn.api import RKNN  # type: ignore[import-not-found]

    compiler = RKNN(verbose=True)  # the table of layers is part of its log
    _done("config", compiler.config(target_platform=job["target"]))
    _done("load_onnx", compiler.load_onnx(model=job["model"]))
    calibration = job["calibration"]
    dataset = None if calibration is None else _dataset(np.load(calibration), Path(calibration).parent)
    _done("build", compiler.build(do_quantization=dataset is not None, dataset=dataset))
    _done("export_rknn", compiler.export_rknn(job["compiled"]))
    if job["images"] is not None:
        _done("init_runtime", compiler.init_runtime())  # without a target: the simulator
        rows = []
        for image in np.load(job["images"]):
            # "nchw" hands the input over in the order of the ONNX file's own axes, whatever they mean
            (values,) = compiler.inference(inputs=[image[None]], data_format=["nchw"])
            rows.append(np.asarray(values, np.float32).reshape(-1))
        np.save(job["outputs"], np.stack(rows))


def _dataset(images: Any, folder: Path) -> str:
    """The list of calibration images that the toolkit reads: one .npy file for each line."""
    import numpy as np

    lines = []
    for number, image in enumerate(images):
        lines.append(str(folder / f"calibration_{number}.npy"))
        np.save(lines[-1], image[None])
    path = folder / "dataset.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def _done(step: str, code: int) -> None:
    if code != 0:
        raise RuntimeError(f"{step} returned {code}")


if __name__ == "__main__":
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
