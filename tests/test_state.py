"""TFLite files that keep a state from one image to the next, in every command that runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from converters.tflite.graph import Graph


@pytest.fixture(scope="module")
def stateful(small_files, tmp_path_factory):
    """The small float file, whose dense layer's bias is a variable."""
    graph = Graph(small_files["float32"].read_bytes())
    dense = next(operator for operator in graph.operators() if operator.name == "FULLY_CONNECTED")
    graph.tensors[dense.inputs[2]].isVariable = True
    graph.tensors[dense.inputs[2]].buffer = 0
    for entry in [entry.name for entry in graph.model.metadata]:
        graph.remove_metadata(entry)
    path = tmp_path_factory.mktemp("stateful") / "m.tflite"
    path.write_bytes(graph.to_bytes())
    return path


@pytest.mark.parametrize("command", ["evaluate", "debug", "conform", "web"])
def test_a_file_that_keeps_a_state_is_refused_by_what_runs_it_on_photos(
    edge_cv, stateful, photos, tmp_path: Path, command
):
    files = [stateful, stateful] if command == "debug" else [stateful]
    more = ["--out", tmp_path / "page"] if command == "web" else ["--data", photos]
    code, out, err = edge_cv(command, *files, *more, "--resize", "stretch", "--mean", 0, "--std", 1)
    assert (code, out) == (2, "")
    assert "whichever came before" in err
    assert "FULLY_CONNECTED, which keeps a state" in err


def test_check_finds_the_operators_that_keep_a_state(edge_cv, stateful):
    code, out, _ = edge_cv("check", stateful, "--target", "cpu")
    assert code == 0
    assert "FULLY_CONNECTED with a state" in " ".join(out.split())
