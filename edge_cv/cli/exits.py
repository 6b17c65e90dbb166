"""Exit codes, and how a command reports a failure or one line of its result."""

from __future__ import annotations

import sys

from converters.printable import printable

BROKEN = 1  # a limit of the run is exceeded, or a conversion failed its check
BAD_INPUT = 2
INTERRUPTED = 130
BROKEN_PIPE = 141  # as of a program that the signal ends


def fail(message: object, code: int) -> int:
    """Print the message in one line on stderr; return the exit code."""
    print(f"edge-cv: {printable(' '.join(str(message).split()))}", file=sys.stderr)
    return code


def say(message: object, *, error: bool = False) -> None:
    """Print one line that may hold names of others: on stdout, or on stderr beside a result."""
    print(printable(str(message)), file=sys.stderr if error else sys.stdout)
