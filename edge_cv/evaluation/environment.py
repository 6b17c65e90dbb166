"""The machine and the installed versions that a measurement was made with, without the machine's host name."""

from __future__ import annotations

import contextlib
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from converters.packages import package_versions
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
    """The machine, its operating system and the installed versions, for JSON. No package is imported.

    Returns:
        "cpu", "cores" (available to this process), "int8_dot_product" (as `int8_dot_product`), "memory_bytes" (None if
        unknown), "machine", "os", "kernel", "python", "versions" (by package; None for a package that is not installed)
        and "date" (UTC, ISO 8601).
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
        "versions": dict.fromkeys(_PACKAGES) | package_versions(_PACKAGES),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def int8_dot_product() -> bool | None:
    """Whether the processor has instructions for int8 dot products; None if the operating system does not report it.

    Without them (x86 before AVX-512 VNNI and AVX-VNNI, ARM before ARMv8.2's dot product), int8 kernels first widen to
    int16 and are hardly faster than float kernels.
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
