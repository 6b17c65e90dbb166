"""A compiler's environment of its own, made for real by venv and pip from small wheels on the disk."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from converters.devices import environment
from converters.devices.environment import Environment, install
from converters.errors import InputError

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _wheel(folder: Path, name: str) -> Path:
    """A package with one empty module."""
    path, info = folder / f"{name}-1.2-py3-none-any.whl", f"{name}-1.2.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def _environment(*wheels: Path, **fields) -> Environment:
    steps = tuple((("--no-deps", "--no-index", str(wheel))) for wheel in wheels)
    plain = {"pythons": ("3.1", HERE), "steps": steps, "module": "small_tool", "free_bytes": 1}
    return Environment(**{"name": "tool", "package": "small-tool", **plain, **fields})


@pytest.mark.slow
def test_an_environment_is_made_checked_and_resumed(tmp_path):
    first, second = _wheel(tmp_path, "first_part"), tmp_path / "small_tool-1.2-py3-none-any.whl"
    made, steps = _environment(first, second), list[tuple[int, int, str]]()
    with pytest.raises(InputError, match=r"pip must be able to make the environment; run the command again.*ERROR"):
        install(made, lambda *step: None)
    assert made.version() is None
    assert not made.folder.exists()
    begun = made.folder.with_name("tool.part") / "lib" / f"python{HERE}" / "site-packages" / "first_part.py"
    before = begun.stat().st_ino
    _wheel(tmp_path, "small_tool")
    assert install(made, lambda *step: steps.append(step)) == made.folder
    assert (made.folder / begun.relative_to(made.folder.with_name("tool.part"))).stat().st_ino == before  # not again
    assert made.version() == "1.2"
    assert made.python.exists()
    assert [done for done, _, _ in steps] == sorted(done for done, _, _ in steps)
    assert steps[-1][:2] == (4, 4)
    assert install(made, lambda *step: pytest.fail("it is complete")) == made.folder
    assert not made.folder.with_name("tool.part").exists()


@pytest.mark.slow
def test_a_package_that_cannot_be_imported_is_no_environment(tmp_path):
    made = _environment(_wheel(tmp_path, "first_part"))
    with pytest.raises(InputError, match=r"small-tool must be able to make the environment.*ModuleNotFoundError"):
        install(made, lambda *step: None)
    assert not made.folder.exists()


def test_what_is_missing_is_said_before_anything_is_made():
    for fields, message in (
        ({"pythons": ("3.1", "3.2")}, "small-tool needs Python 3.1 or 3.2 with venv .*Received: none of them"),
        ({"free_bytes": 10**18}, "must have 1000000000 GB free"),
    ):
        made = _environment(**fields)
        with pytest.raises(InputError, match=message):
            install(made, lambda *step: None)
        assert not made.folder.exists()
        assert not made.folder.with_name("tool.part").exists()


def test_a_second_process_does_not_make_the_same_environment():
    import fcntl

    made = _environment()
    made.folder.parent.mkdir(parents=True)
    with (made.folder.parent / "tool.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="is being made by another process"):
            install(made, lambda *step: None)


@pytest.mark.slow
def test_what_outlives_a_killed_installation_is_waited_for_and_then_resumed(tmp_path):
    wheel = _wheel(tmp_path, "small_tool")
    made = _environment(wheel)
    code = (
        "import sys; from converters.devices.environment import Environment, install\n"
        "steps = (('--no-deps', '--no-index', sys.argv[1]),)\n"
        "install(Environment('tool', 'small-tool', (sys.argv[2],), steps, 'small_tool', 1), lambda *step: None)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(wheel), HERE])
    begun, deadline = made.folder.with_name("tool.part") / "pyvenv.cfg", time.monotonic() + 60
    while not begun.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    with pytest.raises(InputError, match="is being made by another process"):  # venv still installs pip
        install(made, lambda *step: None)
    while made.version() is None and time.monotonic() < deadline:
        with contextlib.suppress(InputError):
            install(made, lambda *step: None)
        time.sleep(0.1)
    assert made.version() == "1.2"


def test_a_step_that_hangs_is_stopped(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "STEP_SECONDS", 0.2)
    with pytest.raises(InputError, match=r"venv must be able to make the environment.*exit code -9"):
        install(_environment(_wheel(tmp_path, "first_part")), lambda *step: None)
