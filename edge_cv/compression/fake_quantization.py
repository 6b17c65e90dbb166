"""The rounding of an int8 file as Keras layers: of kernels, and of the outputs of operations.

Gradients pass through the rounding unchanged (straight-through estimator).

Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, Jacob et al. 2017,
https://arxiv.org/abs/1712.05877; Learned Step Size Quantization, Esser et al. 2019, https://arxiv.org/abs/1902.08153
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

INT8_STEPS = 127  # from 0 to the largest weight
OUTPUT_STEPS = 255  # from the smallest to the largest value of a range
EMA_DECAY = 0.999  # of a moving range, per step
TINY = 1e-20  # a smaller range counts as this one


def round_through(x: Any) -> Any:
    """Round to whole numbers; the gradient is 1."""
    return x + ops.stop_gradient(ops.round(x) - x)


def rounded_kernel(kernel: Any, axes: Sequence[int], steps: int = INT8_STEPS) -> Any:
    """Round a kernel to `steps` steps of its largest absolute weight over `axes`."""
    largest = ops.stop_gradient(ops.max(ops.absolute(kernel), axis=tuple(axes), keepdims=True))
    step = ops.maximum(largest, TINY) / steps
    return kernel + ops.stop_gradient(ops.round(kernel / step) * step - kernel)


def rounded_output(x: Any, low: Any, high: Any) -> Any:
    """Round to the 256 values of a range that is widened to contain 0, moved so that 0 is one of them.

    Outside of the range the gradient of `x` is 0. The gradients of `low` and `high` are those of LSQ.
    """
    low, high = ops.minimum(low, 0.0), ops.maximum(high, 0.0)
    step = ops.maximum(high - low, TINY) / OUTPUT_STEPS
    zero_point = round_through(-low / step)
    return (round_through(ops.clip(x / step + zero_point, 0.0, float(OUTPUT_STEPS))) - zero_point) * step


@keras.saving.register_keras_serializable("edge_cv")
class RoundedOutput(keras.layers.Layer):
    """Rounds an output to the 256 values of a range.

    Attributes:
        tensors: the tensors of the int8 file whose range it trains.
    """

    def __init__(
        self,
        low: float | None,
        high: float | None,
        *,
        ranges: str = "ema",
        tensors: Sequence[str] = (),
        **options: Any,
    ) -> None:
        """
        Args:
            low, high: the initial range. None takes it from the first training batch.
            ranges: `fixed`; `ema`, which follows the smallest and the largest values of the batches; or `lsq`, trained.
            tensors: see the class.
        """
        super().__init__(autocast=False, **options)
        self.initial = (low, high)
        self.ranges = ranges
        self.tensors = tuple(tensors)
        self.low = self._variable("low", 0.0 if low is None else low)
        self.high = self._variable("high", 0.0 if high is None else high)
        if ranges == "lsq":  # trained as factors, so that one learning rate suits every range
            self.factors = self.add_weight(shape=(2,), initializer="ones", name="factors")
        self.built = True

    def _variable(self, name: str, value: float) -> keras.Variable:
        return self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(value),
            trainable=False,
            name=name,
            dtype="float32",
            aggregation="mean",  # of the devices, each of which sees a part of the batch
        )

    def call(self, x: Any, training: bool = False, frozen: Any = 0.0) -> Any:
        """Round `x`. In training a range follows the batch while `frozen` is 0."""
        if training and (self.ranges == "ema" or None in self.initial):
            self._follow(x, frozen)
        return ops.cast(rounded_output(ops.cast(x, "float32"), *self._ends(x, frozen)), x.dtype)

    def _ends(self, x: Any, frozen: Any) -> tuple[Any, Any]:
        if self.ranges != "lsq":
            return self.low.value, self.high.value
        share = (1.0 - ops.cast(frozen, "float32")) / math.sqrt(math.prod(x.shape[1:]) * OUTPUT_STEPS)
        factors = share * self.factors + ops.stop_gradient((1 - share) * self.factors)  # LSQ, section 2.2
        return self.low * factors[0], self.high * factors[1]

    def _follow(self, x: Any, frozen: Any) -> None:
        empty = ops.equal(self.low, self.high)
        later = 1.0 if self.ranges == "lsq" else ops.where(frozen > 0, 1.0, EMA_DECAY)
        decay = ops.where(empty, 0.0, later)
        for variable, end in ((self.low, ops.min(x)), (self.high, ops.max(x))):
            variable.assign(variable * decay + ops.stop_gradient(ops.cast(end, "float32")) * (1 - decay))

    def range(self) -> tuple[float, float]:
        """The smallest and the largest value."""
        factors = np.asarray(self.factors) if self.ranges == "lsq" else np.ones(2)
        low, high = (float(np.asarray(end)) for end in (self.low, self.high))
        return low * float(factors[0]), high * float(factors[1])

    def get_config(self) -> dict[str, Any]:
        low, high = self.initial
        return {**super().get_config(), "low": low, "high": high, "ranges": self.ranges, "tensors": self.tensors}


@keras.saving.register_keras_serializable("edge_cv")
class RoundedKernel(keras.layers.Layer):
    """Rounds a kernel to int8. Its zeros stay zero if it is pruned, its equal weights equal if it is clustered."""

    def __init__(
        self,
        shape: Sequence[int],
        axes: Sequence[int],
        *,
        steps: int = INT8_STEPS,
        gain: Sequence[float] | np.ndarray | None = None,
        pruned: bool = False,
        values: int = 0,
        **options: Any,
    ) -> None:
        """
        Args:
            shape: of the kernel.
            axes: whose weights share one scale.
            steps: steps from 0 to the largest weight before the rounding to int8, for fewer weight values.
            gain: factors of the kernel's input channels in the file, as `(inputs,)`.
            pruned: whether zeros stay zero.
            values: number of different weights of a clustered kernel, 0 for any; `start` sets them.
        """
        super().__init__(autocast=False, **options)
        self.shape, self.axes, self.steps, self.pruned = tuple(shape), tuple(axes), steps, pruned
        self.gain = None if gain is None else [float(factor) for factor in gain]
        self.values: Any = None
        self.index: Any = None
        if values:
            self.values = self.add_weight(shape=(values,), name="values")
            self.index = self.add_weight(shape=self.shape, dtype="int32", trainable=False, name="index")
        self.built = True

    def start(self, kernel: np.ndarray) -> None:
        """Take the different weights of a clustered kernel from its first values."""
        if self.values is not None:
            values, index = np.unique(kernel, return_inverse=True)
            self.values.assign(values)
            self.index.assign(index.reshape(self.shape))

    def unrounded(self, kernel: Any) -> Any:
        """The trained kernel before it is rounded to int8: clustered, masked, and of few values if so configured."""
        if self.values is not None:
            kernel = ops.take(self.values.value, self.index.value) + 0 * kernel  # a gradient of 0, else Keras warns
        if self.pruned:
            kernel = kernel * ops.cast(ops.not_equal(kernel, 0), kernel.dtype)
        return kernel if self.steps == INT8_STEPS else rounded_kernel(kernel, self.axes, self.steps)

    def call(self, kernel: Any) -> Any:
        kernel = self.unrounded(kernel)
        if self.gain is None:
            return rounded_kernel(kernel, self.axes)
        gain = ops.reshape(ops.convert_to_tensor(self.gain, kernel.dtype), (-1, 1))
        return rounded_kernel(kernel * gain, self.axes) / gain

    def get_config(self) -> dict[str, Any]:
        own = {"shape": self.shape, "axes": self.axes, "steps": self.steps, "gain": self.gain, "pruned": self.pruned}
        return {**super().get_config(), **own, "values": 0 if self.values is None else self.values.shape[0]}
