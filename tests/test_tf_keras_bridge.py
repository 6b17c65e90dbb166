from __future__ import annotations

import numpy as np
import pytest
from zoo import DIFFERENT, application, small

from converters.errors import InputError
from edge_cv import models
from edge_cv.compression.tf_keras_bridge import to_tf_keras


@pytest.fixture(scope="module")
def keras():
    from converters.native_logs import import_tensorflow

    import_tensorflow()
    import keras

    return keras


def settled(model):
    """Assign seeded weights with which every layer affects the outputs."""
    rng = np.random.default_rng(7)
    for weight in model.weights:
        shape, name = tuple(weight.shape), weight.path
        if "variance" in name or "gamma" in name:
            weight.assign(rng.uniform(0.5, 1.5, shape))
        elif len(shape) == 1:
            weight.assign(rng.normal(0, 0.3, shape))
        elif len(shape) > 1:
            fan_in = np.prod(shape[:2] if "depthwise" in name else shape[:-1])
            weight.assign(rng.normal(0, 1.2 / np.sqrt(fan_in), shape))
    return model


def assert_converts_in_both_directions(model, size: int | None = None) -> None:
    """Both models agree on new images, and the model converted back agrees after a change of the tf_keras model."""
    shape = model.input_shape[1:] if size is None else (size, size, 3)
    images = np.random.default_rng(5).integers(0, 256, (2, *shape)).astype(np.float32)
    wanted = np.asarray(model(images, training=False))
    twin = to_tf_keras(model)
    converted = np.asarray(twin.model(images, training=False))
    np.testing.assert_allclose(converted, wanted, atol=1e-4 * np.abs(wanted).max(), rtol=0)
    for variable in twin.model.trainable_variables:
        variable.assign(variable * 0.9)
    changed = np.asarray(twin.model(images, training=False))
    back = np.asarray(twin.to_keras()(images, training=False))
    np.testing.assert_allclose(back, changed, atol=1e-4 * np.abs(changed).max(), rtol=0)
    np.testing.assert_array_equal(np.asarray(model(images, training=False)), wanted)


def test_augmentation_inside_a_model_is_passed_over(keras):
    from keras import layers

    from edge_cv.compression.channels import remove_channels

    image = keras.Input((16, 16, 3), name="image")
    flips = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)], name="flips")
    x = layers.Conv2D(16, 3, activation="relu")(layers.RandomZoom(0.2)(flips(layers.Rescaling(1 / 255)(image))))
    x = layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3)(x)))
    model = settled(keras.Model(image, x, name="augmented"))
    assert_converts_in_both_directions(model)
    smaller = remove_channels(model, 0.6, importance="l1")
    assert smaller.count_params() < model.count_params()


def test_nested_and_sequential_models_and_raw_operations_are_converted(keras):
    from keras import layers, ops

    block = keras.Sequential(
        [layers.Input((16, 16, 8)), layers.Conv2D(8, 3, padding="same", activation="hard_sigmoid", name="same_name")],
        name="block",
    )
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu6", name="same_name")(image / 255.0 - 0.5)
    x = x + block(x) * 2.0
    x = ops.relu6(x + 3.0) * (1.0 / 6.0) * x
    x = layers.SeparableConv2D(12, 3, depth_multiplier=2, activation="swish")(x)
    x = ops.mean(x, axis=(1, 2))
    x = 1.0 - x
    x = x / ops.sqrt(ops.abs(x) + 1.0)
    model = keras.Model(image, layers.Dense(5, activation="softmax")(x))
    assert_converts_in_both_directions(settled(model))


def test_a_sequential_model_is_converted(keras):
    from keras import layers

    model = keras.Sequential(
        [layers.Input((16, 16, 3)), layers.Conv2D(8, 3, activation="gelu"), layers.Flatten(), layers.Dense(4)]
    )
    assert_converts_in_both_directions(settled(model))


def test_normalization_layers_with_given_statistics_are_converted(keras):
    from keras import layers

    image = keras.Input((16, 16, 3))
    x = layers.Normalization(mean=[120.0, 110.0, 100.0], variance=[3000.0, 3500.0, 4000.0])(image)
    x = layers.LayerNormalization()(layers.Conv2D(8, 3)(x))
    model = keras.Model(image, layers.Dense(4)(layers.GlobalMaxPooling2D()(layers.PReLU(shared_axes=[1, 2])(x))))
    assert_converts_in_both_directions(settled(model))


def test_a_name_with_another_meaning_in_tf_keras_is_detected(keras, monkeypatch):
    """hard_sigmoid of tf_keras is 0.2 x + 0.5. The comparison detects it in the place of Keras 3's."""
    from edge_cv.compression.tf_keras_layers import TfKerasBuilder

    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, activation="hard_sigmoid")(keras.layers.Rescaling(1 / 128, offset=-1)(image))
    model = settled(keras.Model(image, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(x))))
    plain = TfKerasBuilder._activate_by_name

    def by_name(self, kind, name, x, **options):
        if kind == "hard_sigmoid":
            return self._apply("Activation", name, [x], activation="hard_sigmoid")
        return plain(self, kind, name, x, **options)

    monkeypatch.setattr(TfKerasBuilder, "_activate_by_name", by_name)
    with pytest.raises(InputError, match="must compute the same outputs"):
        to_tf_keras(model)


def test_a_model_that_amplifies_rounding_is_compared_with_a_larger_tolerance(keras):
    """Two formulas of batch normalization differ in the last digits of a large mean, and a division amplifies that."""
    from keras import layers

    image = keras.Input((16, 16, 3))
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(4, 1)(layers.Rescaling(1.0, offset=1e6)(image)))
    model = keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    settled(model)
    kernel, bias = model.layers[2].get_weights()
    mean = kernel.sum((0, 1, 2)) * (1e6 + 127.5) + bias
    normalization = model.get_layer("bn")
    normalization.set_weights([*normalization.get_weights()[:2], mean, np.full(4, 1e-3)])
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.float32)
    wanted = np.asarray(model(pixels, training=False))
    converted = np.asarray(to_tf_keras(model, check=False).model(pixels, training=False))
    assert np.abs(converted - wanted).max() > 1e-4 * np.abs(wanted).max()
    to_tf_keras(model)


def test_unsupported_models_are_refused_by_name(keras):
    class Odd(keras.layers.Layer):
        def call(self, x):
            return x + 1

    class Subclassed(keras.Model):
        def call(self, x):
            return x

    image = keras.Input((16, 16, 3))
    pooled = keras.layers.GlobalAveragePooling2D()
    with pytest.raises(InputError, match=r"layer 'odd' of kind Odd"):
        to_tf_keras(keras.Model(image, pooled(Odd(name="odd")(image))))
    with pytest.raises(InputError, match="subclassed"):
        to_tf_keras(Subclassed())
    shared = keras.layers.Conv2D(3, 1, name="twice")
    with pytest.raises(InputError, match=r"'twice' is shared by several calls"):
        to_tf_keras(keras.Model(image, pooled(shared(shared(image)))))
    with pytest.raises(InputError, match="must be built"):
        to_tf_keras(keras.Sequential([keras.layers.Dense(3)]))
    with pytest.raises(InputError, match=r"glu|cannot be|expressed"):
        to_tf_keras(keras.Model(image, pooled(keras.layers.Activation("glu")(keras.layers.Conv2D(4, 1)(image)))))
    with pytest.raises(InputError, match="2 outputs"):
        to_tf_keras(keras.Model(image, [pooled(image), pooled(image)]))
    with pytest.raises(InputError, match="Keras 3 model"):
        to_tf_keras("model.keras")


@pytest.mark.slow
def test_a_mobile_network_is_converted(keras):
    assert_converts_in_both_directions(
        settled(models.build("mobilenet_v3_small", classes=10, image_size=32, alpha=0.5))
    )
    keras.backend.clear_session()


@pytest.mark.slow
@pytest.mark.parametrize("name", DIFFERENT)
def test_every_kind_of_network_of_the_zoo_is_converted(keras, name):
    assert_converts_in_both_directions(settled(small(name)))
    keras.backend.clear_session()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["EfficientNetV2B0", "ResNet50", "DenseNet121", "Xception", "ConvNeXtTiny"])
def test_networks_of_keras_applications_are_converted(keras, name):
    assert_converts_in_both_directions(application(name), 96)
    keras.backend.clear_session()


@pytest.mark.slow
def test_a_network_of_any_size_of_image_is_converted(keras):
    assert_converts_in_both_directions(keras.applications.MobileNetV3Small(weights=None, classes=10), 96)
    keras.backend.clear_session()
