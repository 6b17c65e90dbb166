"""Packing a model of the TFLite schema into the bytes of a file."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

ALIGNMENT_BYTES = 16  # `force_align` of Buffer.data in the schema; XNNPACK reads weights in place


def pack(model: Any) -> bytearray:
    """The bytes of a model of the schema, its buffers aligned to 16 bytes."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    builder = flatbuffers.Builder(sum(len(b.data) for b in model.buffers if b.data is not None) + (1 << 16))

    def pack_aligned(buffer: Any, builder: Any) -> int:
        offset = None
        if buffer.data is not None and len(buffer.data):
            data = np.asarray(buffer.data, np.uint8)
            builder.StartVector(1, len(data), ALIGNMENT_BYTES)
            builder.head -= len(data)
            builder.Bytes[builder.head : builder.head + len(data)] = data.tobytes()
            offset = builder.EndVector()
        schema.BufferStart(builder)
        if offset is not None:
            schema.BufferAddData(builder, offset)
        return schema.BufferEnd(builder)

    for buffer in model.buffers:
        buffer.Pack = functools.partial(pack_aligned, buffer)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    for buffer in model.buffers:
        del buffer.Pack
    return builder.Output()
