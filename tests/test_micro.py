"""Memory on a microcontroller and files as C arrays, against the microcontrollers' runtime itself and a compiler."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys

import numpy as np
import pytest

from converters import Int8, to_tflite
from converters.devices.micro import Memory, c_array, memory
from converters.errors import InputError

# what the runtime's own planner took for activations: tflite-micro 0.dev20261023182759, RecordingMicroAllocator, "head"
HEADS = {
    ("mobilenet_v1", 0.25, "int8"): 73_728,
    ("mobilenet_v1", 0.25, "float32"): 294_912,
    ("mobilenet_v3_small", 1.0, "int8"): 73_728,
}
RUN = """
import sys
import numpy as np
from tflite_micro import runtime
content, images, size, out = open(sys.argv[1], "rb").read(), np.load(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
interpreter = runtime.Interpreter.from_bytes(content, arena_size=size)
outputs = []
for image in images:
    interpreter.set_input(image[None], 0)
    interpreter.invoke()
    outputs.append(interpreter.get_output(0)[0])
np.save(out, outputs)
"""


NETWORKS = [
    pytest.param(key, id=f"{key[0]}-{key[2]}", marks=pytest.mark.slow if "v3" in key[0] else ()) for key in HEADS
]


SCALES = {"int8": "per_channel", "per_tensor": "per_tensor", "per_tensor_pow2": "per_tensor_pow2"}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    from converters import Preprocessing
    from edge_cv import data

    return np.stack([p for p, _ in data.open_samples("sample_calibration").pixels(Preprocessing(96), limit=12)])


@pytest.fixture(scope="module")
def file_of(images, tmp_path_factory):
    """Makes the file of a small network of random weights, by name, width and scheme; each once."""
    folder = tmp_path_factory.mktemp("micro")

    @functools.cache
    def network(name, alpha):
        import keras

        from edge_cv import models

        keras.utils.set_random_seed(1)
        return models.build(name, classes=10, image_size=96, alpha=alpha)

    @functools.cache
    def file_of(name, alpha, scheme):
        chosen = scheme
        if scheme in SCALES:
            chosen = Int8(correction="none", weights=SCALES[scheme], min_sqnr_db=-20)
        path = folder / f"{name}_{scheme}.tflite"
        path.write_bytes(to_tflite(network(name, alpha), chosen, calibration=images, target="micro").content)
        return path

    return file_of


def _run_on_tflm(path, images, arena_bytes, folder) -> np.ndarray | None:
    np.save(folder / "images.npy", images)
    arguments = [str(path), str(folder / "images.npy"), str(arena_bytes), str(folder / "out.npy")]
    done = subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, text=True)
    return np.load(folder / "out.npy") if done.returncode == 0 else None


@pytest.mark.parametrize("key", NETWORKS)
def test_activations_take_what_the_runtimes_planner_gives_them(file_of, key):
    found = memory(file_of(*key).read_bytes())
    scratch = found.activations_bytes - HEADS[key]  # CMSIS-NN's; the runtime on a PC has none
    assert 0 <= scratch <= 0.01 * HEADS[key]
    assert found.flash_bytes == file_of(*key).stat().st_size


@pytest.mark.parametrize("key", NETWORKS)
def test_the_arena_is_large_enough_and_hardly_larger_than_the_runtime_needs(file_of, images, key, tmp_path):
    pytest.importorskip("tflite_micro")
    images = (
        images[:1].astype(np.float32) if key[2] == "float32" else (images[:1].astype(np.int16) - 128).astype(np.int8)
    )
    found = memory(file_of(*key).read_bytes())
    assert _run_on_tflm(file_of(*key), images, found.arena_bytes, tmp_path) is not None
    assert (
        _run_on_tflm(file_of(*key), images, found.activations_bytes + found.records_bytes * 9 // 10, tmp_path) is None
    )


@pytest.mark.parametrize("scales", SCALES)
def test_the_microcontrollers_runtime_computes_what_litert_reference_kernels_do(file_of, images, tmp_path, scales):
    pytest.importorskip("tflite_micro")
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    path = file_of("mobilenet_v1", 0.25, scales)
    integers = (images.astype(np.int16) - 128).astype(np.int8)
    found = _run_on_tflm(path, integers, memory(path.read_bytes()).arena_bytes, tmp_path)
    interpreter = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    for image, answer in zip(integers, found, strict=True):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        assert np.array_equal(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0], answer)


def test_memory_adds_up_to_the_arena():
    assert Memory(1000, 24, 5, "x").arena_bytes == 1024


def test_what_is_not_a_tflite_file_is_rejected():
    with pytest.raises(InputError, match="TFL3"):
        memory(b"not a file")


def test_a_c_compiler_reads_the_same_bytes_back(tmp_path):
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler is installed")
    content = bytes(np.random.default_rng(0).integers(0, 256, 1001, np.uint8))
    header, source = c_array(content, "model_int8")
    (tmp_path / "model_int8.h").write_text(header)
    (tmp_path / "model_int8.cc").write_text(source)
    (tmp_path / "main.cc").write_text(
        '#include <cstdint>\n#include <cstdio>\n#include "model_int8.h"\n'
        "int main() { if (reinterpret_cast<std::uintptr_t>(model_int8) % 16) return 1;"
        " return fwrite(model_int8, 1, model_int8_len, stdout) != model_int8_len; }\n"
    )
    program = str(tmp_path / "program")
    command = [compiler, "-Wall", "-Wextra", "-Werror", "main.cc", "model_int8.cc", "-o", program]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert subprocess.run([program], capture_output=True, check=True).stdout == content


@pytest.mark.parametrize("name", ["", "1model", "a b", "x;", "größe"])
def test_a_name_that_is_invalid_in_c_is_rejected(name):
    with pytest.raises(InputError, match="letters, digits and _"):
        c_array(b"x", name)
