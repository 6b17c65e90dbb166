"""Metadata inside a TFLite file.

`TFLITE_METADATA` is the flatbuffer that MediaPipe, ML Kit and the TFLite Task Library read: the image input with its
normalization, the output with its label file, and the label file itself as an uncompressed zip after the model.
`EDGE_CV_METADATA` is the conversion's record as JSON, see `converters.record`.
Schema: https://github.com/tensorflow/tflite-support/blob/master/tensorflow_lite_support/metadata/metadata_schema.fbs
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from typing import Any

from converters import strict_json
from converters.tflite.checks import check_identifier
from converters.tflite.graph import Graph

STANDARD_NAME = b"TFLITE_METADATA"
OWN_NAME = b"EDGE_CV_METADATA"
LABEL_FILE = "labels.txt"
ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the same content gives the same bytes

# values of the schema's enums and unions
_IMAGE_PROPERTIES, _FEATURE_PROPERTIES = 2, 1
_COLOR_SPACES = {3: 1, 1: 2}  # by channels: RGB, GRAYSCALE
_NORMALIZATION_OPTIONS = 1
_TENSOR_AXIS_LABELS = 2
_Field = tuple[str, Any, Any]  # the kind of a table's field, its value and its default


def embed(graph: Graph, record: dict[str, Any], labels: Sequence[str] | None) -> bytes:
    """The TFLite file with the standard metadata, the record and the label file.

    Args:
        graph: of the file; changed in place.
        record: a `Record` as JSON; its `input`, `output` and `name` also fill the standard metadata.
        labels: class names in the order of the outputs, or None. Of the two of a single output the label file has the
            second: readers of the standard metadata expect one line an output.
    """
    if labels is not None and list(record["output"]["shape"])[-1:] == [1]:
        labels = labels[-1:]
    text = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
    graph.set_metadata(STANDARD_NAME, _standard(record, labels))
    graph.set_metadata(OWN_NAME, text)
    result = graph.to_bytes()
    if labels is None:
        return result
    stream = io.BytesIO(result)
    stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(LABEL_FILE, ZIP_TIME), "\n".join(labels) + "\n")
    return stream.getvalue()


def read_embedded(content: bytes) -> dict[str, Any] | None:
    """The record inside a TFLite file; None when there is none or it cannot be read. InputError for other files."""
    from ai_edge_litert import schema_py_generated as schema

    check_identifier(content)
    try:
        model = schema.Model.GetRootAs(content, 0)
        for index in range(model.MetadataLength()):
            entry = model.Metadata(index)
            if entry.Name() == OWN_NAME:
                record = strict_json.parse(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes(), "a record")
                return record if isinstance(record, dict) else None
    except Exception:  # whatever flatbuffers and json raise on untrusted bytes: there is no readable record
        return None
    return None


def _standard(record: dict[str, Any], labels: Sequence[str] | None) -> bytes:
    """The flatbuffer of the standard metadata."""
    build = _Tables()
    inputs = build.vector([_input(build, record["input"])])
    outputs = build.vector([_output(build, record["output"], labels)])
    # SubGraphMetadata: name, description, input_tensor_metadata, output_tensor_metadata, ...
    subgraph = build.table(10, {2: build.offset(inputs), 3: build.offset(outputs)})
    # ModelMetadata: name, description, version, subgraph_metadata, author, license, files, min_parser_version
    text = build.strings(
        name=record["name"],
        description=f"{record['name']}, {record['scheme']}: image classifier",
        version="v1",
        parser="1.0.0",
    )
    subgraphs = build.vector([subgraph])
    root = build.table(
        8,
        {
            0: build.offset(text["name"]),
            1: build.offset(text["description"]),
            2: build.offset(text["version"]),
            3: build.offset(subgraphs),
            7: build.offset(text["parser"]),
        },
    )
    return build.finish(root)


def _input(build: _Tables, record: dict[str, Any]) -> int:
    """The TensorMetadata of the image: name, description, dimensions, content, process units, stats, files."""
    options = build.table(
        2, {0: build.offset(build.floats(record["mean"])), 1: build.offset(build.floats(record["std"]))}
    )
    unit = build.table(2, {0: ("Uint8", _NORMALIZATION_OPTIONS, 0), 1: build.offset(options)})
    image = build.table(2, {0: ("Int8", _COLOR_SPACES.get(record["shape"][-1], 0), 0)})
    content = build.table(3, {0: ("Uint8", _IMAGE_PROPERTIES, 0), 1: build.offset(image)})
    low, high = record["range"]
    stats = build.table(2, {0: build.offset(build.floats([high])), 1: build.offset(build.floats([low]))})
    text = build.strings(name="image", description=record["description"])
    units = build.vector([unit])
    return build.table(
        7,
        {
            0: build.offset(text["name"]),
            1: build.offset(text["description"]),
            3: build.offset(content),
            4: build.offset(units),
            5: build.offset(stats),
        },
    )


def _output(build: _Tables, record: dict[str, Any], labels: Sequence[str] | None) -> int:
    """The TensorMetadata of the outputs, with the label file if there is one."""
    properties = build.table(3, {0: ("Uint8", _FEATURE_PROPERTIES, 0), 1: build.offset(build.table(0, {}))})
    fields = {3: build.offset(properties)}
    if labels is not None:
        text = build.strings(name=LABEL_FILE, description="Class names, one a line, in the order of the outputs.")
        file = build.table(
            5,
            {
                0: build.offset(text["name"]),
                1: build.offset(text["description"]),
                2: ("Int8", _TENSOR_AXIS_LABELS, 0),
            },
        )
        fields[6] = build.offset(build.vector([file]))
    meaning = {
        "logits": f"One logit a class; {record.get('activation') or 'softmax'} of the dequantized logits is the "
        "probability.",
        "probabilities": "One probability a class, after dequantizing.",
    }
    text = build.strings(name=record["values"], description=meaning[record["values"]])
    return build.table(7, {0: build.offset(text["name"]), 1: build.offset(text["description"]), **fields})


class _Tables:
    """Builds a flatbuffer without the schema's generated code."""

    def __init__(self) -> None:
        import flatbuffers

        self._builder = flatbuffers.Builder(1024)

    @staticmethod
    def offset(value: int) -> _Field:
        return "UOffsetTRelative", value, 0

    def strings(self, **fields: str) -> dict[str, int]:
        return {name: self._builder.CreateString(text) for name, text in fields.items()}

    def table(self, slots: int, fields: dict[int, _Field]) -> int:
        self._builder.StartObject(slots)
        for slot, (kind, value, default) in fields.items():
            getattr(self._builder, f"Prepend{kind}Slot")(slot, value, default)
        return self._builder.EndObject()

    def vector(self, offsets: Sequence[int]) -> int:
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return self._builder.EndVector()

    def floats(self, values: Sequence[float]) -> int:
        self._builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self._builder.PrependFloat32(float(value))
        return self._builder.EndVector()

    def finish(self, root: int) -> bytes:
        self._builder.Finish(root, file_identifier=b"M001")
        return bytes(self._builder.Output())
