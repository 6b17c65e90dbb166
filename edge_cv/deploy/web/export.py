"""Writes the web page of a model: a folder for any static web server, which needs no other network access."""

from __future__ import annotations

import dataclasses
import hashlib
import html
import json
import os
import urllib.parse
from importlib import resources
from pathlib import Path

from converters.declared import NOTHING, Declaration, declared_record, undeclared
from converters.errors import InputError
from converters.files import write_together
from converters.record import Record
from edge_cv.deploy.web import litertjs

TYPES = ("float32", "uint8")  # types of input and output that LiteRT.js supports
PAGE = ("classifier.js", "index.html")


def sources() -> dict[str, str]:
    """The text of the page's own files in the package, by name."""
    folder = resources.files("edge_cv.deploy.web")
    return {name: folder.joinpath(name).read_text(encoding="utf-8") for name in PAGE}


def checked(record: Record | None, artifact: Path) -> Record:
    """The record of a model that LiteRT.js supports.

    Args:
        record: of the model; None if it has none.
        artifact: the model file, for messages.

    Raises:
        InputError: the file is not TFLite, its record is incomplete, or LiteRT.js does not support its types.
    """
    if artifact.suffix != ".tflite":
        raise InputError(f"a page needs a .tflite file. Received: {artifact}")
    if record is None or record.preprocessing is None:
        raise undeclared(artifact)
    if record.input.shape != (1, *record.preprocessing.shape) or len(record.output.shape) != 2:
        raise InputError(
            f"{artifact} must take one image of its preprocessing's size and return one row of classes. "
            f"Received: input {record.input.shape}, output {record.output.shape}"
        )
    for role, dtype in (("input", record.input.dtype), ("output", record.output.dtype)):
        if dtype not in TYPES:
            raise InputError(
                f"the {role} of {artifact} must be float32 or uint8, which LiteRT.js supports: convert with "
                f'--io float32, in Python Int8(io="float32"). Received: {dtype[:40]}'
            )
    return record


def export(artifact: str | os.PathLike, out: str | os.PathLike, declaration: Declaration = NOTHING) -> list[Path]:
    """Write a web page that classifies photos with a model.

    Args:
        artifact: a `.tflite` file.
        declaration: what the caller says about a file that does not declare its input and classes.
        out: the folder; created if necessary. Other files in it stay.

    Returns:
        The written files; the first is `index.html`.

    Raises:
        InputError: LiteRT.js does not support the model or cannot be fetched, or the folder cannot be written.
    """
    artifact, out = Path(artifact), Path(out)
    if declaration.channels == "bgr":
        raise InputError("a page gives a model RGB or grey photos. Received: bgr channels")
    record = checked(declared_record(artifact, declaration) if artifact.suffix == ".tflite" else None, artifact)
    content = artifact.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    sidecar = dataclasses.replace(record, file=artifact.name, sha256=digest, size_bytes=len(content)).to_json()
    name = f"{artifact.stem}.json"
    page = sources()
    page["index.html"] = page["index.html"].replace("{{sidecar}}", html.escape(urllib.parse.quote(os.fsencode(name))))
    page["index.html"] = page["index.html"].replace("{{litertjs}}", litertjs.VERSION)
    contents: dict[str, bytes | str] = {
        **litertjs.files(),
        artifact.name: content,
        name: json.dumps(sidecar, ensure_ascii=False, allow_nan=False),
        **page,
    }
    write_together({out / path: text for path, text in contents.items()})
    return [out / path for path in reversed(contents)]
