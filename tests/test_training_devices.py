"""What a training takes from its device (precision, steps a call, expected time), and teachers of unlabelled photos."""

from __future__ import annotations

import contextlib
import time

import keras
import numpy as np
import pytest
from image_batches import MIXED, Memory, make
from tiny_training import batches, network, quick

from converters.errors import InputError
from edge_cv.recipe import Augment, Fit, Teacher
from edge_cv.recipe import Model as ModelPart
from edge_cv.training import fit
from edge_cv.training.callbacks import TrainingMonitor
from edge_cv.training.devices import Devices, precision_of_device, steps_per_execution
from edge_cv.training.training_model import TrainingModel, loss_and_metrics

ALONE = Teacher(ModelPart("mobilenet_v2"), share=1.0)


@pytest.mark.parametrize(
    ("device", "capability", "precision"),
    [("cpu:0", 0, "float32"), ("gpu:0", 7.5, "float32"), ("gpu:0", 9.0, "bfloat16"), ("tpu:0", 0, "bfloat16")],
)
def test_auto_computes_in_bfloat16_where_the_device_has_it(monkeypatch, device, capability, precision):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind=None: [device])
    monkeypatch.setattr("edge_cv.training.devices._capability", lambda: capability)
    assert precision_of_device("auto") == precision
    assert precision_of_device("float16") == "float16"


def test_one_gpu_executes_several_steps_a_call(monkeypatch):
    assert [steps_per_execution(steps, Devices()) for steps in (None, 3)] == [1, 3]
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind=None: ["gpu:0"])
    assert steps_per_execution(None, Devices()) > 1
    assert steps_per_execution(None, Devices(replicas=2)) == 1


@pytest.mark.slow
def test_a_training_on_a_cpu_with_auto_is_one_in_float32():
    models = network(), network()
    for model, precision in zip(models, ("auto", "float32"), strict=True):
        fit(model, batches(), quick(precision=precision))
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        assert (one == other).all()


@pytest.mark.slow
def test_the_time_that_is_left_is_reported_and_expected_once_a_phase(monkeypatch):
    seen: list[tuple[str, str]] = []

    @contextlib.contextmanager
    def progress(title: str):
        yield lambda done, total, note="": seen.append((title, note))

    monkeypatch.setattr("edge_cv.training.callbacks.UPDATE_SECONDS", 0.0)
    monkeypatch.setattr("edge_cv.training.phase_trainer.EXPECTED_FROM_SECONDS", 0.0)
    measure = TrainingMonitor._measure_speed

    def a_second_a_step(self) -> str:  # of eight images
        measure(self)
        self.images_per_second = 8.0
        return f"8 images/s, {self.expect(1.0, self.steps - self.next_step, True)}"

    monkeypatch.setattr(TrainingMonitor, "_measure_speed", a_second_a_step)
    fit(network(), batches(), quick(epochs=2), progress=progress)
    expected = [note for title, note in seen if title == "expected time"]
    assert len(expected) == 1
    first = [note for title, note in seen if title == "training, epoch 1 of 2"]
    assert first[2] == "8 images/s, 3 s left of the epoch, 9 s of the training"  # six steps an epoch, three done


def test_the_first_step_which_compiles_predicts_nothing():
    expected: list[float] = []

    def expect(seconds: float, left: int, steady: bool) -> str:
        expected.append(seconds)
        return "soon"

    monitor = TrainingMonitor(
        first_step=0,
        steps=10,
        batch_size=8,
        epoch=1,
        seconds=0.0,
        metrics=[],
        rate_at=lambda step: 0.1,
        save=lambda step, seconds, metrics: None,
        save_seconds=1e9,
        update=lambda done, total, note="": None,
        expect=expect,
    )
    monitor.on_train_begin()
    monitor.started -= 60.0  # of compilation
    monitor.next_step, monitor.timed_from = 1, (1, time.monotonic())
    assert monitor._measure_speed() == "the first step is done"
    assert not expected
    monitor.next_step, monitor.timed_from = 2, (1, time.monotonic() - 6.0)
    assert monitor._measure_speed().endswith("images/s, soon")
    assert expected == [pytest.approx(6.0, abs=0.5)]


def unlabelled(memory) -> Memory:
    classes = tuple(f"class {n}" for n in range(3))
    return Memory(memory.contents, np.full(len(memory), -1, np.int32), classes)


def student(size: int = 32, seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    pixels = keras.Input((size, size, 3), name="pixels")
    x = keras.layers.Rescaling(1 / 127.5, -1)(pixels)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(pixels, keras.layers.Dense(3, name="logits")(x))


@pytest.mark.slow
def test_a_student_learns_a_teachers_answers_on_photos_without_labels(memory):
    teacher, ours = student(48, seed=4), student()
    batch = make(unlabelled(memory), MIXED)
    assert not batch.labelled
    validation = [(images, np.zeros((len(images), 3), np.float32)) for images, _ in make(memory, Augment()).epoch(0)]
    settings = quick(batch_size=4, epochs=30, teacher=ALONE, optimizer="adamw", learning_rate=0.03)
    fitted = fit(ours, batch, settings, teacher=teacher, validation=validation)
    images = np.concatenate([images for images, _ in validation]).astype(np.float32)
    answers = ours.predict(images, verbose=0).argmax(1)
    taught = teacher.predict(keras.ops.image.resize(images, (48, 48)), verbose=0).argmax(1)
    assert fitted.score > 0.8
    assert (answers == taught).mean() == pytest.approx(fitted.score, abs=1e-6)


def test_without_labels_the_loss_is_the_divergence_from_the_teacher():
    pupil, teacher = student(8, seed=1), student(8, seed=2)
    teaching = Teacher(ModelPart("mobilenet_v2"), share=1.0, temperature=2.0)
    model = TrainingModel(pupil, multi_label=False, teacher=teacher, distillation=teaching, labelled=False)
    model.compile(optimizer="sgd", jit_compile=False, **loss_and_metrics(False, 3))
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3)).astype(np.float32)
    logits, taught = pupil.predict(images, verbose=0), teacher.predict(images, verbose=0)

    def log_softmax(x: np.ndarray) -> np.ndarray:
        return x - np.log(np.exp(x).sum(1, keepdims=True))

    p, q = log_softmax(taught / 2), log_softmax(logits / 2)
    loss = model.compute_loss(images, np.zeros((6, 3), np.float32), model(images, training=True), training=True)
    assert float(loss) == pytest.approx(4 * (np.exp(p) * (p - q)).sum(1).mean(), rel=1e-3)


def test_photos_without_labels_need_a_teacher_alone(memory):
    for settings, teacher in (
        (quick(batch_size=4), None),
        (quick(batch_size=4, teacher=Teacher(ModelPart("mobilenet_v2"), share=0.9)), student()),
    ):
        with pytest.raises(InputError, match="images without labels need a teacher with share=1"):
            fit(student(), make(unlabelled(memory), MIXED), settings, teacher=teacher)
    with pytest.raises(InputError, match="balanced needs one label an image"):
        make(unlabelled(memory), balanced=True)


def test_the_device_does_not_change_the_settings():
    assert Fit().steps_per_execution is None
    with pytest.raises(InputError, match="steps_per_execution must be at least 1"):
        Fit(steps_per_execution=0)
