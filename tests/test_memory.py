"""Files that declare far more than they hold are refused before their memory is taken."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from isolated_cases import IsolatedCases
from source_refusal import refused

from converters import InputError
from converters.calibration import noise
from converters.memory import check_activations
from converters.sources import open_source


def test_tensors_that_are_in_use_together_are_counted():
    million = 10**6
    chain = [((at,), {at + 1: 100 * million}) for at in range(20)]
    check_activations(chain, "a model")
    kept = [*chain, (range(20), {"sum": 1})]
    with pytest.raises(InputError, match=r"a model must compute at most .* Received: 100,000,000 and 300,000,000"):
        check_activations(kept, "a model")
    with pytest.raises(InputError, match="Received: 200,000,000"):
        check_activations([((), {0: 200 * million})], "a model")


FREED_TENSOR = """
import re
from pathlib import Path

from converters.memory import return_freed_tensors
from converters.native_logs import import_tensorflow

return_freed_tensors()
import_tensorflow()
import tensorflow as tf


def resident() -> int:
    return int(re.findall(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[0])


tf.zeros((1000,)) + 1
before = resident()
tensor = tf.zeros((300, 1000, 1000)) + 1
taken = resident() - before
del tensor
assert taken > 1_000_000, taken
assert resident() - before < 100_000, resident() - before
"""


@pytest.mark.slow
def test_the_memory_of_freed_tensors_is_returned():
    root = Path(__file__).parents[1]
    ended = subprocess.run([sys.executable, "-c", FREED_TENSOR], cwd=root, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


FREED_MEMORY = """
import resource

from converters.memory import return_freed_memory


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


before = resident()
held = [bytes(60_000) + b"x" for _ in range(4000)]
last = bytes(60_000) + b"x"  # the heap ends with it, so the freed memory below stays with the process
del held
kept = resident() - before
return_freed_memory()
assert kept > 200_000_000, kept
assert resident() - before < 20_000_000, resident() - before
"""


def test_freed_memory_below_what_is_in_use_is_returned():
    root = Path(__file__).parents[1]
    ended = subprocess.run([sys.executable, "-c", FREED_MEMORY], cwd=root, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def declared(model: Any, path: Path, **changes: Any) -> Path:
    """A .keras file whose layers of these classes have other options."""
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    for layer in config["config"]["layers"]:
        layer["config"].update(changes.get(layer["class_name"], {}))
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return path


def test_a_keras_file_that_declares_large_images_or_many_weights_is_refused(small_model, tmp_path):
    large = {"InputLayer": {"batch_shape": [None, 20_000, 20_000, 3]}}
    refused(declared(small_model, tmp_path / "large.keras", **large), "1,200,000,000")
    refused(declared(small_model, tmp_path / "many.keras", Dense={"units": 10**8}), "declares layers of .* weights")


HUGE = 60_000


def zeros(image: Any) -> Any:
    import tensorflow as tf

    return tf.zeros((HUGE, HUGE))


def zeros_in_a_function(image: Any) -> Any:
    import tensorflow as tf

    return tf.function(lambda: tf.zeros((HUGE, HUGE)))()


def zeros_of_a_computed_size(image: Any) -> Any:
    import tensorflow as tf

    size = tf.cast(tf.reduce_max(image) * 0 + HUGE, tf.int32)
    return tf.fill((size, size), 1.0)


def _saved(make: Callable[[Any], Any], folder: Path) -> None:
    import tensorflow as tf

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 32, 32, 3), tf.float32)])
        def serve(self, image):
            return {"scores": tf.reduce_mean(image, (1, 2)) + tf.reduce_sum(make(image))}

    module = Module()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})


def _open(folder: Path) -> str:
    try:
        open_source(folder)
    except InputError as error:
        return str(error)
    return ""


def test_a_saved_model_of_large_tensors_is_refused(tmp_path):
    _saved(zeros, tmp_path / "plain")
    _saved(zeros_in_a_function, tmp_path / "function")
    refused(tmp_path / "plain", "3,600,000,000")
    refused(tmp_path / "function", "3,600,000,000")


@pytest.mark.slow
def test_a_saved_model_of_tensors_whose_size_it_computes_has_a_limit_of_memory(tmp_path):
    _saved(zeros_of_a_computed_size, tmp_path / "computed")
    cases = IsolatedCases()
    try:
        assert "ResourceExhaustedError" in cases.run(_open, tmp_path / "computed")
    finally:
        cases.close()


def test_a_limited_process_raises_memory_error():
    code = "from converters.memory import limit_memory; limit_memory(500_000_000); bytearray(900_000_000)"
    root = str(Path(__file__).parents[1])
    ended = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert "MemoryError" in ended.stderr


@pytest.mark.slow
def test_noise_of_large_images_is_of_fewer():
    assert noise((224, 224, 3), None, True).shape[0] == 8
    assert noise((2048, 4096, 3), None, True).shape[0] == 2
    assert noise((32, 32, 3), None, True).dtype == np.float32
