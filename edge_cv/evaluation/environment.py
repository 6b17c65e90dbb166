"""What a measurement was made on: the machine and the versions, without a name that would tell whose machine it is."""

from __future__ import annotations

import contextlib
import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from edge_cv.evaluation.runner import cpu_count, cpu_name, system_name

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

CPU_FEATURES = Path("/proc/cpuinfo")
INT8_DOT_PRODUCT = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})  # as /proc/cpuinfo calls them


def describe_environment() -> dict[str, Any]:
    """The machine, its system and the installed versions, as JSON takes them; imports none of the packages.

    Returns:
        "cpu", "cores" (that this process may use), "int8_dot_product" (see there), "memory_bytes" (None where unknown),
        "machine", "os", "kernel", "python", "versions" (name to version; None for one that is not installed) and "date"
        (UTC, ISO 8601).
    """
    return {
        "cpu": cpu_name(),
        "cores": cpu_count(),
        "int8_dot_product": int8_dot_product(),
        "memory_bytes": _memory_bytes(),
        "machine": platform.machine(),
        "os": system_name(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def int8_dot_product() -> bool | None:
    """Whether the processor multiplies and adds int8 numbers in one instruction; None where the system does not tell.

    Without it (x86 before AVX-512 VNNI and AVX-VNNI, ARM before the dot product of ARMv8.2) int8 kernels widen to int16
    first and are hardly faster than float ones.
    """
    with contextlib.suppress(OSError), CPU_FEATURES.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, features = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return not INT8_DOT_PRODUCT.isdisjoint(features.split())
    return None


def _memory_bytes() -> int | None:
    with contextlib.suppress(ValueError, OSError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _version(package: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None
