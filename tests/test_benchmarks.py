"""Each benchmark explains itself and refuses what it does not know, before anything heavy is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = sorted(
    path for path in Path(__file__, "../../benchmarks").resolve().glob("*.py") if "def main" in path.read_text()
)


def run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, path, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_help_is_printed(path):
    result = run(path, "--help")
    assert result.returncode == 0, result.stderr
    assert path.name in result.stdout
    assert not result.stderr


def test_an_unknown_section_is_named():
    path = next(path for path in BENCHMARKS if path.stem == "compression")
    result = run(path, "step")
    assert result.returncode == 2
    assert "digits, latency, steps; got step" in result.stderr
    assert "Traceback" not in result.stderr
