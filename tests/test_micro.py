"""Memory on a microcontroller and files as C arrays, against the microcontrollers' runtime itself and a compiler."""

from __future__ import annotations

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


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Small networks of random weights as files, by name, width and scheme; and the images that they were shown."""
    import keras

    from converters import Preprocessing
    from edge_cv import data, models

    images = np.stack([p for p, _ in data.open_samples("sample_calibration").pixels(Preprocessing(96), limit=12)])
    folder, found, network = tmp_path_factory.mktemp("micro"), {}, {}
    for name, alpha, scheme in HEADS:
        if (name, alpha) not in network:
            keras.utils.set_random_seed(1)
            network[name, alpha] = models.build(name, classes=10, image_size=96, alpha=alpha)
        chosen = Int8(correction="none", min_sqnr_db=-20) if scheme == "int8" else scheme
        made = to_tflite(network[name, alpha], chosen, calibration=images, target="micro")
        found[name, alpha, scheme] = folder / f"{name}_{scheme}.tflite"
        found[name, alpha, scheme].write_bytes(made.content)
    return found, images


def _run_on_tflm(path, images, arena_bytes, folder) -> np.ndarray | None:
    np.save(folder / "images.npy", images)
    arguments = [str(path), str(folder / "images.npy"), str(arena_bytes), str(folder / "out.npy")]
    done = subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, text=True)
    return np.load(folder / "out.npy") if done.returncode == 0 else None


@pytest.mark.parametrize("key", HEADS, ids=lambda key: f"{key[0]}-{key[2]}")
def test_activations_take_what_the_runtimes_planner_gives_them(files, key):
    found = memory(files[0][key].read_bytes())
    scratch = found.activations_bytes - HEADS[key]  # CMSIS-NN's; the runtime on a PC has none
    assert 0 <= scratch <= 0.01 * HEADS[key]
    assert found.flash_bytes == files[0][key].stat().st_size


@pytest.mark.parametrize("key", HEADS, ids=lambda key: f"{key[0]}-{key[2]}")
def test_the_arena_is_large_enough_and_hardly_larger_than_the_runtime_needs(files, key, tmp_path):
    pytest.importorskip("tflite_micro")
    paths, images = files
    images = (
        images[:1].astype(np.float32) if key[2] == "float32" else (images[:1].astype(np.int16) - 128).astype(np.int8)
    )
    found = memory(paths[key].read_bytes())
    assert _run_on_tflm(paths[key], images, found.arena_bytes, tmp_path) is not None
    assert _run_on_tflm(paths[key], images, found.activations_bytes + found.records_bytes * 9 // 10, tmp_path) is None


def test_the_microcontrollers_runtime_computes_what_litert_reference_kernels_do(files, tmp_path):
    pytest.importorskip("tflite_micro")
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    paths, images = files
    path = paths["mobilenet_v1", 0.25, "int8"]
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
