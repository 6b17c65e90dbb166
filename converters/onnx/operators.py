"""TFLite operators that tf2onnx does not know, expressed in ONNX: GELU and ReLUs between two bounds."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from converters.tflite.graph import Graph

BOUNDS = {"RELU_N1_TO_1": (-1.0, 1.0), "RELU_0_TO_1": (0.0, 1.0)}


@functools.cache
def register_operators() -> None:
    """Register handlers of these operators with tf2onnx."""
    from tf2onnx.handler import tfl_op

    tfl_op(["TFL_GELU"])(_Gelu)
    tfl_op([f"TFL_{name}" for name in BOUNDS])(_Clip)


class _Clip:
    @classmethod
    def version_13(cls, ctx: Any, node: Any, **_: Any) -> None:
        low, high = BOUNDS[node.type.removeprefix("TFL_")]
        _replace(ctx, node, "Clip", [node.input[0], _constant(ctx, low), _constant(ctx, high)])


class _Gelu:
    """x/2 (1 + erf(x / sqrt 2)), or with tanh in its place (https://arxiv.org/abs/1606.08415)."""

    @classmethod
    def version_13(cls, ctx: Any, node: Any, **_: Any) -> None:
        x = node.input[0]

        def make(name: str, *inputs: Any) -> str:
            tensors = [_constant(ctx, value) if isinstance(value, float) else value for value in inputs]
            return ctx.make_node(name, tensors, op_name_scope=node.name).output[0]

        if node.get_attr_value("approximate", False):
            cube = make("Mul", make("Mul", x, make("Mul", x, x)), 0.044715)
            part = make("Tanh", make("Mul", make("Add", x, cube), math.sqrt(2 / math.pi)))
        else:
            part = make("Erf", make("Div", x, math.sqrt(2)))
        _replace(ctx, node, "Mul", [make("Mul", x, make("Add", part, 1.0)), _constant(ctx, 0.5)])


def _constant(ctx: Any, value: float) -> str:
    from tf2onnx import utils

    return ctx.make_const(utils.make_name("constant"), np.array(value, np.float32)).output[0]


def _replace(ctx: Any, node: Any, name: str, inputs: list[str]) -> None:
    """Put an ONNX node in the place of a TFLite one, with its name and output."""
    output = node.output[0]
    shapes, dtypes = [ctx.get_shape(output)], [ctx.get_dtype(output)]
    ctx.remove_node(node.name)
    ctx.make_node(name, inputs, name=node.name, outputs=[output], shapes=shapes, dtypes=dtypes)


def separate_activations(graph: Graph) -> None:
    """Make operators of the fused activations that tf2onnx does not separate itself."""
    from ai_edge_litert import schema_py_generated as schema

    kind = schema.ActivationFunctionType
    for operator in reversed(list(graph.operators())):
        options = graph.options(operator)
        if getattr(options, "fusedActivationFunction", kind.NONE) != kind.RELU_N1_TO_1:
            continue
        options.fusedActivationFunction = kind.NONE
        result = operator.outputs[0]
        before = graph.add_tensor_like(result, f"{graph.name(result)}/before_activation", graph.shape(result))
        graph.set_outputs_of(operator, [before])
        graph.add_operator("RELU_N1_TO_1", [before], [result], at=operator.index + 1)
