"""Every command and every line of Python in the README, run as a reader would."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image
from ssh_server import SSHD, Server

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines() if line.startswith("edge-cv ")]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what the README's reader has: a model, photos of its classes, labels, photos of ImageNet's."""
    import keras
    from keras import layers

    place = tmp_path_factory.mktemp("reader")
    keras.utils.set_random_seed(1)
    image = keras.Input((32, 32, 3))
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(layers.Rescaling(1 / 127.5, -1)(image))
    keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x))).save(place / "mymodel.keras")
    (place / "labels.txt").write_text("left\nright\n")
    for number in range(10):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        for folder in (
            f"photos/{('left', 'right')[number % 2]}",
            f"imagenet_photos/{('n02099601', 'n02123045')[number % 2]}",
        ):
            (place / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / folder / f"{number}.jpg")
    rows = [f"{number}.jpg,{('day', 'night')[number // 5]},{20 + number}\n" for number in range(10)]
    (place / "photos.csv").write_text("file,light,age\n" + "".join(rows))
    (place / "recipes").symlink_to(ROOT / "recipes")
    return place


@pytest.fixture
def raspberrypi(tmp_path, monkeypatch):
    """The device that the README measures on: this machine behind a real ssh. None where there is no sshd."""
    if SSHD is None:
        yield None
        return
    server = Server(tmp_path)
    monkeypatch.setenv("PATH", server.search_path)
    yield f"ssh://raspberrypi?python={quote(sys.executable)}"
    server.stop()


def test_every_command_in_the_readme_runs(place, raspberrypi):
    assert len(commands()) >= 7
    for command in commands():
        if shutil.which("npm") is None and ("browser" in command or "edge-cv web" in command):
            continue  # LiteRT.js comes through it
        if raspberrypi is None and ("ssh://" in command or "pi.json" in command):
            continue
        line = command.replace("edge-cv", f"{sys.executable} -m edge_cv.cli", 1)
        line = line.replace("ssh://raspberrypi", f"'{raspberrypi}'")
        done = subprocess.run(line, shell=True, cwd=place, capture_output=True, text=True)  # noqa: S602
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert done.stdout
    assert (place / "runs" / "comparison" / "report.html").is_file()


def test_the_python_in_the_readme_runs(place):
    code = "\n".join(blocks("python"))
    images = (
        "import numpy as np\nimages = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3))\nother_images = images"
    )
    done = subprocess.run([sys.executable, "-c", f"{images}\n{code}"], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {"mymodel_int8.tflite", "mymodel_int8.json", "mymodel_uint8.tflite", "mymodel_onnx.onnx"} <= {
        path.name for path in place.iterdir()
    }


def test_every_make_target_in_the_readme_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)`", README, re.MULTILINE):
        assert re.search(rf"^{''.join(target)}:", makefile, re.MULTILINE), target


def test_every_file_that_the_readme_links_to_exists():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        if not link.startswith("http"):
            assert (ROOT / link).exists(), link
