"""Strangers' .tflite files, changed field by field and byte by byte: read, or refused in one line."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from isolated_cases import IsolatedCases
from model_mutations import changed_tflite
from mutations import SEEDS, refused_or_done

from converters.declared import declared_record
from converters.devices import micro, targets
from converters.float_model import find_normalization, output_meaning
from converters.sources import open_source
from converters.tflite.graph import Graph, count_macs, count_operators
from converters.tflite.metadata import read_embedded
from converters.tflite.standard_metadata import read_standard

CASES = 40
TARGETS = ("cpu", "edgetpu", "micro", "mediapipe", "gpu", "tflite-2.3")


@pytest.fixture(scope="module")
def contents(small_files) -> dict[str, bytes]:
    return {scheme: path.read_bytes() for scheme, path in small_files.items()}


def read(path: Path) -> bool:
    """All that reads a file without running it; whether it was read."""
    content, done = path.read_bytes(), False
    with refused_or_done():
        graph = Graph(content)
        count_operators(graph), count_macs(graph), find_normalization(graph), output_meaning(graph)
        read_standard(content, graph)
        for name in TARGETS:
            targets.diagnose(graph, name)
        graph.to_bytes()
        done = True
    for work in (micro.memory, read_embedded):
        with refused_or_done():
            work(content)
    with refused_or_done():
        declared_record(path)
    return done


def fuzz(content: bytes, folder: Path, cases: int, seed: object, work=read) -> int:
    """The number of cases that were read."""
    rng, done = random.Random(f"tflite {seed}"), 0
    for case in range(cases):
        path = folder / "case.tflite"
        path.write_bytes(changed_tflite(content, rng))
        try:
            done += work(path)
        except BaseException as error:
            raise AssertionError(f"seed {seed}, case {case}") from error
    return done


@pytest.mark.parametrize("scheme", ["float32", "int8"])
def test_changed_files_are_read_or_refused(scheme, contents, tmp_path):
    assert CASES / 10 < fuzz(contents[scheme], tmp_path, CASES, f"{scheme} 0") < CASES * 0.9


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scheme", ["float32", "int8"])
def test_many_changed_files_are_read_or_refused(scheme, seed, contents, tmp_path):
    fuzz(contents[scheme], tmp_path, 250, f"{scheme} {seed}")


def opened(path: Path) -> bool:
    """Whether the file was opened as a model to convert, and run."""
    with refused_or_done():
        source = open_source(path)
        source.predict(np.zeros((2, *source.input_shape), np.float32))
        return True
    return False


@pytest.fixture(scope="module")
def isolated():
    cases = IsolatedCases()
    yield cases
    cases.close()


def test_changed_files_are_opened_and_run_or_refused(contents, isolated, tmp_path):
    assert fuzz(contents["float32"], tmp_path, 8, "run 0", lambda path: isolated.run(opened, path))


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_many_changed_files_are_opened_and_run_or_refused(seed, contents, isolated, tmp_path):
    fuzz(contents["float32"], tmp_path, 100, f"run {seed}", lambda path: isolated.run(opened, path))
