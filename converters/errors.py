"""The errors that a user can correct.

Each message is one line: what must hold, then what was received.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_LISTED = 1500  # characters of a list of names


class InputError(ValueError):
    """A file, an option, an image or a model of the caller cannot be used. Nothing was written."""


class UnknownLayer(InputError):
    """A model file names a layer of its author's own, whose Python file must be imported."""


class UnsafeCode(InputError):
    """A model file holds Python code, which runs only if the caller trusts its author."""


class WeightsAlone(InputError):
    """A file holds weights without the model that they belong to."""


class CheckFailed(RuntimeError):
    """A conversion failed a check after it was made. The message names the check and the measured value."""


def unknown(what: str, received: str, known: Iterable[str]) -> InputError:
    """An `InputError` for a name that is not in `known`, which suggests the most similar known name."""
    known = list(known)
    near = difflib.get_close_matches(str(received)[:100], known, n=1)
    hint = f" Did you mean {near[0]!r:.100}?" if near else ""
    listed = ", ".join(known)
    listed = listed if len(listed) <= MAX_LISTED else f"{listed[:MAX_LISTED]}..."
    return InputError(f"unknown {what}: {received!r:.100}.{hint} Known: {listed}")
