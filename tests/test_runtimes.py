"""`--runtime compiled`: LiteRT's CompiledModel beside its interpreter, in evaluate and benchmark."""

from __future__ import annotations

import json

import numpy as np
import pytest

from converters.errors import InputError
from edge_cv import data
from edge_cv.evaluation import evaluate, measure_on
from edge_cv.evaluation.open_model import OpenModel


@pytest.mark.parametrize("scheme", ["float32", "int8"])
def test_both_runtimes_describe_a_file_alike_and_compute_the_same(small_files, pixels, scheme):
    usual, compiled = (OpenModel(str(small_files[scheme]), runtime=name) for name in ("interpreter", "compiled"))
    for one, other in ((usual.input, compiled.input), (usual.output, compiled.output)):
        assert one.to_dict() == other.to_dict()
    images = (
        pixels[:4].astype(np.float32) if scheme == "float32" else (pixels[:4].astype(np.int16) - 128).astype(np.int8)
    )
    np.testing.assert_array_equal(usual.stored(images)[0], compiled.stored(images)[0])
    assert compiled.runtime.endswith(" CompiledModel")


def test_evaluate_classifies_with_the_runtime(small_files, photos):
    source = data.open_samples(str(photos))
    files = {"int8": small_files["int8"]}
    found = [evaluate(files, source, workers=1, runtime=name) for name in ("interpreter", "compiled")]
    assert found[1].runtimes["int8"].endswith(" CompiledModel")
    assert found[0].scores["int8"].top1 == found[1].scores["int8"].top1


def test_benchmark_times_the_runtime_and_logs_nothing(edge_cv, small_files):
    code, out, err = edge_cv("benchmark", small_files["int8"], "--runs", 3, "--runtime", "compiled", "--json")
    assert code == 0
    assert "CompiledModel" in out
    json.loads(out)
    assert "INFO" not in err


@pytest.mark.parametrize(
    ("runtime", "name", "device", "message"),
    [
        ("compile", "m.tflite", "host", "unknown runtime: 'compile'. Did you mean 'compiled'"),
        ("compiled", "m.onnx", "host", "for .tflite files"),
        ("compiled", "m.tflite", "adb", "for this machine only"),
    ],
)
def test_a_runtime_that_cannot_run_the_file_is_refused(small_files, tmp_path, runtime, name, device, message):
    (tmp_path / name).write_bytes(small_files["int8"].read_bytes())
    with pytest.raises(InputError, match=message):
        measure_on(device, tmp_path / name, runtime=runtime)
