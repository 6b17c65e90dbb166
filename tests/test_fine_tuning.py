from __future__ import annotations

import numpy as np
import pytest

from converters.errors import InputError
from edge_cv.compression.fine_tuning import fine_tune, update_statistics
from edge_cv.compression.tf_keras_bridge import clone
from edge_cv.recipe import FineTuning


class Stopped(Exception):
    """Stands for the end of the process."""


def test_an_interrupted_training_resumes_to_the_same_weights(digits, digits_model, tmp_path):
    batches, tuning = digits[0], FineTuning(epochs=3, learning_rate=1e-3, distillation=0.3)
    whole = clone(digits_model)
    fine_tune(whole, batches, tuning, teacher=digits_model)

    def stop(epoch: int) -> bool:
        if epoch == 2:
            raise Stopped
        return False

    checkpoint = tmp_path / "state.npz"
    stopped, resumed = clone(digits_model), clone(digits_model)
    with pytest.raises(Stopped):
        fine_tune(stopped, batches, tuning, teacher=digits_model, before_epoch=stop, checkpoint=checkpoint)
    assert checkpoint.is_file()
    steps = []
    fine_tune(
        resumed,
        batches,
        tuning,
        teacher=digits_model,
        callbacks=[counting(steps)],
        checkpoint=checkpoint,
    )
    assert len(steps) == len(batches)  # one of three epochs
    assert not checkpoint.exists()
    for expected, weight in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(weight, expected, atol=1e-4)


def counting(steps):
    import keras

    return keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(batch))


def test_distillation_without_labels_reproduces_the_teachers_predictions(digits, digits_model):
    batches, images, _ = digits
    student = clone(digits_model)
    layer = student.get_layer("logits")
    layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    fine_tune(student, batches, FineTuning(epochs=3, learning_rate=1e-2, distillation=1.0), teacher=digits_model)
    predictions = [np.asarray(m(images.astype(np.float32))).argmax(1) for m in (digits_model, student)]
    assert np.mean(predictions[0] == predictions[1]) > 0.95


@pytest.mark.slow
def test_a_model_with_probabilities_learns_like_one_with_logits(digits, digits_model):
    import keras

    softened = keras.Model(digits_model.inputs, keras.layers.Softmax()(clone(digits_model)(digits_model.inputs[0])))
    plain = clone(digits_model)
    for model in (plain, softened):
        fine_tune(model, digits[0], FineTuning(epochs=1, learning_rate=1e-3), teacher=digits_model)
    images = digits[1].astype(np.float32)
    logits, probabilities = (np.asarray(m(images, training=False)) for m in (plain, softened))
    expected = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(probabilities, expected / expected.sum(1, keepdims=True), atol=0.02)


def test_updated_statistics_are_the_means_over_the_batches(digits):
    import keras

    image = keras.Input((16, 16, 3))
    layer = keras.layers.BatchNormalization()
    model = keras.Model(image, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(layer(image))))
    layer.set_weights([*layer.get_weights()[:2], np.full(3, 1e6), np.full(3, 1e6)])
    update_statistics(model, digits[0])
    images = [np.asarray(images, np.float64) for images, _ in digits[0].epoch(0)]
    np.testing.assert_allclose(layer.moving_mean, np.mean([i.mean((0, 1, 2)) for i in images], 0), rtol=1e-4)
    np.testing.assert_allclose(layer.moving_variance, np.mean([i.var((0, 1, 2)) for i in images], 0), rtol=1e-3)
    assert layer.momentum == 0.99


def test_other_classes_and_a_loss_that_is_not_finite_are_refused(digits, digits_model):
    import keras

    image = keras.Input((16, 16, 3))
    other = keras.Model(image, keras.layers.Dense(7)(keras.layers.Flatten()(image)))
    with pytest.raises(InputError, match=r"as many classes as the model, 7. Received: 10"):
        fine_tune(other, digits[0], FineTuning(epochs=1))
    broken = clone(digits_model)
    broken.get_layer("logits").set_weights([np.full_like(w, np.nan) for w in broken.get_layer("logits").get_weights()])
    with pytest.raises(InputError, match="loss must stay finite"):
        fine_tune(broken, digits[0], FineTuning(epochs=1, distillation=0.0))


def test_the_model_keeps_its_momentum_and_can_be_saved(digits, digits_model, tmp_path):
    import keras

    model = clone(digits_model)
    fine_tune(model, digits[0], FineTuning(epochs=1))
    assert {layer.momentum for layer in model.layers if layer.name.endswith("_bn")} == {0.99}
    model.save(tmp_path / "model.keras")
    keras.models.load_model(tmp_path / "model.keras")
