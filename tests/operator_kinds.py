"""Small classifiers around one kind of layer or activation each, and images whose averages differ."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

ACTIVATIONS = (
    "celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu",
    "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_shrink", "softmax",
    "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "squareplus", "tanh", "tanh_shrink",
)  # fmt: skip


def images(count: int = 48) -> np.ndarray:
    """Coarse patterns of different brightness, colour and contrast, with noise."""
    random = np.random.default_rng(0)
    pattern = random.uniform(-1, 1, (count, 8, 8, 3)).repeat(4, 1).repeat(4, 2)
    middle, contrast = random.uniform(40, 215, (count, 1, 1, 3)), random.uniform(10, 120, (count, 1, 1, 1))
    noise = random.normal(0, 8, (count, 32, 32, 3))
    return (middle + contrast * pattern + noise).clip(0, 255).round().astype(np.float32)


def network(kind: str) -> Any:
    """The Keras model around one of `kinds()`, with seeded weights and biases."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    found = kinds()[kind]  # whose making draws seeds too
    keras.utils.set_random_seed(1)
    bias = keras.initializers.RandomNormal(stddev=0.2)
    image = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 127.5, -1)(image)
    x = layers.Conv2D(8, 3, 2, padding="same", bias_initializer=bias)(x)
    x = found(x)
    if len(x.shape) == 4:
        x = layers.Conv2D(8, 3, padding="same", bias_initializer=bias)(x)
        x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10, bias_initializer=bias)(x), name=kind)


@functools.cache
def kinds() -> dict[str, Any]:
    """Each kind by its name: from a tensor of 16 x 16 x 8 to another, or to a row of features."""
    from keras import layers

    found = {name: layers.Activation(name) for name in ACTIVATIONS}
    return found | _clipped() | _arithmetic() | _reductions() | _normalizations() | _shapes() | _weighted()


def _conv(x: Any, filters: int = 8) -> Any:
    from keras import layers

    return layers.Conv2D(filters, 1)(x)


def _clipped() -> dict[str, Any]:
    from keras import initializers, layers, ops

    return {
        "clip": lambda x: ops.clip(x, -0.5, 1.5),
        "gelu_tanh": lambda x: ops.gelu(x, approximate=True),
        "glu": ops.glu,
        "hard_swish": layers.Activation("hard_swish"),
        "prelu": layers.PReLU(shared_axes=[1, 2], alpha_initializer=initializers.Constant(0.2)),
        "relu_max_1": layers.ReLU(max_value=1),
        "relu_minus_1_to_1": lambda x: ops.clip(x, -1, 1),
        "relu_slope_max": layers.ReLU(max_value=4, negative_slope=0.1),
        "relu_threshold": layers.ReLU(threshold=0.3),
    }


def _arithmetic() -> dict[str, Any]:
    from keras import layers, ops

    return {
        "abs": ops.abs,
        "add": lambda x: layers.Add()([x, _conv(x)]),
        "average": lambda x: layers.Average()([x, _conv(x)]),
        "cos": ops.cos,
        "divide": lambda x: x / (ops.abs(_conv(x)) + 0.5),
        "floor": ops.floor,
        "floor_divide": lambda x: ops.floor_divide(x, 0.4),
        "log": lambda x: ops.log(ops.abs(x) + 0.1),
        "mask": lambda x: x * ops.cast(x > 0.2, "float32"),
        "maximum": lambda x: layers.Maximum()([x, _conv(x)]),
        "minimum": lambda x: layers.Minimum()([x, _conv(x)]),
        "multiply": lambda x: layers.Multiply()([x, _conv(x)]),
        "modulo": lambda x: ops.mod(x, 0.7),
        "negative": ops.negative,
        "power_2": lambda x: ops.power(ops.abs(x) + 1e-3, 2.0),
        "power_of_2": lambda x: ops.power(2.0, x),
        "power_1.5": lambda x: ops.power(ops.abs(x) + 1e-3, 1.5),
        "reciprocal": lambda x: 1 / (ops.abs(x) + 0.5),
        "rsqrt": lambda x: ops.rsqrt(ops.abs(x) + 0.1),
        "scale_shift": lambda x: x * 0.3 + 0.2,
        "sign": lambda x: ops.sign(x) * x,
        "sin": ops.sin,
        "sqrt": lambda x: ops.sqrt(ops.abs(x) + 1e-3),
        "square": ops.square,
        "subtract": lambda x: layers.Subtract()([x, _conv(x)]),
        "where": lambda x: ops.where(x > 0.1, x, _conv(x)),
    }


def _reductions() -> dict[str, Any]:
    from keras import layers, ops

    return {
        "channel_max": lambda x: ops.max(x, -1, keepdims=True) * x,
        "channel_mean": lambda x: ops.mean(x, -1, keepdims=True) + x,
        "channel_min": lambda x: ops.min(x, -1, keepdims=True) + x,
        "global_average": layers.GlobalAveragePooling2D(),
        "global_max": layers.GlobalMaxPooling2D(),
        "logsumexp": lambda x: ops.logsumexp(x, -1, keepdims=True) + x,
        "norm": lambda x: ops.norm(x, axis=-1, keepdims=True) + x,
        "product": lambda x: ops.prod(x, -1, keepdims=True) + x,
        "squeeze_and_excite": lambda x: x * _conv(layers.GlobalAveragePooling2D(keepdims=True)(x)),
        "std": lambda x: ops.std(x, (1, 2)),
        "sum": lambda x: ops.sum(x, (1, 2)),
        "variance": lambda x: ops.var(x, -1, keepdims=True) + x,
    }


def _normalizations() -> dict[str, Any]:
    from keras import layers

    return {
        "attention": _attention,
        "attention_causal": functools.partial(_attention, use_causal_mask=True),
        "batch_normalization": layers.BatchNormalization(),
        "group_normalization": layers.GroupNormalization(4),
        "group_normalization_of_one": layers.GroupNormalization(1),
        "instance_normalization": layers.GroupNormalization(-1),
        "layer_normalization": layers.LayerNormalization(),
        "normalization": layers.Normalization(mean=[0.1] * 8, variance=[0.5] * 8),
        "rms_normalization": layers.RMSNormalization(),
        "unit_normalization": layers.UnitNormalization(),
    }


def _convnext(x: Any) -> Any:
    from keras import layers

    h = layers.LayerNormalization(epsilon=1e-6)(layers.DepthwiseConv2D(7, padding="same")(x))
    return x + 0.3 * layers.Dense(8)(layers.Dense(32, activation="gelu")(h))


def _attention(x: Any, **options: Any) -> Any:
    from keras import layers

    tokens = layers.LayerNormalization()(layers.Reshape((16, 8))(x[:, ::4, ::4]))
    return layers.Reshape((4, 4, 8))(tokens + layers.MultiHeadAttention(2, 4)(tokens, tokens, **options))


def _shapes() -> dict[str, Any]:
    from keras import layers, ops

    return {
        "average_pooling": layers.AveragePooling2D(3, 2, "same"),
        "concatenate": lambda x: layers.Concatenate()([x, _conv(x, 4)]),
        "cropping": layers.Cropping2D(2),
        "flatten": layers.Flatten(),
        "flip": lambda x: ops.flip(x, axis=1),
        "max_pooling": layers.MaxPooling2D(3, 2, "same"),
        "pad_by_ones": lambda x: ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=1.0),
        "pad_reflect": lambda x: ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], "reflect"),
        "permute": layers.Permute((2, 1, 3)),
        "repeat": lambda x: ops.repeat(x, 2, axis=-1),
        "roll": lambda x: ops.roll(x, 2, axis=1),
        "split": lambda x: layers.Concatenate()(ops.split(x, 2, axis=-1)[::-1]),
        "stack": lambda x: ops.reshape(ops.stack([x, _conv(x)], -1), (-1, 16, 16, 16)),
        "take": lambda x: ops.take(x, [3, 1, 0, 5], axis=-1),
        "tile": lambda x: ops.tile(x, (1, 1, 1, 2)),
        "up_sampling_bilinear": layers.UpSampling2D(2, interpolation="bilinear"),
        "up_sampling_nearest": layers.UpSampling2D(2),
        "zero_padding": layers.ZeroPadding2D(1),
    }


def _weighted() -> dict[str, Any]:
    from keras import layers

    return {
        "bidirectional": lambda x: layers.Bidirectional(layers.LSTM(6, unroll=True))(layers.Reshape((4, 512))(x)),
        "depth_multiplier": layers.DepthwiseConv2D(3, depth_multiplier=2),
        "depthwise": layers.DepthwiseConv2D(3),
        "dilated": layers.Conv2D(8, 3, dilation_rate=2),
        "convnext": _convnext,
        "gru": lambda x: layers.GRU(6, unroll=True)(layers.Reshape((4, 512))(x)),
        "einsum": layers.EinsumDense("bhwc,cd->bhwd", output_shape=(None, None, 6)),
        "grouped": layers.Conv2D(8, 3, groups=2),
        "separable": layers.SeparableConv2D(8, 3),
        "transposed": layers.Conv2DTranspose(8, 3, 2, padding="same"),
    }
