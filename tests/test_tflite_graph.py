"""Reading and editing TFLite files: round trips, alignment, counts."""

from __future__ import annotations

import numpy as np
import pytest

from converters import InputError, to_tflite
from converters.tflite.graph import Graph, count_macs, count_operators
from converters.tflite.runtime import predict


@pytest.fixture(scope="module")
def content(small_model) -> bytes:
    return to_tflite(small_model, "float32").content


def test_a_round_trip_computes_the_same(content, pixels):
    again = Graph(content).to_bytes()
    np.testing.assert_array_equal(predict(again, pixels), predict(content, pixels))
    assert Graph(again).to_bytes() == again


def test_every_buffer_is_aligned_to_16_bytes(content):
    """The buffers are located by their content in the file, not by our reader."""
    graph = Graph(content)
    weights = [graph.constant(t) for op in graph.operators() for t in op.inputs if t >= 0]
    weights = [w for w in weights if w is not None and w.nbytes > 16]
    assert weights
    for values in weights:
        at = content.find(values.tobytes())
        assert at > 0
        assert at % 16 == 0


def test_unused_tensors_and_buffers_are_dropped(content):
    graph = Graph(content)
    before = len(graph.tensors), len(graph.model.buffers)
    graph.add_tensor("unused", "FLOAT32", (1000,), values=np.zeros(1000, np.float32))
    graph = Graph(graph.to_bytes())
    assert (len(graph.tensors), len(graph.model.buffers)) == before
    assert len(graph.to_bytes()) < len(content) + 100


def test_macs_are_counted_as_the_closed_form_says(content):
    stem = 16 * 16 * 8 * 3 * 3 * 3
    depthwise = 16 * 16 * 8 * 3 * 3
    project = 16 * 16 * 8 * 8
    dense = 8 * 10
    assert count_macs(Graph(content)) == stem + depthwise + project + dense


def test_a_float_graph_has_no_integer_operator(content):
    integer, total = count_operators(Graph(content))
    assert integer == 0
    assert total >= 6


def test_weights_behind_the_flatbuffer_are_read(content, pixels):
    """Files over 2 GB keep weights behind the flatbuffer, each with its place in the file."""
    graph = Graph(content)
    (operator,) = [op for op in graph.operators() if op.name == "FULLY_CONNECTED"]
    buffer = graph.model.buffers[graph.tensors[operator.inputs[1]].buffer]
    data = np.asarray(buffer.data, np.uint8).tobytes()
    buffer.data, buffer.offset, buffer.size = None, 2**20, len(data)
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(graph.model.Pack(builder), file_identifier=b"TFL3")
    outside = bytes(builder.Output()).ljust(2**20, b"\0") + data
    np.testing.assert_allclose(predict(Graph(outside).to_bytes(), pixels), predict(content, pixels), atol=1e-6)


@pytest.mark.parametrize("size", [0, 7, 8, 30, 500])
def test_a_cut_file_is_rejected(content, size):
    with pytest.raises(InputError, match=r"TFL3|corrupt") as error:
        Graph(content[:size])
    assert "\n" not in str(error.value)


def test_junk_behind_the_identifier_is_rejected():
    rng = np.random.default_rng(0)
    for _ in range(20):
        with pytest.raises(InputError):
            Graph(rng.bytes(4) + b"TFL3" + rng.bytes(500))


def test_names_are_unique(content):
    graph = Graph(content)
    names = [graph.name(t) for t in range(len(graph.tensors))]
    assert len(set(names)) == len(names)
    assert {"image", "logits"} <= set(names)
