"""The configuration of a Keras model in a file: the classes that it may name, and its changes before it is rebuilt.

Keras creates the objects that a configuration names, so an untrusted one may only name classes of `ALLOWED`, none of
which reads files, loads modules or runs code of the file.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from converters.errors import InputError, UnknownLayer, UnsafeCode

# fmt: off
LAYERS = frozenset("""
    Activation ActivityRegularization Add AdditiveAttention AlphaDropout Attention AugMix AutoContrast Average
    AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization Bidirectional CategoryEncoding CenterCrop
    Concatenate Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose Cropping1D Cropping2D Cropping3D
    CutMix Dense DepthwiseConv1D DepthwiseConv2D Dot Dropout ELU EinsumDense Embedding Equalization Flatten Functional
    GRU GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
    GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization GroupQueryAttention
    GroupedQueryAttention Identity InputLayer LSTM LayerNormalization LayerScale LeakyReLU LocallyConnected1D
    LocallyConnected2D Masking MaxPooling1D MaxPooling2D MaxPooling3D Maximum Minimum MixUp Model MultiHeadAttention
    Multiply Normalization PReLU Permute RMSNormalization RandAugment RandomBrightness RandomColorDegeneration
    RandomColorJitter RandomContrast RandomCrop RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur
    RandomGrayscale RandomHeight RandomHue RandomInvert RandomPerspective RandomPosterization RandomRotation
    RandomSaturation RandomSharpness RandomShear RandomTranslation RandomWidth RandomZoom ReLU RepeatVector Rescaling
    Reshape Resizing SeparableConv1D SeparableConv2D SeparableConvolution2D Sequential SimpleRNN Softmax Solarization
    SpatialDropout1D SpatialDropout2D SpatialDropout3D SpectralNormalization StochasticDepth Subtract
    SyncBatchNormalization ThresholdedReLU TimeDistributed UnitNormalization UpSampling1D UpSampling2D UpSampling3D
    ZeroPadding1D ZeroPadding2D ZeroPadding3D BatchNormalizationV1 BatchNormalizationV2 Convolution2D Pipeline
""".split()  # noqa: SIM905
)
PARTS = frozenset("""
    Constant GlorotNormal GlorotUniform HeNormal HeUniform LecunNormal LecunUniform Ones Orthogonal RandomNormal
    RandomUniform TruncatedNormal VarianceScaling Zeros L1 L2 L1L2 OrthogonalRegularizer MaxNorm MinMaxNorm NonNeg
    UnitNorm RadialConstraint DTypePolicy DTypePolicyMap FloatDTypePolicy QuantizedDTypePolicy Policy PolicyV1
    QuantizedFloat8DTypePolicy Int8QuantizationConfig Int4QuantizationConfig AbsMaxQuantizer TensorShape
    RandomUniformV2 RandomNormalV2 GlorotUniformV2 GlorotNormalV2 TruncatedNormalV2
""".split()  # noqa: SIM905
)
TFMOT = frozenset("""
    QuantizeLayer QuantizeWrapper QuantizeWrapperV2 QuantizeAnnotate PruneLowMagnitude ClusterWeights
    ClusterWeightsMHA ConstantSparsity PolynomialDecay LastValueQuantizer MovingAverageQuantizer AllValuesQuantizer
    Default8BitQuantizeConfig Default8BitConvQuantizeConfig Default8BitConvWeightsQuantizer
    Default8BitOutputQuantizeConfig Default8BitActivationQuantizeConfig Default8BitConvTransposeQuantizeConfig
    Default8BitConvTransposeWeightsQuantizer NoOpQuantizeConfig OutputOnlyConfig QuantizeAwareActivation
    _DepthwiseConvBatchNorm2D _ConvBatchNorm2D _QuantizeConvBatchNorm NoOpActivation
""".split()  # noqa: SIM905
)
VALUES = frozenset(["__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"])
CODE = frozenset(["Lambda", "__lambda__"])
ALLOWED = LAYERS | PARTS | TFMOT | VALUES
# Operations that call functions; the others of `keras.ops` compute on arrays only.
CALLING_OPERATIONS = frozenset(
    ["AssociativeScan", "Cond", "CustomGradient", "ForiLoop", "Map", "Scan", "Switch", "VectorizedMap", "Vectorize",
     "WhileLoop"]
)
FUNCTIONS = frozenset("""
    elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear log_sigmoid
    log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid
    sparsemax squareplus swish tanh tanh_shrink threshold celu
""".split()  # noqa: SIM905
)
# TensorFlow's functions in Keras 2 graphs: arithmetic such as `x / 127.5 - 1`.
TENSORFLOW_FUNCTIONS = frozenset("""
    __operators__.add __operators__.getitem abs add cast clip_by_value compat.v1.shape compat.v1.transpose concat
    convert_to_tensor divide expand_dims identity image.resize image.rgb_to_grayscale linalg.matmul math.abs math.add
    math.add_n math.divide math.divide_no_nan math.exp math.l2_normalize math.log math.maximum math.minimum
    math.multiply math.negative math.pow math.reduce_max math.reduce_mean math.reduce_min math.reduce_sum math.rsqrt
    math.scalar_mul math.sigmoid math.softplus math.sqrt math.square math.subtract math.tanh math.truediv matmul
    maximum minimum multiply nn.avg_pool nn.avg_pool2d nn.bias_add nn.conv2d nn.depthwise_conv2d nn.depth_to_space
    nn.elu nn.gelu nn.l2_normalize nn.leaky_relu nn.max_pool nn.max_pool2d nn.relu nn.relu6 nn.selu nn.sigmoid nn.silu
    nn.softmax nn.softplus nn.space_to_depth nn.swish nn.tanh nn.avg_pool_v2 nn.max_pool_v2 ones_like pad pow
    quantization.fake_quant_with_min_max_vars reduce_max reduce_mean reduce_sum repeat reshape reverse shape sigmoid
    slice split sqrt square squeeze stack strided_slice subtract tanh tile transpose truediv unstack zeros_like
""".split()  # noqa: SIM905
)
TENSORFLOW_OPERATIONS = frozenset("""
    Add AddV2 AvgPool BiasAdd Cast ConcatV2 DepthToSpace ExpandDims Exp LeakyRelu Log Maximum Mean Minimum Mul Neg Pad
    PadV2 Pow RealDiv Relu Relu6 Reshape Rsqrt Sigmoid Softmax SpaceToDepth Sqrt Square Squeeze StridedSlice Sub Sum
    Tanh Tile Transpose
""".split()  # noqa: SIM905
)
# fmt: on
OTHER_PRECISIONS = ("float16", "bfloat16", "float64")
WRAPPING = ("QuantizeLayer", "QuantizeWrapper", "PruneLowMagnitude", "ClusterWeights")


def check_config(config: Any, path: Path, registered: Mapping[str, Any], *, unsafe: bool) -> None:
    """Raise InputError if a configuration names anything that is not allowed.

    Args:
        config: of a model, from the file.
        path: the file.
        registered: classes and functions of the caller by their registered names, which are allowed too.
        unsafe: allow Lambda layers, whose code is in the file.
    """
    for node in objects(config):
        name = str(node["class_name"])
        if name in registered or str(node.get("registered_name")) in registered:
            continue
        if name in CODE:
            if not unsafe:
                raise UnsafeCode(
                    f"{path} holds a Lambda layer, which is Python code in the file; it runs only if you trust the "
                    "author and allow it with converters.load(path, unsafe=True)"
                )
        elif not _allowed(node, name):
            raise _refused(path, node, name)


def _allowed(node: dict[str, Any], name: str) -> bool:
    module, config = str(node.get("module") or ""), node.get("config")
    if name == "function":
        return isinstance(config, str) and config in FUNCTIONS
    if name in ("TFOpLambda", "SlicingOpLambda"):
        return isinstance(config, dict) and config.get("function") in TENSORFLOW_FUNCTIONS
    if name == "TensorFlowOpLayer":
        definition = config.get("node_def") if isinstance(config, dict) else None
        try:
            definition = json.loads(definition) if isinstance(definition, str) else definition
        except ValueError:
            return False
        return isinstance(definition, dict) and definition.get("op") in TENSORFLOW_OPERATIONS
    parts = module.split(".")
    if parts[:3] == ["keras", "src", "ops"] or parts[:2] == ["keras", "ops"]:
        return name.isidentifier() and name not in CALLING_OPERATIONS
    if module == "tensorflow.python.ops.init_ops_v2":
        return name in PARTS
    if module and parts[0] not in ("builtins", "keras", "tf_keras", "tensorflow_model_optimization"):
        return False
    if ">" in name:  # tfmot's objects are registered as PACKAGE>NAME
        return name.rpartition(">")[2] in TFMOT
    return name in ALLOWED


def _refused(path: Path, node: dict[str, Any], name: str) -> InputError:
    if str(node.get("module")).split(".")[:2] in (["keras", "dtype_policies"], ["keras", "quantizers"]):
        return InputError(
            f"the model must have float weights. Received: {path}, quantized by Keras's model.quantize ({name[:80]}): "
            "convert the model from before that call"
        )
    shown = node["config"] if name == "function" else name
    if name in ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"):
        shown = f"the TensorFlow function {(node.get('config') or {}).get('function', name)}"
    return UnknownLayer(
        f"{path} holds {str(shown)[:80]}, which is not a layer of Keras: import the Python file that defines it, or "
        "export the model where it was made (model.export('folder')) and convert that SavedModel"
    )


def with_operations_named(config: dict[str, Any]) -> dict[str, Any]:
    """A copy of a configuration in an `.h5` file of Keras 3 that names the modules of its raw operations.

    Such a file omits modules, so that the Add of `x + 3` looks like the layer Add; Keras itself then cannot read it.
    """
    from keras.src.ops import core, image, linalg, math, nn, numpy

    config = copy.deepcopy(config)
    for node in objects(config):
        name = node["class_name"]
        if node.get("module") or "inbound_nodes" not in node or name in CALLING_OPERATIONS:
            continue
        calls = node["inbound_nodes"]
        call = calls[0] if isinstance(calls, list) and calls and isinstance(calls[0], dict) else {}
        if name not in LAYERS or len(call.get("args", ())) > 1:  # a layer takes one tensor, or one list of them
            for module in (numpy, nn, core, image, math, linalg):
                kind = getattr(module, name, None)
                if isinstance(kind, type) and kind.__module__ == module.__name__:
                    node.update(module=module.__name__, registered_name=name)
                    break
    return config


def objects(config: Any) -> Iterator[dict[str, Any]]:
    """Every part of a configuration that names a class, the outer ones first; not the training's, which is left out."""
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if isinstance(value.get("class_name"), str):
                yield value
            pending += [part for key, part in value.items() if key != "compile_config"]
        elif isinstance(value, list):
            pending += value


def names_of(config: Any) -> set[str]:
    """The class names in a configuration, without their package."""
    return {node["class_name"].rpartition(">")[2] for node in objects(config)}


def in_float32(config: Any) -> Any:
    """A copy of a configuration whose layers compute in float32, where they computed in another precision."""
    if isinstance(config, dict):
        if config.get("class_name") == "RandomShear" and isinstance(config.get("config"), dict):
            # Keras writes bounds that it does not read; a converted model has no augmentation
            config = {**config, "config": {**config["config"], "x_factor": 0.0, "y_factor": 0.0}}
        return {
            key: "float32" if key == "dtype" and _is_other_precision(value) else in_float32(value)
            for key, value in config.items()
            if key != "compile_config"
        }
    return [in_float32(value) for value in config] if isinstance(config, list) else config


def _is_other_precision(dtype: Any) -> bool:
    text = json.dumps(dtype, default=str)
    return any(other in text for other in OTHER_PRECISIONS) and "int8" not in text and "int4" not in text


def keras_3_config(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a Keras 2 model as Keras 3 reads it from an `.h5` file; options that it lacks are omitted.

    Whether the two models compute the same has to be checked afterwards.

    Raises:
        InputError: the model has an activation of the same name and another value in Keras 3.
    """
    if "hard_sigmoid" in json.dumps(config, default=str):  # 0.2 x + 0.5, and in Keras 3 x / 6 + 0.5
        raise InputError("a model with hard_sigmoid, as Keras 2 defines it, cannot be rebuilt in Keras 3")
    translated = _without_modules(copy.deepcopy(config))
    for node in objects(translated):
        inner = node.get("config")
        if isinstance(inner, dict):
            if node["class_name"] == "TFOpLambda":
                _to_rescaling(node)
            _keep_known_options(node)
            _declare_inputs(inner)
    return translated


def _declare_inputs(config: dict[str, Any]) -> None:
    """One input and one output as they are, not as lists of one; a Sequential's input as a layer of its own."""
    for ends in ("input_layers", "output_layers"):
        if isinstance(config.get(ends), list) and len(config[ends]) == 1 and isinstance(config[ends][0], list):
            config[ends] = config[ends][0]
    layers = config.get("layers")
    if not isinstance(layers, list) or "input_layers" in config or not layers:
        return
    shape = layers[0]["config"].get("batch_input_shape")
    if shape is not None and layers[0]["class_name"] != "InputLayer":
        name = f"{layers[0]['config'].get('name', 'first')}_input"
        layers.insert(0, {"class_name": "InputLayer", "config": {"batch_input_shape": shape, "name": name}})
    for layer in layers[1:]:
        layer["config"].pop("batch_input_shape", None)


def _without_modules(config: Any) -> Any:
    if isinstance(config, dict):
        left_out = ("module", "registered_name", "build_config", "shared_object_id")
        return {key: _without_modules(value) for key, value in config.items() if key not in left_out}
    return [_without_modules(value) for value in config] if isinstance(config, list) else config


def _keep_known_options(node: dict[str, Any]) -> None:
    import keras

    kind, config = getattr(keras.layers, node["class_name"], None), node["config"]
    if kind is None or node["class_name"] in ("InputLayer", "Sequential"):
        return
    if node["class_name"] == "LeakyReLU" and "alpha" in config:
        config["negative_slope"] = config.pop("alpha")
    known = {"name", "trainable", "batch_input_shape", *inspect.signature(kind.__init__).parameters}
    for option in [option for option in config if option not in known]:
        if option != "activity_regularizer" or config[option] is None:
            del config[option]


def _to_rescaling(node: dict[str, Any]) -> None:
    """Arithmetic with a number, `x / 127.5` or `x - 1`, as a Rescaling layer; anything else stays as it is."""
    inbound = node.get("inbound_nodes")
    call = inbound[0] if isinstance(inbound, list) and len(inbound) == 1 else None
    if isinstance(call, list) and len(call) == 1:
        call = call[0]
    if not isinstance(call, list) or len(call) != 4 or not isinstance(call[3], dict):
        return
    number = call[3].get("y")
    if isinstance(number, bool) or not isinstance(number, int | float):
        return
    kind = str(node["config"].get("function")).rpartition(".")[2]
    scales = {"truediv": (1 / number if number else 1.0, 0.0), "divide": (1 / number if number else 1.0, 0.0)}
    scales |= {"multiply": (number, 0.0), "add": (1.0, number), "subtract": (1.0, -number)}
    if kind in scales and (number or kind in ("add", "subtract")):
        scale, offset = scales[kind]
        node["class_name"] = "Rescaling"
        node["config"] = {"name": node["config"]["name"], "scale": scale, "offset": offset}
        node["inbound_nodes"] = [[[*call[:3], {}]]]
