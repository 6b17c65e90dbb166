"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from converters.errors import InputError


def write_atomic(path: str | os.PathLike, content: bytes | str) -> Path:
    """Write one file as `write_together` does, and return its path."""
    write_together({Path(path): content})
    return Path(path)


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A place in the same folder, of the same ending, for a library to write to; in the end it is renamed to `path`.

    Raises InputError, naming the path and the reason, when it cannot be written; an old file is then untouched and
    nothing is left beside it.
    """
    temporary = path.with_name(f".part.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_together(contents: Mapping[Path, bytes | str]) -> None:
    """Write each file beside its place, flush all to the disk, then rename: a reader sees old content or new.

    Raises InputError, naming the path and the reason, when one cannot be written (full disk, read-only folder); all
    old content is then untouched and nothing is left beside it.
    """
    staged: dict[Path, str] = {}
    path = Path()
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, staged[path] = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
            with os.fdopen(handle, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(staged[path], 0o666 & ~_umask())
        for path in contents:
            os.replace(staged[path], path)
            del staged[path]
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        for temporary in staged.values():
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
