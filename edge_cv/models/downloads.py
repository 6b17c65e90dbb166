"""Published files of weights: found on disk, or downloaded.

Files are searched in the folder of the environment variable EDGE_CV_WEIGHTS, then in the folder of keras.applications:
`models` in KERAS_HOME, which is ~/.keras by default. Files that were copied there manually are accepted. A download is
saved to the first of these folders; its progress bar is printed to stderr.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from pathlib import Path
from typing import NamedTuple

from converters.errors import InputError


class RemoteFile(NamedTuple):
    """A published file.

    Attributes:
        name: the file's name.
        url: URL of its folder, with a slash at the end.
        digest: the publisher's MD5 (32 digits) or SHA-256 (64 digits, or the first few of them); "" if there is none.
    """

    name: str
    url: str
    digest: str = ""


def folders() -> tuple[Path, ...]:
    """The folders in which files are searched, in this order."""
    folder = os.environ.get("EDGE_CV_WEIGHTS")
    keras_home = Path(os.environ.get("KERAS_HOME") or Path("~", ".keras")).expanduser()
    return (*([Path(folder).expanduser()] if folder else []), keras_home / "models")


def stored(file: RemoteFile) -> Path | None:
    """The path of a file on disk; None if it is not there.

    Raises:
        InputError: if a file of that name has other content.
    """
    for folder in folders():
        path = folder / file.name
        if path.is_file():
            received = digest(path, file.digest)
            if received != file.digest:
                raise InputError(
                    f"{path} must have the {_algorithm(file.digest)} {file.digest}. Received: {received}; delete it, "
                    f"or replace it by {file.url}{file.name}"
                )
            return path
    return None


def download(file: RemoteFile, *, needed_for: str) -> Path:
    """Download a file with Keras and return its path.

    Args:
        file: the file.
        needed_for: name of the architecture, for messages.

    Raises:
        InputError: if the download fails or has other content. The message describes a manual download.
    """
    import keras

    folder = folders()[0]
    try:
        with contextlib.redirect_stdout(sys.stderr):  # the progress bar; stdout is for results
            folder.mkdir(parents=True, exist_ok=True)
            path = Path(keras.utils.get_file(file.name, file.url + file.name, cache_subdir="", cache_dir=folder))
    except Exception as error:  # Keras raises Exception itself and the errors of urllib
        searched = " nor in ".join(map(str, folders()))
        raise InputError(
            f'weights="imagenet" of {needed_for} needs the file {file.name}, which is not in {searched}, and '
            f"{file.url}{file.name} could not be downloaded ({' '.join(str(error).split())[-200:]}). "
            f"Download it on another machine and copy it to {folder}"
        ) from error
    received = digest(path, file.digest)
    if received != file.digest:
        path.unlink()
        raise InputError(
            f"{file.url}{file.name} must have the {_algorithm(file.digest)} {file.digest}. Received: {received}"
        )
    return path


def digest(path: Path, like: str) -> str:
    """The digest of a file, with the algorithm and the length of `like`."""
    if not like:
        return ""
    with path.open("rb") as content:
        return hashlib.file_digest(content, _algorithm(like)).hexdigest()[: len(like)]


def _algorithm(digest: str) -> str:
    return "md5" if len(digest) == 32 else "sha256"
