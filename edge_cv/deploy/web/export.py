"""The page's folder, written: it works from any static web server, without a network behind it."""

from __future__ import annotations

import hashlib
import html
import json
import os
import urllib.parse
from importlib import resources
from pathlib import Path
from typing import Any

from converters.errors import InputError
from converters.files import write_together
from converters.images.preprocessing import Preprocessing
from converters.record import read_metadata
from edge_cv.deploy.web import litertjs

TYPES = ("float32", "uint8")  # of an input and an output that LiteRT.js takes, of those that artifacts have
PAGE = ("classifier.js", "index.html")


def sources() -> dict[str, str]:
    """The page's own files as they are in the package, by name."""
    folder = resources.files("edge_cv.deploy.web")
    return {name: folder.joinpath(name).read_text(encoding="utf-8") for name in PAGE}


def check(record: dict[str, Any] | None, artifact: Path) -> dict[str, Any]:
    """The artifact's record, if LiteRT.js can run what it tells of. Raises InputError otherwise."""
    if artifact.suffix != ".tflite":
        raise InputError(f"a page needs a .tflite file. Received: {artifact}")
    try:
        ends = {end: record[end]["dtype"] for end in ("input", "output")}
        size = Preprocessing.from_dict(record["preprocessing"]).image_size
        fits = list(record["input"]["shape"]) == [1, size, size, 3] and len(record["output"]["shape"]) == 2
    except (KeyError, TypeError, InputError):
        raise InputError(
            f"{artifact} must tell its preprocessing, input and output, as our files do. Received: no such record"
        ) from None
    if not fits:
        raise InputError(f"{artifact} must take one square image and give one row of classes. Received: another shape")
    for end, dtype in ends.items():
        if dtype not in TYPES:
            raise InputError(
                f"the {end} of {artifact} must be float32 or uint8, which LiteRT.js takes: convert with --io float32 "
                f'(in a recipe io="float32"). Received: {dtype}'
            )
    return record


def export(artifact: str | os.PathLike, out: str | os.PathLike) -> list[Path]:
    """Write the page that classifies photos with an artifact into a folder.

    Args:
        artifact: a .tflite file with a record of its own, or a sidecar.
        out: the folder; made when it is missing. What else lies there stays.

    Returns:
        The files that were written; the first is `index.html`.

    Raises:
        InputError: LiteRT.js cannot run the artifact or cannot be fetched, or the folder cannot be written.
    """
    artifact, out = Path(artifact), Path(out)
    record = check(read_metadata(artifact), artifact)
    content = artifact.read_bytes()
    sidecar = {
        **record,
        "file": artifact.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
    }
    name = f"{artifact.stem}.json"
    own = sources()
    own["index.html"] = own["index.html"].replace("{{sidecar}}", html.escape(urllib.parse.quote(name)))
    own["index.html"] = own["index.html"].replace("{{litertjs}}", litertjs.VERSION)
    contents: dict[str, bytes | str] = {
        **litertjs.files(),
        artifact.name: content,
        name: json.dumps(sidecar, ensure_ascii=False, allow_nan=False),
        **own,
    }
    write_together({out / path: text for path, text in contents.items()})
    return [out / path for path in reversed(contents)]
