"""One process at a time in a folder of results."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import inspect
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

from converters.errors import InputError
from converters.files import remove_temporary

NAME = ".lock"

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_held: set[Path] = set()  # by this process


def holds(parameter: str) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Decorator: the function holds the folder that one of its parameters names (see `hold`)."""

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def holding(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            with hold(signature.bind(*args, **kwargs).arguments[parameter]):
                return function(*args, **kwargs)

        return holding

    return decorate


@contextlib.contextmanager
def hold(folder: str | os.PathLike) -> Iterator[None]:
    """Context in which no other process holds the folder. The kernel lets go when a process ends, however it ends.

    Temporary files that a killed process left there are removed.

    Args:
        folder: created if it is missing, and removed at the end if nothing was written there.

    Raises:
        InputError: another process holds the folder, or it cannot be written.
    """
    place = Path(folder).absolute()
    if place in _held:
        yield
        return
    try:
        made = [parent for parent in place.parents if not parent.exists()]  # the lowest first
        place.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(place / NAME)
    except FileExistsError as error:
        raise InputError(f"{folder} must be a folder. Received: a file") from error
    except BlockingIOError as error:
        raise InputError(
            f"{folder} must be used by one process at a time. Received: process {_owner(place / NAME)} works there; "
            "wait for it, or choose another folder"
        ) from error
    except (OSError, ValueError) as error:  # of a name with a null byte
        raise InputError(f"{folder} cannot be written: {getattr(error, 'strerror', None) or error}") from error
    _held.add(place)
    try:
        remove_temporary(place)
        yield
    finally:
        _held.discard(place)
        with contextlib.suppress(OSError):
            (place / NAME).unlink(missing_ok=True)
            for empty in (place, *made):
                empty.rmdir()
        os.close(descriptor)


def _locked(path: Path) -> int:
    """The descriptor of the locked file. Raises BlockingIOError if another process has locked it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):  # its owner has just deleted it
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    os.truncate(descriptor, 0)
                    os.write(descriptor, str(os.getpid()).encode())
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _owner(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        owner = file.read(20).decode(errors="replace")
        return owner if owner.isdigit() else "?"
    return "?"
