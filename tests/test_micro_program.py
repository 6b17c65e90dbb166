"""The sources around a file on a microcontroller: compiled, run and compared with Python, without TensorFlow."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from converters import Preprocessing
from converters.devices.compilers import compile_file
from converters.devices.micro import memory
from converters.devices.micro_program import KERNELS, operators, program, settings
from converters.errors import InputError
from converters.packages import package_versions
from converters.record import InputRecord, OutputRecord, Record
from converters.tflite.graph import Graph, Operator
from edge_cv.evaluation.open_model import InputEncoder

WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")
HARNESS = """
#include <stdio.h>
#include <stdlib.h>
#include "preprocess.h"
int main(int count, char **values) {
  const int width = atoi(values[1]), height = atoi(values[2]);
  const size_t room = PREPROCESS_WORKSPACE(width, height) - (size_t)(count > 3);
  uint8_t *photo = malloc(3 * (size_t)width * (size_t)height);
  int32_t *workspace = malloc(4 * room);
  model_input_t *input = malloc(sizeof(model_input_t) * MODEL_INPUT_COUNT);
  if (fread(photo, 3 * (size_t)width, (size_t)height, stdin) != (size_t)height) return 2;
  if (preprocess(photo, width, height, input, workspace, room)) return 3;
  fwrite(input, sizeof(model_input_t), MODEL_INPUT_COUNT, stdout);
  free(photo); free(workspace); free(input);
  return 0;
}
"""
# Declarations of TensorFlow Lite for Microcontrollers, whose headers no package carries; the interpreter returns 0, 1,
# 2, ... 9 as the outputs.
STUB = """
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdio>
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
#define TF_LITE_ENSURE_STATUS(a) do { if ((a) != kTfLiteOk) return kTfLiteError; } while (0)
#define MicroPrintf(...) std::printf(__VA_ARGS__)
namespace tflite {
struct Model {};
inline const Model* GetModel(const void*) { static Model model; return &model; }
inline void InitializeTarget() {}
inline int added = 0;
template <unsigned int count> struct MicroMutableOpResolver {
  TfLiteStatus Add() { return ++added <= static_cast<int>(count) ? kTfLiteOk : kTfLiteError; }
  TfLiteStatus AddAdd() { return Add(); }
  TfLiteStatus AddConv2D() { return Add(); }
  TfLiteStatus AddDepthwiseConv2D() { return Add(); }
  TfLiteStatus AddFullyConnected() { return Add(); }
  TfLiteStatus AddMean() { return Add(); }
};
struct MicroInterpreter {
  template <class Ops> MicroInterpreter(const Model*, const Ops&, std::uint8_t* arena, std::size_t) : arena_(arena) {}
  TfLiteStatus AllocateTensors() { return kTfLiteOk; }
  TfLiteStatus Invoke() { for (int i = 0; i < 10; ++i) arena_[i] = static_cast<std::uint8_t>(i); return kTfLiteOk; }
  template <class T> T* typed_input_tensor(int) { return reinterpret_cast<T*>(arena_); }
  template <class T> T* typed_output_tensor(int) { return reinterpret_cast<T*>(arena_); }
  std::uint8_t* arena_;
};
}  // namespace tflite
"""
HEADERS = ("micro_interpreter", "micro_log", "micro_mutable_op_resolver", "system_setup")
PHOTOS = [(3, 2), (40, 30), (31, 90), (200, 131), (1, 1), (700, 8)]

ARM_TOOLS = ("arm-none-eabi-gcc", "qemu-system-arm")
needs_arm = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ARM_TOOLS),
    reason="apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm: one of them is missing",
)
# A Cortex-M7 from its reset on: the vectors, the floating-point unit switched on, and newlib's start with semihosting,
# by which QEMU opens files of the folder. `photos.bin` has the width, the height and the pixels of each photo.
ARM_HARNESS = """
#include <stdint.h>
#include <stdio.h>
#include "preprocess.h"
extern void _start(void);
static void reset(void) {
  *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: full access to the unit */
  __asm volatile("dsb\\nisb");
  _start();
}
__attribute__((section(".vectors"), used)) static void (*const vectors[])(void) = {(void (*)(void))0x20400000, reset};
static uint8_t photo[3 * 65536];
static int32_t workspace[PREPROCESS_WORKSPACE(800, 200)];
static model_input_t input[MODEL_INPUT_COUNT];
int main(void) {
  FILE *photos = fopen("photos.bin", "rb"), *inputs = fopen("inputs.bin", "wb");
  int32_t size[2];
  if (!photos || !inputs) return 2;
  while (fread(size, sizeof(size), 1, photos) == 1) {
    if (fread(photo, 3 * (size_t)size[0], (size_t)size[1], photos) != (size_t)size[1]) return 2;
    if (preprocess(photo, size[0], size[1], input, workspace, sizeof(workspace) / sizeof(*workspace))) return 3;
    fwrite(input, sizeof(*input), MODEL_INPUT_COUNT, inputs);
  }
  return fclose(inputs);
}
"""
ARM_LINKER = """
ENTRY(_start)
MEMORY { CODE (rx) : ORIGIN = 0x00000000, LENGTH = 4M  DATA (rw) : ORIGIN = 0x20000000, LENGTH = 4M }
SECTIONS {
  .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) KEEP(*(.init)) KEEP(*(.fini)) } > CODE
  .ARM.exidx : { *(.ARM.exidx*) } > CODE
  .init_array : { KEEP(*(.preinit_array)) KEEP(*(.init_array*)) KEEP(*(.fini_array*)) } > CODE
  .data : { *(.data*) } > DATA
  .bss : { __bss_start__ = .; *(.bss*) *(COMMON) __bss_end__ = .; } > DATA
  end = .; __end__ = .;
}
"""

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None or shutil.which("g++") is None, reason="gcc is missing")


def _compile(folder: Path, *sources: str) -> str:
    """Compile sources as C99 and C++17 without a warning; returns the program."""
    objects = []
    for source in sources:
        language = ("gcc", "-std=c99") if source.endswith(".c") else ("g++", "-std=c++17")
        command = [*language, *WARNINGS, "-O2", "-I", str(folder), "-c", source, "-o", f"{source}.o"]
        subprocess.run(command, cwd=folder, check=True)
        objects.append(f"{source}.o")
    subprocess.run(["g++", *objects, "-lm", "-o", "program"], cwd=folder, check=True)
    return str(folder / "program")


def _sources(folder: Path, record: Record, harness: str) -> None:
    """Write the sources that preprocess photos by a record."""
    import converters.devices

    folder.mkdir(exist_ok=True)
    (folder / "model_settings.h").write_text(settings(record, 1000, "m"))
    (folder / "m.h").write_text("#pragma once\n")
    (folder / "main.c").write_text(harness)
    for file in ("preprocess.h", "preprocess.c"):
        shutil.copy(Path(converters.devices.__file__).parent / "tflm" / file, folder)


def _preprocess(folder: Path, record: Record) -> str:
    """A program that preprocesses a photo from stdin by a record."""
    _sources(folder, record, HARNESS)
    return _compile(folder, "preprocess.c", "main.c")


def _record(preprocessing: Preprocessing, dtype: str = "int8", scale=None, zero_point=None, offset=-128) -> Record:
    shape = (1, *preprocessing.shape)
    given = InputRecord("image", shape, dtype, scale, zero_point, pixel_offset=offset)
    return Record("m", preprocessing=preprocessing, input=given, output=OutputRecord("y", (1, 10), "int8", 0.5, 3))


def _assert_equal(folder: Path, record: Record, sizes=PHOTOS) -> None:
    compiled, source = _preprocess(folder, record), record.input
    encoder = InputEncoder(source.dtype, source.scale, source.zero_point, source.pixel_offset, record.preprocessing)
    for width, height in sizes:
        photo = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
        photo[: height // 2, : width // 2] = 255 * (photo[: height // 2, : width // 2] > 127)  # overshoots
        command = [compiled, str(width), str(height)]
        done = subprocess.run(command, input=photo.tobytes(), capture_output=True, check=True)
        expected = encoder(record.preprocessing.crop_and_resize(photo)[None])
        np.testing.assert_array_equal(np.frombuffer(done.stdout, source.dtype), expected.ravel(), str((width, height)))


@needs_gcc
@pytest.mark.parametrize(
    "interpolation",
    ["bilinear", "bicubic", *(pytest.param(name, marks=pytest.mark.slow) for name in ("nearest", "lanczos"))],
)
@pytest.mark.parametrize("rule", ["crop_then_resize", "resize_then_crop", "stretch"])
def test_c_prepares_a_photo_bit_for_bit_as_python_does(rule, interpolation, tmp_path):
    for n, (height, width, channels, resize_to) in enumerate([(24, 24, 3, 28), (20, 33, 1, None)]):
        preprocessing = Preprocessing(height, resize_to, rule, interpolation, width=width, channels=channels)
        _assert_equal(tmp_path / str(n), _record(preprocessing))


@needs_arm
@pytest.mark.slow
@pytest.mark.parametrize("rule", ["crop_then_resize", "resize_then_crop", "stretch"])
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_a_cortex_m7_prepares_a_photo_bit_for_bit_as_python_does(rule, dtype, tmp_path):
    """In QEMU's model of an MPS2 board, where the processor has float64 of its own."""
    preprocessing = Preprocessing(24, 28, rule, "bicubic")
    record = _record(preprocessing, dtype, offset=-128 if dtype == "int8" else None)
    _sources(tmp_path, record, ARM_HARNESS)
    (tmp_path / "board.ld").write_text(ARM_LINKER)
    command = ["arm-none-eabi-gcc", "-std=c11", *WARNINGS, "-O2", "-ffp-contract=off", "-mcpu=cortex-m7", "-mthumb"]
    command += ["-mfloat-abi=hard", "-mfpu=fpv5-d16", "--specs=rdimon.specs", "-T", "board.ld", "-o", "program.elf"]
    subprocess.run([*command, "preprocess.c", "main.c", "-lm"], cwd=tmp_path, check=True)
    photos = [np.random.default_rng(w).integers(0, 256, (h, w, 3), np.uint8) for w, h in PHOTOS]
    parts = [np.int32([photo.shape[1], photo.shape[0]]).tobytes() + photo.tobytes() for photo in photos]
    (tmp_path / "photos.bin").write_bytes(b"".join(parts))
    board = ["qemu-system-arm", "-M", "mps2-an500", "-nographic", "-monitor", "none", "-serial", "none"]
    board += ["-semihosting-config", "enable=on,target=native", "-kernel", "program.elf"]
    subprocess.run(board, cwd=tmp_path, check=True, timeout=120, stdin=subprocess.DEVNULL)
    encoder = InputEncoder(dtype, None, None, record.input.pixel_offset, preprocessing)
    expected = np.stack([encoder(preprocessing.crop_and_resize(photo)[None]).ravel() for photo in photos])
    found = np.fromfile(tmp_path / "inputs.bin", dtype).reshape(len(photos), -1)
    np.testing.assert_array_equal(found, expected)


@needs_gcc
@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point", "offset"),
    [
        ("uint8", None, None, 0),
        ("float32", None, None, None),
        ("int8", 0.0186, -14, None),
        ("int8", 0.004, 3, None),
        ("int16", 1e-4, 0, None),
    ],
    ids=["uint8 pixels", "float32", "int8", "int8 that clips", "int16"],
)
def test_c_quantizes_the_input_bit_for_bit_as_python_does(dtype, scale, zero_point, offset, tmp_path):
    normalized = offset is None
    mean, std = ((123.68, 116.78, 103.94), (58.4, 57.1, 57.4)) if normalized else (0.0, 1.0)
    preprocessing = Preprocessing(16, interpolation="bilinear", mean=mean, std=std)
    _assert_equal(tmp_path / "c", _record(preprocessing, dtype, scale, zero_point, offset), PHOTOS[:4])


@needs_gcc
def test_the_workspace_suffices_without_a_byte_to_spare_beyond_it(tmp_path):
    record = _record(Preprocessing(24, 28, "resize_then_crop", "lanczos"))
    compiled = _preprocess(tmp_path / "c", record)
    sanitized = ["gcc", "-std=c99", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover", "-I", "."]
    subprocess.run([*sanitized, "preprocess.c", "main.c", "-lm", "-o", "checked"], cwd=tmp_path / "c", check=True)
    for width, height in [*PHOTOS, (8, 900), (511, 300)]:
        photo = bytes(3 * width * height)
        command = [str(tmp_path / "c" / "checked"), str(width), str(height)]
        assert subprocess.run(command, input=photo, stdout=subprocess.DEVNULL).returncode == 0
    small = subprocess.run([compiled, "40", "30", "less"], input=bytes(3 * 40 * 30), stdout=subprocess.PIPE)
    assert (small.returncode, small.stdout) == (3, b"")


@needs_gcc
def test_the_program_of_a_file_compiles_without_a_warning_and_runs(small_files, tmp_path):
    texts = program(small_files["int8"], "small_int8")
    for file, text in texts.items():
        (tmp_path / file).write_text(text)
    for header in (*(f"micro/{name}" for name in HEADERS), "schema/schema_generated"):
        path = tmp_path / "tensorflow" / "lite" / f"{header}.h"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            STUB if header.endswith("interpreter") else '#include "tensorflow/lite/micro/micro_interpreter.h"\n'
        )
    compiled = _compile(tmp_path, "small_int8.cc", "preprocess.c", "main.cc")
    done = subprocess.run([compiled], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "class 9")


def test_the_resolver_has_exactly_the_operators_of_the_file(small_files):
    text = program(small_files["int8"], "m")["model_ops.h"]
    added = [line.split("ops.")[1].split("(")[0] for line in text.splitlines() if "ops." in line]
    assert added == ["AddAdd", "AddConv2D", "AddDepthwiseConv2D", "AddFullyConnected", "AddMean"]
    assert "MicroMutableOpResolver<5>" in text


@pytest.mark.parametrize(
    ("operator", "method"),
    [
        ("AVERAGE_POOL_2D", "AddAveragePool2D"),
        ("BATCH_MATMUL", "AddBatchMatMul"),
        ("HARD_SWISH", "AddHardSwish"),
        ("L2_POOL_2D", "AddL2Pool2D"),
        ("PADV2", "AddPadV2"),
        ("RELU6", "AddRelu6"),
        ("SPACE_TO_BATCH_ND", "AddSpaceToBatchNd"),
    ],
)
def test_methods_have_the_runtimes_own_names(operator, method):
    class One:
        def operators(self):
            yield Operator(0, operator, (), ())

    assert operator in KERNELS
    assert f"ops.{method}()" in operators(One(), "m")


def test_an_operator_without_a_kernel_is_named():
    class One:
        def operators(self):
            yield Operator(0, "RELU_0_TO_1", (), ())

    with pytest.raises(InputError, match="unknown operator of TensorFlow Lite for Microcontrollers: 'RELU_0_TO_1'"):
        operators(One(), "m")


@pytest.mark.skipif(not package_versions(["ethos-u-vela"]), reason="ethos-u-vela is not installed")
def test_a_file_compiled_for_an_ethos_u_needs_its_driver_alone(small_files, tmp_path):
    made = compile_file(small_files["int8"], "ethos-u55-64", tmp_path)
    assert "MicroMutableOpResolver<1>" in operators(Graph(made.file.read_bytes()), "m")
    assert "ops.AddEthosU()" in operators(Graph(made.file.read_bytes()), "m")


def test_the_constants_are_those_of_the_file(small_files):
    content, text = small_files["int8"].read_bytes(), program(small_files["int8"], "m")["model_settings.h"]
    defines = dict(line.split(" ", 2)[1:] for line in text.splitlines() if line.startswith("#define"))
    graph = Graph(content)
    scale, zero_point = graph.parameters(graph.outputs[0])
    assert int(defines["MODEL_ARENA_BYTES"]) == memory(content).arena_bytes
    assert np.float32(defines["MODEL_OUTPUT_SCALE"].strip("()f")) == np.float32(scale[0])
    assert int(defines["MODEL_OUTPUT_ZERO_POINT"].strip("()")) == zero_point[0]
    assert int(defines["MODEL_OUTPUT_COUNT"]) == 10
    assert int(defines["PREPROCESS_PIXEL_OFFSET"].strip("()")) == -128


def test_a_file_whose_preprocessing_is_not_known_is_refused():
    record = Record("m", input=InputRecord("x", (1, 8, 8, 3), "float32"), output=OutputRecord("y", (1, 3), "float32"))
    with pytest.raises(InputError, match="preprocessing must be given"):
        settings(record, 1, "m")
