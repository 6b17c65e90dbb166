"""Packages that Keras and TensorFlow import where they are installed, for functions that no command uses.

They take 40 % of the time of `import tensorflow`. Other importers, such as a recipe or a report, get them as usual.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

UNUSED = (  # the package, and the modules that do without it
    ("IPython", ("keras.src.saving.file_editor",)),
    ("cv2", ("keras.src.visualization.",)),
    ("jax", ("tensorflow.lite.python.util", "keras.src.callbacks.orbax_checkpoint")),
    ("matplotlib", ("keras.src.visualization.",)),
    ("sklearn", ("keras.src.wrappers.",)),
)


def skip_unused_imports() -> None:
    """Let these modules find these packages missing, in this process and from now on."""
    if not any(isinstance(finder, _Skipping) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Skipping())


class _Skipping:
    """A finder that refuses `UNUSED`, and finds nothing itself."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> None:
        importers = next((modules for package, modules in UNUSED if package == name), ())
        if importers and _importer().startswith(importers):
            raise ModuleNotFoundError(f"No module named {name!r}: unused by edge-cv", name=name)


def _importer() -> str:
    """The name of the module whose import statement is running."""
    frame = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__", "").startswith(("importlib.", "_frozen_importlib")):
        frame = frame.f_back  # type: ignore[assignment]
    return "" if frame is None else str(frame.f_globals.get("__name__", ""))
