"""SavedModel folders of TensorFlow 2.

An untrusted SavedModel can read and write files: a graph with such operations is refused before it is loaded.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import InputError
from converters.native_logs import import_tensorflow
from converters.sources.source import Source, check_input_shape, check_output_shape, default_preprocessing

# The stateful operations that a classifier may use: variables, control flow and random numbers.
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
# Operations that reach outside the model although TensorFlow does not mark them as stateful.
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


def open_saved_model(path: Path) -> Source:
    """The Source of a SavedModel folder.

    Raises:
        InputError: the folder is not a TensorFlow 2 SavedModel, is corrupt or may reach outside the model, or its
            signature is not one RGB image in and one row of classes out.
    """
    if not (path / "saved_model.pb").is_file():
        raise InputError(f"a SavedModel folder must hold saved_model.pb. Received: {path}")
    import_tensorflow()
    import tensorflow as tf

    _refuse_unsafe(path)
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
    shape = check_input_shape(spec.shape)
    check_output_shape(output_spec.shape)
    return Source(
        name=path.name,
        digest=_digest(path),
        input_name=name,
        input_shape=shape,
        preprocessing=default_preprocessing(name, shape),
        call=lambda images: function(**{name: tf.cast(images, spec.dtype)})[output],
        batched=spec.shape[0] is None,
        variables=(loaded,),
    )


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file() and p.name != "fingerprint.pb"):
        digest.update(file.relative_to(path).as_posix().encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _refuse_unsafe(path: Path) -> None:
    """Raise InputError when the folder is not a TensorFlow 2 SavedModel, or holds unsafe operations."""
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        proto = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    except Exception as error:  # protobuf's DecodeError lives in different places in different versions
        raise InputError(f"{path} is not a SavedModel, or is corrupt") from error
    if not proto.meta_graphs or not all(meta.object_graph_def.nodes for meta in proto.meta_graphs):
        raise InputError(f"a SavedModel must have been saved by TensorFlow 2. Received: {path}")
    unsafe = {operation for meta_graph in proto.meta_graphs for operation in _unsafe_operations(meta_graph)}
    if unsafe:
        raise InputError(
            f"{path} holds operations that may reach outside the model, and is not run: {', '.join(sorted(unsafe))}"
        )


def _unsafe_operations(meta_graph: Any) -> set[str]:
    """The operations that may reach outside the graph, other than those that save and restore the variables.

    Every TensorFlow 2 SavedModel holds functions that save and restore its variables. They are trusted only as long as
    nothing else calls them.
    """
    from tensorflow.python.framework import op_def_registry

    exposed = set(meta_graph.object_graph_def.concrete_functions)
    functions = {function.signature.name: function for function in meta_graph.graph_def.library.function}
    savers = {n for n in functions if n.startswith(("__inference__traced_save", "__inference__traced_restore"))}
    for name, function in functions.items():
        for node in function.node_def if name not in savers else ():
            for attribute in node.attr.values():
                exposed |= {attribute.func.name} | {called.name for called in attribute.list.func}
    unsafe = set()
    for name, function in functions.items():
        if name in savers and name not in exposed:
            continue
        for node in function.node_def:
            definition = op_def_registry.get(node.op)
            defined = definition is not None or node.op in functions
            stateful = definition is not None and definition.is_stateful and node.op not in STATEFUL_OPERATIONS
            if not defined or stateful or node.op in REACHING_OPERATIONS:
                unsafe.add(node.op)
    return unsafe
