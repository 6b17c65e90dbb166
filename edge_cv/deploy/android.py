"""A run's artifacts put into the Android app, which finds its models in its assets."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from converters.errors import InputError
from converters.files import write_together

APP = Path(__file__).parents[2] / "android_demo"  # of the checkout; an installed package has none
ASSETS = "app/src/main/assets/models"


def check_app(app: Path | None = None) -> None:
    """Raise InputError when there is no app to put models into."""
    app = app or APP
    if not (app / ASSETS).is_dir():
        raise InputError(f"to deliver to the Android app, {app / ASSETS} must be there. Received: no folder")


def install(artifacts: Iterable[Path], app: Path | None = None) -> list[Path]:
    """Copy TFLite files and their sidecars into the app's assets; models that are there by other names stay.

    Args:
        artifacts: `.tflite` files of a run, each with its sidecar beside it.
        app: the app's folder; None is this checkout's `android_demo`.

    Returns:
        The models' places in the app.

    Raises:
        InputError: there is no app, or a file cannot be read or written; nothing is then changed.
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
