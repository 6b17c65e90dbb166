"""What a caller may hand over as a model, made into one value: a Keras 3 or tf_keras model, a `.keras`, a SavedModel.

Models from strangers are hostile: a Lambda layer is not run unless the caller says so, a graph that reads or writes
files or calls Python is refused, and an archive that unpacks to far more than it weighs is not unpacked.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import InputError
from converters.images.preprocessing import Preprocessing
from converters.native_logs import import_tensorflow

PIXELS_INPUT = "pixels"  # a model whose input has this name takes RGB pixels 0..255
MAX_UNPACKED_RATIO = 50  # weights hardly compress: an archive that does is a bomb

# What a classifier's graph may do besides computing: hold and read its variables, and draw random numbers.
STATEFUL_OPERATIONS = frozenset(
    [
        "AssignVariableOp",
        "DisableCopyOnRead",
        "If",
        "ReadVariableOp",
        "ResourceGather",
        "StatefulPartitionedCall",
        "VarHandleOp",
        "VarIsInitializedOp",
        "While",
        "Assert",
        "RandomUniform",
        "RandomUniformInt",
        "RandomStandardNormal",
        "TruncatedNormal",
    ]
)
# Operations that reach outside although TensorFlow does not call them stateful.
REACHING_OPERATIONS = frozenset(
    [
        "GenerateVocabRemapping",
        "LoadAndRemapMatrix",
        "MatchingFiles",
        "PyFuncStateless",
        "ReadFile",
        "Restore",
        "RestoreSlice",
        "ShardedFilename",
        "ShardedFilespec",
    ]
)


@dataclass(frozen=True, eq=False)
class Source:
    """A classifier that was given for conversion.

    Attributes:
        name: the model's own name.
        digest: SHA-256, in hex, of its architecture and weights.
        input_name: name of its one input.
        input_shape: `(height, width, 3)`.
        preprocessing: what the model itself says about its input, if it says anything.
        call: a float32 tensor `(batch, height, width, 3)` to a tensor `(batch, classes)`, in TensorFlow.
        batched: whether `call` takes any batch, or one image at a time.
        variables: what `call` reads; kept alive while a graph is made of it.
    """

    name: str
    digest: str
    input_name: str
    input_shape: tuple[int, int, int]
    preprocessing: Preprocessing | None
    call: Callable[[Any], Any]
    batched: bool
    variables: tuple[Any, ...]

    def predict(self, images: np.ndarray, *, batch: int = 4) -> np.ndarray:
        """Outputs `(n, classes)`, float32, for images `(n, height, width, 3)` in the range that the model takes."""
        batch = batch if self.batched else 1
        rows = [np.asarray(self.call(images[i : i + batch].astype(np.float32))) for i in range(0, len(images), batch)]
        return np.concatenate(rows).astype(np.float32).reshape(len(images), -1)


def load(path: str | os.PathLike, *, unsafe: bool = False) -> Any:
    """The Keras 3 model in a `.keras` file.

    Args:
        path: the file. Legacy `.h5` files are refused: Keras runs the code in them whatever it is told.
        unsafe: run the Python code that the file's Lambda layers hold. Only for files whose author one trusts.

    Raises:
        InputError: no such file, not a `.keras` file, a corrupt one, or one that needs code that is not allowed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"the model must be a file that exists. Received: {path}")
    if path.suffix != ".keras":
        raise InputError(
            f"a model file must be a .keras archive (save it with model.save('x.keras')). Received: {path}"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not a .keras archive, or a corrupt one ({error})") from error
    if not {"config.json", "metadata.json"} <= names:
        raise InputError(f"{path} is not a .keras archive: it must hold config.json and metadata.json")
    if unpacked > MAX_UNPACKED_RATIO * path.stat().st_size:
        raise InputError(f"{path} unpacks to {unpacked} bytes, over {MAX_UNPACKED_RATIO} times its size: refused")

    _require_tensorflow_backend()
    import keras

    try:
        return keras.models.load_model(path, compile=False, safe_mode=not unsafe)
    except Exception as error:  # Keras raises whatever the archive's content provokes
        text = str(error)
        if not unsafe and ("safe_mode" in text or "safe mode" in text):
            raise InputError(
                f"{path} holds a Lambda layer, which is Python code from the file; it is not run unless you trust "
                "its author and say so (--unsafe, or converters.load(path, unsafe=True))"
            ) from error
        text = text.rpartition("Exception encountered:")[2].strip() or type(error).__name__
        reason = text.splitlines()[0][:200]
        raise InputError(f"{path} cannot be loaded as a Keras 3 model: {reason}") from error


def open_source(model: Any, *, unsafe: bool = False) -> Source:
    """The Source for a Keras 3 model, a tf_keras model, or the path of a `.keras` file or a SavedModel folder.

    Raises:
        InputError: the model is missing, corrupt or hostile, or not one RGB image in and one row of classes out.
    """
    if isinstance(model, Source):
        return model
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        if path.is_dir():
            return _saved_model(path)
        return _keras_model(load(path, unsafe=unsafe), sidecar=_sidecar_preprocessing(path))
    if any(base.__module__.split(".")[0] in ("keras", "tf_keras") for base in type(model).__mro__):
        return _keras_model(model)
    raise InputError(
        f"a model must be a Keras model or the path of a .keras file or a SavedModel. Received: {type(model).__name__}"
    )


def _require_tensorflow_backend() -> None:
    if "keras" not in sys.modules and os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        import_tensorflow()
    import keras

    if keras.backend.backend() != "tensorflow":
        raise InputError(
            "conversion needs Keras's TensorFlow backend: save the model and convert the .keras file with "
            f"KERAS_BACKEND=tensorflow. Received: KERAS_BACKEND={keras.backend.backend()}"
        )


def _sidecar_preprocessing(path: Path) -> Preprocessing | None:
    try:
        return Preprocessing.from_dict(json.loads(path.with_suffix(".json").read_text())["preprocessing"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keras_model(model: Any, sidecar: Preprocessing | None = None) -> Source:
    if any(base.__module__.split(".")[0] == "keras" for base in type(model).__mro__):
        _require_tensorflow_backend()
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        raise InputError(
            "the model must be functional or a built Sequential, so that its input is known. "
            f"Received: {model.name!r}, a {type(model).__name__} without one"
        )
    if len(inputs) != 1 or len(outputs) != 1:
        raise InputError(
            f"the model must have one input and one output. Received: {len(inputs)} inputs and {len(outputs)} outputs"
        )
    shape = _checked_input_shape(inputs[0].shape)
    _checked_output_shape(outputs[0].shape)
    digest = hashlib.sha256(_architecture(model))
    for weight in model.get_weights():
        if not np.isfinite(weight).all():
            raise InputError(f"the model's weights must be finite. Received: {model.name!r} with NaN or infinity")
        digest.update(np.ascontiguousarray(weight))
    structure = getattr(model, "input", None)  # a Sequential that was not called yet has none
    name = next(iter(structure)) if isinstance(structure, dict) else inputs[0].name.split(":")[0]

    def call(images: Any) -> Any:
        result = model({name: images} if isinstance(structure, dict) else images, training=False)
        while isinstance(result, dict | list | tuple):
            result = next(iter(result.values() if isinstance(result, dict) else result))
        return result

    own = getattr(model, "preprocessing", None) or sidecar
    if not isinstance(own, Preprocessing) and name == PIXELS_INPUT:
        own = Preprocessing(shape[0]) if shape[0] == shape[1] else None
    return Source(
        name=model.name,
        digest=digest.hexdigest(),
        input_name=name,
        input_shape=shape,
        preprocessing=own if isinstance(own, Preprocessing) else None,
        call=call,
        batched=inputs[0].shape[0] is None,
        variables=tuple(getattr(v, "value", v) for v in model.variables),
    )


def _architecture(model: Any) -> bytes:
    """What distinguishes the model from another with the same weights."""
    try:
        return json.dumps(model.get_config(), sort_keys=True, default=str).encode()
    except NotImplementedError:  # a layer of the caller's own without get_config: no other model is known to be equal
        return os.urandom(32)


def _refuse_hostile(path: Path, meta_graph: Any) -> None:
    """Raise InputError when anything but saving and restoring may reach outside the graph.

    Every TensorFlow 2 SavedModel holds functions that save and restore its variables. They are what they are called
    only as long as nothing else calls them.
    """
    from tensorflow.python.framework import op_def_registry

    exposed = set(meta_graph.object_graph_def.concrete_functions)
    functions = {function.signature.name: function for function in meta_graph.graph_def.library.function}
    savers = {n for n in functions if n.startswith(("__inference__traced_save", "__inference__traced_restore"))}
    for name, function in functions.items():
        for node in function.node_def if name not in savers else ():
            for attribute in node.attr.values():
                exposed |= {attribute.func.name} | {called.name for called in attribute.list.func}
    found = set()
    for name, function in functions.items():
        if name in savers and name not in exposed:
            continue
        for node in function.node_def:
            definition = op_def_registry.get(node.op)
            known = definition is not None or node.op in functions
            stateful = definition is not None and definition.is_stateful and node.op not in STATEFUL_OPERATIONS
            if not known or stateful or node.op in REACHING_OPERATIONS:
                found.add(node.op)
    if found:
        raise InputError(
            f"{path} holds operations that may reach outside the model, and is not run: {', '.join(sorted(found))}"
        )


def _saved_model(path: Path) -> Source:
    if not (path / "saved_model.pb").is_file():
        raise InputError(f"a SavedModel folder must hold saved_model.pb. Received: {path}")
    import_tensorflow()
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file() and p.name != "fingerprint.pb"):
        digest.update(file.relative_to(path).as_posix().encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    try:
        proto = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    except Exception as error:  # protobuf's DecodeError lives in different places in different versions
        raise InputError(f"{path} is not a SavedModel, or a corrupt one") from error
    if not proto.meta_graphs or not all(meta.object_graph_def.nodes for meta in proto.meta_graphs):
        raise InputError(f"a SavedModel must be one that TensorFlow 2 saved. Received: {path}")
    for meta_graph in proto.meta_graphs:
        _refuse_hostile(path, meta_graph)
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:  # TensorFlow raises whatever the files provoke
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{path} cannot be loaded as a SavedModel: {reason}") from error
    signatures = dict(getattr(loaded, "signatures", {}))
    if "serving_default" not in signatures:
        raise InputError(
            f"a SavedModel must have the signature serving_default. Received: {sorted(signatures) or 'none'}"
        )
    function = signatures["serving_default"]
    specs = function.structured_input_signature[1]
    if len(specs) != 1 or len(function.structured_outputs) != 1:
        raise InputError(
            "the model must have one input and one output. Received: "
            f"{len(specs)} inputs and {len(function.structured_outputs)} outputs"
        )
    if any(v.dtype.is_floating and not np.isfinite(v.numpy()).all() for v in function.variables):
        raise InputError(f"the model's weights must be finite. Received: {path} with NaN or infinity")
    (name, spec), (output, output_spec) = next(iter(specs.items())), next(iter(function.structured_outputs.items()))
    shape = _checked_input_shape(spec.shape)
    _checked_output_shape(output_spec.shape)
    return Source(
        name=path.name,
        digest=digest.hexdigest(),
        input_name=name,
        input_shape=shape,
        preprocessing=Preprocessing(shape[0]) if name == PIXELS_INPUT and shape[0] == shape[1] else None,
        call=lambda images: function(**{name: tf.cast(images, spec.dtype)})[output],
        batched=spec.shape[0] is None,
        variables=(loaded,),
    )


def _checked_input_shape(shape: Any) -> tuple[int, int, int]:
    sizes = tuple(shape) if shape is not None else ()
    if len(sizes) != 4 or sizes[3] != 3 or not all(isinstance(n, int) and n > 0 for n in sizes[1:3]):
        raise InputError(
            "the model's input must be RGB images of one fixed size, (batch, height, width, 3). "
            f"Received: {_written(sizes)}"
        )
    if sizes[0] not in (None, 1):
        raise InputError(f"the model's batch must be free or 1. Received: {_written(sizes)}")
    return sizes[1], sizes[2], 3


def _checked_output_shape(shape: Any) -> None:
    sizes = tuple(shape) if shape is not None else ()
    if len(sizes) != 2 or not isinstance(sizes[1], int):
        raise InputError(f"the model's output must be (batch, classes). Received: {_written(sizes)}")


def _written(sizes: tuple) -> str:
    return "(" + ", ".join("free" if n is None else str(n) for n in sizes) + ")"
