"""ARCHITECTURE.md against the files that exist, and the limits on the size of files and functions."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("converters", "edge_cv")
MAX_FILE_LINES = 420
MAX_FUNCTION_LINES = 65
STANDS_ALONE = {"edge_cv/evaluation/runner.py"}  # copied to a device as one file


def tree() -> list[tuple[str, int]]:
    """Paths and glob patterns of ARCHITECTURE.md's tree, relative to the repository, each with its line number."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    before, block = text.split("```\n", 2)[:2]
    paths: list[tuple[str, int]] = []
    parents: list[tuple[int, str]] = []
    for number, line in enumerate(block.splitlines(), before.count("\n") + 2):
        indent = len(line) - len(line.lstrip())
        name = line.split()[0]
        parents = [(depth, path) for depth, path in parents if depth < indent]
        path = (parents[-1][1] if parents else "") + name
        paths.append((path, number))
        if name.endswith("/"):
            parents.append((indent, path))
    return paths


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def test_every_path_in_the_tree_exists():
    for path, number in tree():
        assert list(ROOT.glob(path.rstrip("/"))), f"ARCHITECTURE.md, line {number}: there is no {path}"


def test_every_module_is_in_the_tree():
    named = {found for path, _ in tree() for found in ROOT.glob(path.rstrip("/"))}
    modules = {path for path in sources(*PACKAGES) if not path.name.startswith("__")}
    missing = sorted(str(path.relative_to(ROOT)) for path in modules - named)
    assert not missing, f"ARCHITECTURE.md must name {missing}"


@pytest.mark.parametrize("folder", ["converters", "edge_cv", "recipes", "tests", "benchmarks", "android_demo"])
def test_no_file_is_long(folder):
    long = {
        str(path.relative_to(ROOT)): lines
        for path in sources(folder)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_FILE_LINES
    }
    assert long.keys() <= STANDS_ALONE


@pytest.mark.parametrize("folder", PACKAGES)
def test_no_function_is_long(folder):
    """A docstring is not counted: it documents the arguments."""
    long = {}
    for path in sources(folder):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
                lines = (node.end_lineno or 0) - body[0].lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = lines
    assert not long


def test_no_file_is_called_by_what_it_is_not():
    vague = re.compile(r"utils?|helpers?|common|manager|base|misc")
    assert not [path for path in sources(*PACKAGES) if vague.fullmatch(path.stem)]


def test_tf_keras_is_never_reached_through_tensorflow():
    """`tf.keras` means tf_keras once tensorflow-model-optimization is imported."""
    pattern = re.compile(r"\btf\.keras\b|tensorflow\.keras|from tensorflow import keras")
    assert not [path for path in sources(*PACKAGES, "recipes") if pattern.search(path.read_text(encoding="utf-8"))]


def test_library_code_has_no_assert():
    """`python -O` drops them."""
    for path in sources(*PACKAGES):
        asserts = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Assert)]
        assert not asserts, path
