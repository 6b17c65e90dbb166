"""An arm64 Debian with Python and LiteRT, run by QEMU's user-mode emulation: right or wrong can be told, never latency.

    python tests/arm64.py FOLDER

It is made once, in FOLDER, of packages of Debian and of PyPI, without changing the machine's own; `python_in` gives the
program that runs Python in it. It needs qemu-user-static, debootstrap and dpkg.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

DEBIAN, PYTHON = "bookworm", "3.11"
WHEELS = ("ai-edge-litert==2.0.3", "numpy==2.3.5")  # later LiteRT crashes under QEMU 7.2
TOOLS = ("qemu-aarch64-static", "debootstrap", "dpkg")
CPU = "cortex-a76"  # that of a Raspberry Pi 5; QEMU's default computes wrong with some LiteRT


def missing() -> list[str]:
    """What the making needs and is not here: tools, or being root, on whom debootstrap insists."""
    return [tool for tool in TOOLS if shutil.which(tool) is None] + ["root"] * (os.geteuid() != 0)


def python_in(folder: Path) -> Path:
    """A program that is Python on arm64; the root is made in `folder` unless it is there."""
    program, root = folder / "python3", folder / "root"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(root, ignore_errors=True)
        _make(root)
        run = f'exec qemu-aarch64-static -cpu {CPU} -L "{root}" "{root}/usr/bin/python{PYTHON}" "$@"'
        part = folder / "python3.part"
        part.write_text(f"#!/bin/sh\n{run}\n")
        part.chmod(0o755)
        part.rename(program)
    return program


def _make(root: Path) -> None:
    unpacked = ["--foreign", "--arch=arm64", "--variant=minbase", f"--include=python{PYTHON}"]
    subprocess.run(["debootstrap", *unpacked, DEBIAN, root], check=True, stdout=sys.stderr)
    for package in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        subprocess.run(["dpkg", "-x", package, root], check=True)
    site = root / "usr/lib/python3/dist-packages"
    site.mkdir(parents=True, exist_ok=True)
    platforms = [word for tag in ("2_17", "2_27", "2_28") for word in ("--platform", f"manylinux_{tag}_aarch64")]
    with tempfile.TemporaryDirectory() as wheels:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command += [*platforms, "--python-version", PYTHON, "--dest", wheels, *WHEELS]
        subprocess.run(command, check=True)
        for wheel in Path(wheels).glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(site)


if __name__ == "__main__":
    print(python_in(Path(sys.argv[1]).resolve()))
