"""Which index a class name gets: the caller's, ImageNet's, or its position in sorted order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from converters.errors import InputError, unknown
from converters.printable import encodable
from edge_cv.data.labels import (
    imagenet_labels,
    imagenet_names,
    name_to_indices,
    plain_name,
    positions_of,
    wnid_to_index,
)


def class_indices(
    path: Path, used: Sequence[str], every: Sequence[str], classes: Sequence[str] | None
) -> tuple[dict[str, int], tuple[str, ...]]:
    """The indices of class names, and all names. What UTF-8 cannot encode in a name is escaped.

    Where all names of `used` are wnids or ImageNet names and `classes` is None, the indices are ImageNet's. Else they
    are positions in `classes`, or in `every`.

    Args:
        path: for messages.
        used: the names of the classes that have images.
        every: all class names of the source, sorted.
        classes: the class names in order; empty for `every`; None for ImageNet's where they fit.

    Returns:
        The index of each name in `used`, and all class names in order.

    Raises:
        InputError: a name is not among `classes`, is ambiguous, or is no wnid where others are.
    """
    indices, names = _of_encodable(path, list(map(encodable, used)), list(map(encodable, every)), classes)
    return {name: indices[encodable(name)] for name in used}, names


def _of_encodable(
    path: Path, used: Sequence[str], every: Sequence[str], classes: Sequence[str] | None
) -> tuple[dict[str, int], tuple[str, ...]]:
    if classes is not None:
        classes = classes or every
        positions = positions_of(used, classes)
        for name in used:
            if name not in positions:
                raise unknown(f"class folder in {path}", name, classes)
        return {name: positions[name] for name in used}, tuple(classes)
    wnids = wnid_to_index()
    if any(name in wnids for name in used):
        for name in used:
            if name not in wnids:
                raise InputError(
                    f"{path}: beside wnids, each class folder must be a wnid of ImageNet. Received: {name}"
                )
        return {name: wnids[name] for name in used}, imagenet_names()
    indices = {name: name_to_indices().get(plain_name(name), ()) for name in used}
    if not all(indices.values()):
        return {name: index for index, name in enumerate(every)}, tuple(every)
    for name, candidates in indices.items():
        if len(candidates) > 1:
            choice = " or ".join(imagenet_labels()[index].wnid for index in candidates)
            raise InputError(f"{path}: {name} is the name of several ImageNet classes; rename the folder to {choice}")
    return {name: candidates[0] for name, candidates in indices.items()}, imagenet_names()
