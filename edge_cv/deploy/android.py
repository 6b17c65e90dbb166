"""Copies model files and their sidecars into the assets of the Android app."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from converters.errors import InputError
from converters.files import write_together

APP = Path(__file__).parents[2] / "android_demo"  # in a checkout; an installed package has no app
ASSETS = "app/src/main/assets/models"


def check_app(app: Path | None = None) -> None:
    """Raise InputError if the app's assets folder does not exist."""
    app = app or APP
    if not (app / ASSETS).is_dir():
        raise InputError(f"the Android app needs a checkout with {app / ASSETS}. Received: this folder does not exist")


def install(artifacts: Iterable[Path], app: Path | None = None) -> list[Path]:
    """Copy TFLite files and their sidecars into the app's assets. Files with other names stay.

    Args:
        artifacts: `.tflite` files, each with its `.json` sidecar in the same folder.
        app: the app's folder; default: `android_demo` of this checkout.

    Returns:
        The paths of the copied `.tflite` files.

    Raises:
        InputError: the app does not exist, or a file cannot be read or written. Nothing is changed then.
    """
    app = app or APP
    check_app(app)
    contents: dict[Path, bytes | str] = {}
    for artifact in artifacts:
        for file in (artifact, artifact.with_suffix(".json")):
            try:
                contents[app / ASSETS / file.name] = file.read_bytes()
            except OSError as error:
                raise InputError(f"{file} cannot be read: {error.strerror or error}") from error
    write_together(contents)
    return [path for path in contents if path.suffix == ".tflite"]
