"""What a measurement was made on: the machine and the versions, without a name that would tell whose machine it is."""

from __future__ import annotations

import contextlib
import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from edge_cv.evaluation.runner import cpu_count, cpu_name

_PACKAGES = (
    "edge-cv",
    "tensorflow",
    "keras",
    "tf-keras",
    "tensorflow-model-optimization",
    "ai-edge-litert",
    "ai-edge-quantizer",
    "tf2onnx",
    "onnx",
    "onnxruntime",
    "numpy",
    "pillow",
)


def environment() -> dict[str, Any]:
    """The machine, its system and the installed versions, as JSON takes them; imports none of the packages.

    Returns:
        "cpu", "cores" (that this process may use), "memory_bytes" (None where unknown), "machine", "os", "kernel",
        "python", "versions" (name to version; None for one that is not installed) and "date" (UTC, ISO 8601).
    """
    return {
        "cpu": cpu_name(),
        "cores": cpu_count(),
        "memory_bytes": _memory_bytes(),
        "machine": platform.machine(),
        "os": _system_name(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _memory_bytes() -> int | None:
    with contextlib.suppress(ValueError, OSError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _system_name() -> str:
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    return platform.system()


def _version(package: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None
