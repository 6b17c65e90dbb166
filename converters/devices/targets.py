"""Target devices: what their runtime, delegate or compiler accepts, and the check of a TFLite file against it.

Each target is one `Target` value, after its maker's documents. A diagnostic names the layers and the remedy.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.devices.diagnostics import ERROR, WARNING, Diagnostic
from converters.devices.file_rules import CUSTOM, custom_operators, free_sizes, mediapipe_metadata, states
from converters.errors import InputError, unknown
from converters.tflite.graph import WEIGHTED, Graph, Operator
from converters.tflite.versions import DENSE_BY_CHANNEL_RUNTIME, as_numbers, first_runtime, needed

_COMMON = {
    "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "LOGISTIC",
    "MAX_POOL_2D", "MEAN", "MUL", "PAD", "QUANTIZE", "RELU", "RELU6", "RESHAPE", "SOFTMAX", "SUB", "TANH",
}  # fmt: skip
_INTEGER = ("int8", "uint8", "int16")


@dataclass(frozen=True)
class Target:
    """What one target accepts; None is anything.

    Attributes:
        name: of the target.
        about: one line about it.
        io: accepted types of the input and the output, the preferred one first.
        activations: accepted types of the tensors between operators.
        operators: those that it runs itself; others run on the CPU, or fail where `falls_back` is false.
        falls_back: whether operators that it does not support run on the CPU.
        dense_by_channel: whether the weights of a dense layer may have a scale for each channel.
        one_scale: why the weights of a layer must have one scale; None if each channel may have its own.
        hybrid: whether int8 weights may be combined with float activations.
        float16_weights: whether weights may be stored as float16.
        fast_int16: whether int16 activations have fast kernels.
        runtime: its release of TensorFlow Lite.
        static: whether it plans memory for one size of each tensor ahead.
        channels: accepted numbers of channels of the input image.
    """

    name: str
    about: str
    io: tuple[str, ...] | None = None
    activations: tuple[str, ...] | None = None
    operators: frozenset[str] | None = None
    falls_back: bool = True
    dense_by_channel: bool = True
    one_scale: str | None = None
    hybrid: bool = True
    float16_weights: bool = True
    fast_int16: bool = False
    runtime: str | None = None
    static: bool = False
    channels: tuple[int, ...] | None = None


_npu = functools.partial(Target, static=True, hybrid=False, float16_weights=False)
TARGETS = (
    Target("cpu", "the current LiteRT on the CPU of a phone, a board or a PC (XNNPACK)"),
    Target(
        "nnapi",
        "Android's Neural Networks API, to Android 14",
        io=("int8", "uint8", "float32"),
        activations=("int8", "uint8", "float32"),
        static=True,
        operators=frozenset(_COMMON | {"HARD_SWISH", "DEQUANTIZE", "TRANSPOSE", "SQUEEZE", "MAXIMUM", "MINIMUM"}),
        dense_by_channel=False,
        hybrid=False,
        runtime="2.10",
    ),
    Target(
        "edgetpu",
        "Coral's Edge TPU, through its compiler 16",
        io=("uint8", "int8"),
        activations=("int8", "uint8"),
        static=True,
        operators=frozenset(_COMMON | {"MAXIMUM", "MINIMUM", "SUM", "SQUEEZE", "STRIDED_SLICE", "TRANSPOSE"}),
        dense_by_channel=False,
        hybrid=False,
        float16_weights=False,
        runtime="2.5",
    ),
    Target(
        "ethos_u",
        "Arm Ethos-U55 and U65, through Vela",
        io=("int8", "uint8"),
        activations=("int8", "uint8", "int16"),
        static=True,
        operators=frozenset(_COMMON | {"HARD_SWISH", "LEAKY_RELU", "MAXIMUM", "MINIMUM", "STRIDED_SLICE", "SQUEEZE"}),
        hybrid=False,
        float16_weights=False,
        fast_int16=True,
    ),
    Target(
        "micro",
        "TensorFlow Lite for Microcontrollers, with CMSIS-NN",
        io=("int8", "float32"),
        static=True,
        operators=frozenset(
            _COMMON | {"HARD_SWISH", "DEQUANTIZE", "LEAKY_RELU", "MAXIMUM", "MINIMUM", "SQUEEZE", "TRANSPOSE", "PADV2"}
        ),
        falls_back=False,
        hybrid=False,
        float16_weights=False,
        fast_int16=True,
    ),
    _npu(
        "stm32mp25",  # https://wiki.st.com/stm32mpu/wiki/STM32MP2_NPU_description
        "the NPU of ST's STM32MP23 and STM32MP25",
        activations=("int8", "uint8"),
        one_scale="others run on the GPU, not on the NPU",
    ),
    _npu(
        "artpec8",  # https://developer.axis.com/computer-vision/on-device/system-on-chip/artpec-8/optimization-tips/
        "the DLPU of Axis cameras with ARTPEC-8",
        io=("int8", "uint8"),
        activations=("int8", "uint8"),
        one_scale="others run much slower on the DLPU",
    ),
    _npu(
        "a311d",  # https://github.com/tensorflow/tensorflow/issues/50490
        "the NPU of Amlogic's A311D (VIM3), through VeriSilicon's VX delegate",
        activations=("int8", "uint8"),
        one_scale="the NPU has no scales by channel, and others run slower",
    ),
    _npu(
        "k210",  # https://github.com/kendryte/nncase/blob/master/docs/FAQ_EN.md
        "Kendryte's K210, through nncase, which quantizes a float file itself",
        io=("float32",),
        activations=("float32",),
    ),
    Target("mediapipe", "MediaPipe's ImageClassifier", io=("uint8", "float32"), channels=(3,)),
    Target(
        "gpu",
        "LiteRT's GPU delegate",
        io=("float32",),
        activations=("float32", "float16"),
        static=True,
        operators=frozenset(_COMMON - {"QUANTIZE"} | {"DEQUANTIZE", "HARD_SWISH", "LEAKY_RELU", "MAXIMUM", "MINIMUM"}),
    ),
)


def names() -> tuple[str, ...]:
    """The names of the targets; names such as `tflite-2.3`, a runtime release on a CPU, are accepted too."""
    return tuple(target.name for target in TARGETS)


def target(name: str) -> Target:
    """The target of a name.

    Raises:
        InputError: no target has this name.
    """
    if re.fullmatch(r"tflite-[12]\.\d{1,2}", name or ""):
        release = name.removeprefix("tflite-")
        return Target(name, f"TensorFlow Lite {release} on a CPU", runtime=release)
    for chosen in TARGETS:
        if chosen.name == name:
            return chosen
    raise unknown("target", name, (*names(), "tflite-2.3 (a runtime's release)"))


def check(content: bytes, name: str) -> tuple[Diagnostic, ...]:
    """Check a TFLite file against a target.

    Returns:
        What the target would reject or run slowly, errors first.

    Raises:
        InputError: no target has this name, or the content is not a TFLite file.
    """
    graph = Graph(content)
    found = diagnose(graph, name)
    return _sorted([*found, *mediapipe_metadata(content, graph)]) if name == "mediapipe" else found


def diagnose(graph: Graph, name: str) -> tuple[Diagnostic, ...]:
    """As `check`, for a parsed file."""
    chosen = target(name)
    diagnostics = [diagnostic for rule in _RULES for diagnostic in rule(graph, list(graph.operators()), chosen)]
    return _sorted(diagnostics)


def _sorted(diagnostics: list[Diagnostic]) -> tuple[Diagnostic, ...]:
    return tuple(sorted(diagnostics, key=lambda diagnostic: diagnostic.level != ERROR))


def suited(scheme: Any, name: str) -> Any:
    """The scheme with an input and output type and scales of weights that the target accepts, where it has a choice."""
    chosen = target(name)
    if chosen.one_scale is not None and getattr(scheme, "weights", None) == "per_channel":
        scheme = dataclasses.replace(scheme, weights="per_tensor")
    if chosen.io is None or not hasattr(scheme, "io") or scheme.io in chosen.io:
        return scheme
    accepted = [io for io in chosen.io if io in ("int8", "uint8", "float32")]
    return dataclasses.replace(scheme, io=accepted[0]) if accepted else scheme


def _layers(graph: Graph, operators: list[Operator]) -> tuple[str, ...]:
    return tuple(graph.name(operator.outputs[0]) for operator in operators)


def _floats(chosen: Target) -> str:
    return "float32 or float16" if chosen.float16_weights else "float32"


def _io(graph: Graph, operators: list[Operator], chosen: Target) -> Iterator[Diagnostic]:
    for what, tensor in (("input", graph.inputs[0]), ("output", graph.outputs[0])):
        kind = str(graph.dtype(tensor))
        if chosen.io is not None and kind not in chosen.io:
            takes = " or ".join(chosen.io)
            integer = [io for io in chosen.io if io in ("int8", "uint8")]
            remedy = f'convert with io="{integer[0]}"' if integer and kind in _INTEGER else f"convert to {takes}"
            remedy = f"use {_floats(chosen)}" if chosen.io == ("float32",) else remedy
            yield Diagnostic(ERROR, f"the {what} must be {takes}. Found: {kind}", remedy, (graph.name(tensor),))


def _channels(graph: Graph, operators: list[Operator], chosen: Target) -> Iterator[Diagnostic]:
    tensor = graph.inputs[0]
    shape = graph.shape(tensor)
    if chosen.channels is not None and len(shape) == 4 and shape[3] not in chosen.channels:
        yield Diagnostic(
            ERROR,
            f"the input must be RGB, (1, height, width, 3). Found: {shape}",
            "put the grey model behind a layer that takes RGB, such as a Conv2D of one filter with the weights 0.299, "
            "0.587 and 0.114, or run the file with LiteRT itself",
            (graph.name(tensor),),
        )


def _activations(graph: Graph, operators: list[Operator], chosen: Target) -> Iterator[Diagnostic]:
    if chosen.activations is None:
        return
    wrong: dict[str, list[Operator]] = {}
    for operator in operators:
        kind = str(graph.dtype(operator.outputs[0]))
        if kind in ("float32", "float16", *_INTEGER) and kind not in chosen.activations:
            wrong.setdefault(kind, []).append(operator)
    takes = " or ".join(chosen.activations)
    for kind, where in wrong.items():
        remedy = "use the scheme int8" if "int8" in chosen.activations else f"use the scheme {_floats(chosen)}"
        if "int8" in chosen.activations and len(where) < len(operators) and _has_integer_weights(graph, operators):
            names = sorted({operator.name for operator in where} - {"QUANTIZE", "DEQUANTIZE"})
            remedy = f"replace these layers in the model: {', '.join(names)} has no int8 form here" if names else remedy
        yield Diagnostic(
            WARNING if chosen.falls_back else ERROR,
            f"activations must be {takes}. Found: {kind} in {len(where)} of {len(operators)} operators, which run on "
            "the CPU",
            remedy,
            _layers(graph, where),
        )


def _has_integer_weights(graph: Graph, operators: list[Operator]) -> bool:
    return any(
        graph.dtype(op.inputs[0]) == graph.dtype(op.inputs[1]) == np.int8 for op in operators if op.name in WEIGHTED
    )


def _operators(graph: Graph, operators: list[Operator], chosen: Target) -> Iterator[Diagnostic]:
    if chosen.operators is None:
        return
    missing: dict[str, list[Operator]] = {}
    for operator in operators:
        if operator.name not in chosen.operators and operator.name != CUSTOM:
            missing.setdefault(operator.name, []).append(operator)
    remedies = {
        "HARD_SWISH": "use a network with ReLU6, such as efficientnet_lite or mobilenet_v3 minimalistic=True",
        "LOCAL_RESPONSE_NORMALIZATION": "use alexnet in place of alexnet_2012",
        "QUANTIZE": "use the scheme float16 or float32",
        "DEQUANTIZE": 'use the scheme int8, with io="int8" or io="uint8"',
    }
    for name, where in missing.items():
        what = f"{chosen.name} does not run {name}. Found: {len(where)} of {len(operators)} operators"
        if chosen.falls_back:
            what += ", which run on the CPU, and what is between them may too"
        remedy = remedies.get(name, "replace the layers in the model by others")
        yield Diagnostic(WARNING if chosen.falls_back else ERROR, what, remedy, _layers(graph, where))


def _dense(graph: Graph, operators: list[Operator], chosen: Target) -> Iterator[Diagnostic]:
    old = chosen.runtime is not None and as_numbers(chosen.runtime) < as_numbers(DENSE_BY_CHANNEL_RUNTIME)
    where = [
        operator
        for operator in operators
        if operator.name in WEIGHTED
        and (scales := graph.quantization(operator.inputs[1])) is not None
        and len(scales[0]) > 1
    ]
    if where and chosen.one_scale is not None:
        yield Diagnostic(
            WARNING,
            f"weights must have one scale a layer: {chosen.one_scale}. Found: a scale for each channel in {len(where)} "
            "layers",
            'convert with Int8(weights="per_tensor"), in the shell --weights per_tensor',
            _layers(graph, where),
        )
    where = [operator for operator in where if operator.name == "FULLY_CONNECTED"]
    if where and (old or not chosen.dense_by_channel):
        yield Diagnostic(
            ERROR,
            f"dense layers must have one scale of their weights: {chosen.name} rejects a scale for each channel, or "
            f"uses the first for all. Found: a scale for each channel in {len(where)}",
            "convert with edge-cv, or with _experimental_disable_per_channel_quantization_for_dense_layers = True",
            _layers(graph, where),
        )


def _weights(graph: Graph, operators: list[Operator], chosen: Target) -> Iterator[Diagnostic]:
    hybrid = [
        operator
        for operator in operators
        if operator.name in WEIGHTED
        and graph.dtype(operator.inputs[0]) == np.float32
        and graph.dtype(operator.inputs[1]) == np.int8
    ]
    if hybrid and not chosen.hybrid:
        yield Diagnostic(
            ERROR if not chosen.falls_back else WARNING,
            f"int8 weights must be combined with int8 activations. Found: float activations in {len(hybrid)} layers",
            "use the scheme int8 in place of dynamic_int8",
            _layers(graph, hybrid),
        )
    elif hybrid and chosen.name == "cpu":
        yield Diagnostic(
            WARNING,
            f"int8 weights with float activations rarely run faster than float. Found: {len(hybrid)} layers",
            "use the scheme int8 for speed",
            _layers(graph, hybrid),
        )
    halves = [op for op in operators if op.name == "DEQUANTIZE" and graph.dtype(op.inputs[0]) == np.float16]
    if halves and not chosen.float16_weights:
        yield Diagnostic(
            ERROR, f"weights must not be float16. Found: {len(halves)}", "use int8 or float32", _layers(graph, halves)
        )


def _int16(graph: Graph, operators: list[Operator], chosen: Target) -> Iterator[Diagnostic]:
    where = [operator for operator in operators if graph.dtype(operator.outputs[0]) == np.int16]
    if where and not chosen.fast_int16 and (chosen.activations is None or "int16" in chosen.activations):
        yield Diagnostic(
            WARNING,
            f"int16 activations have only reference kernels here, many times slower than int8 (EfficientNet-Lite0 on "
            f"x86-64 with VNNI: 259 against 4.2 ms). Found: {len(where)} of {len(operators)} operators",
            "use int8, or mixed with float32 layers",
            _layers(graph, where),
        )


def _versions(graph: Graph, operators: list[Operator], chosen: Target) -> Iterator[Diagnostic]:
    versions: dict[tuple[str, int], list[Operator]] = {}
    for operator in operators:
        version = max(graph.version(operator), needed(graph, operator))
        if operator.name != CUSTOM:
            versions.setdefault((operator.name, version), []).append(operator)
    for (name, version), where in versions.items():
        low = [operator for operator in where if graph.version(operator) < version]
        if low:
            yield Diagnostic(
                WARNING,
                f"{name} must declare version {version}, which it needs. Found: {graph.version(low[0])}; an old "
                "runtime would run it and compute wrong results",
                "convert with the current edge-cv",
                _layers(graph, low),
            )
        first = first_runtime(name, version)
        if chosen.runtime is None:
            continue
        if first is None:
            yield Diagnostic(
                WARNING,
                f"whether TensorFlow Lite {chosen.runtime} has {name} version {version} is not known",
                "try it on the device",
                _layers(graph, where),
            )
        elif as_numbers(first) > as_numbers(chosen.runtime):
            yield Diagnostic(
                ERROR,
                f"operators must be in TensorFlow Lite {chosen.runtime}. Found: {name} version {version}, which is in "
                f"{first} and later",
                f"update the runtime to {first}, or use another scheme",
                _layers(graph, where),
            )


def _custom(graph: Graph, operators: list[Operator], chosen: Target) -> Iterator[Diagnostic]:
    yield from custom_operators(graph, operators, chosen.name)


def _free(graph: Graph, operators: list[Operator], chosen: Target) -> Iterator[Diagnostic]:
    yield from free_sizes(graph, operators, chosen.name, static=chosen.static)


_RULES: tuple[Callable[[Graph, list[Operator], Target], Iterator[Diagnostic]], ...] = (
    _io, _channels, _activations, _operators, _dense, _weights, _int16, _versions, _custom, _free, states,
)  # fmt: skip


def require(graph: Graph, name: str) -> tuple[Diagnostic, ...]:
    """The warnings of `check` for a parsed file.

    Raises:
        InputError: the target would reject the file; the message includes the remedy.
    """
    diagnostics = diagnose(graph, name)
    for diagnostic in diagnostics:
        if diagnostic.level == ERROR:
            raise InputError(f"for {name}, {diagnostic.what}. Remedy: {diagnostic.remedy}")
    return diagnostics
