"""Loading whole-model files of Keras: `.keras` archives and `.h5` files, of Keras 3 and of Keras 2.

A model is rebuilt from the configuration in the file, which may only name known layers, and the file's arrays. A
Lambda layer, which holds Python code, is not run unless the caller allows it. A configuration that declares far more
weights than the file stores is refused before they are allocated.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

from converters.errors import InputError, UnsafeCode
from converters.sources.config_graph import check_graphs
from converters.sources.graph_sizes import check_model
from converters.sources.keras_config import check_config, in_float32, keras_3_config, names_of, with_operations_named
from converters.sources.keras_storage import StoredModel, read_stored
from converters.sources.layer_names import with_valid_names
from converters.sources.source import reason_of
from converters.sources.tensorflow_backend import require_tensorflow_backend
from converters.sources.tf_keras_models import keras_3_of, load_tf_keras

LIBRARIES = ("keras", "tf_keras", "tensorflow_model_optimization")


def load(path: str | os.PathLike, *, unsafe: bool = False) -> Any:
    """Load the model in a `.keras`, `.h5` or `.hdf5` file, to compute in float32.

    Args:
        path: the file.
        unsafe: run the Python code in the file's Lambda layers. Only for files from a trusted author.

    Returns:
        The `keras.Model`, not compiled; a `tf_keras.Model` where Keras 3 cannot rebuild a model of Keras 2.

    Raises:
        InputError: the file is missing, of another kind or corrupt, or it needs code that is not allowed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"the model must be a file that exists. Received: {path}")
    stored = read_stored(path)
    require_tensorflow_backend()
    registered = {**_registered("keras"), **_registered("tf_keras")}
    if not stored.is_archive and stored.keras_version.startswith("3"):
        stored = dataclasses.replace(stored, config=with_operations_named(stored.config))
    check_config(stored.config, path, registered, unsafe=unsafe)
    try:
        stored = dataclasses.replace(stored, config=with_valid_names(stored.config))
        check_graphs(stored.config)
    except InputError as error:
        raise InputError(f"{path} cannot be loaded as a Keras model: {error}") from error
    major = stored.keras_version.split(".")[0]
    own = names_of(stored.config) & {name.rpartition(">")[2] for name in _registered("keras")}
    try:
        if major == "3":
            return _load_keras_3(stored, in_float32(stored.config), unsafe=unsafe)
        if own:  # classes of Keras 3, which do not fit into a tf_keras model
            return _load_keras_3(stored, keras_3_config(in_float32(stored.config)), unsafe=unsafe)
        return keras_3_of(load_tf_keras(stored, unsafe=unsafe))
    except InputError:
        raise
    except Exception as error:  # Keras raises whatever the file's content provokes
        raise _failed(path, major, error) from error


def _failed(path: Path, major: str, error: Exception) -> InputError:
    text = str(error)
    if "safe_mode" in text or "safe mode" in text:
        return UnsafeCode(
            f"{path} holds Python code; it runs only if you trust the author and allow it with unsafe=True"
        )
    if "Unable to revive model" in text:
        return InputError(
            f"{path} holds a subclassed model that its configuration does not rebuild: export it where it was made "
            "(model.export('folder')) and convert that SavedModel"
        )
    return InputError(f"{path} cannot be loaded as a Keras {major} model: {reason_of(error)}")


def _registered(library: str) -> dict[str, Any]:
    """The classes that this process registered with `keras` or `tf_keras`: its own code, not the file's."""
    module = sys.modules.get(library)
    objects = {} if module is None else module.saving.get_custom_objects()
    return {name: value for name, value in objects.items() if value.__module__.split(".")[0] not in LIBRARIES}


def _load_keras_3(stored: StoredModel, config: dict[str, Any], *, unsafe: bool) -> Any:
    import keras
    from keras.src.backend.common import global_state
    from keras.src.backend.common.variables import initialize_all_variables

    archive = stored.is_archive
    build = _build_archive if archive else _build_hdf5
    try:
        with keras.StatelessScope(initialize_variables=False):  # the variables are declared, not allocated
            model = build(config, unsafe)
        stored.check_values(sum(_size(variable) for variable in model.variables))
        check_model(model, stored.path)
        initialize_all_variables()
    except ValueError as error:
        if "stateless scope" not in str(error):
            raise
        model = build(config, unsafe)  # a class of the caller's own creates variables of arrays
    finally:
        global_state.set_global_attribute("uninitialized_variables", [])
    if archive:
        model.load_weights(stored.path)
    else:
        import h5py
        from keras.src.legacy.saving.legacy_h5_format import load_weights_from_hdf5_group

        with h5py.File(stored.path, "r") as file:
            load_weights_from_hdf5_group(file["model_weights"], model)
    return model


def _size(variable: Any) -> int:
    size = 1
    for length in variable.shape:
        size *= length
    return size


def _build_archive(config: dict[str, Any], unsafe: bool) -> Any:
    import keras

    model = keras.saving.deserialize_keras_object(config, safe_mode=not unsafe)
    if not isinstance(model, keras.Model):
        raise InputError(f"a .keras file must hold a model. Received: {type(model).__name__}")
    return model


def _build_hdf5(config: dict[str, Any], unsafe: bool) -> Any:
    import keras
    from keras.src.applications import convnext
    from keras.src.legacy.saving.saving_options import keras_option_scope
    from keras.src.legacy.saving.saving_utils import model_from_config
    from keras.src.saving.serialization_lib import SafeModeScope

    own = {"LayerScale": convnext.LayerScale, "StochasticDepth": convnext.StochasticDepth}
    known = keras.saving.custom_object_scope({**own, **keras.saving.get_custom_objects()})
    with known, keras_option_scope(use_legacy_config=True), SafeModeScope(not unsafe):
        return model_from_config(config)
