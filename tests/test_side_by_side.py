"""Several files of one model, converted side by side."""

from __future__ import annotations

import io
import sys
import threading
from typing import Any

import numpy as np
import pytest

import converters
from converters import float_model, side_by_side
from converters.conversion import Conversion
from converters.errors import CheckFailed, InputError
from converters.quantization.rewrite import _WithoutThisThread
from converters.tflite.graph import Graph
from converters.tflite.metadata import OWN_NAME, STANDARD_NAME


def _without_record(conversion: Conversion) -> Any:
    if conversion.format == "onnx":
        import onnx

        model = onnx.load_model_from_string(conversion.content)
        constants = sorted(tensor.raw_data for tensor in model.graph.initializer)  # tf2onnx's order varies
        return sorted(node.op_type for node in model.graph.node), constants
    graph = Graph(conversion.content)
    graph.remove_metadata(OWN_NAME)
    graph.remove_metadata(STANDARD_NAME)
    return graph.to_bytes()


@pytest.mark.slow
def test_files_are_in_the_order_asked_for_and_equal_to_those_made_one_by_one(small_model: Any, pixels: np.ndarray):
    schemes: list[Any] = ["int8", "float32", converters.Int8(io="uint8"), "float16"]
    float_model._kept.clear()
    together = list(converters.convert_all(small_model, schemes, ["float32"], calibration=pixels))
    assert [(c.format, c.scheme) for c in together] == [
        ("tflite", "int8"), ("tflite", "float32"), ("tflite", "int8"), ("tflite", "float16"), ("onnx", "float32")
    ]  # fmt: skip
    float_model._kept.clear()
    alone = [converters.to_tflite(small_model, scheme, calibration=pixels) for scheme in schemes]
    alone.append(converters.to_onnx(small_model, calibration=pixels))
    for one, other in zip(together, alone, strict=True):
        assert _without_record(one) == _without_record(other)
        assert one.parity.top1_agreement == other.parity.top1_agreement
        assert one.parity.sqnr_db == pytest.approx(other.parity.sqnr_db, abs=0.01)


def test_calibration_images_can_be_read_only_once(small_model: Any, pixels: np.ndarray):
    batches = (pixels[i : i + 8] for i in range(0, 24, 8))
    made = list(converters.convert_all(small_model, ["int8", "float16"], calibration=batches))
    assert [conversion.parity.images for conversion in made] == [24, 24]


def test_a_failure_is_raised_in_place_of_its_result(small_model: Any, pixels: np.ndarray):
    failing = converters.Float16(min_sqnr_db=149)
    made = converters.convert_all(small_model, ["float32", failing, "int8"], calibration=pixels)
    assert next(made).scheme == "float32"
    with pytest.raises(CheckFailed, match="149 dB"):
        next(made)
    assert next(made, None) is None


def test_wrong_requests_fail_before_a_file_is_converted(small_model: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(side_by_side, "tflite_of", lambda *arguments: pytest.fail("a file was converted"))
    with pytest.raises(InputError, match="calibration must be given"):
        converters.convert_all(small_model, ["float32", "int8"])
    with pytest.raises(InputError, match="int9"):
        converters.convert_all(small_model, ["float32", "int9"])
    with pytest.raises(InputError, match="ONNX scheme"):
        converters.convert_all(small_model, ["float32"], ["float16"])
    with pytest.raises(InputError, match="10 class names"):
        converters.convert_all(small_model, ["float32"], labels=["one"])


def test_a_task_that_must_run_alone_does():
    """`mixed` measures latencies: nothing runs beside it, and its place in the results stays."""
    running, together = 0, []
    lock = threading.Lock()

    def task(name: str) -> Any:
        def run() -> str:
            nonlocal running
            with lock:
                running += 1
            threading.Event().wait(0.05)
            with lock:
                together.append((name, running))
                running -= 1
            return name

        return run

    kinds = [("integer", "a"), ("alone", "b"), ("float", "c"), ("float", "d"), ("alone", "e"), ("integer", "f")]
    assert list(side_by_side._side_by_side([(kind, task(name)) for kind, name in kinds])) == list("abcdef")
    assert {count for name, count in together if name in "be"} == {1}
    assert max(count for _, count in together) == 2


def test_what_is_not_begun_is_dropped_when_the_iterator_is_closed():
    begun, release = [], threading.Event()

    def task(name: str) -> Any:
        def run() -> str:
            begun.append(name)
            if name == "second":
                release.wait(10)
            return name

        return run

    made = side_by_side._side_by_side([("float", task(name)) for name in ("first", "second", "third")])
    assert next(made) == "first"
    threading.Timer(0.1, release.set).start()
    made.close()
    assert "third" not in begun


def test_only_the_quantizers_own_lines_are_dropped(monkeypatch: pytest.MonkeyPatch):
    stderr = io.StringIO()
    muted = _WithoutThisThread(stderr)
    monkeypatch.setattr(sys, "stderr", muted)
    print("its progress bar", file=sys.stderr)
    other = threading.Thread(target=lambda: print("a warning of another thread", file=sys.stderr))
    other.start()
    other.join()
    assert stderr.getvalue() == "a warning of another thread\n"
