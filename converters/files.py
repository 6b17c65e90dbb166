"""Writing files so that a reader never sees half of one, and their SHA-256."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from converters.errors import InputError

_TEMPORARY = re.compile(r"\.part\..+|\..+\.\w{8}\.part", re.DOTALL)  # the names of `beside` and of `temporary_beside`
_FULL_BYTES = 2**16  # of free space
_DEPTH = 4  # levels of folders in a folder of results


def cache_folder() -> Path:
    """The folder of what is fetched once for a user: `edge-cv` in XDG_CACHE_HOME (default: ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~", ".cache")).expanduser() / "edge-cv"


def write_atomic(path: str | os.PathLike, content: bytes | str) -> Path:
    """Write one file as `write_together` does, and return its path."""
    write_together({Path(path): content})
    return Path(path)


def check_writable(path: str | os.PathLike, *, is_folder: bool) -> None:
    """Check that a file or a folder of results can be written, before the work whose results it is for.

    Args:
        path: it need not exist, nor the folders above it. Nothing is left there.
        is_folder: whether it is a folder.

    Raises:
        InputError: a file is in its place or in that of a folder above it, or its file system or rights refuse it.
    """
    target = Path(path)
    try:
        if not is_folder and target.is_dir():
            raise InputError(f"{path} must be a file to write. Received: a folder")
        folders = (target, *target.parents) if is_folder else target.parents
        place = next((folder for folder in folders if _is_there(folder)), Path())
        if not place.is_dir():
            raise InputError(f"{path} must be {'a folder' if is_folder else 'in a folder'}. Received: the file {place}")
        with tempfile.TemporaryFile(dir=place):  # without a name, where the file system allows that
            pass
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


def _is_there(path: Path) -> bool:
    """Whether there is something at a path, if only a broken link. Raises OSError where that cannot be seen."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` with the same suffix, for a library to write to; renamed to `path` at the end.

    Raises:
        InputError: it cannot be written, with the path and the reason; an earlier file is unchanged and no temporary
            file remains.
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
    """Write each file to a temporary one, flush all to the disk, then rename: a reader sees old content or new.

    Args:
        contents: the content of each file; text is written as UTF-8; half of a surrogate pair, as a
            file name that is not UTF-8 has it, is escaped.

    Raises:
        InputError: one cannot be written (full disk, read-only folder), with the path and the reason; all earlier
            files are unchanged and no temporary file remains.
    """
    staged: dict[Path, str] = {}
    path = Path()
    try:
        for path, content in contents.items():
            if path.is_dir():  # renaming would fail, after others were renamed
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, staged[path] = temporary_beside(path)
            with os.fdopen(handle, "wb") as file:
                file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
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


def temporary_beside(path: Path) -> tuple[int, str]:
    """Create a temporary file in the folder of `path`; returns its descriptor and its path, as `mkstemp` does."""
    return tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)


def remove_temporary(folder: Path) -> None:
    """Remove the temporary files that a killed process left in a folder of results, where no other process writes."""
    for depth in range(_DEPTH):
        for path in folder.glob("*/" * depth + ".*"):
            if _TEMPORARY.fullmatch(path.name) and path.is_file():
                with contextlib.suppress(OSError):
                    path.unlink()


@contextlib.contextmanager
def temporary_folder() -> Iterator[str]:
    """A folder for files that a library writes and reads, removed at the end.

    Raises:
        InputError: whatever failed, if its disk is full.
    """
    with tempfile.TemporaryDirectory(prefix="edge_cv_") as folder:
        try:
            yield folder
        except Exception as error:  # libraries have errors of their own for a full disk
            if "No space left" in str(error) or shutil.disk_usage(folder).free < _FULL_BYTES:
                raise InputError(
                    f"{tempfile.gettempdir()}, the folder of temporary files, must have space. Received: a full disk; "
                    "free some, or set TMPDIR to another folder"
                ) from error
            raise


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Open a file to read it. Raises OSError for a pipe or a device too, which could last or wait forever."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file")
    return file


def file_sha256(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's content, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
