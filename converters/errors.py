"""The errors that a user can do something about.

Each message is one line: what must hold, then what came.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """What the caller gave cannot be used: a file, an option, an image, a model. Nothing was written."""


class CheckFailed(RuntimeError):
    """A conversion was made and then measured to be wrong. The message names the check and its number."""


def unknown(what: str, received: str, known: Iterable[str]) -> InputError:
    """An `InputError` for a name that is not in `known`, with the nearest known name suggested."""
    known = list(known)
    near = difflib.get_close_matches(str(received), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return InputError(f"unknown {what}: {received!r}.{hint} Known: {', '.join(known)}")
