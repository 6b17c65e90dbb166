"""How the channels of an equalized TFLite file map to the float model's; stored in the file as `EDGE_CV_CHANNELS`."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from converters import strict_json
from converters.errors import InputError
from converters.tflite.graph import Graph

CHANNELS_NAME = b"EDGE_CV_CHANNELS"
MAX_CHANNELS_BYTES = 50_000_000  # unpacked: a limit for untrusted files


@dataclass(frozen=True, eq=False)
class ChannelMap:
    """`equalized = gain * value + shift` for each channel of a tensor; both `(channels,)`."""

    gain: np.ndarray
    shift: np.ndarray


def with_channels(content: bytes, maps: Mapping[str, ChannelMap | None]) -> bytes:
    """The TFLite file with the maps of its equalized tensors in its metadata; see `read_channels`."""
    if not maps:
        return content
    graph = Graph(content)
    rows: dict[str, list[list[float]] | None] = {}
    for name, map_ in maps.items():
        ends = None if map_ is None else (map_.gain, map_.shift)
        rows[name] = None if ends is None else [[float(f"{x:.6g}") for x in values] for values in ends]
    graph.set_metadata(CHANNELS_NAME, zlib.compress(json.dumps(rows, separators=(",", ":")).encode(), 9))
    return graph.to_bytes()


def read_channels(graph: Graph) -> dict[str, ChannelMap | None]:
    """The maps of a TFLite file's equalized tensors, by name; None where rotation mixes channels."""
    packed = graph.metadata(CHANNELS_NAME)
    if packed is None:
        return {}
    try:
        text = zlib.decompressobj().decompress(packed, MAX_CHANNELS_BYTES)
        return {
            name: None if ends is None else ChannelMap(*(np.array(values, np.float32) for values in ends))
            for name, ends in strict_json.parse(text, "it").items()
        }
    except (zlib.error, ValueError, TypeError, AttributeError) as error:
        raise InputError("the TFLite file's record of equalized channels is corrupt") from error
