"""The notebooks of the documentation: they run from top to bottom, and are stored with their outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
MAX_BYTES = 400_000
TIMEOUT_SECONDS = 900

of_each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list[dict]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == ["mend_int8", "own_photos"]


@of_each
def test_a_notebook_is_stored_with_its_outputs_and_pictures(path):
    assert path.stat().st_size < MAX_BYTES
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert [output for output in outputs if "image/png" in output.get("data", {})]
    texts = "".join("".join(output.get("text", ())) for output in outputs)
    assert "Traceback" not in texts
    assert not {"/tmp/", "/work/", "/root/"} & {folder for folder in ("/tmp/", "/work/", "/root/") if folder in texts}


@of_each
def test_a_notebook_begins_with_what_it_shows_and_how_to_install(path):
    first = "".join(cells(path, "markdown")[0]["source"])
    assert first.startswith("# ")
    assert "pip install 'edge-cv[" in first


@pytest.mark.slow
@of_each
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="pip install 'edge-cv[test]'")
    pytest.importorskip("ipykernel", reason="pip install 'edge-cv[test]'")
    import os
    import sys

    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    book = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        book, timeout=TIMEOUT_SECONDS, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # raises on the first cell that fails
    pictures = [out for cell in book.cells for out in cell.get("outputs", ()) if "image/png" in out.get("data", {})]
    assert len(pictures) >= 2
