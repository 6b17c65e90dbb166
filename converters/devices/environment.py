"""A Python environment of its own for a compiler whose packages do not go together with this project's."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from converters.errors import InputError
from converters.files import cache_folder

STEP_SECONDS = 3600  # of one call of pip
_ASK = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
_DOWNLOADS = re.compile(r"(?:Collecting|Downloading|Using cached|Installing collected packages:?) \S.*")

# Shows a step: how many are done, of how many, and what is done now.
Report = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Environment:
    """A virtual environment in the user's cache folder.

    Attributes:
        name: of its folder.
        package: the distribution that it is for.
        pythons: versions of Python that the distribution has wheels for, the best first.
        steps: the arguments of pip, one call each.
        module: is imported at the end, to check the environment.
        free_bytes: the disk space that the making needs.
    """

    name: str
    package: str
    pythons: tuple[str, ...]
    steps: tuple[tuple[str, ...], ...]
    module: str
    free_bytes: int

    @property
    def folder(self) -> Path:
        """The environment's folder, which exists only when all of it was made."""
        return cache_folder() / self.name

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.folder / "bin" / "python"

    def version(self) -> str | None:
        """The installed version of the package; None if the environment was not made."""
        name = self.package.replace("-", "_")
        found = sorted(self.folder.glob(f"lib/python3.*/site-packages/{name}-*.dist-info"))
        return found[-1].name.removeprefix(f"{name}-").removesuffix(".dist-info") if found else None


def install(environment: Environment, report: Report) -> Path:
    """Make an environment in a temporary folder and rename it; an interrupted installation is resumed.

    Args:
        environment: what to make; one that is complete is left as it is.
        report: shows the steps.

    Returns:
        The environment's folder.

    Raises:
        InputError: no Python of a version that fits is installed, the disk has too little space, another process makes
            the environment, or pip fails, with its reason.
    """
    if environment.version() is not None:
        return environment.folder
    total = len(environment.steps) + 2
    with _held(environment) as lock:
        part = environment.folder.with_name(f"{environment.name}.part")
        python = part / "bin" / "python"
        if not _works(python):
            base = _base(environment)
            _check_space(environment)
            shutil.rmtree(part, ignore_errors=True)
            report(0, total, f"a virtual environment of {base}")
            _run([base, "-m", "venv", str(part)], "venv", lambda line: None, lock)
        for number, step in enumerate(environment.steps, 1):
            report(number, total, f"pip install {' '.join(step)}")
            command = [str(python), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *step]
            _run(command, "pip", functools.partial(report, number, total), lock)
        report(total - 1, total, f"importing {environment.module}")
        _run([str(python), "-I", "-c", f"import {environment.module}"], environment.package, lambda line: None, lock)
        shutil.rmtree(environment.folder, ignore_errors=True)
        os.replace(part, environment.folder)
        report(total, total, str(environment.folder))
    return environment.folder


@contextlib.contextmanager
def _held(environment: Environment) -> Iterator[int]:
    """Context in which no other process makes the environment; yields the lock's file descriptor."""
    import fcntl

    folder = environment.folder.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / f"{environment.name}.lock").open("w", encoding="ascii")
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{environment.folder} is being made by another process; wait until it ends") from error
        yield lock.fileno()


def _base(environment: Environment) -> str:
    """A Python of a version that fits: the one that runs here, or one by its usual name."""
    for version in environment.pythons:
        here = f"{sys.version_info.major}.{sys.version_info.minor}" == version
        for program in (sys.executable if here else None, shutil.which(f"python{version}")):
            if program is not None and _version(program) == version:
                return program
    raise InputError(
        f"{environment.package} needs Python {' or '.join(environment.pythons)} with venv (Debian: apt-get install "
        f"python{environment.pythons[0]}-venv). Received: none of them"
    )


def _version(program: str) -> str | None:
    """The version of a Python that can make virtual environments; None of anything else."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run([program, "-I", "-c", _ASK], capture_output=True, text=True, timeout=60, check=False)
        return done.stdout.strip() if done.returncode == 0 else None
    return None


def _works(python: Path) -> bool:
    """Whether an environment that was begun has a Python with pip."""
    if not python.exists():
        return False
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run([python, "-I", "-c", "import pip"], capture_output=True, timeout=60).returncode == 0
    return False


def _check_space(environment: Environment) -> None:
    free = shutil.disk_usage(environment.folder.parent).free
    if free < environment.free_bytes:
        raise InputError(
            f"{environment.folder.parent} must have {environment.free_bytes / 1e9:.0f} GB free for "
            f"{environment.package}, or XDG_CACHE_HOME name another folder. Received: {free / 1e9:.1f} GB"
        )


def _run(command: list[str], name: str, heard: Callable[[str], None], lock: int) -> None:
    """Run a program to its end; raise InputError with the last of its lines if it fails.

    The program holds the lock too, because it may run on after this process is killed.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", start_new_session=True, pass_fds=(lock,),
    )  # fmt: skip
    limit = threading.Timer(STEP_SECONDS, _end, [process])
    limit.start()
    lines: list[str] = []
    try:
        for line in process.stdout or ():
            lines = [*lines[-20:], line.strip()[:300]]
            if _DOWNLOADS.match(line.strip()):
                heard(lines[-1])
        process.wait()
    finally:
        limit.cancel()
        _end(process)
    if process.returncode:
        said = [line for line in lines if line]
        why = next((line for line in reversed(said) if line.upper().startswith("ERROR")), said[-1] if said else "")
        raise InputError(f"{name} must be able to make the environment; run the command again to go on. Received: "
                         f"{why or f'exit code {process.returncode}'}")  # fmt: skip


def _end(process: subprocess.Popen) -> None:
    """End a program and those that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
