"""ONNX of fused operators, and of any batch size, against Keras."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from operator_kinds import images, network

from converters import CheckFailed, InputError, to_onnx
from converters.onnx.batch import with_free_batch
from converters.onnx.export import MIN_OPSET, max_opset
from converters.tflite.runtime import onnx_session


@pytest.mark.parametrize(
    "kind", ["gelu", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("gelu_tanh", "relu_minus_1_to_1"))]
)
def test_fused_operators_are_expressed_in_every_opset(kind):
    model, photos = network(kind), images(8)
    for opset in (MIN_OPSET, max_opset()):
        conversion = to_onnx(model, calibration=photos, opset=opset)
        onnx.checker.check_model(onnx.load_model_from_string(conversion.content), full_check=True)
        assert conversion.parity.sqnr_db > 100


@pytest.mark.parametrize("scheme", ["float32", "int8"])
@pytest.mark.parametrize("kind", [pytest.param("attention", marks=pytest.mark.slow), "up_sampling_bilinear"])
def test_a_free_batch_gives_each_image_its_own_outputs(kind, scheme):
    model, photos = network(kind), images(8)
    conversion = to_onnx(model, scheme, calibration=photos, batch="free")
    session = onnx_session(conversion.content)
    (image,) = session.get_inputs()
    assert isinstance(image.shape[0], str)
    for count in (1, 5):
        outputs = session.run(None, {image.name: photos[:count]})[0]
        expected = np.asarray(model(photos[:count], training=False))
        assert outputs.shape == expected.shape
        np.testing.assert_allclose(outputs, expected, atol=1e-4 if scheme == "float32" else 0.25)
    assert conversion.metadata["options"]["batch"] == "free"


def test_an_operator_that_mixes_the_images_of_a_batch_is_found():
    photos = images(8)
    model = onnx.load_model_from_string(to_onnx(network("relu")).content)
    output = model.graph.output[0].name
    last = next(node for node in model.graph.node if output in node.output)
    last.output[0] = "apart"
    model.graph.node.append(onnx.helper.make_node("ReduceMean", ["apart"], ["mean"], axes=[0], keepdims=1))
    model.graph.node.append(onnx.helper.make_node("Add", ["apart", "mean"], [output]))
    with pytest.raises(CheckFailed, match="mixes the images"):
        with_free_batch(model.SerializeToString(), photos)


def test_other_batch_sizes_are_rejected(small_model):
    with pytest.raises(InputError, match="1 or 'free'"):
        to_onnx(small_model, batch=8)


def test_an_operator_that_tf2onnx_lacks_is_named_with_its_layer_in_one_line(capfd):
    import keras
    from keras import layers, ops

    class Buckets(layers.Layer):
        def call(self, x):
            return ops.cast(ops.digitize(x, [-0.5, 0.0, 0.5]), "float32")

    image = keras.Input((32, 32, 3))
    x = Buckets(name="buckets")(layers.Conv2D(4, 3)(image))
    with pytest.raises(CheckFailed, match=r"no form of BUCKETIZE \(layer 'buckets'\)") as failure:
        to_onnx(keras.Model(image, layers.GlobalAveragePooling2D()(x)))
    assert "\n" not in str(failure.value)
    assert "BUCKETIZE" not in "".join(capfd.readouterr())
