"""The zip format of torch.save: read without torch, and refused if its content is not arrays."""

from __future__ import annotations

import collections
import io
import pickle
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
from torch_pickles import Rebuilt, TorchPickler, TorchStorage
from torchvision_alexnet import torchvision_arrays

from converters.errors import InputError
from edge_cv.models import torch_files


class Storage(TorchStorage):
    def __init__(self, kind: type, key: str, length: int):
        self.identity = ("storage", kind, key, "cpu", length)


def torch_zip(
    torch: types.ModuleType,
    path: Path,
    arrays: dict[str, np.ndarray],
    *,
    declared: int = 0,
    compression=zipfile.ZIP_STORED,
) -> Path:
    """What torch.save writes since version 1.6; `declared` is added to the lengths that the pickle states."""
    state = collections.OrderedDict()
    with zipfile.ZipFile(path, "w", compression) as archive:
        for key, (name, array) in enumerate(arrays.items()):
            strides = tuple(step // array.itemsize for step in array.strides)
            storage = Storage(torch.FloatStorage, str(key), array.size + declared)
            unused = collections.OrderedDict()
            state[name] = Rebuilt(torch._rebuild, storage, 0, array.shape, strides, False, unused)
            archive.writestr(f"archive/data/{key}", array.tobytes())
        stream = io.BytesIO()
        TorchPickler(stream, 2).dump(state)
        archive.writestr("archive/data.pkl", stream.getvalue())
        archive.writestr("archive/version", "3\n")
    return path


def test_zip_holds_the_arrays_that_were_written(torch, tmp_path):
    arrays = torchvision_arrays(0.03125, 3)
    read = torch_files.read_torch(torch_zip(torch, tmp_path / "weights.pth", arrays))

    assert list(read) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)


def test_zip_that_is_compressed_too_short_truncated_or_big_endian_is_refused(torch, tmp_path):
    arrays = {"a": np.arange(12, dtype=np.float32).reshape(3, 4)}
    whole = torch_zip(torch, tmp_path / "whole.pth", arrays)
    half = tmp_path / "half.pth"
    half.write_bytes(whole.read_bytes()[:300])
    big_endian = torch_zip(torch, tmp_path / "big.pth", arrays)
    with zipfile.ZipFile(big_endian, "a") as archive:
        archive.writestr("archive/byteorder", "big")
    bad = [
        torch_zip(torch, tmp_path / "bomb.pth", arrays, compression=zipfile.ZIP_DEFLATED),
        torch_zip(torch, tmp_path / "short.pth", arrays, declared=1 << 40),
        half,
        big_endian,
    ]
    for path in bad:
        with pytest.raises(InputError, match=rf"{path.name} must be a complete state dictionary"):
            torch_files.read_torch(path)


def test_zip_whose_pickle_calls_something_is_refused_and_not_run(tmp_path):
    mark = tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return Path.touch, (mark,)

    with zipfile.ZipFile(tmp_path / "hostile.pth", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Hostile(), 2))
    with pytest.raises(InputError, match=r"must contain only arrays\. Received: the global"):
        torch_files.read_torch(tmp_path / "hostile.pth")
    assert not mark.exists()
