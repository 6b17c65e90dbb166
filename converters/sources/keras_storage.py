"""What a Keras model file stores: its configuration and the sizes of its arrays, read before any memory is taken."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.errors import InputError, WeightsAlone
from converters.files import open_regular

HDF5_SUFFIXES = (".h5", ".hdf5")
_TORCH = "convert a PyTorch model to a float .tflite file with litert-torch"
OTHER_FORMATS = {  # what to do, by suffix
    ".onnx": "convert an ONNX file to a float .tflite file with onnx2tf",
    ".pb": "give the folder of a SavedModel, or convert a frozen graph to a float .tflite file with "
    "tf.compat.v1.lite.TFLiteConverter.from_frozen_graph",
    **dict.fromkeys((".pt", ".pth", ".pt2", ".ckpt", ".safetensors"), _TORCH),
}
MAX_UNPACKED_RATIO = 50  # weights hardly compress: a file that unpacks to more is a decompression bomb
MAX_CONFIG_BYTES = 100_000_000
# Beside the stored arrays: seeds, and the statistics that some layers keep for themselves.
MAX_DECLARED_RATIO, MAX_UNSTORED_VALUES = 1.5, 1_000_000


@dataclass(frozen=True)
class StoredModel:
    """A whole model in a file.

    Attributes:
        path: the file.
        config: the model's configuration.
        keras_version: of the Keras that wrote it; "2" where the file does not say.
        values: the number of values in all arrays.
    """

    path: Path
    config: dict[str, Any]
    keras_version: str
    values: int

    @property
    def is_archive(self) -> bool:
        """Whether it is a `.keras` archive, not an HDF5 file."""
        return self.path.suffix not in HDF5_SUFFIXES

    def check_values(self, declared: int) -> None:
        """Raise InputError if a model declares far more values than the file stores."""
        if declared > MAX_DECLARED_RATIO * self.values + MAX_UNSTORED_VALUES:
            raise InputError(
                f"{self.path} declares layers of {declared:,} weights, but stores {self.values:,} values: refused"
            )


def read_stored(path: Path) -> StoredModel:
    """Read the configuration of a `.keras`, `.h5` or `.hdf5` file, and the sizes of its arrays.

    Raises:
        InputError: the file is of another kind, corrupt or a decompression bomb, or holds weights alone.
    """
    if path.suffix in (".keras", *HDF5_SUFFIXES):
        hdf5 = path.suffix in HDF5_SUFFIXES
        _check_kind(path, ".keras" if hdf5 else ".h5", b"PK\x03\x04" if hdf5 else b"\x89HDF")
        return _read_hdf5(path) if hdf5 else _read_archive(path)
    lower = path.suffix.lower()
    other = OTHER_FORMATS.get(lower, "save it with model.save('x.keras')")
    if lower in (".keras", ".tflite", *HDF5_SUFFIXES):
        other = f"rename it to {path.with_suffix(lower).name}"
    raise InputError(
        "a model file must be a .keras archive, a whole model in an .h5 file, a float .tflite file or a SavedModel "
        f"folder: {other}. Received: {path}"
    )


def check_arrays(path: Path) -> None:
    """Raise InputError if an HDF5 file is corrupt, refers to other files or is a decompression bomb."""
    if path.suffix in HDF5_SUFFIXES:
        _count_values(path, path)


def _check_kind(path: Path, other: str, start: bytes) -> None:
    """Raise InputError if a file begins as one of the other kind does."""
    with open_regular(path) as file:
        if file.read(len(start)) == start:
            raise InputError(
                f"{path} holds a model of another kind than its name says: rename it to {path.with_suffix(other).name}"
            )


def _read_archive(path: Path) -> StoredModel:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            _check_unpacked(path, sum(entry.file_size for entry in entries.values()))
            if not {"config.json", "metadata.json"} <= entries.keys():
                raise InputError(f"{path} is not a .keras archive: it must hold config.json and metadata.json")
            for name in ("config.json", "metadata.json"):
                if entries[name].file_size > MAX_CONFIG_BYTES:
                    raise InputError(f"{path} holds a configuration of {entries[name].file_size:,} bytes: refused")
            config, metadata = (_parsed(path, archive.read(name)) for name in ("config.json", "metadata.json"))
            values = 0
            if "model.weights.h5" in entries:
                entry = archive.open("model.weights.h5")
                stored = entries["model.weights.h5"].compress_type == zipfile.ZIP_STORED
                values = _count_values(entry if stored else io.BytesIO(entry.read()), path)
    except InputError:
        raise
    except Exception as error:  # zipfile and its decompressors raise many types
        raise InputError(f"{path} is not a .keras archive, or is corrupt ({error})") from error
    return StoredModel(path, config, str(metadata.get("keras_version", "3")), values)


def _read_hdf5(path: Path) -> StoredModel:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
            version = file.attrs.get("keras_version", "2")
        values = _count_values(path, path)
    except InputError:
        raise
    except Exception as error:  # HDF5 raises whatever the bytes provoke
        raise InputError(f"{path} is not an HDF5 file of a Keras model, or is corrupt") from error
    if text is None:
        raise WeightsAlone(
            "an .h5 file must hold a whole model, as model.save writes it, not weights alone: load the weights into "
            f"the model that they belong to, and convert that. Received: {path}"
        )
    version = version.decode(errors="replace") if isinstance(version, bytes) else str(version)
    return StoredModel(path, _parsed(path, text), version, values)


def _parsed(path: Path, text: str | bytes) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path} cannot be loaded as a Keras model: its configuration is not JSON") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} cannot be loaded as a Keras model: its configuration is not a JSON object")
    return config


def _count_values(file: Any, path: Path) -> int:
    """The number of values in an HDF5 file; InputError when it refers to other files, or unpacks to far more."""
    import h5py

    nbytes = values = 0

    def visit(name: str, item: Any) -> None:
        nonlocal nbytes, values
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise InputError(f"{path} refers to data in other files ({name}), and is not read")
            if item.dtype.hasobject or item.dtype.kind in "cSU":
                raise InputError(f"{path} must hold arrays of numbers. Received: {item.dtype} ({name})")
            nbytes, values = nbytes + item.nbytes, values + item.size

    def foreign(name: str, link: Any) -> str | None:  # not raising: h5py would turn that into an error of its own
        return name if isinstance(link, h5py.ExternalLink) else None

    try:
        with h5py.File(file, "r") as opened:
            if (link := opened.visititems_links(foreign)) is not None:
                raise InputError(f"{path} refers to data in other files ({link}), and is not read")
            opened.visititems(visit)
    except InputError:
        raise
    except Exception as error:  # HDF5 raises whatever the bytes provoke
        raise InputError(f"{path} is not a Keras model, or is corrupt: its weights cannot be read") from error
    _check_unpacked(path, nbytes)
    return values


def _check_unpacked(path: Path, unpacked: int) -> None:
    if unpacked > MAX_UNPACKED_RATIO * path.stat().st_size:
        raise InputError(f"{path} unpacks to {unpacked} bytes, over {MAX_UNPACKED_RATIO} times its size: refused")
