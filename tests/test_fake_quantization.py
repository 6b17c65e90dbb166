"""The rounding that training simulates, against TensorFlow's own, tfmot's quantizers, and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from edge_cv.compression.fake_quantization import RoundedKernel, RoundedOutput, rounded_kernel, rounded_output


@pytest.mark.parametrize(("low", "high"), [(-1.7, 3.2), (0.0, 6.0), (-2.5, 0.0), (0.3, 4.0), (-4.0, -0.1)])
def test_outputs_and_gradients_equal_tensorflows_fake_quantization(low, high):
    values = tf.constant(np.random.default_rng(0).uniform(-5, 7, 5000).astype(np.float32))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(values)
        ours = rounded_output(values, low, high)
        theirs = tf.quantization.fake_quant_with_min_max_vars(values, min(low, 0.0), max(high, 0.0))
    np.testing.assert_allclose(ours, theirs, atol=1e-6 * max(abs(low), abs(high)))
    step = (max(high, 0) - min(low, 0)) / 255
    inside = (values > min(low, 0) + step) & (values < max(high, 0) - step)
    for output in (ours, theirs):
        np.testing.assert_array_equal(tape.gradient(output, values)[inside], 1)
    np.testing.assert_array_equal(tape.gradient(ours, values), tape.gradient(theirs, values))


def test_a_trained_range_has_the_gradients_of_lsq():
    """Closed form for a range from 0: inside (round(q) - q) / 255, above the range 1 (LSQ, equation 3)."""
    values, high = tf.constant([0.11, 1.32, 2.9, 7.0, -1.0]), tf.Variable(3.0)
    with tf.GradientTape() as tape:
        output = rounded_output(values, 0.0, high)
    steps = values.numpy() / (3 / 255)
    expected = np.where(values < 0, 0.0, np.where(values > 3, 1.0, (np.rint(steps) - steps) / 255))
    np.testing.assert_allclose(tape.gradient(output, high), expected.sum(), rtol=1e-4)


@pytest.mark.parametrize("per_axis", [True, False])
def test_kernels_equal_tfmots_quantizer(per_axis):
    from tensorflow_model_optimization.python.core.quantization.keras import quantizers

    kernel = np.random.default_rng(0).normal(size=(3, 3, 8, 16)).astype(np.float32)
    quantizer = quantizers.LastValueQuantizer(num_bits=8, per_axis=per_axis, symmetric=True, narrow_range=True)
    shape = (16,) if per_axis else ()
    ends = {"min_var": tf.Variable(tf.zeros(shape)), "max_var": tf.Variable(tf.zeros(shape))}
    theirs = quantizer(tf.constant(kernel), training=True, weights=ends)
    np.testing.assert_allclose(rounded_kernel(kernel, (0, 1, 2) if per_axis else (0, 1, 2, 3)), theirs, atol=1e-6)


def test_a_moving_range_equals_tfmots():
    from tensorflow_model_optimization.python.core.quantization.keras import quantizers

    ours = RoundedOutput(-1.0, 2.0)
    theirs = quantizers.MovingAverageQuantizer(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)
    ends = {"min_var": tf.Variable(-1.0), "max_var": tf.Variable(2.0)}
    rng = np.random.default_rng(0)
    for _ in range(5):
        batch = tf.constant(rng.normal(0, 3, (4, 10)).astype(np.float32))
        np.testing.assert_allclose(ours(batch, training=True), theirs(batch, training=True, weights=ends), atol=1e-5)
    assert ours.range() == pytest.approx((float(ends["min_var"]), float(ends["max_var"])), rel=1e-5)


def test_an_open_range_is_set_by_the_first_batch_and_a_frozen_one_stays():
    rounding = RoundedOutput(None, None)
    rounding(tf.constant([[-1.0, 3.0]]), training=True)
    assert rounding.range() == (-1.0, 3.0)
    rounding(tf.constant([[-9.0, 9.0]]), training=True, frozen=1.0)
    rounding(tf.constant([[-9.0, 9.0]]), training=False)
    assert rounding.range() == (-1.0, 3.0)


def test_zeros_of_a_pruned_kernel_have_no_gradient_and_equal_weights_share_one():
    kernel = np.random.default_rng(0).normal(size=(1, 1, 4, 8)).astype(np.float32)
    kernel[..., ::2, :] = 0
    pruned, variable = RoundedKernel(kernel.shape, (0, 1, 2), pruned=True), tf.Variable(kernel)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(pruned(variable))
    gradient = tape.gradient(loss, variable).numpy()
    assert not gradient[kernel == 0].any()
    assert (gradient[kernel != 0] == 1).all()

    few = np.rint(kernel)
    values = np.unique(few)
    clustered = RoundedKernel(few.shape, (0, 1, 2), values=len(values))
    clustered.start(few)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(clustered(tf.constant(few)))
    np.testing.assert_allclose(tape.gradient(loss, clustered.values.value), [np.sum(few == v) for v in values])


def test_the_gain_of_the_input_is_part_of_the_rounding():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 4)).astype(np.float32)
    gain = np.array([0.9, 1.0, 1.2], np.float32)
    rounded = RoundedKernel(kernel.shape, (0, 1, 2), gain=gain)(tf.constant(kernel)).numpy() * gain[:, None]
    steps = rounded / (np.abs(kernel * gain[:, None]).max((0, 1, 2)) / 127)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
