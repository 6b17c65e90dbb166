"""SavedModel folders of TensorFlow 2.

An untrusted SavedModel can read and write files: operations that no classifier needs are refused before it is loaded.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.errors import InputError
from converters.memory import limited_memory
from converters.native_logs import import_tensorflow
from converters.sources.fixed_batch import of_one_image
from converters.sources.graph_sizes import check_graph
from converters.sources.saved_model_graph import in_float32, refuse_quantized, refuse_random
from converters.sources.saved_model_guard import refuse_unsafe
from converters.sources.source import (
    Source,
    check_input_shape,
    check_output_shape,
    chosen_output,
    default_preprocessing,
    forward_pass,
)

SECONDS = 40  # for one image


def open_saved_model(
    path: Path, input_size: tuple[int, int] | None = None, output: str | None = None, *, unsafe: bool = False
) -> Source:
    """The Source of a SavedModel folder.

    Args:
        path: the folder.
        input_size: `(height, width)`, where the model's are free.
        output: the name of the output to convert, where the signature has several.
        unsafe: run whatever operations it holds. Only for a model from a trusted author.

    Raises:
        InputError: the folder is not a TensorFlow 2 SavedModel, is corrupt or may reach outside the model, or its
            signature is not one image in and one row of classes out.
    """
    if not (path / "saved_model.pb").is_file():
        raise InputError(f"a SavedModel folder must hold saved_model.pb. Received: {path}")
    import_tensorflow()
    import tensorflow as tf

    proto = _read(path)
    if not unsafe:
        refuse_unsafe(path, proto)
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:  # TensorFlow raises whatever the files provoke
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{path} cannot be loaded as a SavedModel: {reason}") from error
    signatures = getattr(loaded, "signatures", {})
    names = sorted(signatures) if isinstance(signatures, Mapping) else []
    if "serving_default" not in names and len(names) != 1:
        raise InputError(
            "a SavedModel must have the signature serving_default, or one alone: save it with "
            f"tf.saved_model.save(model, folder, signatures=function). Received: {names or 'none'}"
        )
    function = signatures["serving_default" if "serving_default" in names else names[0]]
    specs, outputs = function.structured_input_signature[1], sorted(function.structured_outputs)
    chosen = outputs[chosen_output(sorted(specs), outputs, output)]
    if any(v.dtype.is_floating and not np.isfinite(v.numpy()).all() for v in function.variables):
        raise InputError(f"the model's weights must be finite. Received: {path} with NaN or infinity")
    ((name, spec),) = specs.items()
    shape = check_input_shape(None if spec.shape.rank is None else spec.shape.as_list(), input_size)
    check_output_shape(function.structured_outputs[chosen].shape)
    refuse_quantized(function, path)
    check_graph(function.graph, path.name)
    run = in_float32(function) if shape.batch in (None, 1) else _of_one_image(function, outputs, path)

    def call(images: Any) -> Any:
        images = tf.cast(images, spec.dtype)
        images = tf.reshape(images, (-1, *shape.images[:2])) if shape.without_channels else images
        return run(**{name: images})[chosen]

    with forward_pass(path.name), limited_memory(sum(file.stat().st_size for file in path.rglob("*"))):
        _run_once(call, shape.images, path)
        refuse_random(function, call, shape.images, path)
    return Source(
        name=path.name,
        digest=_digest(path, f"{shape.images} {chosen}" if input_size or output else ""),
        input_name=name,
        input_shape=shape.images,
        preprocessing=default_preprocessing(name, shape.images),
        call=call,
        batched=shape.batch is None,
        variables=(loaded,),
        takes_integers=spec.dtype.is_integer,
    )


def _run_once(call: Callable[[Any], Any], shape: tuple[int, ...], path: Path) -> None:
    """Run a model on an image of zeros; InputError if it does not end in time, as an untrusted loop may not."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            np.asarray(call(np.zeros((1, *shape), np.float32)))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)  # TensorFlow cannot be interrupted
    thread.start()
    thread.join(SECONDS)
    if thread.is_alive():
        raise InputError(f"{path} must classify an image in {SECONDS} s. Received: a model that takes longer")
    if errors:
        raise errors[0]


def _of_one_image(function: Any, outputs: list[str], path: Path) -> Callable[..., dict[str, Any]]:
    """A signature of a fixed batch size as a function of one image."""
    run = of_one_image(function, str(path))
    return lambda **images: dict(zip(outputs, run(*images.values()), strict=True))


def _digest(path: Path, chosen: str) -> str:
    """SHA-256 of the files, and of what was chosen beyond them."""
    digest = hashlib.sha256(chosen.encode())
    for file in sorted(p for p in path.rglob("*") if p.is_file() and p.name != "fingerprint.pb"):
        digest.update(file.relative_to(path).as_posix().encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _read(path: Path) -> Any:
    """The protocol buffer of a SavedModel. Raises InputError if it is corrupt or was not saved by TensorFlow 2."""
    from tensorflow.core.protobuf import saved_model_pb2

    other = next((p for p in sorted(path.rglob("*")) if not (p.is_file() or p.is_dir())), None)
    if other is not None:  # reading a pipe or a device could wait forever
        raise InputError(f"a SavedModel folder must hold regular files. Received: {other}")
    try:
        proto = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    except Exception as error:  # protobuf's DecodeError lives in different places in different versions
        raise InputError(f"{path} is not a SavedModel, or is corrupt") from error
    if not proto.meta_graphs or not all(meta.object_graph_def.nodes for meta in proto.meta_graphs):
        raise InputError(
            "a SavedModel must have been saved by TensorFlow 2: convert one of TensorFlow 1 to a float .tflite file "
            f"with tf.lite.TFLiteConverter.from_saved_model, and give that file. Received: {path}"
        )
    return proto
