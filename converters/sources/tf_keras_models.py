"""Models of Keras 2: loaded by tf_keras, and rebuilt in Keras 3 where that computes the same."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from converters.errors import InputError
from converters.packages import require
from converters.sources.graph_sizes import check_model
from converters.sources.keras_config import WRAPPING, in_float32, keras_3_config, names_of
from converters.sources.keras_storage import StoredModel

MAX_RELATIVE_ERROR = 1e-4  # between the two libraries' kernels, of the range of the outputs

logger = logging.getLogger(__name__)


def load_tf_keras(stored: StoredModel, *, unsafe: bool) -> Any:
    """The tf_keras model in a file of Keras 2.

    Raises:
        InputError: the configuration declares far more weights than the file stores.
    """
    import tf_keras
    from tf_keras.src.saving.serialization_lib import SafeModeScope

    config = in_float32(stored.config)
    if stored.is_archive and names_of(config) & {"QuantizeLayer", "QuantizeWrapper", "QuantizeWrapperV2"}:
        raise InputError(
            "a model of tensorflow-model-optimization's quantize_model must be an .h5 file or a SavedModel: tf_keras "
            f"itself cannot open it as a .keras file; save it with model.save('x.h5'). Received: {stored.path}"
        )
    with _known_layers(config), _declared_at_most(stored), SafeModeScope(not unsafe):
        if stored.is_archive:
            model = tf_keras.saving.deserialize_keras_object(copy.deepcopy(config), safe_mode=not unsafe)
        else:
            from tf_keras.src.saving.legacy.model_config import model_from_config

            model = model_from_config(copy.deepcopy(config))
        if not isinstance(model, tf_keras.Model):
            raise InputError(f"{stored.path} must hold a model. Received: {type(model).__name__}")
        check_model(model, stored.path)
        if stored.is_archive:
            model.load_weights(stored.path)
        else:
            import h5py
            from tf_keras.src.saving.legacy.hdf5_format import load_weights_from_hdf5_group

            with h5py.File(stored.path, "r") as file:
                load_weights_from_hdf5_group(file["model_weights"], model)
    return model


@contextlib.contextmanager
def _known_layers(config: Any) -> Iterator[None]:
    """Make layers known to tf_keras: ConvNeXt's own, and tensorflow-model-optimization's wrappers if one is named."""
    import tf_keras
    from tf_keras.src.applications import convnext

    with contextlib.ExitStack() as scopes:
        own = {"LayerScale": convnext.LayerScale, "StochasticDepth": convnext.StochasticDepth}
        registered = tf_keras.saving.get_custom_objects()
        scopes.enter_context(tf_keras.saving.custom_object_scope({**own, **registered}))
        if any(name.startswith(WRAPPING) for name in names_of(config)):
            require("a model with tensorflow-model-optimization's wrappers", "compress")
            import tensorflow_model_optimization as tfmot

            scopes.enter_context(tfmot.quantization.keras.quantize_scope())
            scopes.enter_context(tfmot.sparsity.keras.prune_scope())
            scopes.enter_context(tfmot.clustering.keras.cluster_scope())
        yield


@contextlib.contextmanager
def _declared_at_most(stored: StoredModel) -> Iterator[None]:
    """Check each variable's size before it is created."""
    import tensorflow as tf

    declared = 0

    def create(next_creator: Callable[..., Any], **options: Any) -> Any:
        nonlocal declared
        shape = options.get("shape")
        declared += math.prod(size or 1 for size in tf.TensorShape(shape).as_list()) if shape is not None else 0
        stored.check_values(declared)
        return next_creator(**options)

    with tf.variable_creator_scope(create):
        yield


def without_wrappers(model: Any) -> Any:
    """A tf_keras model without the wrappers of tensorflow-model-optimization's pruning and clustering."""
    kinds = {type(layer).__name__ for layer in model._flatten_layers(include_self=False)}
    if not any(kind.startswith(("PruneLowMagnitude", "ClusterWeights")) for kind in kinds):
        return model
    import tensorflow_model_optimization as tfmot

    if any(kind.startswith("PruneLowMagnitude") for kind in kinds):
        logger.warning("%s: the wrappers of pruning are removed; its zeros stay", model.name)
        model = tfmot.sparsity.keras.strip_pruning(model)
    if any(kind.startswith("ClusterWeights") for kind in kinds):
        logger.warning("%s: the wrappers of clustering are removed; its shared values stay", model.name)
        model = tfmot.clustering.keras.strip_clustering(model)
    return model


def keras_3_of(model: Any) -> Any:
    """The Keras 3 model that computes the same as a tf_keras model; the tf_keras model itself where there is none."""
    model = without_wrappers(model)
    try:
        rebuilt = _rebuilt(model)
        return rebuilt if _same_outputs(model, rebuilt) else model
    except Exception as error:  # Keras raises whatever it does not know
        logger.info("%s stays a tf_keras model: %s", model.name, error)
        return model


def _rebuilt(model: Any) -> Any:
    from keras.src.legacy.saving.saving_options import keras_option_scope
    from keras.src.legacy.saving.saving_utils import model_from_config

    config = keras_3_config({"class_name": type(model).__name__, "config": model.get_config()})
    with keras_option_scope(use_legacy_config=True):
        rebuilt = model_from_config(config)
    _copy_weights(model, rebuilt)
    return rebuilt


def _copy_weights(source: Any, target: Any) -> None:
    """Copy the weights layer by layer, by name; nested models alike."""
    for layer in source.layers:
        values = layer.get_weights()
        if not values:
            continue
        twin = target.get_layer(layer.name)
        if hasattr(layer, "layers"):
            _copy_weights(layer, twin)
        else:
            twin.set_weights(values)


def _same_outputs(model: Any, rebuilt: Any) -> bool:
    shape = [size or 64 for size in model.inputs[0].shape[1:]]
    random = np.random.default_rng(0)
    for images in (random.normal(0, 1, (2, *shape)), random.uniform(0, 255, (2, *shape))):
        expected, outputs = (np.asarray(m(images.astype(np.float32), training=False)) for m in (model, rebuilt))
        if not np.abs(outputs - expected).max() <= MAX_RELATIVE_ERROR * max(np.ptp(expected), 1e-30):
            return False
    return True
