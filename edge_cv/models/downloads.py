"""Files of weights that others publish on the web: on disk if they are there, downloaded if they can be.

A file is looked for in the folder that the environment variable EDGE_CV_WEIGHTS names, then where keras.applications
keeps its files: `models` in KERAS_HOME, which is ~/.keras by default. A file that was put there by hand is as good as
one that was downloaded. A download goes to the first of these folders, with a progress bar on stderr.
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
        name: of the file.
        url: of the folder that it is in, with a slash at the end.
        digest: MD5 (32 digits) or SHA-256 (64 digits, or the first of them) that its publisher gives; "" for none.
    """

    name: str
    url: str
    digest: str = ""


def folders() -> tuple[Path, ...]:
    """Where files are looked for, in this order."""
    own = os.environ.get("EDGE_CV_WEIGHTS")
    keras_home = Path(os.environ.get("KERAS_HOME") or Path("~", ".keras")).expanduser()
    return (*([Path(own).expanduser()] if own else []), keras_home / "models")


def stored(file: RemoteFile) -> Path | None:
    """The file's path when it is on disk; None when it is not.

    Raises InputError when a file of that name has other content.
    """
    for folder in folders():
        path = folder / file.name
        if path.is_file():
            received = digest(path, file.digest)
            if received != file.digest:
                raise InputError(
                    f"{path} must have the {_algorithm(file.digest)} {file.digest}. Received: {received}; remove it, "
                    f"or put the file of {file.url}{file.name} in its place"
                )
            return path
    return None


def download(file: RemoteFile, *, needed_for: str) -> Path:
    """The path of the file after it was downloaded by Keras.

    Raises InputError when it cannot be had: what was tried, and how to put the file there by hand.
    """
    import keras

    folder = folders()[0]
    try:
        with contextlib.redirect_stdout(sys.stderr):  # the progress bar; stdout is for results
            path = Path(keras.utils.get_file(file.name, file.url + file.name, cache_subdir="", cache_dir=_made(folder)))
    except Exception as error:  # Keras raises plain Exceptions, and whatever urllib raises
        looked = " nor in ".join(map(str, folders()))
        raise InputError(
            f'weights="imagenet" of {needed_for} needs the file {file.name}, which is not in {looked}, and '
            f"{file.url}{file.name} could not be downloaded ({' '.join(str(error).split())[-200:]}). "
            f"Download it elsewhere and put it into {folder}"
        ) from error
    received = digest(path, file.digest)
    if received != file.digest:
        path.unlink()
        raise InputError(
            f"{file.url}{file.name} must have the {_algorithm(file.digest)} {file.digest}. Received: {received}"
        )
    return path


def digest(path: Path, like: str) -> str:
    """The digest of a file's content, of the kind and the length of `like`."""
    if not like:
        return ""
    with path.open("rb") as content:
        return hashlib.file_digest(content, _algorithm(like)).hexdigest()[: len(like)]


def _algorithm(digest: str) -> str:
    return "md5" if len(digest) == 32 else "sha256"


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
