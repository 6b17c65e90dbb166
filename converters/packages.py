"""The versions of installed packages, and the error where one is missing that an extra installs."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from converters.errors import InputError

# The modules that each extra of setup.cfg installs and that are not in the base installation.
EXTRAS = {
    "onnx": ("onnx", "onnxruntime", "tf2onnx"),
    "train": ("tensorboardX",),
    "probe": ("sklearn",),
    "compress": ("tensorflow_model_optimization",),
    "report": ("jinja2", "matplotlib"),
    "search": ("optuna",),
    "ray": ("ray",),
    "grain": ("array_record", "grain"),
}


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """The installed version of each distribution; those that are not installed are left out."""
    from importlib import metadata  # takes 30 ms of each command's start

    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def require(purpose: str, *extras: str) -> None:
    """Check that the packages of extras are installed. Nothing is imported.

    Args:
        purpose: what needs them, as the beginning of a sentence: `writing a report`.
        extras: keys of `EXTRAS`.

    Raises:
        InputError: a package is missing; the message has the command that installs all of them.
    """
    missing = {extra: [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None] for extra in extras}
    if lacking := [extra for extra in extras if missing[extra]]:
        raise missing_extra(purpose, [name for extra in lacking for name in missing[extra]], lacking)


def missing_extra(purpose: str, names: Iterable[str], extras: Iterable[str]) -> InputError:
    """The error that packages are not installed, with the command that installs them."""
    missing = list(names)
    packages = f"package{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
    return InputError(f"{purpose} needs the {packages}: pip install 'edge-cv[{','.join(extras)}]'")
