"""Fetches LiteRT.js, the runtime of the web page, through npm in a pinned version, and caches it for the user.

The page serves the packages' files unchanged; an import map replaces a bundler.
"""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from converters.errors import InputError
from converters.files import cache_folder, write_atomic

VERSION = "2.5.3"
NPM_SECONDS = 300


class Package(NamedTuple):
    """An npm package.

    Attributes:
        name: of the package.
        integrity: SHA-512 of its archive, in the form of a lock file.
        files: paths in the archive and the paths in the page's folder.
    """

    name: str
    integrity: str
    files: dict[str, str]


# Three of the four builds are served: relaxed SIMD, relaxed SIMD with threads, and one for browsers without either. The
# fourth is for WebNN and for models that run only partly on WebGPU; the page does not use it.
_BUILDS = ("litert_wasm_internal", "litert_wasm_threaded_internal", "litert_wasm_compat_internal")
PACKAGES = (
    Package(
        "@litertjs/core",
        "sha512-PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ==",
        {"package/dist/index.js": "litert/core.js"}
        | {f"package/wasm/{name}.{end}": f"litert/wasm/{name}.{end}" for name in _BUILDS for end in ("js", "wasm")},
    ),
    Package(
        "@litertjs/wasm-utils",
        "sha512-4fJiw6tBQnIs+0jH/OQ16nYOiSl8/+zZnn5h2ul8aTKHi05sVqZW580Tmk78pC2kT39A9OYBVdFawteZ/sI1kQ==",
        {"package/dist/index.js": "litert/wasm-utils.js"},
    ),
)


def fetch() -> dict[str, Path]:
    """Fetch the archives that are not cached.

    Returns:
        The path of each archive, by package name.

    Raises:
        InputError: npm is not installed, the registry cannot be reached, or an archive has another SHA-512.
    """
    return {package.name: _archive(package) for package in PACKAGES}


def files() -> dict[str, bytes]:
    """The content of the LiteRT.js files, by path in the page's folder. Raises InputError as `fetch` does."""
    contents = {}
    for package in PACKAGES:
        content = _archive(package).read_bytes()
        _check(package, content, "the cached archive")
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:  # nothing is extracted to disk
            for member, path in package.files.items():
                contents[path] = _member(archive, member)
    return contents


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise InputError(f"{name} must be a file in the archive of LiteRT.js. Received: a folder or a link")
    return file.read()


def _archive(package: Package) -> Path:
    path = cache_folder() / f"{package.name.replace('@', '').replace('/', '-')}-{VERSION}.tgz"
    if not path.is_file() or _integrity(path.read_bytes()) != package.integrity:
        write_atomic(path, _download(package))
    return path


def _download(package: Package) -> bytes:
    what = f"{package.name}@{VERSION}"
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            f"npm must be installed to fetch {what} for the page (Debian: apt-get install npm), or the package's "
            f"archive must be in {cache_folder()}. Received: no npm"
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", what, "--ignore-scripts", "--silent", "--pack-destination", folder]
        try:
            done = subprocess.run(
                command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=NPM_SECONDS
            )
            why = (done.stderr.strip() or f"exit code {done.returncode}") if done.returncode else ""
        except subprocess.TimeoutExpired:
            why = f"no answer in {NPM_SECONDS} s"
        packed = list(Path(folder).glob("*.tgz"))
        if why or len(packed) != 1:
            raise InputError(f"npm must be able to fetch {what}. Received: {' '.join(why.split())[-300:]}")
        content = packed[0].read_bytes()
    _check(package, content, "npm's archive")
    return content


def _check(package: Package, content: bytes, what: str) -> None:
    if (received := _integrity(content)) != package.integrity:
        raise InputError(f"{what} of {package.name}@{VERSION} must be {package.integrity}. Received: {received}")


def _integrity(content: bytes) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
