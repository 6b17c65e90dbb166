"""Exact rewriting of a float graph into operators that have int8 kernels, and into forms that keep precision in int8.

- SQUARE, NEG and POW become multiplications, roots and exponentials, ADD_N additions: they have no int8 kernels.
- log(1 + exp(x)) becomes max(x, 0) - log(sigmoid(|x|)): 256 steps do not hold exp(x) of a large x.
- SELU's exponential, which is not used where x > 0 and does not fit there, becomes ELU and LEAKY_RELU.
- A normalization x * g - m * g + b becomes (x - m) * g + b: the difference of two products that are much larger than it
  is lost in their rounding. Its constant factor comes last, so that what it multiplies has the same range everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from converters.tflite.graph import Graph, Operator


def exactly_rewritten(content: bytes) -> bytes:
    """The float TFLite file with the same function, in operators that have int8 kernels; `content` if it has them."""
    graph = Graph(content)
    if not {operator.name for operator in graph.operators()} & {"ADD_N", "EXP", "NEG", "POW", "SQUARE"}:
        return content
    rewriting = _Rewriting(graph)
    rewriting.rewrite(
        {
            "ADD": rewriting.addition,
            "ADD_N": rewriting.sum,
            "LOG": rewriting.softplus,
            "NEG": rewriting.negative,
            "POW": rewriting.power,
            "SELECT": rewriting.selu,
            "SELECT_V2": rewriting.selu,
            "SQUARE": rewriting.square,
        }
    )
    rewriting.rewrite({"MUL": rewriting.product})  # later: `addition` finds the products as they were
    return graph.to_bytes()


class _Rewriting:
    """Emits the operators of a graph in order, each as it is or rewritten; those that nothing reads are dropped."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._makers: dict[int, Operator] = {}  # of the emitted tensors

    def rewrite(self, rules: Mapping[str, Callable[[Operator], bool]]) -> None:
        """Emit all operators; a rule, by the operator's name, emits it in another form or returns False."""
        graph = self._graph
        operators, raws = list(graph.operators()), graph.subgraph.operators
        graph.subgraph.operators = []
        self._makers.clear()
        for operator, raw in zip(operators, raws, strict=True):
            rule = rules.get(operator.name)
            plain = graph.dtype(operator.outputs[0]) == np.float32 and not _fused_activation(raw)
            if rule is None or not plain or not rule(operator):
                graph.subgraph.operators.append(raw)
                self._note(operator.name, operator.inputs, operator.outputs)
        graph.drop_unread()

    def _note(self, name: str, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
        operator = Operator(len(self._graph.subgraph.operators) - 1, name, inputs, outputs)
        self._makers.update(dict.fromkeys(outputs, operator))

    def _emit(self, name: str, inputs: list[int], output: int | None = None, *, options: Any = None) -> int:
        """Emit an operator of broadcast inputs and return its output; an equal one that exists is used again."""
        graph = self._graph
        if output is None:
            for tensor, maker in self._makers.items():
                if list(maker.inputs) == inputs and self._made_by(tensor, name) is not None:
                    return tensor
            shape = np.broadcast_shapes(*(graph.shape(t) for t in inputs))
            output = graph.add_tensor(f"{graph.name(inputs[0])}/{name.lower()}_{len(graph.tensors)}", "FLOAT32", shape)
        graph.add_operator(name, inputs, [output], at=len(graph.subgraph.operators), options=options or _options(name))
        self._note(name, tuple(inputs), (output,))
        return output

    def _made_by(self, tensor: int, name: str) -> tuple[int, ...] | None:
        """The inputs of the operator that makes a tensor, where it has this name and no fused activation."""
        maker = self._makers.get(tensor)
        if maker is None or maker.name != name or _fused_activation(self._graph.subgraph.operators[maker.index]):
            return None
        return maker.inputs

    def _number(self, tensor: int) -> float | None:
        """The one value of a constant; None for any other tensor."""
        values = self._graph.constant(tensor)
        return float(values.reshape(())) if values is not None and values.size == 1 else None

    def _constant(self, like: int, value: float) -> int:
        name = f"{self._graph.name(like)}/constant_{len(self._graph.tensors)}"
        return self._graph.add_tensor(name, "FLOAT32", (), values=np.array(value, np.float32))

    def square(self, operator: Operator) -> bool:
        self._emit("MUL", [operator.inputs[0]] * 2, operator.outputs[0])
        return True

    def negative(self, operator: Operator) -> bool:
        self._emit("MUL", [operator.inputs[0], self._constant(operator.outputs[0], -1)], operator.outputs[0])
        return True

    def power(self, operator: Operator) -> bool:
        base, exponent = (self._number(t) for t in operator.inputs)
        if base is not None and base > 0:
            factor = self._constant(operator.outputs[0], math.log(base))
            self._emit("EXP", [self._emit("MUL", [operator.inputs[1], factor])], operator.outputs[0])
            return True
        if exponent == 2:
            return self.square(operator)
        if exponent != 0.5:
            return False
        self._emit("SQRT", [operator.inputs[0]], operator.outputs[0])
        return True

    def sum(self, operator: Operator) -> bool:
        total, *others = operator.inputs
        for tensor in others[:-1]:
            total = self._emit("ADD", [total, tensor])
        if not others:
            return False
        self._emit("ADD", [total, others[-1]], operator.outputs[0])
        return True

    def softplus(self, operator: Operator) -> bool:
        """log(1 + exp(x))"""
        terms = self._made_by(operator.inputs[0], "ADD") or ()
        powers = [self._made_by(t, "EXP") for t in terms]
        one, power = (self._number(t) for t in terms), next((p for p in powers if p is not None), None)
        if power is None or 1 not in one:
            return False
        (x,) = power
        positive = self._emit("RELU", [x])
        small = self._emit("LOG", [self._emit("LOGISTIC", [self._emit("ABS", [x])])])
        self._emit("SUB", [positive, small], operator.outputs[0])
        return True

    def selu(self, operator: Operator) -> bool:
        """s * x where x > 0, else c * (exp(x) - 1)"""
        condition, positive, negative = operator.inputs
        compared = self._made_by(condition, "GREATER") or self._made_by(condition, "GREATER_EQUAL")
        if compared is None or self._number(compared[1]) != 0:
            return False
        x = compared[0]
        scales = [1.0] if positive == x else [self._number(s) for a, s in self._factors(positive) if a == x]
        for difference, factor in self._factors(negative):
            terms, c = self._made_by(difference, "SUB"), self._number(factor)
            if terms is None or c is None or self._number(terms[1]) != 1 or self._made_by(terms[0], "EXP") != (x,):
                continue
            if scales and scales[0]:
                options = _schema().LeakyReluOptionsT()
                options.alpha = c / scales[0]
                y = self._emit("LEAKY_RELU", [self._emit("ELU", [x])], options=options)
                self._emit("MUL", [y, self._constant(y, scales[0])], operator.outputs[0])
                return True
        return False

    def product(self, operator: Operator) -> bool:
        """x * (r * c), with a constant c of several values"""
        for x, factor in (operator.inputs, operator.inputs[::-1]):
            for r, c in self._factors(factor):
                values = self._graph.constant(c)
                if values is not None and values.size > 1 and self._graph.constant(x) is None:
                    self._emit("MUL", [self._emit("MUL", [x, r]), c], operator.outputs[0])
                    return True
        return False

    def _factors(self, tensor: int) -> list[tuple[int, ...]]:
        factors = self._made_by(tensor, "MUL")
        return [] if factors is None else [factors, factors[::-1]]

    def addition(self, operator: Operator) -> bool:
        """x * g + (-m * g), x * g + (-m * g + b) and x * g + (b - m * g)"""
        for first, second in (operator.inputs, operator.inputs[::-1]):
            for x, g in self._factors(first):
                m, offset = self._subtracted(second, g)
                if m is None or x == g:
                    continue
                difference = self._emit("SUB", [x, m])
                if offset is None:
                    self._emit("MUL", [difference, g], operator.outputs[0])
                else:
                    self._emit("ADD", [self._emit("MUL", [difference, g]), offset], operator.outputs[0])
                return True
        return False

    def _subtracted(self, tensor: int, g: int) -> tuple[int | None, int | None]:
        """m and b, where a tensor is b - m * g; m is None for any other tensor, b for 0."""
        sums, difference = self._made_by(tensor, "ADD"), self._made_by(tensor, "SUB")
        for product, offset in [(tensor, None)] if sums is None else [sums, sums[::-1]]:
            for n, factor in self._factors(product):
                m = self._negated(n)
                if factor == g and m is not None:
                    return m, offset
        for m, factor in [] if difference is None else self._factors(difference[1]):
            if factor == g and difference is not None:
                return m, difference[0]
        return None, None

    def _negated(self, tensor: int) -> int | None:
        """m, where a tensor is -m."""
        return next((m for m, minus in self._factors(tensor) if self._number(minus) == -1), None)


def _fused_activation(raw: Any) -> int:
    return getattr(raw.builtinOptions, "fusedActivationFunction", 0)


def _schema() -> Any:
    from ai_edge_litert import schema_py_generated

    return schema_py_generated


def _options(name: str) -> Any:
    kinds = {"ABS": "AbsOptionsT", "ADD": "AddOptionsT", "MUL": "MulOptionsT", "SUB": "SubOptionsT"}
    return getattr(_schema(), kinds[name])() if name in kinds else None
