"""Models of one sigmoid, which decide between two classes at 0.5, and of several, from the model to the report."""

from __future__ import annotations

import json

import numpy as np
import pytest

from converters import Conversion, Preprocessing, to_onnx, to_tflite, verify
from converters.decisions import OutputMeaning, agreeing
from converters.errors import InputError
from converters.parity import compare
from converters.record import read_record
from edge_cv.data import Samples
from edge_cv.evaluation import evaluate

SIZE = 16
PREPROCESSING = Preprocessing(SIZE, rule="stretch")
NAMES = ("cat", "dog")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Photos of one colour each with noise, from dark to bright."""
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 255, (60, SIZE, SIZE, 3)) * np.linspace(0.05, 1, 60)[:, None, None, None]
    return noise.round().astype(np.float32)


@pytest.fixture(scope="module")
def networks(images):
    """A model of one sigmoid whose median output is 0.5, its logit, the inverted model, and one of three sigmoids."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(3)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(8, 3, activation="relu")(layers.Rescaling(1 / 127.5, -1)(inputs))
    x = layers.GlobalAveragePooling2D()(x)
    head = layers.Dense(1)
    logit = head(x)
    median = float(np.median(keras.Model(inputs, logit).predict(images, verbose=0)))
    head.bias.assign([-median])
    sigmoid = layers.Activation("sigmoid")
    return {
        "one": keras.Model(inputs, sigmoid(logit), name="one"),
        "logit": keras.Model(inputs, logit, name="logit"),
        "inverted": keras.Model(inputs, sigmoid(layers.Rescaling(-1.0)(logit)), name="inverted"),
        "three": keras.Model(inputs, layers.Dense(3, activation="sigmoid")(x), name="three"),
    }


@pytest.fixture(scope="module")
def converted(networks, images) -> dict[str, Conversion]:
    options = {"calibration": images, "preprocessing": PREPROCESSING}
    return {
        "float32": to_tflite(networks["one"], "float32", labels=NAMES, **options),
        "int8": to_tflite(networks["one"], "int8", labels=NAMES, **options),
        "onnx": to_onnx(networks["one"], "float32", labels=NAMES, **options),
        "logit": to_tflite(networks["logit"], "float32", labels=["dog"], **options),
        "three": to_tflite(networks["three"], "int8", **options),
    }


@pytest.fixture(scope="module")
def photos(tmp_path_factory, networks, images) -> Samples:
    """The images as files; the labels are the model's own decisions, so that its top-1 is 1."""
    folder = tmp_path_factory.mktemp("photos")
    decided = (networks["one"].predict(images, verbose=0)[:, 0] > 0.5).astype(int).tolist()
    return Samples.from_files("photos", _files(images, folder), decided, NAMES)


def test_agreement_counts_decisions_at_one_half():
    """Closed form: of four photos, the last is decided otherwise; the SQNR would not show it."""
    one = OutputMeaning(probabilities=True, activation="sigmoid")
    reference, other = np.array([[0.1], [0.9], [0.5], [0.51]]), np.array([[0.4], [0.6], [0.2], [0.49]])
    assert agreeing(reference, other, one).tolist() == [True, True, True, False]
    assert compare(reference, other, meaning=one).top1_agreement == 0.75
    assert compare(reference, 1 - other, meaning=one).top1_agreement == 0.25  # 0.5 and below is a no
    logits = np.log(reference / (1 - reference)), np.log(other / (1 - other))
    assert compare(*logits, meaning=OutputMeaning(activation="sigmoid")).top1_agreement == 0.75
    several = np.array([[0.9, 0.8, 0.1], [0.9, 0.2, 0.1]])
    assert compare(several, several[:, ::-1], meaning=one).top1_agreement == 0
    assert compare(several[:1], several[1:], meaning=one).top1_agreement == 0  # the largest is the same
    assert compare(several[:1], several[1:]).top1_agreement == 1


def test_the_softmax_of_the_class_outputs_is_the_sigmoid():
    z = np.linspace(-6, 6, 13)[:, None]
    two = OutputMeaning(activation="sigmoid").class_outputs(z)
    powers = np.exp(two)
    np.testing.assert_allclose(powers[:, 1] / powers.sum(1), 1 / (1 + np.exp(-z[:, 0])), rtol=1e-12)
    p = OutputMeaning(True, "sigmoid").class_outputs(np.array([[0.25]]))
    np.testing.assert_allclose(p, [[0.75, 0.25]])


def test_verify_tells_a_model_of_one_sigmoid_from_the_inverted_one(networks, converted, images):
    for name in ("int8", "onnx", "logit"):
        source = networks["logit" if name == "logit" else "one"]
        assert verify(source, converted[name], images).top1_agreement > 0.9, name
        assert converted[name].parity.top1_agreement > 0.9
    assert verify(networks["inverted"], converted["int8"], images).top1_agreement < 0.1
    assert verify(converted["float32"], converted["int8"], images).top1_agreement > 0.9


def test_two_labels_name_the_output_at_0_and_at_1(converted, networks, tmp_path):
    path = converted["int8"].save(tmp_path / "one.tflite")
    record = read_record(path)
    assert record.labels == NAMES
    assert (record.output.values, record.output.activation) == ("probabilities", "sigmoid")
    assert converted["logit"].record.output.values == "logits"
    assert path.read_bytes().count(b"dog\n") == 1  # the standard label file has a line an output
    assert b"cat\ndog\n" not in path.read_bytes()
    with pytest.raises(InputError, match=r"2 class names.*output is 0.*Received: 3"):
        to_tflite(networks["one"], "float32", labels=["a", "b", "c"])


def test_evaluation_decides_as_keras_does(converted, photos, tmp_path):
    files = {name: converted[name].save(tmp_path / f"{name}.tflite") for name in ("float32", "int8", "logit")}
    evaluated = evaluate(files, photos, reference="float32", workers=1)
    assert evaluated.scores["float32"].top1 == 1.0
    assert evaluated.scores["int8"].agreement > 0.9
    assert evaluated.scores["int8"].agreement == evaluated.scores["int8"].top1
    assert evaluated.scores["logit"].top1 == 1.0
    predictions = evaluated.predictions
    np.testing.assert_allclose(predictions.probabilities.sum(axis=2), 1, atol=1e-6)
    np.testing.assert_allclose(predictions.probabilities[:, 0], predictions.probabilities[:, 2], atol=1e-5)
    assert predictions.top1("float32")[1].min() >= 0.5


def test_evaluation_of_several_sigmoids_counts_each_decision(converted, photos, images, tmp_path):
    file = converted["three"].save(tmp_path / "three.tflite")
    unlabelled = Samples.from_files("photos", list(photos.paths()))
    evaluated = evaluate({"int8": file}, unlabelled, reference="int8", workers=1)
    assert evaluated.scores["int8"].agreement == 1.0
    three = converted["three"].parity.top1_agreement
    assert 0.8 <= three <= 1
    assert converted["three"].record.output.meaning == OutputMeaning(True, "sigmoid")


@pytest.mark.slow
def test_logits_of_a_training_with_several_labels_are_those_of_sigmoids(networks, images, tmp_path):
    import dataclasses

    import keras

    from converters.sources import open_source

    logits = keras.Model(networks["three"].inputs, networks["three"].layers[-1].output)
    logits = keras.models.clone_model(logits)
    logits.layers[-1].activation = keras.activations.linear
    source = dataclasses.replace(open_source(logits), activation="sigmoid")
    made = to_tflite(source, "float32", calibration=images, preprocessing=PREPROCESSING)
    assert made.record.output.meaning == OutputMeaning(False, "sigmoid")
    unlabelled = Samples.from_files("photos", _files(images[:3], tmp_path))
    found = evaluate({"a": made.save(tmp_path / "a.tflite")}, unlabelled, workers=1).predictions
    expected = 1 / (1 + np.exp(-logits.predict(images[:3], verbose=0)))
    np.testing.assert_allclose(np.sort(found.probabilities[:, 0]), np.sort(expected), atol=1e-4)


def _files(images: np.ndarray, folder) -> list:
    from PIL import Image

    files = [folder / f"{index:02}.png" for index in range(len(images))]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image.astype(np.uint8)).save(file)
    return files


def test_the_loss_of_one_sigmoid_is_the_binary_cross_entropy(networks, images):
    import keras

    from edge_cv.models.heads import class_logits, fits, output_meaning

    targets = np.arange(60) % 2
    for name in ("one", "logit"):
        model = networks[name]
        outputs = keras.ops.convert_to_tensor(model.predict(images, verbose=0))
        logits = class_logits(outputs, output_meaning(model), multi_label=False)
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)(np.eye(2)[targets], logits)
        expected = keras.losses.BinaryCrossentropy(from_logits=name == "logit")(targets[:, None], outputs)
        assert float(loss) == pytest.approx(float(expected), rel=1e-4)
    cases = [(1, 2, False), (1, 1, True), (3, 3, False), (1, 1, False), (1, 2, True)]
    assert [fits(*case) for case in cases] == [True, True, True, False, False]


def test_grad_cam_of_the_two_classes_differs(networks, images):
    from edge_cv.evaluation.grad_cam import grad_cam

    no, yes = grad_cam(networks["one"], images[[40, 40]], [0, 1])
    assert max(no.max(), yes.max()) == 1
    assert not np.allclose(no, yes)


@pytest.mark.slow
def test_a_model_of_one_sigmoid_is_trained_and_compressed(networks, photos, tmp_path):
    """From the command line's own functions: the files decide between the two class folders."""
    from edge_cv import recipe as recipes
    from edge_cv.pipeline import run
    from edge_cv.pipeline.compress import compress_file

    folder = tmp_path / "photos"
    for index, path in enumerate(photos.paths()):
        target = folder / NAMES[photos.labels[index]]
        target.mkdir(parents=True, exist_ok=True)
        (target / path.name).write_bytes(path.read_bytes())
    networks["one"].save(tmp_path / "one.keras")
    model = recipes.Model(str(tmp_path / "one.keras"), preprocessing={"rule": "stretch"})
    data = recipes.Data(measure=str(folder), calibrate=None, calibration_images=10)
    report = run(
        recipes.Recipe(
            "one",
            model,
            data,
            schemes=("float32", "int8"),
            fit=recipes.Fit(epochs=1, batch_size=8, learning_rate=1e-4),
            measure=recipes.Measure(runs=2, warmup=1),
        ),
        tmp_path / "run",
    )
    assert [row.top1 >= 0.8 for row in report.rows] == [True, True]
    assert json.loads((tmp_path / "run" / "one_int8.json").read_text())["labels"] == list(NAMES)
    parts = {"prune": recipes.Prune(0.3, fine_tuning=recipes.FineTuning(steps=2))}
    compressed = compress_file(
        tmp_path / "one.keras",
        str(folder),
        tmp_path / "out",
        parts,
        recipes.Fit(batch_size=8),
        preprocessing={"rule": "stretch"},
    )
    assert [row.top1 >= 0.6 for row in compressed.rows] == [True, True, True]
