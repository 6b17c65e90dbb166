"""Compare what every runtime at hand computes from one model file: `edge-cv conform`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from converters.declared import NOTHING, Declaration, undeclared
from converters.errors import InputError
from edge_cv.evaluation.conformance import Conformance, ExecutorResult
from edge_cv.intervals import wilson_interval
from edge_cv.progress import Progress, silent

if TYPE_CHECKING:
    import numpy as np

    from edge_cv.data import Samples
    from edge_cv.evaluation.executors import Executor, ExecutorProcess
    from edge_cv.evaluation.open_model import IOMetadata, OpenModel

FLOAT_STEPS = 1 << 16  # of a float output: its largest absolute value is divided into so many


def conform(
    path: Path,
    data: str,
    *,
    limit: int,
    declaration: Declaration = NOTHING,
    progress: Progress = silent,
) -> Conformance:
    """Run a file on images with every executor that is installed.

    Args:
        path: a `.tflite` or `.onnx` file.
        data: the images, by name or folder.
        limit: largest number of images.
        declaration, progress: as for `compare_executors`.

    Raises:
        InputError: the images cannot be opened, or as `compare_executors`.
    """
    from edge_cv.data import open_samples

    _check_file(path)
    photos = open_samples(data).take(limit)
    return compare_executors(path, photos, declaration=declaration, progress=progress)


def compare_executors(
    path: Path, photos: Samples, *, declaration: Declaration = NOTHING, progress: Progress = silent
) -> Conformance:
    """Run a file on images with every executor that is installed.

    Args:
        path: a `.tflite` or `.onnx` file.
        photos: the images.
        declaration: what the caller says about a file that does not declare it.
        progress: shows what is being done.

    Raises:
        InputError: the file cannot be used or does not declare its preprocessing, or the reference cannot run it.
    """
    from edge_cv.evaluation.executors import ELSEWHERE, EXECUTORS, ExecutorProcess

    _check_file(path)
    content = path.read_bytes()
    model, metadata = opened(path, content, declaration)
    inputs = model_inputs(path, model, metadata, photos)
    reference, *others = [executor for executor in EXECUTORS if executor.suffix == path.suffix]
    with ExecutorProcess(reference) as process:
        with progress(f"running {reference.name} on {len(inputs)} photos"):
            (expected,), seconds = process.run(content, inputs)
        comparison = _Comparison(content, inputs, model, metadata, process, expected)
        results = [comparison.result(reference, expected, seconds, None)]
        for executor in others:
            if executor.version is not None:
                with progress(f"running {executor.name} on {len(inputs)} photos"):
                    results.append(_result(executor, comparison))
    missing = {executor.name: executor.install for executor in others if executor.version is None}
    elsewhere = ELSEWHERE if path.suffix == ".tflite" else {}
    return Conformance(path.name, reference.name, len(inputs), tuple(results), missing | elsewhere)


def _check_file(path: Path) -> None:
    from edge_cv.evaluation.executors import EXECUTORS

    if path.suffix not in {executor.suffix for executor in EXECUTORS} or not path.is_file():
        raise InputError(f"the file must be a .tflite or .onnx file that exists. Received: {path}")


def opened(path: Path, content: bytes, declaration: Declaration = NOTHING) -> tuple[OpenModel, IOMetadata]:
    """The file, open here after a trial in a process of its own, and what it declares."""
    from converters.tflite.trial import try_once
    from edge_cv.evaluation.open_model import OpenModel, io_metadata

    metadata = io_metadata(path, declaration)
    if metadata.preprocessing is None:
        raise undeclared(path)
    if path.suffix == ".tflite":
        try:
            try_once(content)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    return OpenModel(str(path)), metadata


def model_inputs(path: Path, model: OpenModel, metadata: IOMetadata, photos: Samples) -> np.ndarray:
    """The inputs of all images `(n, ...)`, in the model's own shape and type."""
    import numpy as np

    preprocessing = metadata.preprocessing
    if preprocessing is None:
        raise undeclared(path)
    preprocessing.require(model.input.shape[1:])
    pixels = [image for image, _ in photos.pixels(preprocessing)]
    if not pixels:
        raise InputError(f"the photos must be at least one. Received: none in {photos.name}")
    return model.own_shape(model.encoder(metadata, preprocessing)(np.stack(pixels)))


def _result(executor: Executor, comparison: _Comparison) -> ExecutorResult:
    """Run the file on one executor; a runtime that refuses it is a result too."""
    from edge_cv.evaluation.executors import ExecutorProcess

    with ExecutorProcess(executor) as process:
        try:
            (outputs,), seconds = process.run(comparison.content, comparison.inputs)
        except InputError as error:
            return ExecutorResult(executor.name, executor.version or "", error=str(error))
        return comparison.result(executor, outputs, seconds, process)


@dataclass(frozen=True)
class _Comparison:
    """The reference's outputs, and what is needed to compare others with them."""

    content: bytes
    inputs: np.ndarray
    model: OpenModel
    metadata: IOMetadata
    process: ExecutorProcess
    expected: np.ndarray

    def result(
        self, executor: Executor, outputs: np.ndarray, seconds: float, process: ExecutorProcess | None
    ) -> ExecutorResult:
        """The comparison of an executor's outputs `(n, outputs)`; `process` is None for the reference."""
        from converters.decisions import agreeing

        steps = steps_between(self.expected, outputs)
        there, here = (self.metadata.class_columns(self._values(stored)) for stored in (self.expected, outputs))
        flipped = int((~agreeing(there, here, self.metadata.meaning)).sum())
        operator, layer = None, None
        if process is not None and executor.suffix == ".tflite" and steps.max() >= 1:
            operator, layer = self._first_operator(process, int(steps.max(axis=1).argmax()))
        return ExecutorResult(
            executor.name,
            executor.version or "",
            max_steps=float(steps.max()),
            differing=float((steps >= 1).mean()),
            flipped=flipped,
            flipped_ci95=wilson_interval(flipped, len(outputs)),
            operator=operator,
            layer=layer,
            ms_per_image=None if executor.is_emulated else 1000 * seconds,
        )

    def _values(self, stored: np.ndarray) -> np.ndarray:
        tensor = self.model.output
        return stored if tensor.scale is None else (stored.astype(float) - (tensor.zero_point or 0)) * tensor.scale

    def _first_operator(self, process: ExecutorProcess, image: int) -> tuple[str | None, str | None]:
        """The kind of the first operator whose output differs, and the name of that output."""
        from converters.tflite.graph import Graph

        graph, content = Graph(self.content), with_all_outputs(self.content)
        try:
            there, here = (one.run(content, self.inputs[image : image + 1])[0] for one in (self.process, process))
        except InputError:  # a runtime may refuse the file with so many outputs
            return None, None
        for operator, expected, outputs in zip(graph.operators(), there, here, strict=True):
            if steps_between(expected, outputs).max(initial=0) >= 1:
                return operator.name, graph.name(operator.outputs[0])
        return None, None


def steps_between(expected: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """The differences of outputs in steps: whole numbers for integers, 2^-16 of the largest value for floats."""
    import numpy as np

    if outputs.shape != expected.shape or outputs.dtype != expected.dtype:
        raise InputError(
            f"all runtimes must have the same outputs. Received: {outputs.dtype} {outputs.shape} and "
            f"{expected.dtype} {expected.shape}"
        )
    step = 1.0
    if expected.dtype.kind == "f":
        finite = np.abs(expected[np.isfinite(expected)])
        step = float(finite.max(initial=0.0)) / FLOAT_STEPS or 1.0
    equal = (outputs == expected) | ((outputs != outputs) & (expected != expected))
    with np.errstate(invalid="ignore"):
        steps = np.abs(outputs.astype(np.float64) - expected.astype(np.float64)) / step
    return np.where(equal, 0.0, np.nan_to_num(steps, nan=np.inf))


def with_all_outputs(content: bytes) -> bytes:
    """A TFLite file whose outputs are those of all its operators, the first of each, in their order."""
    from converters.tflite.graph import Graph

    graph = Graph(content)
    graph.set_outputs([operator.outputs[0] for operator in graph.operators()])
    return graph.to_bytes()
