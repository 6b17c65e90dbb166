from __future__ import annotations

import fcntl
import functools
import gc
import os
import signal
import sys
import types
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pytest

if TYPE_CHECKING:
    import keras
    from image_batches import Memory
    from ssh_server import Server

    from converters import Conversion

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 makes its workers wait minutes beside another test
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")  # compiling one corruption takes seconds in each process
if "PYTEST_XDIST_WORKER" in os.environ:  # each core has a worker: more threads would wait for each other
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a job in the background: commands would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Test files of minutes, the longest first, so that none of them is the end of a parallel run.
LONGEST_FIRST = (
    "docs", "compress", "sweep", "interruptions", "operators", "device_recipes", "applications", "zoo",
    "tf_keras_bridge", "channels", "models", "keras_weights", "simulated_network", "recipes", "cli_training",
    "model_files", "pipeline", "fine_tuning", "compression_pipeline", "fuzzed_records", "notebooks", "arm64",
    "file_model", "conversion", "cli",
)  # fmt: skip


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave what the test files import, such as TensorFlow, out of all garbage collections, which would take long."""
    gc.disable()
    try:
        return (yield)
    finally:
        if "tensorflow" in sys.modules:
            _turn_autotuning_off()
        gc.freeze()
        gc.enable()


def _turn_autotuning_off() -> None:
    """Turn tf.data's autotuning off: an iterator that a failed training left waits up to a minute for its thread."""
    import tensorflow as tf
    from tensorflow.python.data.ops.dataset_ops import DatasetV2

    options, with_debug_options = tf.data.Options(), DatasetV2._apply_debug_options
    options.autotune.enabled = False
    DatasetV2._apply_debug_options = lambda dataset: with_debug_options(dataset).with_options(options)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """Collect garbage after each test file, and leave what remains out of further collections."""
    try:
        return (yield)
    finally:
        if nextitem is None or nextitem.path != item.path:
            gc.collect()
            gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; `--no-loadscope-reorder` keeps this order in a parallel run."""
    order = {name: rank for rank, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem.removeprefix("test_"), len(order)))


def _small_layers(layers: Any, x: Any, classes: int) -> Any:
    """Convolution, depthwise and pointwise with batch normalization and ReLU6, a residual, pooling and dense."""
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem")(x)
    x = layers.BatchNormalization(name="stem_bn")(x)
    x = stem = layers.ReLU(6.0, name="stem_relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.BatchNormalization(name="depthwise_bn")(x)
    x = layers.ReLU(6.0, name="depthwise_relu")(x)
    x = layers.Conv2D(8, 1, use_bias=False, name="project")(x)
    x = layers.BatchNormalization(name="project_bn")(x)
    x = layers.Add(name="residual")([x, stem])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return layers.Dense(classes, name="logits")(x)


def _settle(model: Any) -> None:
    """Weights and batch-norm statistics that are seeded and not trivial."""
    rng = np.random.default_rng(7)
    for weight in model.weights:
        shape, name = tuple(weight.shape), getattr(weight, "path", weight.name)
        if "variance" in name or "gamma" in name:
            weight.assign(rng.uniform(0.5, 1.5, shape))
        elif len(shape) == 1:
            weight.assign(rng.normal(0, 0.3, shape))
        elif len(shape) > 1:
            weight.assign(rng.normal(0, 1.5 / np.sqrt(np.prod(shape[:-1])), shape))


@pytest.fixture(scope="session")
def small_network() -> Callable[..., keras.Model]:
    """Makes small Keras 3 networks, 32x32 RGB to 10 logits, all with the same weights behind `front`.

    `front` is called with Keras's layers and the input and returns the normalized input.
    """

    def make(front: Callable[[Any, Any], Any] | None = None, *, name: str = "small", classes: int = 10) -> keras.Model:
        import keras

        image = keras.Input((32, 32, 3), name="image")
        x = image if front is None else front(keras.layers, image)
        model = keras.Model(image, _small_layers(keras.layers, x, classes), name=name)
        body = keras.Model(model.get_layer("stem").input, model.output)
        _settle(body)
        return model

    return make


@pytest.fixture(scope="session")
def small_model(small_network: Callable[..., keras.Model]) -> keras.Model:
    """A small network that takes pixels 0..255 and normalizes them to -1..1 by Rescaling."""
    return small_network(lambda layers, x: layers.Rescaling(1 / 127.5, -1, name="normalize")(x))


@pytest.fixture(scope="session")
def small_legacy_model() -> Any:
    """The same network as `small_model` in tf_keras, with the same weights."""
    import tf_keras

    image = tf_keras.Input((32, 32, 3), name="image")
    x = tf_keras.layers.Rescaling(1 / 127.5, -1)(image)
    model = tf_keras.Model(image, _small_layers(tf_keras.layers, x, 10), name="small_legacy")
    _settle(model)
    return model


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """48 seeded images of pixels 0..255, uint8 `(48, 32, 32, 3)`: smooth colours under noise."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (48, 4, 4, 3)).repeat(8, 1).repeat(8, 2)
    return np.clip(coarse + rng.normal(0, 20, (48, 32, 32, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def small_conversion(small_model: keras.Model, pixels: np.ndarray) -> Conversion:
    """`small_model` as int8, calibrated on `pixels`, with the preprocessing in its metadata."""
    from converters import Preprocessing, to_tflite

    return to_tflite(small_model, "int8", calibration=pixels, preprocessing=Preprocessing(32))


@pytest.fixture(scope="session")
def small_files(
    small_model: keras.Model, small_conversion: Conversion, pixels: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """`small_model` as float32 and int8 TFLite files, by scheme, with the preprocessing in their metadata."""
    from converters import Preprocessing, to_tflite

    folder = tmp_path_factory.mktemp("small")
    float32 = to_tflite(small_model, "float32", calibration=pixels, preprocessing=Preprocessing(32))
    conversions = {"float32": float32, "int8": small_conversion}
    return {scheme: made.save(folder / f"small_{scheme}.tflite") for scheme, made in conversions.items()}


@pytest.fixture(scope="session")
def memory() -> Memory:
    """22 JPEG images of different sizes, in three classes."""
    from image_batches import Memory, scene, stored

    return Memory(tuple(stored(scene(n, 70 + n, 90 - n)) for n in range(22)), np.arange(22, dtype=np.int32) % 3)


@pytest.fixture
def edge_cv(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., tuple[Any, str, str]]:
    """A function that runs a command in this process and returns its exit code, stdout and stderr."""
    from edge_cv.cli import app as cli

    def run(*arguments: object) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["edge-cv", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        return stopped.value.code, printed.out, printed.err

    return run


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photos in two class folders."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    for index in range(12):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        place = folder / ("one", "two")[index % 2]
        place.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(place / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def keras_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A third-party classifier of two classes with a Rescaling layer."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(5)
    image = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 255)(image)
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    path = tmp_path_factory.mktemp("model") / "mine.keras"
    keras.Model(image, layers.Dense(2)(x), name="mine").save(path)
    return path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An OpenSSH server on loopback."""
    from ssh_server import Server

    server = Server(tmp_path_factory.mktemp("ssh"))
    yield server
    server.stop()


@pytest.fixture
def client(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `ssh` use the keys and known hosts of the server's client."""
    monkeypatch.setenv("PATH", server.search_path)


@pytest.fixture
def device(server: Server) -> Callable[..., str]:
    """Makes addresses of the server, with another port, Python or host if given."""

    def address(port: int | None = None, python: str | Path = sys.executable, host: str = "127.0.0.1") -> str:
        return f"ssh://{host}:{port or server.port}?python={quote(str(python))}"

    return address


@pytest.fixture
def python(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a Python for the device: a shell script that runs commands before it runs Python."""

    def make(script: str) -> Path:
        file = tmp_path / "their python's"
        file.write_text(f"#!/bin/sh\npython='{sys.executable}'\n{script}\n")
        file.chmod(0o755)
        return file

    return make


@pytest.fixture(scope="session")
def cached_descriptions() -> dict[str, Callable[..., Any]]:
    """The functions that describe a model file, each of which computes its result once per file."""
    from edge_cv.evaluation.remote import measuring

    return {name: functools.cache(getattr(measuring, name)) for name in ("describe", "golden_inputs", "golden_outputs")}


@pytest.fixture(scope="module")
def described_once(cached_descriptions: dict[str, Callable[..., Any]]) -> Iterator[None]:
    """Describes each model file only once on this machine, because that takes a process and the files do not change."""
    from edge_cv.evaluation.remote import evaluating, measuring

    with pytest.MonkeyPatch.context() as patch:
        for name, cached in cached_descriptions.items():
            patch.setattr(measuring, name, cached)
        patch.setattr(evaluating, "describe", cached_descriptions["describe"])
        yield


class DigitBatches:
    """Training images of scikit-learn's digits, in an order that the epoch decides."""

    classes = tuple("0123456789")
    batch_size = 64
    multi_label = False

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.targets = images, np.eye(10, dtype=np.float32)[labels]

    def __len__(self) -> int:
        return len(self.images) // self.batch_size

    def epoch(self, number: int, first_step: int = 0) -> Any:
        order = np.random.default_rng(number).permutation(len(self.images))
        for step in range(first_step, len(self)):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield self.images[chosen], self.targets[chosen]


@pytest.fixture(scope="session")
def digits() -> tuple[DigitBatches, np.ndarray, np.ndarray]:
    """1,437 digits to train on; images uint8 `(360, 16, 16, 3)` and labels of 360 others."""
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    found = sklearn_datasets.load_digits()
    images = np.rint(found.images / 16 * 255).astype(np.uint8).repeat(2, 1).repeat(2, 2)[..., None].repeat(3, -1)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], found.target[order]
    return DigitBatches(images[360:], labels[360:]), images[:360], labels[:360]


@pytest.fixture(scope="session")
def digits_network() -> keras.Model:
    """The network of `digits_model` with its random weights, before its training."""
    from converters.native_logs import import_tensorflow

    import_tensorflow()
    return _network_for_digits()


@pytest.fixture(scope="session")
def digits_model(
    digits: tuple[DigitBatches, np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> keras.Model:
    """A small network trained on digits, with a residual, squeeze-and-excitation, swish and ReLU6.

    The first worker that needs it trains it, and the others load it.
    """
    from converters.native_logs import import_tensorflow

    import_tensorflow()
    import keras

    if "PYTEST_XDIST_WORKER" not in os.environ:
        return _trained_on_digits(digits[0])
    file = tmp_path_factory.getbasetemp().parent / "digits.keras"
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # while another worker trains it
        if not file.exists():
            unfinished = tmp_path_factory.mktemp("digits") / file.name
            _trained_on_digits(digits[0]).save(unfinished)
            unfinished.replace(file)
    return keras.models.load_model(file, compile=False)


def _network_for_digits() -> keras.Model:
    import keras

    from edge_cv.models import _blocks as blocks

    keras.utils.set_random_seed(0)
    pixels = keras.Input((16, 16, 3), name="pixels")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="normalize")(pixels)
    x = short = blocks.conv(x, 16, kernel=3, stride=2, activation="relu6", name="stem")
    x = blocks.conv(x, 48, activation="swish", name="expand")
    x = blocks.depthwise(x, kernel=3, activation="swish", name="depthwise")
    x = blocks.squeeze_excite(x, 16, activation="swish", gate="sigmoid", name="se")
    x = blocks.conv(x, 16, activation=None, name="project")
    x = keras.layers.Add(name="add")([x, short])
    x = blocks.conv(x, 64, kernel=3, stride=2, activation="hard_swish", name="head")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(pixels, keras.layers.Dense(10, name="logits")(x), name="digits")


def _trained_on_digits(batches: DigitBatches) -> keras.Model:
    import keras

    from edge_cv.compression.fine_tuning import update_statistics

    model, epochs = _network_for_digits(), 8
    rate = keras.optimizers.schedules.CosineDecay(5e-3, epochs * len(batches))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)  # compiling by XLA takes longer than training
    images = batches.images.astype(np.float32)
    model.fit(images, batches.targets, batch_size=batches.batch_size, epochs=epochs, verbose=0)
    update_statistics(model, batches)
    model.compiled = False
    return model


@pytest.fixture
def torch(monkeypatch) -> types.ModuleType:
    """The parts of torch that its file format names, so that the tests write files without torch."""
    module, internal = types.ModuleType("torch"), types.ModuleType("torch._utils")
    module.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})

    def rebuild(*_):
        raise AssertionError("must never be called")

    rebuild.__module__, rebuild.__qualname__, rebuild.__name__ = "torch._utils", *["_rebuild_tensor_v2"] * 2
    internal._rebuild_tensor_v2 = module._rebuild = rebuild
    monkeypatch.setitem(sys.modules, "torch", module)
    monkeypatch.setitem(sys.modules, "torch._utils", internal)
    return module
