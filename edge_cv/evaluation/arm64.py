"""An arm64 Debian with Python and LiteRT, run by QEMU's user-mode emulation: its outputs count, never its latency.

It is made once of packages of Debian and of PyPI, in the user's cache folder, and changes nothing of the machine's own
packages. It needs qemu-user-static, debootstrap, dpkg and root, on whom debootstrap insists.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from converters.errors import InputError
from converters.files import cache_folder
from edge_cv.progress import Update

DEBIAN, PYTHON = "bookworm", "3.11"
WHEELS = ("ai-edge-litert==2.0.3", "numpy==2.3.5")  # later LiteRT crashes under QEMU 7.2
EMULATOR = "qemu-aarch64-static"
TOOLS = {EMULATOR: "qemu-user-static", "debootstrap": "debootstrap", "dpkg": "dpkg"}
CPU = "cortex-a76"  # that of a Raspberry Pi 5; QEMU's default computes wrong with some LiteRT
INSTALL = "apt-get install qemu-user-static debootstrap, then edge-cv conform --install arm64 as root with your HOME"
STEP_SECONDS = 1800
_LENGTH_BYTES = 8  # of an array, as in the runner
_RUNNER = Path(__file__).with_name("arm64_runner.py")


def missing() -> list[str]:
    """What the making needs and is not here: tools, or being root."""
    return [tool for tool in TOOLS if shutil.which(tool) is None] + ["root"] * (os.geteuid() != 0)


def folder() -> Path:
    """The folder of the root, which exists only when all of it was made."""
    return cache_folder() / "arm64"


def version() -> str | None:
    """The version of LiteRT in the root; None if the root was not made, or QEMU is not installed."""
    ready = shutil.which(EMULATOR) is not None and folder().is_dir()
    return WHEELS[0].partition("==")[2] if ready else None


def install(update: Update) -> Path:
    """Make the root beside its place and rename it, unless it is there.

    Args:
        update: shows the steps.

    Returns:
        A program that is Python on arm64.

    Raises:
        InputError: a tool or root is missing, or a step fails, with its reason.
    """
    if not folder().is_dir():
        if lacking := missing():
            packages = " ".join(TOOLS[tool] for tool in lacking if tool in TOOLS)
            how = [f"apt-get install {packages}"] * bool(packages) + ["run as root"] * ("root" in lacking)
            raise InputError(f"an arm64 root needs {', '.join([*TOOLS, 'root'])}: {'; '.join(how)}")
        part = folder().with_name("arm64.part")
        shutil.rmtree(part, ignore_errors=True)
        (part / "root").mkdir(parents=True)
        _make(part / "root", update)
        program = part / "python3"
        program.write_text(
            '#!/bin/sh\nroot="$(dirname "$(readlink -f "$0")")/root"\n'
            f'exec {EMULATOR} -cpu {CPU} -L "$root" "$root/usr/bin/python{PYTHON}" "$@"\n'
        )
        program.chmod(0o755)
        os.replace(part, folder())
    return folder() / "python3"


def _make(root: Path, update: Update) -> None:
    update(0, 3, f"debootstrap of Debian {DEBIAN}")
    options = ["--foreign", "--arch=arm64", "--variant=minbase", f"--include=python{PYTHON}"]
    _run(["debootstrap", *options, DEBIAN, str(root)])
    packages = sorted((root / "var/cache/apt/archives").glob("*.deb"))
    update(1, 3, f"unpacking {len(packages)} packages")
    for package in packages:
        _run(["dpkg", "-x", str(package), str(root)])
    site = root / "usr/lib/python3/dist-packages"
    site.mkdir(parents=True, exist_ok=True)
    update(2, 3, f"{' and '.join(WHEELS)} for arm64")
    platforms = [word for tag in ("2_17", "2_27", "2_28") for word in ("--platform", f"manylinux_{tag}_aarch64")]
    with tempfile.TemporaryDirectory() as wheels:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        _run([*command, *platforms, "--python-version", PYTHON, "--dest", wheels, *WHEELS])
        for wheel in Path(wheels).glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(site)
    update(3, 3, str(folder()))


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=STEP_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"{command[0]} must make a part of the arm64 root in {STEP_SECONDS} s. It takes longer"
        ) from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() or [f"exit code {done.returncode}"]
        raise InputError(f"an arm64 root needs Debian's archive and PyPI. {command[0]} says: {said[-1][:300]}")


def _array(stream: IO[bytes]) -> np.ndarray:
    """The next array; ValueError if the stream ends."""
    length = int.from_bytes(stream.read(_LENGTH_BYTES), "big")
    return np.load(io.BytesIO(stream.read(length)), allow_pickle=False)


class Emulated:
    """A TFLite file that is open in the emulation: a callable from the input of one image to all outputs."""

    def __init__(self, content: bytes) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="edge_cv_")
        model = Path(self._folder.name) / "model.tflite"
        model.write_bytes(content)
        self._process = subprocess.Popen(
            [str(folder() / "python3"), str(_RUNNER), str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        first = self._stream(self._process.stdout).readline()
        if not first:
            raise InputError(self._why())
        self._outputs = int(first)

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        """All outputs for the input of one image, in the file's type."""
        stdin, stdout = self._stream(self._process.stdin), self._stream(self._process.stdout)
        try:
            stdin.write(image.tobytes())
            stdin.flush()
            return [_array(stdout) for _ in range(self._outputs)]
        except (OSError, ValueError, EOFError) as error:
            raise InputError(self._why()) from error

    def close(self) -> None:
        """End the emulation."""
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def _why(self) -> str:
        """The last line that the ended process wrote."""
        self._process.kill()
        with contextlib.suppress(OSError, ValueError):
            if lines := self._stream(self._process.stderr).read().decode(errors="replace").strip().splitlines():
                return lines[-1]
        return f"the emulation ended with code {self._process.wait()}"

    @staticmethod
    def _stream(stream: IO[bytes] | None) -> IO[bytes]:
        if stream is None:
            raise RuntimeError("the process has pipes")
        return stream
