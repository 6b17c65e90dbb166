"""The metadata in a TFLite file, read with nothing but struct and zipfile."""

from __future__ import annotations

import io
import json
import struct
import zipfile

import numpy as np
import pytest

from converters import Int8, to_tflite
from converters.tflite.graph import Graph
from converters.tflite.metadata import embed, read_embedded
from converters.tflite.runtime import interpreter

NAMES = [f"Katze {i}, größer" for i in range(10)]


class Table:
    """A flatbuffer table read by the format's rules: https://flatbuffers.dev/internals/"""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self.vtable = at - struct.unpack_from("<i", data, at)[0]

    @classmethod
    def root(cls, data: bytes) -> Table:
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def place(self, slot: int) -> int | None:
        if 4 + 2 * slot >= struct.unpack_from("<H", self.data, self.vtable)[0]:
            return None
        offset = struct.unpack_from("<H", self.data, self.vtable + 4 + 2 * slot)[0]
        return self.at + offset if offset else None

    def number(self, slot: int, kind: str) -> float:
        return struct.unpack_from("<" + kind, self.data, self.place(slot))[0]

    def _target(self, slot: int) -> int:
        place = self.place(slot)
        return place + struct.unpack_from("<I", self.data, place)[0]

    def table(self, slot: int) -> Table:
        return Table(self.data, self._target(slot))

    def text(self, slot: int) -> str:
        return self.vector(slot).decode()

    def vector(self, slot: int, width: int = 1) -> bytes:
        at = self._target(slot)
        count = struct.unpack_from("<I", self.data, at)[0]
        return self.data[at + 4 : at + 4 + count * width]

    def tables(self, slot: int) -> list[Table]:
        at = self._target(slot)
        places = range(at + 4, at + 4 + 4 * struct.unpack_from("<I", self.data, at)[0], 4)
        return [Table(self.data, p + struct.unpack_from("<I", self.data, p)[0]) for p in places]


def _standard(content: bytes) -> Table:
    model = Table.root(content)  # Model: version, operator_codes, subgraphs, description, buffers, _, metadata
    (entry,) = [m for m in model.tables(6) if m.text(0) == "TFLITE_METADATA"]
    data = model.tables(4)[int(entry.number(1, "I"))].vector(0)
    assert data[4:8] == b"M001"
    return Table.root(data)


@pytest.fixture(scope="module", params=["float32", "uint8", "int8"])
def conversion(request, small_model, pixels):
    scheme = "float32" if request.param == "float32" else Int8(io=request.param)
    return to_tflite(small_model, scheme, calibration=pixels, labels=NAMES)


def test_the_standard_metadata_describes_input_and_output(conversion):
    root = _standard(conversion.content)
    assert root.text(0) == "small"
    (subgraph,) = root.tables(3)
    (image,), (scores,) = subgraph.tables(2), subgraph.tables(3)
    assert image.text(0) == "image"
    content = image.table(3)
    assert content.number(0, "B") == 2, "ContentProperties.ImageProperties"
    assert content.table(1).number(0, "b") == 1, "ColorSpaceType.RGB"
    (unit,) = image.tables(4)
    assert unit.number(0, "B") == 1, "ProcessUnitOptions.NormalizationOptions"
    mean, std = (np.frombuffer(unit.table(1).vector(slot, 4), "<f4") for slot in (0, 1))
    entry = conversion.metadata["input"]
    np.testing.assert_allclose(mean, entry["mean"], rtol=1e-6)
    np.testing.assert_allclose(std, entry["std"], rtol=1e-6)
    assert scores.text(0) == "logits"
    (labels,) = scores.tables(6)
    assert labels.text(0) == "labels.txt"
    assert labels.number(2, "b") == 2, "AssociatedFileType.TENSOR_AXIS_LABELS"


def test_a_reader_who_normalizes_and_quantizes_by_the_tensors_numbers_gets_the_pixel(conversion):
    """The way of the TFLite Task Library: (pixel - mean) / std, then the tensor's scale and zero point."""
    entry = conversion.metadata["input"]
    pixel = np.arange(256)
    x = (pixel - entry["mean"][0]) / entry["std"][0]
    if entry["dtype"] == "float32":
        np.testing.assert_array_equal(x, pixel)
    else:
        q = np.rint(x / entry["scale"] + entry["zero_point"])
        np.testing.assert_array_equal(q, pixel + entry["pixel_offset"])


def test_the_label_file_is_a_zip_behind_the_model(conversion):
    with zipfile.ZipFile(io.BytesIO(conversion.content)) as archive:
        assert archive.namelist() == ["labels.txt"]
        assert archive.testzip() is None
        assert archive.read("labels.txt").decode().splitlines() == NAMES
        assert archive.infolist()[0].compress_type == zipfile.ZIP_STORED


def test_our_record_stands_in_the_file(conversion):
    record = read_embedded(conversion.content)
    assert record == json.loads(json.dumps(conversion.metadata))
    assert record["labels"] == NAMES
    assert record["versions"]["tensorflow"]
    assert len(record["source_sha256"]) == 64


def test_the_metadata_changes_neither_outputs_nor_size_much(conversion, pixels):
    bare = Graph(conversion.content).to_bytes()
    again = embed(Graph(bare), conversion.metadata, NAMES)
    assert again == conversion.content, "embedding again replaces, and gives the same bytes"
    interpreter(again)


def test_no_labels_no_zip(small_model):
    conversion = to_tflite(small_model, "float32")
    assert not zipfile.is_zipfile(io.BytesIO(conversion.content))
    assert conversion.labels is None
    (subgraph,) = _standard(conversion.content).tables(3)
    assert subgraph.tables(3)[0].place(6) is None
