"""What is installed and what is missing: `edge-cv doctor`.

The requirements and their bounds are those of the installed package; this module adds what each extra is for.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata

PACKAGE = "edge-cv"
EVERY_COMMAND = "every command; convert, evaluate and check need no more"
# What needs each extra.
EXTRAS = {
    "demo": "run demo, and other recipes with packaged weights and photos",
    "report": "run, report, debug, and other reports and pictures",
    "onnx": "ONNX files: convert --onnx, and evaluate of .onnx files",
    "train": "train and compress",
    "compress": "compress by the engine tfmot, and models with tfmot's wrappers",
    "probe": "the linear probe of fine-tuning: train --probe",
    "corruptions": "evaluate --corruptions",
    "search": "search",
    "ray": "sweep --ray and evaluate --ray",
    "ethos-u": "compile --target ethos-u55-256 and other NPUs of Arm",
    "micro": "conform: running a file as a microcontroller does",
    "grain": "ArrayRecord files: data prepare --format array_record",
    "heic": "HEIC photos",
    "jax": "training without TensorFlow: KERAS_BACKEND=jax",
}
# Programs that pip does not install: what needs each, and its Debian package.
PROGRAMS = {
    "ssh": ("benchmark --device ssh://HOST", "openssh-client"),
    "adb": ("benchmark --device adb", "adb"),
    "npm": ("web, and run browser", "npm"),
    "chromium": ("conform: LiteRT.js in a browser", "chromium"),
    "qemu-aarch64-static": ("conform --install arm64", "qemu-user-static"),
}


@dataclass(frozen=True)
class Check:
    """What one group of commands needs.

    Attributes:
        purpose: the commands.
        missing: what is not there, or has another version than needed, one text each; empty if all is there.
        install: the command that installs it.
    """

    purpose: str
    missing: tuple[str, ...]
    install: str


def checks() -> list[Check]:
    """What this installation has, first for every command, then for each extra and program.

    Raises:
        PackageNotFoundError: edge-cv itself is not installed, only its source is there.
    """
    stated = metadata.requires(PACKAGE) or []
    found = [Check(EVERY_COMMAND, missing(stated, None), f"pip install '{PACKAGE}'")]
    for extra, purpose in EXTRAS.items():
        found.append(Check(purpose, missing(stated, extra), f"pip install '{PACKAGE}[{extra}]'"))
    for program, (purpose, package) in PROGRAMS.items():
        absent = () if shutil.which(program) else (program,)
        found.append(Check(purpose, absent, f"apt-get install {package}"))
    return found


def missing(stated: Iterable[str], extra: str | None) -> tuple[str, ...]:
    """The requirements that this environment does not meet.

    Args:
        stated: requirements as a package states them, such as `numpy<2.5,>=2.4; extra == "demo"`.
        extra: the extra whose requirements count; None for those without an extra.

    Returns:
        A text for each: its name, and the version that is there, if any, with the versions that are needed.
    """
    from packaging.requirements import Requirement

    stated, texts = list(stated), list[str]()
    for requirement in map(Requirement, stated):
        if requirement.marker is None:
            wanted = extra is None
        else:
            environment: Mapping[str, str] = {"extra": extra or ""}
            of_an_extra = "extra" in str(requirement.marker)
            wanted = of_an_extra == (extra is not None) and requirement.marker.evaluate(dict(environment))
        if not wanted:
            continue
        if requirement.name == PACKAGE:  # an extra that includes others
            texts += [text for included in requirement.extras for text in missing(stated, included)]
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            texts.append(requirement.name)
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            texts.append(f"{requirement.name} {version} (needed: {requirement.specifier})")
    return tuple(dict.fromkeys(texts))
