"""ONNX files, checked with ONNX's own tools."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from converters import to_onnx
from converters.onnx.export import MIN_OPSET, max_opset
from converters.tflite.runtime import predict_onnx


@pytest.mark.parametrize("opset", [MIN_OPSET, 17, max_opset()])
def test_every_opset_is_valid_and_predicts_as_keras_does(small_model, pixels, opset):
    conversion = to_onnx(small_model, calibration=pixels, opset=opset)
    model = onnx.load_model_from_string(conversion.content)
    onnx.checker.check_model(model, full_check=True)
    assert [o.version for o in model.opset_import if o.domain == ""] == [opset]
    assert conversion.metadata["options"] == {"opset": opset}
    expected = np.asarray(small_model(pixels.astype(np.float32), training=False))
    np.testing.assert_allclose(predict_onnx(conversion.content, pixels), expected, atol=1e-4)


def test_input_is_one_image_as_the_model_takes_it(small_model):
    model = onnx.load_model_from_string(to_onnx(small_model).content)
    (image,) = model.graph.input
    assert [d.dim_value for d in image.type.tensor_type.shape.dim] == [1, 32, 32, 3]
    assert image.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_batch_normalization_is_folded(small_model):
    model = onnx.load_model_from_string(to_onnx(small_model).content)
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


def test_the_record_is_in_the_file(small_model):
    conversion = to_onnx(small_model, labels=[str(i) for i in range(10)])
    model = onnx.load_model_from_string(conversion.content)
    (entry,) = [p for p in model.metadata_props if p.key == "EDGE_CV_METADATA"]
    assert json.loads(entry.value) == json.loads(json.dumps(conversion.metadata))


def test_a_pointwise_convolution_of_pooled_features_keeps_its_bias(pixels):
    import keras
    from keras import layers

    keras.utils.set_random_seed(3)
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=4, activation="relu")(layers.Rescaling(1 / 127.5, -1)(image))
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Conv2D(16, 1, activation="relu", bias_initializer="random_normal")(x)  # TFLite makes it dense, in 4-D
    model = keras.Model(image, layers.Dense(10, bias_initializer="random_normal")(layers.Flatten()(x)))
    assert to_onnx(model, calibration=pixels).parity.sqnr_db > 90


def test_int8_is_qdq_of_a_quarter_of_the_size_and_predicts_as_keras_does(small_model, pixels):
    from converters.parity import sqnr_db

    conversion = to_onnx(small_model, "int8", calibration=pixels)
    model = onnx.load_model_from_string(conversion.content)
    onnx.checker.check_model(model, full_check=True)
    kinds = {node.op_type for node in model.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= kinds
    makers = {output: node.op_type for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.op_type == "Conv":
            assert {makers[name] for name in node.input} == {"DequantizeLinear"}
    weights = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4]
    assert len(weights) == sum(node.op_type == "Conv" for node in model.graph.node)
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    expected = np.asarray(small_model(pixels.astype(np.float32), training=False))
    assert sqnr_db(expected, predict_onnx(conversion.content, pixels)) > 20
    assert conversion.parity.sqnr_db > 20
    assert conversion.scheme == "int8"
    assert json.loads({p.key: p.value for p in model.metadata_props}["EDGE_CV_METADATA"])["scheme"] == "int8"


def test_int8_has_the_integers_of_the_tflite_file(small_model, pixels):
    from converters import Int8, to_tflite
    from converters.parity import sqnr_db
    from converters.tflite.graph import WEIGHTED, Graph
    from converters.tflite.runtime import predict

    scheme = Int8(io="float32", correction="bias")  # other integers than those of the default
    tflite = to_tflite(small_model, scheme, calibration=pixels).content
    conversion = to_onnx(small_model, scheme, calibration=pixels)
    graph = Graph(tflite)
    layers = [graph.constant(operator.inputs[1]) for operator in graph.operators() if operator.name in WEIGHTED]
    initializers = onnx.load_model_from_string(conversion.content).graph.initializer
    weights = [
        onnx.numpy_helper.to_array(t) for t in initializers if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1
    ]
    assert sorted(np.sort(w.ravel()).tobytes() for w in weights) == sorted(np.sort(w.ravel()).tobytes() for w in layers)
    assert sqnr_db(predict(tflite, pixels), predict_onnx(conversion.content, pixels)) > 35
    assert conversion.metadata["options"]["effort"] == "normal"


def test_int8_without_calibration_and_unknown_schemes_are_rejected(small_model):
    from converters import InputError, Int16x8

    with pytest.raises(InputError, match="calibration must be given"):
        to_onnx(small_model, "int8")
    for unknown in ("int16x8", Int16x8(), None):
        with pytest.raises(InputError, match="float32, int8"):
            to_onnx(small_model, unknown)


def test_int8_runs_where_several_layers_share_a_constant(pixels):
    """The factor of hard_sigmoid is one constant of the float file; ONNX Runtime wants one for each reader in int8."""
    import keras

    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(x)
    for _ in range(3):
        x = keras.layers.Conv2D(8, 3, strides=2)(x)
        gate = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
        gate = keras.layers.Conv2D(8, 1, activation="hard_sigmoid")(gate)
        x = keras.layers.Multiply()([x, gate])
    model = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(x)))
    made = to_onnx(model, "int8", calibration=pixels)
    assert made.parity.sqnr_db > 15
    graph = onnx.load_from_string(made.content).graph
    constants = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.INT8}
    read = [name for node in graph.node for name in node.input if name in constants]
    assert len(read) == len(set(read)) > 9  # weights and zero points
