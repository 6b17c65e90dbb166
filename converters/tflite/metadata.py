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

from converters.errors import InputError
from converters.tflite.graph import Graph

STANDARD_NAME = b"TFLITE_METADATA"
OWN_NAME = b"EDGE_CV_METADATA"
LABEL_FILE = "labels.txt"
ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the same content gives the same bytes

# values of the schema's enums and unions
_IMAGE_PROPERTIES, _FEATURE_PROPERTIES = 2, 1
_COLOR_SPACE_RGB = 1
_NORMALIZATION_OPTIONS = 1
_TENSOR_AXIS_LABELS = 2


def embed(graph: Graph, record: dict[str, Any], labels: Sequence[str] | None) -> bytes:
    """The TFLite file with the standard metadata, the record and the label file.

    Args:
        graph: of the file; changed in place.
        record: a `Record` as JSON; its `input`, `output` and `name` also fill the standard metadata.
        labels: class names in the order of the outputs, or None.
    """
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

    if len(content) < 8 or content[4:8] != b"TFL3":
        raise InputError("a TFLite file must begin with the identifier TFL3; this one does not")
    try:
        model = schema.Model.GetRootAs(content, 0)
        for index in range(model.MetadataLength()):
            entry = model.Metadata(index)
            if entry.Name() == OWN_NAME:
                record = json.loads(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
                return record if isinstance(record, dict) else None
    except Exception:  # whatever flatbuffers and json raise on untrusted bytes: there is no readable record
        return None
    return None


def _standard(record: dict[str, Any], labels: Sequence[str] | None) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1024)

    def strings(**fields: str) -> dict[str, int]:
        return {name: builder.CreateString(text) for name, text in fields.items()}

    def table(slots: int, fields: dict[int, tuple[str, Any, Any]]) -> int:
        builder.StartObject(slots)
        for slot, (kind, value, default) in fields.items():
            getattr(builder, f"Prepend{kind}Slot")(slot, value, default)
        return builder.EndObject()

    def vector(offsets: Sequence[int]) -> int:
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    def floats(values: Sequence[float]) -> int:
        builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            builder.PrependFloat32(float(value))
        return builder.EndVector()

    def offset(value: int) -> tuple[str, int, int]:
        return "UOffsetTRelative", value, 0

    # TensorMetadata: name, description, dimension_names, content, process_units, stats, associated_files
    mean, std = record["input"]["mean"], record["input"]["std"]
    options = table(2, {0: offset(floats(mean)), 1: offset(floats(std))})
    unit = table(2, {0: ("Uint8", _NORMALIZATION_OPTIONS, 0), 1: offset(options)})
    image = table(2, {0: ("Int8", _COLOR_SPACE_RGB, 0)})
    content = table(3, {0: ("Uint8", _IMAGE_PROPERTIES, 0), 1: offset(image)})
    low, high = record["input"]["range"]
    stats = table(2, {0: offset(floats([high])), 1: offset(floats([low]))})
    text = strings(name="image", description=record["input"]["description"])
    units = vector([unit])
    tensor_in = table(
        7,
        {
            0: offset(text["name"]),
            1: offset(text["description"]),
            3: offset(content),
            4: offset(units),
            5: offset(stats),
        },
    )

    fields = {3: offset(table(3, {0: ("Uint8", _FEATURE_PROPERTIES, 0), 1: offset(table(0, {}))}))}
    if labels is not None:
        text = strings(name=LABEL_FILE, description="Class names, one a line, in the order of the outputs.")
        file = table(5, {0: offset(text["name"]), 1: offset(text["description"]), 2: ("Int8", _TENSOR_AXIS_LABELS, 0)})
        fields[6] = offset(vector([file]))
    meaning = {
        "logits": "One logit a class; softmax of the dequantized logits is the probability.",
        "probabilities": "One probability a class, after dequantizing.",
    }
    values = record["output"]["values"]
    text = strings(name=values, description=meaning[values])
    tensor_out = table(7, {0: offset(text["name"]), 1: offset(text["description"]), **fields})

    # SubGraphMetadata: name, description, input_tensor_metadata, output_tensor_metadata, ...
    inputs, outputs = vector([tensor_in]), vector([tensor_out])
    subgraph = table(10, {2: offset(inputs), 3: offset(outputs)})
    # ModelMetadata: name, description, version, subgraph_metadata, author, license, files, min_parser_version
    text = strings(
        name=record["name"],
        description=f"{record['name']}, {record['scheme']}: image classifier",
        version="v1",
        parser="1.0.0",
    )
    subgraphs = vector([subgraph])
    root = table(
        8,
        {
            0: offset(text["name"]),
            1: offset(text["description"]),
            2: offset(text["version"]),
            3: offset(subgraphs),
            7: offset(text["parser"]),
        },
    )
    builder.Finish(root, file_identifier=b"M001")
    return bytes(builder.Output())
